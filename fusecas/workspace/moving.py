"""From one stored state to another under a living workspace: what differs, name by name, and which inode is which then.

Costs what differs. An equal entry keeps its inode's number, a directory that stays one does too; new content or another
kind gets a number that was never given out. A hard-link group that is not the same in both states gets new numbers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fusecas.store import prolly, trees
from fusecas.store.ids import Kind
from fusecas.store.kinds import Entry, State
from fusecas.store.prolly import LeafEntry, Loader, Saver
from fusecas.workspace import sides
from fusecas.workspace.links import Links
from fusecas.workspace.sides import ROOT, DirIds


class NameChange(NamedTuple):
    """A name of a directory that stays: the inodes before and after, the same one if it stays itself.

    `shows`: it has changed itself, not only something below it.
    """

    parent: int
    name: bytes
    old: int | None
    new: int | None
    shows: bool


@dataclass
class Counts:
    """How many paths come, go and change, with all that a directory has in it; times alone are no change."""

    added: int = 0
    removed: int = 0
    changed: int = 0

    def replace(self, old: Entry | None, new: Entry | None) -> None:
        before, after = (0 if each is None or not each.is_directory else each.count for each in (old, new))
        self.added += after + (old is None)
        self.removed += before + (new is None)
        self.changed += old is not None and new is not None


class Plan(NamedTuple):
    """How to get from a workspace's state to another one. `lost`: numbers of hard-link groups that go."""

    root: DirIds
    dirs: dict[int, DirIds]
    changes: list[NameChange]
    lost: list[int]
    counts: "Counts"

    @property
    def leaving(self) -> list[int]:
        """The inodes that have no name afterwards; those below directories that go are not listed."""
        return [each.old for each in self.changes if each.old is not None and each.old != each.new] + self.lost


class Inode(NamedTuple):
    """What the side tree says of a name."""

    number: int
    ctime: int
    child: bytes | None


class Side(NamedTuple):
    """A whole state with its side trees."""

    core: State
    root: DirIds


class _Directory:
    """One that both states have, while its names are compared."""

    def __init__(self, place: "tuple[_Directory, bytes, int, int, bool] | None", path: bytes, old: DirIds) -> None:
        self.place = place
        self.path = path
        self.old = old
        self.tree: bytes | None = None
        self.times: bytes | None = None
        self.numbers: bytes | None = None
        self.in_tree: dict[bytes, tuple[Entry | None, Entry | None]] = {}
        self.in_times: dict[bytes, tuple[trees.Timed, trees.Timed]] = {}
        self.names: Iterator[bytes] = iter(())
        self.ino = ROOT
        self.edits: dict[bytes, LeafEntry | None] = {}
        self.has_other_names = False


