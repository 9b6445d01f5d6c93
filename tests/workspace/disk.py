"""A disk that forgets: what is left of a folder after a power cut, if each page and each name that was not synced may
be the old or the new one. In a process that has tests/crash/disk.c preloaded, which tells of every sync and removal.
"""

import ctypes
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PAGE, SECTOR = 4096, 512
Image = dict[str, bytes]
Images = dict[str, Image]
Listener = Callable[[bool, str, Path], int]


class Told:
    """Owns the one function that the preloaded library calls; `listen` takes part in it."""

    def __init__(self) -> None:
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p)
        self._listeners: list[Listener] = []
        self._function = kind(self._tell)
        ctypes.CDLL(None).disk_tell(self._function)

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def _tell(self, is_done: int, call: bytes, path: bytes) -> int:
        for listener in list(self._listeners):
            error = listener(bool(is_done), call.decode(), Path(os.fsdecode(path)))
            if error:
                return error
        return 0


class Memory(NamedTuple):
    """What a disk knows beside what is in the folder now. Files have numbers, since names are used again."""

    here: dict[str, int]
    durable_names: dict[str, int]
    durable: dict[int, bytes]
    removed: dict[int, bytes]


class Disk:
    """One folder of plain files, whose names are never moved: a file is known by its name until that is removed."""

    def __init__(self, folder: Path, memory: Memory | None) -> None:
        """`memory`: of the disk before, if only the process died; None: what is in the folder is durable."""
        self.folder = folder
        if memory is None:
            found = {name: at for at, name in enumerate(self.now())}
            memory = Memory(found, dict(found), {at: self.now()[name] for name, at in found.items()}, {})
        self._here, self._durable_names, self._durable, self._removed = map(dict, memory)
        self._fail_in = 0
        self._lost: set[int] = set()
        self._next = 1 + max((*self._durable, *self._removed, *self._here.values()), default=0)

    def fail_sync(self, number: int) -> None:
        """The sync of a file that comes as this one fails: what it should have written looks clean then, and no later
        sync of this process writes it."""
        self._fail_in = number

    def memory(self) -> Memory:
        self._look()
        return Memory(dict(self._here), dict(self._durable_names), dict(self._durable), dict(self._removed))

    def hear(self, is_done: bool, call: str, path: Path) -> int:
        if path == self.folder and is_done and call in ("fsync", "fdatasync"):
            self._look()
            self._durable_names = dict(self._here)
        elif path.parent == self.folder:
            self._look()
            number = self._here.get(path.name)
            if number is not None and not is_done and call == "fdatasync":
                self._fail_in -= 1
                if self._fail_in == 0:
                    self._lost.add(number)
                    return errno.EIO
            if number is not None and is_done and call in ("fsync", "fdatasync") and number not in self._lost:
                self._durable[number] = path.read_bytes()
            elif number is not None and not is_done and call == "unlinkat":
                self._removed[number] = path.read_bytes()
                del self._here[path.name]
        return 0

    def _look(self) -> None:
        """Who is there now; who was not known yet gets a number."""
        for entry in os.scandir(self.folder):
            if entry.name not in self._here:
                self._here[entry.name] = self._next
                self._next += 1

    def now(self) -> Image:
        """What a process that dies leaves."""
        return {entry.name: Path(entry.path).read_bytes() for entry in os.scandir(self.folder)}

    def _after(self, chance: random.Random) -> tuple[dict[str, int], dict[int, bytes]]:
        """Names and contents, each page of them of the last sync or of now."""
        self._look()
        names: dict[str, int] = {}
        likely = chance.choice((0.1, 0.5, 0.9))
        for name in sorted({*self._durable_names, *self._here}):
            is_new = chance.random() < likely
            number = (self._here if is_new else self._durable_names).get(name)
            if number is not None:
                names[name] = number
        contents = dict(self._durable)
        for name, number in self._here.items():
            contents[number] = mixed(contents.get(number, b""), (self.folder / name).read_bytes(), likely, chance)
        for number, content in self._removed.items():
            contents[number] = mixed(contents.get(number, b""), content, likely, chance)
        return names, contents

    def write_back(self, chance: random.Random) -> None:
        """The kernel writes some of it to the disk, as it does when it likes."""
        self._durable_names, self._durable = self._after(chance)

    def after_power_cut(self, chance: random.Random) -> Image:
        names, contents = self._after(chance)
        return {name: contents[number] for name, number in names.items()}


class Memories(NamedTuple):
    """What the disks of all folders know, and which folders a power cut leaves."""

    disks: dict[str, Memory]
    durable: set[str]


class Disks:
    """The folders in one folder: each is a disk of its own, from its first file on."""

    def __init__(self, folder: Path, told: Told, memories: Memories | None) -> None:
        """`memories`: as with a disk."""
        self.folder = folder
        self._told = told
        if memories is None:
            self._disks = {name: Disk(folder / name, None) for name in self._names()}
            self._durable = self._names()
        else:
            self._disks = {name: Disk(folder / name, memory) for name, memory in memories.disks.items()}
            self._durable = set(memories.durable)
        told.listen(self._hear)

    def close(self) -> None:
        self._told.leave(self._hear)

    def __getitem__(self, name: str) -> Disk:
        return self._disks[name]

    def memories(self) -> Memories:
        return Memories({name: disk.memory() for name, disk in self._there()}, self._durable & self._names())

    def now(self) -> Images:
        return {name: disk.now() for name, disk in self._there()}

    def after_power_cut(self, chance: random.Random) -> Images:
        """Folders that are removed are gone at once: nobody looks at them."""
        there = [each for each in self._there() if each[0] in self._durable or chance.random() < 0.5]
        return {name: disk.after_power_cut(chance) for name, disk in there}

    def _hear(self, is_done: bool, call: str, path: Path) -> int:
        if path == self.folder and is_done and call == "fsync":
            self._durable = self._names()
        for folder in (path, path.parent):
            if folder.parent == self.folder and folder.is_dir():
                disk = self._disks.setdefault(folder.name, Disk(folder, Memory({}, {}, {}, {})))
                return disk.hear(is_done, call, path)
        return 0

    def _there(self) -> list[tuple[str, Disk]]:
        return [(name, self._disks[name]) for name in sorted(self._names() & set(self._disks))]

    def _names(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()


def mixed(old: bytes, new: bytes, likely: float, chance: random.Random) -> bytes:
    """`old`, with some of the pages in which `new` differs; now and then a page is torn."""
    if len(old) < len(new):
        length = chance.choice((len(old), len(new), len(new), len(new) // 2 // PAGE * PAGE))
        old = old + bytes(max(length - len(old), 0))
    if old == new[: len(old)]:
        return old
    result = bytearray(old)
    span = 64 * PAGE
    for part in range(0, len(old), span):
        if new[part : part + span] == old[part : part + span]:
            continue
        for at in range(part, min(part + span, len(old)), PAGE):
            if new[at : at + PAGE] == old[at : at + PAGE]:
                continue
            step = SECTOR if chance.random() < 0.1 else PAGE
            for low in range(at, min(at + PAGE, len(old)), step):
                if chance.random() < likely:
                    result[low : min(low + step, len(old))] = new[low : low + step]
    return bytes(result[: len(old)])


def put(folder: Path, image: Image) -> None:
    folder.mkdir(parents=True)
    for name, content in image.items():
        with (folder / name).open("wb") as file:
            file.truncate(len(content))
            for at in range(0, len(content), 16 * PAGE):
                part = content[at : at + 16 * PAGE]
                if part.count(0) != len(part):
                    file.seek(at)
                    file.write(part)
