"""Random reads, writes, truncations and mappings of a few files, in the manner of fsx: every byte that comes back is
the one that was written last, whatever was committed, checked out, forked or dropped from the caches in between.

FUSECAS_TEST_EFFORT=20 makes it twenty times as long.
"""

import ctypes
import mmap
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fusecas.client import Client
from fusecas.store.heads import DEFAULT
from tests.mount.conftest import Mounted

OPERATIONS = 5_000 * int(os.environ.get("FUSECAS_TEST_EFFORT", "1"))
FILES = 4
LARGEST = 256 * 1024
BETWEEN_COMMITS = 400
BETWEEN_FORKS = 150
MOST_WORKSPACES = 4
KEPT_LAYERS = 6
Layers = list[tuple[str, list[bytes]]]
MAP_FAILED = ctypes.c_void_p(-1).value

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class Family:
    """A workspace and its forks; which of them the next operation is done in is chosen at random."""

    def __init__(self, mounted: Mounted, seed: int) -> None:
        self.mounted = mounted
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.forks = 0
        self.members = {DEFAULT: Exerciser(self, DEFAULT, [bytearray()] * FILES, [])}

    def run(self, operations: int) -> None:
        for number in range(operations):
            if self.random.random() < 1 / BETWEEN_FORKS:
                self.fork_or_remove()
            self.random.choice(list(self.members.values())).act(f"operation {number}")
        self.compare_all()

    def call(self, method: str, **parameters: Any) -> Any:
        with Client(self.mounted.repository) as client:
            return client.call(method, **parameters)

    def close(self) -> None:
        for each in self.members.values():
            each.close()

    def compare_all(self) -> None:
        for each in self.members.values():
            each.compare_all()

    def fork_or_remove(self) -> None:
        if len(self.members) > 1 and (self.is_full or self.random.random() < 0.25):
            self.remove(self.random.choice([name for name in self.members if name != DEFAULT]))
        else:
            self.fork(self.random.choice(list(self.members)))

    @property
    def is_full(self) -> bool:
        return len(self.members) >= MOST_WORKSPACES

    def fork(self, name: str, at_once: Callable[[], None] = lambda: None) -> None:
        """`at_once` changes the source. Both are written to while they share what they have, or forked again before."""
        source = self.members[name]
        self.forks += 1
        made = f"fork{self.forks}"
        source.call("fork", name=made)
        self.done["fork"] += 1
        then = [bytes(each) for each in source.expected]
        at_once()
        fork = self.members[made] = Exerciser(self, made, then, source.layers)
        if not self.is_full and self.random.random() < 0.2:
            self.fork(self.random.choice((name, made)))
        for _ in range(self.random.randrange(6)):
            self.random.choice((source, fork)).change(f"after the fork {made} of {name}")
        if self.random.random() < 0.3:
            source.compare_all()
            fork.compare_all()

    def remove(self, name: str) -> None:
        """What is open in it can still be read, and the others are as they were."""
        gone = self.members.pop(name)
        self.call("ws.rm", name=name, force=True)
        gone.compare_open()
        gone.close()
        self.done["remove"] += 1
        if self.random.random() < 0.3:
            self.compare_all()