class Planner:
    """`take_numbers(count)` gives the first of so many new numbers."""

    def __init__(
        self,
        old: Side,
        core: State,
        times: bytes | None,
        *,
        now: int,
        fallback: int,
        take_numbers: Callable[[int], int],
        load: Loader,
        save: Saver,
    ) -> None:
        self._old = old
        self._core = core
        self._times = times
        self._now = sides.clamped(now)
        self._fallback = sides.clamped(fallback)
        self._take_numbers = take_numbers
        self._load = load
        self._save = save
        self._links = Links(old.core.links, old.root, load)
        self._changes: list[NameChange] = []
        self._dirs: dict[int, DirIds] = {}
        self._lost: dict[bytes, int] = {}
        self._counts = Counts()
        self._relinked: dict[bytes, set[bytes]] = {}
        self._ways: dict[bytes, set[bytes]] = {}

    def run(self) -> Plan:
        self._compare_links()
        root = self._entered(None, b"", self._old.root, self._core.tree, self._times)
        stack = [root]
        while stack:
            directory = stack[-1]
            name = next(directory.names, None)
            if name is None:
                self._leave(stack.pop())
            elif (deeper := self._compare(directory, name)) is not None:
                stack.append(deeper)
        return Plan(self._dirs[ROOT], self._dirs, self._changes, list(self._lost.values()), self._counts)

    # hard links

    def _compare_links(self) -> None:
        """Groups that are not the same in both states: all their paths count as changed."""
        differing: set[bytes] = set()
        for _, old, new in prolly.diff(Kind.LINKS, self._old.core.links, self._core.links, self._load):
            differing.update(each[1] for each in (old, new) if each is not None)
        if not differing:
            return
        for links in (self._old.core.links, self._core.links):
            for path, group in prolly.entries(Kind.LINKS, links, self._load):
                if group in differing:
                    above, _, name = path.rpartition(b"/")
                    self._relinked.setdefault(above, set()).add(name)
        for group in differing & self._links.groups().keys():
            self._lost[group] = self._links.number(group)
        for above in self._relinked:
            while above:
                above, _, name = above.rpartition(b"/")
                self._ways.setdefault(above, set()).add(name)

    # directories

    def _entered(
        self,
        place: "tuple[_Directory, bytes, int, int, bool] | None",
        path: bytes,
        old: DirIds,
        tree: bytes | None,
        times: bytes | None,
    ) -> _Directory:
        directory = _Directory(place, path, old)
        directory.tree, directory.times = tree, times
        directory.ino = ROOT if place is None else place[2]
        for name, *sides_of in prolly.diff(Kind.TREE, old.tree, tree, self._load):
            before, after = (None if each is None else Entry._make(each) for each in sides_of)
            directory.in_tree[name] = (before, after)
        for name, *sides_of in prolly.diff(Kind.TIMES, old.times, times, self._load):
            timed = [trees.UNTIMED if each is None else trees.Timed(each[1], each[2]) for each in sides_of]
            directory.in_times[name] = (timed[0], timed[1])
        names = directory.in_tree.keys() | directory.in_times.keys() | self._relinked.get(path, set())
        names.update(self._ways.get(path, ()))
        names.discard(b"")  # the root's own time
        directory.names = iter(sorted(names))
        directory.numbers = self._numbers(old) if names or place is None else old.inodes
        return directory

    def _numbers(self, base: DirIds) -> bytes | None:
        return sides.written_inodes(base, self._fallback, self._load, self._save)

    def _compare(self, directory: _Directory, name: bytes) -> _Directory | None:
        """One name; a directory that both have is entered."""
        old, new = directory.in_tree.get(name) or (self._find(directory.tree, name),) * 2
        if old is None and new is None:
            return None  # a time of what is not there
        path = trees.join(directory.path, name)
        inode = None if old is None else self._inode(directory.numbers, name)
        if old is None or new is None or inode is None or self._is_another(path, old, new):
            directory.has_other_names = True
            self._counts.replace(old, new)
            self._replace(directory, name, None if inode is None else self._group_number(path, old, inode.number), new)
            return None
        if name in directory.in_times or old.is_directory:
            same = self._time(directory.times, name) if name not in directory.in_times else trees.UNTIMED
            old_time, new_time = directory.in_times.get(name, (same, same))
        else:
            old_time = new_time = trees.UNTIMED
        shows = old.mode != new.mode or old.ext != new.ext
        self._counts.changed += shows
        shows = shows or old_time.mtime != new_time.mtime
        if old.is_directory:
            place = (directory, name, inode.number, inode.ctime, shows)
            ids = DirIds(old.target, old_time.child, inode.child, inode.number + 1)
            return self._entered(place, path, ids, new.target, new_time.child)
        if shows:
            number = self._group_number(path, old, inode.number)
            self._changes.append(NameChange(directory.ino, name, number, number, True))
            directory.edits[name] = (name, inode.number, self._now, None)
        return None

    def _is_another(self, path: bytes, old: Entry, new: Entry) -> bool:
        if old.kind != new.kind or path.rpartition(b"/")[2] in self._relinked.get(path.rpartition(b"/")[0], ()):
            return True
        return not old.is_directory and (old.target, old.size, old.count) != (new.target, new.size, new.count)

    def _replace(self, directory: _Directory, name: bytes, old: int | None, new: Entry | None) -> None:
        number = None
        if new is not None:
            number = self._take_numbers(1 + (new.count if new.is_directory else 0))
        directory.edits[name] = None if number is None else (name, number, self._now, None)
        self._changes.append(NameChange(directory.ino, name, old, number, True))

    def _group_number(self, path: bytes, entry: Entry | None, number: int | None) -> int | None:
        """The number that the kernel knows: a hard link's is that of its group."""
        if entry is None or not entry.ext or "L" not in entry.ext:
            return number
        group = self._links.group_at(path)
        return number if group is None else self._links.number(group)

    def _leave(self, directory: _Directory) -> None:
        """All names were compared: its numbers are written, and it is entered where it hangs."""
        if directory.place is None and (directory.has_other_names or self._root_shows()):
            directory.edits[b""] = (b"", ROOT, self._now, None)
        inodes = directory.numbers
        if directory.edits:
            inodes = prolly.edit(Kind.INODES, directory.numbers, directory.edits, self._load, self._save)
        if directory.tree is None and directory.place is not None:
            inodes = None
        ids = DirIds(directory.tree, directory.times, inodes, directory.ino + 1)
        self._dirs[directory.ino] = ids
        if directory.place is None:
            return
        above, name, number, ctime, shows = directory.place
        above.edits[name] = (name, number, self._now if shows or directory.has_other_names else ctime, inodes)
        self._changes.append(NameChange(above.ino, name, number, number, shows))

    def _root_shows(self) -> bool:
        old, new = self._old.core, self._core
        own = [self._time(times, b"").mtime for times in (self._old.root.times, self._times)]
        return old.mode != new.mode or old.ext != new.ext or own[0] != own[1]

    # single entries

    def _find(self, tree: bytes | None, name: bytes) -> Entry | None:
        found = prolly.find(Kind.TREE, tree, name, self._load)
        return None if found is None else Entry._make(found)

    def _time(self, times: bytes | None, name: bytes) -> trees.Timed:
        found = prolly.find(Kind.TIMES, times, name, self._load)
        return trees.UNTIMED if found is None else trees.Timed(found[1], found[2])

    def _inode(self, numbers: bytes | None, name: bytes) -> "Inode":
        found = prolly.find(Kind.INODES, numbers, name, self._load)
        assert found is not None, "every entry has a number"
        return Inode(*found[1:])
