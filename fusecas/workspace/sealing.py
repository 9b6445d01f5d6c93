"""A frozen generation becomes a state: the trees of what it changed, with their times and inode numbers beside them.

Costs what changed: a directory is edited, not rebuilt, and what was not touched is named by its old tree. Two things
cost more: a directory whose times or numbers were implied until now gets them for all its entries, once; and when a
directory with hard links in it has moved, all links of the state are looked at.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.store import prolly, trees
from fusecas.store.ids import EMPTY_CONTENT, Kind, LinksId, ObjectId, StateId, TreeId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.prolly import LeafEntry, Loader, Saver
from fusecas.workspace import sides
from fusecas.workspace.links import Link, Links, number_of
from fusecas.workspace.sides import ROOT, DirIds, clamped

INLINE_XATTR = 256


class Changed(NamedTuple):
    """An inode of a generation, as the overlay hands it over."""

    ino: int
    kind: int
    mode: int
    uid: int
    gid: int
    device: tuple[int, int]
    size: int
    mtime: int
    ctime: int
    places: list[tuple[int, bytes]]
    xattrs: list[tuple[bytes, "bytes | _native.Ref"]]
    ext: bytes | None
    what: Any

    @property
    def is_directory(self) -> bool:
        return self.kind == EntryKind.DIRECTORY

    @property
    def base(self) -> DirIds:
        tree, times, inodes, first, _, _ = self.what
        return DirIds(tree, times, inodes, first)

    @property
    def below(self) -> tuple[int, bytes] | None:
        below: tuple[int, bytes] | None = self.what[4]
        return below

    @property
    def names(self) -> dict[bytes, int | None]:
        return dict(self.what[5])


class Sealed(NamedTuple):
    """A stored generation: what the overlay needs to stand on it. `holders`: files that hold the path of the
    workspace."""

    state: StateId
    root: DirIds
    links: bytes | None
    files: list[tuple[int, bytes | None]]
    dirs: list[tuple[int, DirIds]]
    mtime: int
    holders: frozenset[bytes] = frozenset()


class Sealer:
    """Makes the state; `contents` are the ids of the changed files, by number."""

    def __init__(
        self,
        core: State,
        nodes: dict[int, Changed],
        contents: dict[int, bytes],
        owner: tuple[int, int],
        time: int,
        load: Loader,
        save: Saver,
    ) -> None:
        self._core = core
        self._nodes = nodes
        self._contents = contents
        self._owner = owner
        self._fallback = clamped(time)
        self._load = load
        self._save = save
        self._below: dict[int, dict[bytes, int]] = {}
        self._stored: dict[int, DirIds] = {}
        self._implied: set[int] = set()
        self._files: list[tuple[int, bytes | None]] = []
        for node in nodes.values():
            for parent, name in node.places:
                self._below.setdefault(parent, {})[name] = node.ino

    def run(self) -> Sealed:
        for ino in self._deepest_first():
            self._stored[ino] = self._directory(self._nodes[ino])
        root = self._nodes[ROOT]
        ids = self._stored[ROOT]
        links = self._links()
        state = State(
            tree=None if ids.tree is None else TreeId(ObjectId(ids.tree)),
            mode=root.mode,
            links=None if links is None else LinksId(ObjectId(links)),
            ext=self._ext(root, linked=False),
        )
        state_id = StateId(self._save(Kind.STATE, state.encode()))
        return Sealed(state_id, ids, links, self._files, list(self._stored.items()), root.mtime)

    def paths_of(self, inodes: Iterable[int]) -> tuple[bytes, ...]:
        return tuple(self._path(parent, name) for ino in inodes for parent, name in self._nodes[ino].places)

    def _deepest_first(self) -> Iterator[int]:
        """The changed directories that can be reached, each after those in it."""
        stack = [(ROOT, self._directories_in(ROOT))]
        while stack:
            ino, inner = stack[-1]
            child = next(inner, None)
            if child is None:
                stack.pop()
                yield ino
            else:
                stack.append((child, self._directories_in(child)))

    def _directories_in(self, ino: int) -> Iterator[int]:
        return (child for child in self._below.get(ino, {}).values() if self._nodes[child].is_directory)

    def _directory(self, node: Changed) -> DirIds:
        base = node.base
        changes: dict[bytes, int | None] = {**node.names, **self._below.get(node.ino, {})}
        in_tree: dict[bytes, LeafEntry | None] = {}
        in_times: dict[bytes, LeafEntry | None] = {}
        in_inodes: dict[bytes, LeafEntry | None] = {}
        for name, ino in changes.items():
            child = None if ino is None else self._nodes[ino]
            in_tree[name] = None if child is None else tuple(self._entry(name, child))
            ids = None if child is None else self._stored.get(child.ino)
            times, inodes = (None, None) if ids is None else (ids.times, ids.inodes)
            in_times[name] = None if child is None else (name, clamped(child.mtime), times)
            in_inodes[name] = None if child is None else (name, child.ino, clamped(child.ctime), inodes)
        if node.ino == ROOT:
            in_times[b""] = (b"", clamped(node.mtime), None)
            in_inodes[b""] = (b"", ROOT, clamped(node.ctime), None)
        old_times = sides.written_times(base, self._fallback, self._load, self._save)
        tree = self._edit(Kind.TREE, base.tree, in_tree)
        if self._stays_implied(node):
            self._implied.add(node.ino)
            first = base.first if node.ino == ROOT else node.ino + 1
            return DirIds(tree, self._edit(Kind.TIMES, old_times, in_times), None, first)
        if tree is None and node.ino != ROOT:
            return DirIds(None, None, None, node.ino + 1)
        inodes = sides.changed_inodes(base, self._fallback, in_inodes, self._load, self._save)
        return DirIds(tree, self._edit(Kind.TIMES, old_times, in_times), inodes, node.ino + 1)

    def _stays_implied(self, node: Changed) -> bool:
        """Whether numbers that were never written down need not be now: no name has come or gone there or below, so
        they still go in the order of a walk; and all that was changed was changed when it was last modified."""
        if node.base.inodes is not None or node.names:
            return False
        changed = [self._nodes[ino] for ino in self._below.get(node.ino, {}).values()]
        if node.ino == ROOT:
            changed.append(node)
        return all(
            clamped(each.ctime) == clamped(each.mtime)
            and (each.ino == node.ino or not each.is_directory or each.ino in self._implied)
            for each in changed
        )

    def _edit(self, kind: Kind, root: bytes | None, changes: dict[bytes, LeafEntry | None]) -> bytes | None:
        return prolly.edit(kind, root, changes, self._load, self._save) if changes else root

    def _entry(self, name: bytes, node: Changed) -> Entry:
        ext = self._ext(node, linked=len(node.places) > 1)
        if node.kind == EntryKind.DIRECTORY:
            ids = self._stored[node.ino]
            count, size = prolly.totals(Kind.TREE, ids.tree, self._load)
            return Entry(name, node.kind, node.mode, ids.tree, size, count, ext)
        if node.kind == EntryKind.FILE:
            content = self._content(node)
            return Entry(name, node.kind, node.mode, content, node.size, 0, ext)
        if node.kind == EntryKind.SYMLINK:
            return Entry(name, node.kind, 0o777, node.what, 0, 0, ext)
        size, count = node.device if node.kind in (EntryKind.CHARACTER, EntryKind.BLOCK) else (0, 0)
        return Entry(name, node.kind, node.mode, None, size, count, ext)

    def _content(self, node: Changed) -> bytes | None:
        base, _, changed = node.what
        content = self._contents[node.ino] if changed else base
        found = None if content is None or content == EMPTY_CONTENT else bytes(content)
        if not self._files or self._files[-1][0] != node.ino:
            self._files.append((node.ino, found))
        return found

    def _ext(self, node: Changed, linked: bool) -> dict[str, Any] | None:
        known = {} if node.ext is None else _native.cbor_decode(node.ext)
        ext = {key: value for key, value in known.items() if key not in ("L", "O", "X")}
        if linked:
            ext["L"] = True
        if (node.uid, node.gid) != self._owner:
            pairs = zip((node.uid, node.gid), self._owner, strict=True)
            ext["O"] = [None if own == reference else own for own, reference in pairs]
        if node.xattrs:
            ext["X"] = [[name, value] for name, value in node.xattrs]
        return ext or None

    # hard links

    def _links(self) -> bytes | None:
        """Costs the names that changed, unless a directory with hard links in it has moved: then all are looked at."""
        changes: dict[bytes, LeafEntry | None] = {}
        for node in self._nodes.values():
            if not node.is_directory:
                paths = [self._path(parent, name) for parent, name in node.places]
                for path in paths:
                    if len(paths) > 1:
                        changes[path] = (path, min(paths))
                    elif self._was_linked(path):
                        changes[path] = None
        if self._core.links is not None:
            for place, old_path in self._changed_names():
                below = [] if old_path is None else list(self._links_below(old_path))
                if old_path is None or (below and place in self._moved_from):
                    return self._all_links()
                for gone in [old_path, *below] if self._was_linked(old_path) else below:
                    changes.setdefault(gone, None)
        return self._edit(Kind.LINKS, self._core.links, changes)

    def _was_linked(self, path: bytes) -> bool:
        return prolly.find(Kind.LINKS, self._core.links, path, self._load) is not None

    def _links_below(self, path: bytes) -> Iterator[bytes]:
        start = path + b"/"
        listed = prolly.entries(Kind.LINKS, self._core.links, self._load, start)
        return takewhile(lambda each: each.startswith(start), (entry[0] for entry in listed))

    @cached_property
    def _moved_from(self) -> set[tuple[int, bytes]]:
        """Where the old state has directories that are somewhere else now."""
        directories = (node for node in self._nodes.values() if node.is_directory and node.below is not None)
        return {node.below for node in directories if node.below is not None and node.places[:1] != [node.below]}

    def _changed_names(self) -> Iterator[tuple[tuple[int, bytes], bytes | None]]:
        """Names of the old state that are gone or name something else: where, and the path then; None if that can't
        be told any more."""
        for node in self._nodes.values():
            if node.is_directory and (node.ino == ROOT or node.below is not None):
                above = self._old_path(node)
                for name in node.names:
                    yield (node.ino, name), None if above is None else trees.join(above, name)

    def _old_path(self, node: Changed) -> bytes | None:
        steps: list[bytes] = []
        while node.ino != ROOT:
            if node.below is None or node.below[0] not in self._nodes:
                return None
            steps.append(node.below[1])
            node = self._nodes[node.below[0]]
        return b"/".join(reversed(steps))

    def _all_links(self) -> bytes | None:
        changes: dict[bytes, LeafEntry | None] = {}
        groups: dict[bytes, list[bytes]] = {}
        for group, links in Links(self._core.links, self._nodes[ROOT].base, self._load).groups().items():
            changes.update(dict.fromkeys(link.path for link in links))
            if number_of(links) not in self._nodes:
                groups[group] = [path for path in map(self._path_now, links) if path is not None]
        for node in self._nodes.values():
            if len(node.places) > 1 and not node.is_directory:
                groups[b"\0%d" % node.ino] = [self._path(parent, name) for parent, name in node.places]
        for paths in groups.values():
            for path in paths:
                changes[path] = (path, min(paths))
        return self._edit(Kind.LINKS, self._core.links, changes)

    def _path(self, parent: int, name: bytes) -> bytes:
        steps = [name]
        while parent != ROOT:
            parent, name = self._nodes[parent].places[0]
            steps.append(name)
        return b"/".join(reversed(steps))

    def _path_now(self, link: Link) -> bytes | None:
        """Where a name of the old state is, if nothing was done to the file itself; None if it is gone."""
        changed = max(at for at, number in enumerate(link.numbers) if number in self._nodes)
        node = self._nodes[link.numbers[changed]]
        rest = link.path.split(b"/")[changed:]
        if node.names.get(rest[0], link.numbers[changed + 1]) != link.numbers[changed + 1]:
            return None  # whatever has its name now
        above = b"" if node.ino == ROOT else self._path(*node.places[0])
        return trees.join(above, b"/".join(rest))
