"""Hard links of a stored state, and the numbers of its inodes by path.

All names of a file have one number that is shown: the smallest of those that the names have by themselves. So it stays
the same when a directory moves and another path comes first.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fusecas.store import prolly
from fusecas.store.ids import Kind
from fusecas.store.kinds import Entry
from fusecas.store.prolly import LeafEntry, Loader
from fusecas.workspace.sides import ROOT, DirIds


class Where(NamedTuple):
    """A directory by its path: what it is in the store, and the numbers of all from the root down to it."""

    ids: DirIds
    numbers: tuple[int, ...]


class Link(NamedTuple):
    """A name of a file that has more; `numbers`: its own, after those of the directories above it."""

    path: bytes
    numbers: tuple[int, ...]


class Links:
    """Of one state. Looks at a path once for all that hang below it."""

    def __init__(self, links: bytes | None, root: DirIds, load: Loader) -> None:
        self._links = links
        self._load = load
        self._directories: dict[bytes, Where] = {b"": Where(root, (ROOT,))}
        self._in_order: dict[DirIds, dict[bytes, tuple[Entry, int]]] = {}
        self._leaves: dict[bytes, prolly.Node] = {}
        self._groups: dict[bytes, list[Link]] | None = None

    def groups(self) -> dict[bytes, list[Link]]:
        """All of them, by what a state calls them."""
        if self._groups is None:
            self._groups = {}
            for path, group in prolly.entries(Kind.LINKS, self._links, self._load):
                self._groups.setdefault(group, []).append(Link(path, self._numbers_to(path)))
        return self._groups

    def number(self, group: bytes) -> int:
        return number_of(self.groups()[group])

    def group_at(self, path: bytes) -> bytes | None:
        found = prolly.find(Kind.LINKS, self._links, path, self._load)
        group: bytes | None = None if found is None else found[1]
        return group

    def _numbers_to(self, path: bytes) -> tuple[int, ...]:
        above, _, name = path.rpartition(b"/")
        where = self._directory(above)
        return (*where.numbers, self._step(where.ids, name)[1])

    def _directory(self, path: bytes) -> Where:
        steps = list(self._unknown(path))
        for step in reversed(steps):
            above, _, name = step.rpartition(b"/")
            where = self._directories[above]
            ids, number = self._step(where.ids, name)
            self._directories[step] = Where(ids, (*where.numbers, number))
        return self._directories[path]

    def _unknown(self, path: bytes) -> Iterator[bytes]:
        while path not in self._directories:
            yield path
            path = path.rpartition(b"/")[0]

    def _step(self, here: DirIds, name: bytes) -> tuple[DirIds, int]:
        """What is at a name, and its number."""
        times = self._find(Kind.TIMES, here.times, name)
        inode = self._find(Kind.INODES, here.inodes, name)
        if inode is None:
            entry, number = self._numbered(here)[name]
        else:
            found = self._find(Kind.TREE, here.tree, name)
            assert found is not None, "a link's path is in its tree"
            entry, number = Entry._make(found), inode[1]
        side = [None if each is None else each[-1] for each in (times, inode)]
        return DirIds(entry.target if entry.is_directory else None, side[0], side[1], number + 1), number

    def _find(self, kind: Kind, root: bytes | None, key: bytes) -> LeafEntry | None:
        """Keys come in order: most are in the leaf that the one before was in."""
        if root is None:
            return None
        leaf = self._leaves.get(root)
        if leaf is None or not leaf.entries[0][prolly.KEY] <= key <= leaf.last:
            leaf = prolly.leaf_of(kind, root, key, self._load)
            if leaf is None:
                return None
            self._leaves[root] = leaf
        return prolly.find_in(leaf, key)

    def _numbered(self, here: DirIds) -> dict[bytes, tuple[Entry, int]]:
        """What is in a directory whose numbers were never written down."""
        if here not in self._in_order:
            self._in_order[here] = found = {}
            number = here.first
            for entry in map(Entry._make, prolly.entries(Kind.TREE, here.tree, self._load)):
                found[entry.name] = (entry, number)
                number += 1 + (entry.count if entry.is_directory else 0)
        return self._in_order[here]


def number_of(group: list[Link]) -> int:
    return min(link.numbers[-1] for link in group)
