"""Present times for what a move changes, in the order of the times that it had where it comes from.

What is brought into a live tree with its old time stays unbuilt in make: RUNS says which moves stamp. What has come,
or has other content, is stamped, and every directory in which a name has come or gone; modes and attributes are no
reason.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fusecas.store import prolly
from fusecas.store.diff import META, Change, ChangeKind
from fusecas.store.ids import Kind, ObjectId, TimesId
from fusecas.store.prolly import LeafEntry, Loader, Saver
from fusecas.workspace import sides
from fusecas.workspace.sides import DirIds, clamped

STEP = 1000
"""Between two times that follow each other: programs that read times as floating-point numbers see it, too."""


@dataclass
class _Name:
    """What becomes of a name's time. `time`: None if it stays. `is_new`: nothing of what was there counts."""

    time: int | None = None
    is_new: bool = False
    is_gone: bool = False
    below: "dict[bytes, _Name]" = field(default_factory=dict)


class Stamps:
    """What differs, and what it gets. `recorded`: the times where the changed paths come from."""

    def __init__(self, changes: Iterable[Change], recorded: Mapping[bytes, int | None], now: int) -> None:
        times = sorted({time for time in recorded.values() if time is not None})
        behind = {time: STEP * (len(times) - 1 - rank) for rank, time in enumerate(times)}
        oldest = STEP * len(times)
        self._root = _Name()
        for change in changes:
            if change.new is None:
                name = self._at(change.path)
                name.is_gone, name.below = True, {}
            elif change.kinds - META:
                time = recorded.get(change.path)
                name = self._at(change.path)
                name.time = clamped(now - (oldest if time is None else behind[time]))
                name.is_new = bool(change.kinds & {ChangeKind.ADDED, ChangeKind.TYPE})
            if change.kinds & {ChangeKind.ADDED, ChangeKind.REMOVED}:
                above = self._at(change.path.rpartition(b"/")[0])
                above.time = above.time or clamped(now)

    def _at(self, path: bytes) -> _Name:
        name = self._root
        for each in path.split(b"/") if path else ():
            name = name.below.setdefault(each, _Name())
        return name

    def over(
        self, tree: bytes | None, times: TimesId | None, fallback: int, load: Loader, save: Saver
    ) -> TimesId | None:
        """The times of a state, whose tree is given, with these. `fallback`: of what has none."""
        if not self._root.below:
            return times
        root = DirIds(tree, times, None, 0)
        stack = [_Directory(None, root, self._root, clamped(fallback), load, save)]
        if self._root.time is not None:
            stack[0].edits[b""] = (b"", self._root.time, None)
        while True:
            directory = stack[-1]
            deeper = directory.next()
            if deeper is not None:
                stack.append(deeper)
                continue
            stack.pop()
            done = directory.done()
            if directory.entry is None:
                return None if done is None else TimesId(ObjectId(done))
            stack[-1].edits[directory.entry[0]] = (*directory.entry, done)


class _Directory:
    """On a stack of our own: a tree may be deeper than Python's. `entry`: its name and time above."""

    def __init__(
        self, entry: tuple[bytes, int] | None, ids: DirIds, name: _Name, fallback: int, load: Loader, save: Saver
    ) -> None:
        self.entry = entry
        self.edits: dict[bytes, LeafEntry | None] = {}
        self._tree = ids.tree
        self._times = sides.written_times(ids, fallback, load, save)
        self._names: Iterator[tuple[bytes, _Name]] = iter(name.below.items())
        self._fallback, self._load, self._save = fallback, load, save

    def next(self) -> "_Directory | None":
        """The next directory in which something is to be done; None if there is none any more."""
        for name, what in self._names:
            if what.is_gone:
                self.edits[name] = None
                continue
            old = None if what.is_new else prolly.find(Kind.TIMES, self._times, name, self._load)
            time, child = (self._fallback, None) if old is None else (old[1], old[2])
            time = time if what.time is None else what.time
            if what.below:
                entry = None if what.is_new else prolly.find(Kind.TREE, self._tree, name, self._load)
                ids = DirIds(None if entry is None else entry[3], child, None, 0)
                return _Directory((name, time), ids, what, self._fallback, self._load, self._save)
            self.edits[name] = (name, time, child)
        return None

    def done(self) -> bytes | None:
        return prolly.edit(Kind.TIMES, self._times, self.edits, self._load, self._save) if self.edits else self._times
