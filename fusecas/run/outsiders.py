"""What happens beside a run: what others write meanwhile would be taken for its result, what it reads elsewhere in the
mount is not in its key."""

from collections.abc import Callable, Set
from typing import NamedTuple

MOST_KNOWN = 4096
NOBODY = (0, 1)


class Outsider(NamedTuple):
    """Who it was, and where. `pid` is 0 if nobody can tell."""

    name: str
    pid: int
    path: bytes

    def __str__(self) -> str:
        who = f"{self.name} ({self.pid})" if self.pid else "a process that can't be told"
        return f"{who} changed {self.path.decode(errors='backslashreplace')}"


class Watch:
    """Sees what happens beside a command while it runs, in the mount's own thread: who else changes something in its
    workspace, and whether the command looks into another place of the mount, which its key says nothing of.

    `executor`: the process that all of the command descends from (0: it is not there yet). `held`: inodes that were
    open for writing when it began: who writes to one of them, can't be told. `counts_in`: whether a program, by its
    name, is no outsider, nor what it has started.
    """

    def __init__(
        self,
        executor: int,
        held: Set[int],
        path_of: Callable[[int, bytes], bytes | None],
        counts_in: Callable[[str], bool],
    ) -> None:
        self.executor = executor
        self._outsider: Outsider | None = None
        self._looked_into: str | None = None
        self._counts_in = counts_in
        self._held = held
        self._path_of = path_of
        self._descends: Verdicts = {}
        self._counted_in: Verdicts = {}

    @property
    def complaint(self) -> str | None:
        """Why what has come of it is not to be served."""
        if self._outsider is not None:
            return f"others had a hand in it: {self._outsider}"
        return None if self._looked_into is None else f"it looked into {self._looked_into}, which is not in its key"

    def changes(self, pid: int, ino: int, name: bytes) -> None:
        if self._outsider is None and not (self.descends(pid) or self._is_counted_in(pid)):
            self._outsider = Outsider(_name_of(pid), pid, self._path_of(ino, name) or b"something")

    def writes(self, ino: int) -> None:
        if self._outsider is None and ino in self._held:
            self._outsider = Outsider("", 0, self._path_of(ino, b"") or b"something")

    def looks(self, pid: int, place: str) -> None:
        if self._looked_into is None and self.descends(pid):
            self._looked_into = place

    def descends(self, pid: int) -> bool:
        """Whether a process is part of the command."""
        return _verdict(pid, self._descends, lambda each: each == self.executor)

    def _is_counted_in(self, pid: int) -> bool:
        return _verdict(pid, self._counted_in, lambda each: self._counts_in(_name_of(each)))


Verdicts = dict[tuple[int, int], bool]
"""By pid and start time: pids are used again."""


def _verdict(pid: int, known: Verdicts, is_it: Callable[[int], bool]) -> bool:
    """Whether a process, or one that it descends from, is one of those that are meant."""
    way: list[tuple[int, int]] = []
    verdict = False
    while pid not in NOBODY:
        found = _parent_and_start(pid)
        if found is None:
            break
        key = (pid, found[1])
        if known.get(key) or is_it(pid):
            verdict = True
            break
        if key in known:
            break
        way.append(key)
        pid = found[0]
    if len(known) > MOST_KNOWN:
        known.clear()
    known.update(dict.fromkeys(way, verdict))
    return verdict


def _parent_and_start(pid: int) -> tuple[int, int] | None:
    """Of a process, or of a thread; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        return int(fields[1]), int(fields[19])
    except (OSError, IndexError):
        return None


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.read(64).decode(errors="replace").strip()
    except OSError:
        return ""
