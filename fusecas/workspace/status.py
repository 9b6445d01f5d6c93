"""What is uncommitted: the paths that differ between a workspace's layer and what is there now.

Asked of the overlay and of the states below it, never of the tree: it costs what changed. A file that was written to
counts as modified, even if it was written with what it had; a commit looks closer.

Touched is what is as in the baseline (docs/glossary.md) but for its time. It is not uncommitted.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.store import heads, trees
from fusecas.store.diff import ChangeKind, diff_states, diff_trees
from fusecas.store.ids import ContentId, ObjectId
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import LARGEST, USUAL, StatCaches
from fusecas.store.touched import KINDS as TOUCHED_KINDS
from fusecas.store.touched import touched
from fusecas.wire import path_fields
from fusecas.workspace.sealing import Changed
from fusecas.workspace.sides import clamped
from fusecas.workspace.workspace import Workspace


class Difference(NamedTuple):
    """A: added, D: removed, M: modified, T: of another kind, m: only its attributes. `kinds`: what of an inode that
    stays differs."""

    letter: str
    path: bytes
    is_directory: bool
    kinds: frozenset[ChangeKind] = frozenset()


class Inode(NamedTuple):
    """What a commit would say of one, but for its times. `what`: a file's content, a link's target, a device's numbers;
    CHANGED for a file that was written to."""

    kind: int
    mode: int
    owner: tuple[int, int]
    xattrs: dict[bytes, "bytes | _native.Ref"]
    what: Any

    @classmethod
    def of_entry(cls, entry: Entry, owner: tuple[int, int]) -> "Inode":
        """`owner`: of what has none recorded."""
        uid, gid = (known if own is None else own for own, known in zip(entry.owner, owner, strict=True))
        what = None if entry.is_directory else entry.target or (entry.size, entry.count)
        if entry.is_file:
            what = entry.target
        return cls(entry.kind, entry.mode, (uid, gid), dict(entry.xattrs), what)

    @classmethod
    def of_node(cls, node: Changed) -> "Inode":
        what = None if node.is_directory else node.what or node.device
        if node.kind == EntryKind.FILE:
            base, _, is_changed = node.what
            what = CHANGED if is_changed else base
        mode = 0o777 if node.kind == EntryKind.SYMLINK else node.mode
        return cls(node.kind, mode, (node.uid, node.gid), dict(node.xattrs), what)

    def kinds(self, now: "Inode") -> frozenset[ChangeKind]:
        """What is different about it."""
        if self.kind != now.kind:
            return frozenset({ChangeKind.TYPE})
        differs = {
            ChangeKind.MODIFIED: self.what != now.what,
            ChangeKind.MODE: self.mode != now.mode,
            ChangeKind.OWNER: self.owner != now.owner,
            ChangeKind.XATTR: self.xattrs != now.xattrs,
        }
        return frozenset(kind for kind, is_so in differs.items() if is_so)


CHANGED = object()


class Status(NamedTuple):
    """In the order of paths. What is touched and uncommitted as well is told as uncommitted only."""

    changes: list[Difference]
    touched: list[bytes]


def status(workspace: Workspace) -> Status:
    """What is in a directory that is new or gone is not listed again if it came with it."""
    overlay = workspace.overlay
    nodes: dict[int, Changed] = {}
    for node in map(Changed._make, overlay.nodes()):  # those of the frozen generation first
        nodes[node.ino] = over(nodes.get(node.ino), node)
    with workspace.store.read() as snapshot:
        head = heads.read_head(snapshot, workspace.name)
        comparison = Comparison(snapshot, head, overlay, nodes, workspace.stat_caches)
        paths = _candidates(overlay, nodes)
        if comparison.before != head.live.state:
            sealed = diff_states(snapshot, comparison.before, head.live.state, renames=False)
            paths |= {change.path for change in sealed}
        paths |= comparison.below_others()
        found = [comparison.of(path) for path in sorted(paths)]
        changes = [each for each in found if each is not None]
        may_be_touched = {*touched(snapshot, head.live), *_retimed(overlay, nodes)} - {each.path for each in changes}
        return Status(changes, [path for path in sorted(may_be_touched) if comparison.is_touched(path)])


def as_json(workspace: str, found: Status) -> dict[str, Any]:
    """`changes` has one entry a path; the lists by what happened to it have the same paths again."""
    by_letter: dict[str, list[dict[str, Any]]] = {"A": [], "D": [], "M": []}
    for each in found.changes:
        kinds = {"kinds": sorted(each.kinds)} if each.kinds else {}
        by_letter.get(each.letter, by_letter["M"]).append({**path_fields(each.path), **kinds})
    return {
        "workspace": workspace,
        "changes": [
            {"letter": each.letter, **path_fields(each.path), "directory": each.is_directory} for each in found.changes
        ],
        "added": by_letter["A"],
        "modified": by_letter["M"],
        "deleted": by_letter["D"],
        "touched": [path_fields(path) for path in found.touched],
        "clean": not found.changes,
    }


def _retimed(overlay: "_native.Overlay", nodes: dict[int, Changed]) -> Iterator[bytes]:
    """The paths of files whose times may not be those of the state below, while their content is."""
    for node in nodes.values():
        if node.kind in TOUCHED_KINDS and Inode.of_node(node).what is not CHANGED:
            for parent, name in node.places:
                above = overlay.path(parent)
                if above is not None:
                    yield trees.join(above, name)


def _candidates(overlay: "_native.Overlay", nodes: dict[int, Changed]) -> set[bytes]:
    """Every path at which something may have changed."""
    paths: set[bytes] = set()
    for node in nodes.values():
        own = overlay.path(node.ino)
        if own is not None:
            paths.add(own)
        for parent, name in node.places:
            above = overlay.path(parent)
            if above is not None:
                paths.add(trees.join(above, name))
        if node.is_directory and own is not None:
            paths |= {trees.join(own, name) for name in node.names}
    return paths


def over(earlier: Changed | None, later: Changed) -> Changed:
    """What an inode is by two generations: the later one says no more than what was changed since."""
    if earlier is None:
        return later
    if later.is_directory:
        *ids, names = later.what
        return later._replace(what=(*ids, [*{**earlier.names, **dict(names)}.items()]))
    if later.kind == EntryKind.FILE:
        base, keep, is_changed = later.what
        return later._replace(what=(base, keep, is_changed or earlier.what[2]))
    return later


class Comparison:
    """Of a workspace's layer with what is there now: in the generations, else in the state that it stands on."""

    def __init__(
        self,
        snapshot: Snapshot,
        head: heads.Head,
        overlay: "_native.Overlay",
        nodes: dict[int, Changed],
        stat_caches: StatCaches,
    ) -> None:
        self.before = heads.state_of(snapshot, head.workspace.layer)
        self._snapshot = snapshot
        self._live = head.live
        self._baseline = head.live.baseline
        self._overlay = overlay
        self._nodes = nodes
        self._stat_caches = stat_caches

    def of(self, path: bytes) -> Difference | None:
        entry = trees.lookup(self._snapshot, self.before, path)
        old = None if entry is None else Inode.of_entry(entry, self._live.owner)
        now = self._now(path)
        if old == now:
            return None
        is_directory = (now or old or NOTHING).kind == EntryKind.DIRECTORY
        if old is None or now is None:
            return Difference("A" if old is None else "D", path, is_directory)
        kinds = old.kinds(now)
        if kinds == {ChangeKind.MODIFIED} and self._says_the_same(path, entry):
            return None
        letter = "T" if ChangeKind.TYPE in kinds else "M" if ChangeKind.MODIFIED in kinds else "m"
        return Difference(letter, path, is_directory, kinds)

    def is_touched(self, path: bytes) -> bool:
        """Whether it is as in the baseline, but for its time."""
        if self._baseline is None:
            return False
        entry = trees.lookup(self._snapshot, self._baseline.state, path)
        time = trees.time_at(self._snapshot, self._baseline.times, path)
        mtime, now = mtime_at(self._overlay, path), self._now(path)
        if entry is None or time is None or now is None or mtime is None or entry.kind not in TOUCHED_KINDS:
            return False
        old = Inode.of_entry(entry, self._live.owner)
        is_same = (old.kind, old.mode, old.what) == (now.kind, now.mode, now.what)
        return is_same and clamped(mtime) != time

    def _says_the_same(self, path: bytes, old: Entry | None) -> bool:
        """A stat cache, that is: any `git status` at a prompt writes git's index anew."""
        if path not in USUAL or old is None or not old.is_file or old.target is None:
            return False
        with held(self._overlay, path) as there:
            if there is None:
                return False
            number, mode, _, _, _, _, size, *_ = there[-1]
            if not stat.S_ISREG(mode) or size > LARGEST:
                return False
            data = self._overlay.read(number, 0, size)
        return self._stat_caches.says(self._snapshot, ContentId(ObjectId(old.target)), data)

    def below_others(self) -> set[bytes]:
        """What differs in directories that have taken the place of others, beside what was changed in them since."""
        paths: set[bytes] = set()
        for node in self._nodes.values():
            if node.is_directory and node.places and node.places[0] != node.below:
                place = self._overlay.path(node.ino)
                old = None if place is None else trees.lookup(self._snapshot, self.before, place)
                if place is not None and old is not None and old.is_directory:
                    changes = diff_trees(self._snapshot, place, old.target, node.base.tree)
                    paths |= {change.path for change in changes}
        return paths

    def _now(self, path: bytes) -> Inode | None:
        there = attributes_at(self._overlay, path)
        if there is None:
            return None
        numbers = [each[0] for each in there]
        if numbers[-1] in self._nodes:
            return Inode.of_node(self._nodes[numbers[-1]])
        entry: Entry | None = trees.root_entry(self._snapshot, self._live.state)
        for above, name in zip(numbers, path.split(b"/") if path else (), strict=False):
            if entry is None:
                return None
            # Where a directory was in the state doesn't matter, only what it had there.
            tree = self._nodes[above].base.tree if above in self._nodes else entry.target
            entry = trees.find(self._snapshot, tree, name)
        return None if entry is None else Inode.of_entry(entry, self._live.owner)


NOTHING = Inode(0, 0, (0, 0), {}, None)


def attributes_at(overlay: "_native.Overlay", path: bytes) -> "list[_native.Attributes] | None":
    with held(overlay, path) as found:
        return found


@contextmanager
def held(overlay: "_native.Overlay", path: bytes) -> "Iterator[list[_native.Attributes] | None]":
    """What is on the way from the root to a path, and there; nothing stays held."""
    found = [overlay.getattr(0)]
    try:
        for name in path.split(b"/") if path else ():
            child = overlay.lookup(found[-1][0], name) if stat.S_ISDIR(found[-1][1]) else None
            if child is None:
                yield None
                return
            found.append(child)
        yield found
    finally:
        for each in reversed(found[1:]):
            overlay.forget(each[0], 1)


def mtime_at(overlay: "_native.Overlay", path: bytes) -> int | None:
    there = attributes_at(overlay, path)
    if there is None:
        return None
    *_, mtime, _ = there[-1]
    return mtime
