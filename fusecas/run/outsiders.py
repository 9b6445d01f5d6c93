"""Whether anybody else has a hand in a run: what others write meanwhile would be taken for its result."""

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
    """Sees every change in a workspace while a command runs, in the mount's own thread.

    `executor`: the process that all of the command descends from. `held`: inodes that were open for writing when it
    began: who writes to one of them, can't be told. `counts_in`: whether a program, by its name, is no outsider, nor
    what it has started.
    """

    def __init__(
        self,
        executor: int,
        held: Set[int],
        path_of: Callable[[int, bytes], bytes | None],
        counts_in: Callable[[str], bool],
    ) -> None:
        self.outsider: Outsider | None = None
        self._counts_in = counts_in
        self._executor = executor
        self._held = held
        self._path_of = path_of
        self._known: dict[tuple[int, int], bool] = {}

    def changes(self, pid: int, ino: int, name: bytes) -> None:
        if self.outsider is None and not self.is_insider(pid):
            self.outsider = Outsider(_name_of(pid), pid, self._path_of(ino, name) or b"something")

    def writes(self, ino: int) -> None:
        if self.outsider is None and ino in self._held:
            self.outsider = Outsider("", 0, self._path_of(ino, b"") or b"something")

    def is_insider(self, pid: int) -> bool:
        """Whether it descends from the executor. Verdicts are kept by pid and start time: pids are used again."""
        way: list[tuple[int, int]] = []
        verdict = False
        while pid not in NOBODY:
            found = _parent_and_start(pid)
            if found is None:
                break
            key = (pid, found[1])
            if pid == self._executor or self._known.get(key) or self._counts_in(_name_of(pid)):
                verdict = True
                break
            if key in self._known:
                break
            way.append(key)
            pid = found[0]
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known.update(dict.fromkeys(way, verdict))
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