class Exerciser:
    """A few files of a workspace, and what must be in them. `steps` are chosen by their weights."""

    def __init__(self, family: Family, name: str, expected: Sequence[bytes | bytearray], layers: Layers) -> None:
        self.family = family
        self.name = name
        self.random = family.random
        self.done = family.done
        work = family.mounted.work
        folder = work if name == DEFAULT else work / ".fusecas" / "ws" / name
        self.paths = [folder / f"file{number}" for number in range(FILES)]
        self.expected = [bytearray(each) for each in expected]
        self.files = [os.open(path, os.O_RDWR | os.O_CREAT, 0o644) for path in self.paths]
        self.layers = list(layers)
        self.changes: dict[Callable[[int], None], float] = {
            self.write: 20,
            self.append: 3,
            self.truncate: 8,
            self.write_mapped: 10,
            self.write_far_out: 3,
            self.copy: 3,
            self.replace: 1,
        }
        self.steps: dict[Callable[[int], None], float] = {
            **self.changes,
            self.read: 20,
            self.read_past_the_cache: 4,
            self.read_mapped: 8,
            self.open_again: 2,
            self.drop: 2,
            self.sync: 1,
            self.commit: 100 / BETWEEN_COMMITS,
            self.back_and_forth: 25 / BETWEEN_COMMITS,
        }

    def act(self, when: str) -> None:
        self.do_one_of(self.steps, when)

    def change(self, when: str) -> None:
        self.do_one_of(self.changes, when)

    def do_one_of(self, steps: dict[Callable[[int], None], float], when: str) -> None:
        step = self.random.choices(list(steps), list(steps.values()))[0]
        at = self.random.randrange(FILES)
        step(at)
        self.done[step.__name__] += 1
        size = os.fstat(self.files[at]).st_size
        assert size == len(self.expected[at]), f"{when}, {step.__name__} in {self.name}: {size} bytes"

    def close(self) -> None:
        for file in self.files:
            os.close(file)
        self.files.clear()

    def compare_all(self) -> None:
        for at, path in enumerate(self.paths):
            self.same(path.read_bytes(), self.expected[at], 0)

    def compare_open(self) -> None:
        for file, expected in zip(self.files, self.expected, strict=True):
            self.same(os.pread(file, LARGEST, 0), expected, 0)

    def same(self, found: bytes, expected: bytes | bytearray, offset: int) -> None:
        if found == expected:
            return
        wrong = next((at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
        raise AssertionError(
            f"{self.name}: {len(found)} bytes for {len(expected)}, the first wrong one at {offset} + {wrong}; "
            f"so far {self.done}"
        )

    def range(self, at: int) -> tuple[int, int]:
        """Within the file; offset and length."""
        size = len(self.expected[at])
        offset = self.random.randrange(size + 1)
        return offset, min(self.random.choice((1, 100, 4096, 10_000, 70_000)), size - offset)

    def target(self, most: int = 70_000) -> tuple[int, bytes]:
        """Where to write what."""
        length = self.random.choice((1, 7, 512, 4096, 5000, 65_536, most))
        offset = self.random.choice((self.random.randrange(LARGEST - length), self.random.randrange(32) * 4096))
        offset = min(offset, LARGEST - length)
        return offset, self.random.randbytes(length)

    def put(self, at: int, offset: int, data: bytes) -> None:
        expected = self.expected[at]
        expected.extend(bytes(max(0, offset - len(expected))))
        expected[offset : offset + len(data)] = data

    # steps

    def read(self, at: int) -> None:
        offset, length = self.range(at)
        self.same(os.pread(self.files[at], length, offset), self.expected[at][offset : offset + length], offset)

    def read_past_the_cache(self, at: int) -> None:
        offset, length = self.range(at)
        direct = os.open(self.paths[at], os.O_RDONLY | os.O_DIRECT)
        # Into a page of our own: what is read directly must be aligned.
        with mmap.mmap(-1, LARGEST) as page:
            found = os.preadv(direct, [memoryview(page)[:length]], offset)
            self.same(page[:found], self.expected[at][offset : offset + length], offset)
        os.close(direct)

    def write(self, at: int) -> None:
        offset, data = self.target()
        assert os.pwrite(self.files[at], data, offset) == len(data)
        self.put(at, offset, data)

    def append(self, at: int) -> None:
        data = self.random.randbytes(self.random.randrange(1, 9000))
        if len(self.expected[at]) + len(data) <= LARGEST:
            appending = os.open(self.paths[at], os.O_WRONLY | os.O_APPEND)
            assert os.write(appending, data) == len(data)
            os.close(appending)
            self.expected[at] += data

    def write_far_out(self, at: int) -> None:
        """A hole comes before it."""
        data = self.random.randbytes(self.random.randrange(1, 5000))
        offset = min(len(self.expected[at]) + self.random.randrange(50_000), LARGEST - len(data))
        assert os.pwrite(self.files[at], data, offset) == len(data)
        self.put(at, offset, data)

    def truncate(self, at: int) -> None:
        size = self.random.choice((0, self.random.randrange(LARGEST), self.random.randrange(LARGEST) & ~4095))
        os.truncate(self.random.choice((self.paths[at], self.files[at])), size)
        del self.expected[at][size:]
        self.expected[at].extend(bytes(size - len(self.expected[at])))

    def read_mapped(self, at: int) -> None:
        offset, length = self.range(at)
        if length:
            with mmap.mmap(self.files[at], 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
                self.same(mapped[offset : offset + length], self.expected[at][offset : offset + length], offset)

    def write_mapped(self, at: int) -> None:
        offset, length = self.range(at)
        if length:
            data = self.random.randbytes(length)
            with mmap.mmap(self.files[at], 0, mmap.MAP_SHARED) as mapped:
                mapped[offset : offset + length] = data
                self.put(at, offset, data)
                # What was stored is also what is read and what is committed, before anything is written back.
                match self.random.randrange(6):
                    case 0:
                        mapped.flush()
                    case 1:
                        self.read(at)
                    case 2:
                        self.write(at)
                    case 3 if self.random.random() < 0.05:
                        self.commit(at)
                    case 4 if self.random.random() < 0.1 and not self.family.is_full:
                        self.store_around_a_fork(at, mapped, offset, length)

    def store_around_a_fork(self, at: int, mapped: mmap.mmap, offset: int, length: int) -> None:
        """What was stored before it is the fork's, too; what is stored after it is not."""

        def store() -> None:
            data = self.random.randbytes(length)
            mapped[offset : offset + length] = data
            self.put(at, offset, data)

        self.family.fork(self.name, store)

    def copy(self, at: int) -> None:
        other = self.random.randrange(FILES)
        offset, length = self.range(at)
        to = self.random.randrange(LARGEST - length + 1)
        if length and other != at:
            copied = os.copy_file_range(self.files[at], self.files[other], length, offset, to)
            self.put(other, to, bytes(self.expected[at][offset : offset + copied]))

    def open_again(self, at: int) -> None:
        os.close(self.files[at])
        self.files[at] = os.open(self.paths[at], os.O_RDWR)

    def drop(self, at: int) -> None:
        os.posix_fadvise(self.files[at], 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self, at: int) -> None:
        os.fsync(self.files[at])

    def replace(self, at: int) -> None:
        """As editors save."""
        data = self.random.randbytes(self.random.randrange(30_000))
        new = self.paths[at].with_name("new")
        new.write_bytes(data)
        new.rename(self.paths[at])
        os.close(self.files[at])
        self.files[at] = os.open(self.paths[at], os.O_RDWR)
        self.expected[at] = bytearray(data)

    def call(self, method: str, **parameters: Any) -> Any:
        """In this workspace."""
        return self.family.call(method, ws=self.name, **parameters)

    def commit(self, at: int) -> None:
        layer = self.call("commit")["layer"]
        if layer is not None:
            self.layers.append((layer, [bytes(each) for each in self.expected]))
            del self.layers[:-KEPT_LAYERS]

    def back_and_forth(self, at: int) -> None:
        """What is open and changes loses its name, and keeps its bytes; undo brings back what was uncommitted."""
        if not self.layers:
            return
        layer, then = self.random.choice(self.layers)
        moved = self.call("checkout", ref=layer)["moved"]
        for path, expected in zip(self.paths, then, strict=True):
            self.same(path.read_bytes(), expected, 0)
        self.compare_open()
        if moved:
            self.call("undo")
        self.compare_all()
        for number in range(FILES):
            self.open_again(number)


@pytest.mark.parametrize("seed", [random.randrange(10**9)])
def test_every_byte_is_the_one_that_was_written_last(mounted: Mounted, seed: int) -> None:
    family = Family(mounted, seed)
    try:
        family.run(OPERATIONS)
    finally:
        family.close()
    assert family.done["fork"] > 0 and family.done["remove"] > 0
    mounted.kill()
    mounted.mount()
    family.compare_all()
    for name in family.members:
        mounted.ok("commit", "--ws", name)
    mounted.umount()
    mounted.mount()
    family.compare_all()
    mounted.ok("verify")


class BareMapping:
    """A shared mapping of a file of which, unlike mmap's, no descriptor is kept."""

    def __init__(self, file: int, length: int) -> None:
        self._length = length
        self._start = libc.mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file, 0)
        assert self._start != MAP_FAILED, os.strerror(ctypes.get_errno())

    def store(self, offset: int, data: bytes) -> None:
        ctypes.memmove(self._start + offset, data, len(data))

    def close(self) -> None:
        assert libc.munmap(ctypes.c_void_p(self._start), self._length) == 0


def test_a_commit_right_after_stores_through_many_mappings_has_them_all(mounted: Mounted) -> None:
    """Every other file has only its mapping left, no descriptor."""
    mappings, files = [], []
    for number in range(150):
        file = os.open(mounted.work / f"{number}", os.O_RDWR | os.O_CREAT)
        os.ftruncate(file, 10_000)
        mappings.append(BareMapping(file, 10_000))
        if number % 2:
            os.close(file)
        else:
            files.append(file)
    for text in ("first", "second"):
        for number, mapped in enumerate(mappings):
            mapped.store(5000, f"{text:6} {number:4}".encode())
        mounted.ok("commit")
        mounted.ok("export", "@", str(mounted.folder / text))
        for number in range(150):
            found = (mounted.folder / text / f"{number}").read_bytes()
            assert found == bytes(5000) + f"{text:6} {number:4}".encode() + bytes(4989), number
    for mapped in mappings:
        mapped.close()
    for file in files:
        os.close(file)
