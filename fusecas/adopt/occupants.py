"""Who is in a folder: found in /proc, as far as this user may look."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fusecas.errors import InUse

PROC = Path("/proc")
MOST_NAMED = 5
GONE_OR_NOT_OURS = (FileNotFoundError, ProcessLookupError, PermissionError)


class Occupant(NamedTuple):
    """A process, and what it does there."""

    pid: int
    name: str
    does: str

    @property
    def text(self) -> str:
        return f"process {self.pid} ({self.name}) {self.does}"


def writers(folder: Path, *, but: Path) -> list[Occupant]:
    """Who has a file in the folder open for writing, or maps one so that it writes; files below `but` don't count."""
    return [
        Occupant(pid, _name(pid), f"has {os.fsdecode(path)} open for writing")
        for pid in _processes()
        for path in sorted({*_written(pid), *_mapped(pid)})
        if _is_in(path, folder) and not _is_in(path, but)
    ]


def standing_in(folder: Path) -> list[Occupant]:
    """Who has it, or a folder below it, as current directory; not those that wait for this call, such as its shell,
    nor those that were started with it, such as what it is piped to."""
    calling = set(_ancestors())
    return [
        Occupant(pid, _name(pid), "is in it")
        for pid in _processes()
        if _is_in(_link(PROC / str(pid) / "cwd"), folder) and pid not in calling and _group(pid) != os.getpgrp()
    ]


def users(folder: Path) -> list[Occupant]:
    """Who keeps a mount from being unmounted: by a current directory, or an open file."""
    found = []
    for pid in _processes():
        places = [PROC / str(pid) / "cwd", *_descriptors(pid)]
        if any(_is_in(_link(each), folder) for each in places):
            found.append(Occupant(pid, _name(pid), "is in it"))
    return found


def refuse(folder: Path, found: list[Occupant], hint: str) -> None:
    if not found:
        return
    rest = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    named = "; ".join(each.text for each in found[:MOST_NAMED])
    details: dict[str, object] = {"processes": sorted({each.pid for each in found})}
    raise InUse(f"{folder} is in use: {named}{rest}", hint=hint, details=details)


def _processes() -> Iterator[int]:
    return (int(each) for each in os.listdir(PROC) if each.isdigit())


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            pid = int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except GONE_OR_NOT_OURS:
            return


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except GONE_OR_NOT_OURS:
        return None


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except GONE_OR_NOT_OURS:
        return "?"


def _link(place: Path) -> bytes:
    try:
        return os.readlink(os.fsencode(place))
    except GONE_OR_NOT_OURS:
        return b""


def _is_in(path: bytes, folder: Path) -> bool:
    above = os.fsencode(folder)
    return path == above or path.startswith(above + b"/")


def _descriptors(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "fd").iterdir())
    except GONE_OR_NOT_OURS:
        return []


def _written(pid: int) -> Iterator[bytes]:
    for each in _descriptors(pid):
        try:
            fields = (PROC / str(pid) / "fdinfo" / each.name).read_text()
        except GONE_OR_NOT_OURS:
            continue
        flags = next(int(line.split()[1], 8) for line in fields.splitlines() if line.startswith("flags:"))
        if flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR):
            yield _link(each)


def _mapped(pid: int) -> Iterator[bytes]:
    try:
        lines = (PROC / str(pid) / "maps").read_bytes().splitlines()
    except GONE_OR_NOT_OURS:
        return
    for line in lines:
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[1][1:2] == b"w" and fields[1][3:4] == b"s":
            yield fields[5].replace(b"\\012", b"\n")
