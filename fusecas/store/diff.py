"""What differs between two states. Costs what differs: subtrees that both have are never read.

Changes come in the order of a walk: a directory before what is in it, names by their bytes.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice, takewhile
from typing import NamedTuple

from fusecas.store import prolly, trees
from fusecas.store.ids import Kind, StateId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.prolly import Loader, Saver
from fusecas.store.snapshot import Snapshot


class ChangeKind(StrEnum):
    """What is different about a path. `type`: a file became a link, a directory a file, and so on."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    TYPE = "type"
    MODE = "mode"
    XATTR = "xattr"
    OWNER = "owner"
    LINKS = "links"
    RENAMED = "renamed"


META = frozenset({ChangeKind.MODE, ChangeKind.XATTR, ChangeKind.OWNER, ChangeKind.LINKS})
FILES = frozenset(ChangeKind) - META
LIKELY = 64
WHOLE = frozenset({ChangeKind.ADDED}), frozenset({ChangeKind.REMOVED})


class Change(NamedTuple):
    """One path. `old_path` is where a renamed one was; a renamed directory brings all that is in it.

    `links`: (group before, group after) if the path joined, left or changed its group of hard links.
    """

    path: bytes
    kinds: frozenset[ChangeKind]
    old: Entry | None
    new: Entry | None
    old_path: bytes | None = None
    links: tuple[bytes | None, bytes | None] | None = None


class Grouped(NamedTuple):
    """Changes by what has happened to the path, each once. `modified` has what became another kind of file, or other
    modes and attributes, too; `renamed` whatever is at another path."""

    added: list[Change]
    modified: list[Change]
    deleted: list[Change]
    renamed: list[Change]


def grouped(changes: Iterable[Change]) -> Grouped:
    groups = Grouped([], [], [], [])
    for each in changes:
        if ChangeKind.RENAMED in each.kinds:
            groups.renamed.append(each)
        elif ChangeKind.ADDED in each.kinds:
            groups.added.append(each)
        elif ChangeKind.REMOVED in each.kinds:
            groups.deleted.append(each)
        else:
            groups.modified.append(each)
    return groups


def diff_states(
    reader: Snapshot,
    a: StateId,
    b: StateId,
    *,
    paths: Sequence[bytes] = (),
    renames: bool = True,
) -> Iterator[Change]:
    """What leads from state `a` to state `b`, below `paths` if there are any.

    Renames are found by equal content (files) or equal trees (directories); looking for them holds all changes in
    memory, without they stream.
    """
    if a == b:
        return
    before, after = trees.read_state(reader, a), trees.read_state(reader, b)
    comparison = _Comparison(reader, [each.strip(b"/") for each in paths])
    changes = comparison.run(before, after)
    if renames:
        yield from sorted(_with_renames(comparison, list(changes)), key=lambda change: walk_key(change.path))
    else:
        yield from comparison.expanded(changes)


def diff_trees(reader: Snapshot, path: bytes, a: bytes | None, b: bytes | None) -> Iterator[Change]:
    """What leads from one tree to another, both of the directory at a path; renames are not looked for, and a directory
    that is added or removed as a whole is one change."""
    old, new = (Entry(b"", EntryKind.DIRECTORY, 0, tree) for tree in (a, b))
    yield from _Comparison(reader, ())._below(path, old, new)


def walk_key(path: bytes) -> bytes:
    """Sorts paths as a walk meets them: what is in a directory comes right behind it."""
    return path.replace(b"/", b"\0")


class _Comparison:
    """Finds changes; a directory that is added or removed as a whole is one change until it is expanded."""

    def __init__(self, reader: Snapshot, paths: Sequence[bytes]) -> None:
        self._reader = reader
        self._load: Loader = reader.read_node
        self._paths = paths
        self._links: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        self.has_links = False

    def run(self, before: State, after: State) -> Iterator[Change]:
        for path, old, new in prolly.diff(Kind.LINKS, before.links, after.links, self._load):
            if self._wanted(path):
                self._links[path] = (old[1] if old else None, new[1] if new else None)
        self.has_links = bool(self._links)
        yield from self._joined(self._changes(before, after), after)

    def _changes(self, before: State, after: State) -> Iterator[Change]:
        old, new = before.root(0, 0), after.root(0, 0)
        kinds = attribute_kinds(old, new)
        if kinds and self._wanted(b""):
            yield Change(b"", kinds, old, new)
        yield from self._below(b"", old, new)

    def _below(self, path: bytes, old: Entry | None, new: Entry | None, *, inside: bool = False) -> Iterator[Change]:
        """What differs in a directory; `inside`: also what is in those that are added or removed as a whole.

        On a stack of our own: a tree may be deeper than Python's.
        """
        stack = [(path, self._differences(old, new))]
        while stack:
            above, differences = stack[-1]
            pair = next(differences, None)
            if pair is None:
                stack.pop()
                continue
            name, old, new = pair
            place = trees.join(above, name)
            wanted = self._wanted(place)
            if not wanted and not self._leads_on(place):
                continue
            kinds = kinds_of(old, new)
            if kinds and wanted:
                yield Change(place, kinds, old, new, links=self._links.pop(place, None))
            has_directory = any(each is not None and each.is_directory for each in (old, new))
            if has_directory and (kinds not in WHOLE or not wanted or inside):
                stack.append((place, self._differences(old, new)))

    def _differences(self, old: Entry | None, new: Entry | None) -> Iterator[tuple[bytes, Entry | None, Entry | None]]:
        a = old.target if old is not None and old.is_directory else None
        b = new.target if new is not None and new.is_directory else None
        for name, left, right in prolly.diff(Kind.TREE, a, b, self._load):
            yield name, None if left is None else Entry._make(left), None if right is None else Entry._make(right)

    def expanded(self, changes: Iterable[Change]) -> Iterator[Change]:
        """With everything in the directories that are added or removed as a whole."""
        for change in changes:
            yield change
            if is_whole_directory(change):
                yield from self._below(change.path, change.old, change.new, inside=True)

    def _joined(self, changes: Iterator[Change], after: State) -> Iterator[Change]:
        """Also the paths of which only the group of hard links changed."""
        alone = sorted(self._links, key=walk_key)
        at = 0
        for change in changes:
            while at < len(alone) and walk_key(alone[at]) < walk_key(change.path):
                yield from self._links_only(alone[at], after)
                at += 1
            yield change
        for path in alone[at:]:
            yield from self._links_only(path, after)

    def _links_only(self, path: bytes, after: State) -> Iterator[Change]:
        links = self._links.get(path)
        entry = trees.find(self._reader, after.tree, path) if links is not None else None
        if entry is not None and entry.linked and links is not None and None not in links:
            del self._links[path]
            yield Change(path, frozenset({ChangeKind.LINKS}), entry, entry, links=links)

    def _wanted(self, path: bytes) -> bool:
        return not self._paths or any(path == each or not each or path.startswith(each + b"/") for each in self._paths)

    def _leads_on(self, path: bytes) -> bool:
        return any(each.startswith(path + b"/") for each in self._paths)


def is_whole_directory(change: Change) -> bool:
    entry = change.old if change.new is None else change.new if change.old is None else None
    return entry is not None and entry.is_directory


def kinds_of(old: Entry | None, new: Entry | None) -> frozenset[ChangeKind]:
    if old is None:
        return frozenset({ChangeKind.ADDED})
    if new is None:
        return frozenset({ChangeKind.REMOVED})
    if old.kind != new.kind:
        return frozenset({ChangeKind.TYPE})
    found = set(attribute_kinds(old, new))
    if not old.is_directory and (old.target, old.size, old.count) != (new.target, new.size, new.count):
        found.add(ChangeKind.MODIFIED)
    return frozenset(found)


def attribute_kinds(old: Entry, new: Entry) -> frozenset[ChangeKind]:
    kinds = {
        ChangeKind.MODE: old.mode != new.mode,
        ChangeKind.XATTR: _without(old, "O", "L") != _without(new, "O", "L"),
        ChangeKind.OWNER: old.owner != new.owner,
        ChangeKind.LINKS: old.linked != new.linked,
    }
    return frozenset(kind for kind, differs in kinds.items() if differs)


def _without(entry: Entry, *keys: str) -> dict[str, object]:
    return {key: value for key, value in (entry.ext or {}).items() if key not in keys}


# ---- renames


def _with_renames(comparison: _Comparison, changes: list[Change]) -> list[Change]:
    if not comparison.has_links:  # a directory that moves with groups in it is told path by path
        changes = _paired(changes, lambda entry: entry.target if entry.is_directory else None)
    changes = list(comparison.expanded(changes))
    return _paired(changes, lambda entry: entry.target if entry.is_file else None)


def _paired(changes: list[Change], content: Callable[[Entry], bytes | None]) -> list[Change]:
    """Replace a removed and an added path of equal content by a rename; each is used once."""
    gone = _Gone(changes, content)
    if not gone:
        return changes
    result: list[Change] = []
    for change in changes:
        source = None
        if change.old is None and change.new is not None and (key := content(change.new)) is not None:
            source = gone.take(key, change.path)
        result.append(change if source is None else _renamed(source, change))
    return [each for each in result if each.new is not None or each.path not in gone.taken]


def _renamed(source: Change, change: Change) -> Change:
    assert source.old is not None and change.new is not None
    kinds = attribute_kinds(source.old, change.new) | {ChangeKind.RENAMED}
    has_links = source.links is not None or change.links is not None
    links = (source.links or (None, None))[0], (change.links or (None, None))[1]
    return Change(change.path, kinds, source.old, change.new, source.path, links if has_links else None)


class _Gone:
    """Removed paths by their content: where something that appears may have come from.

    Of many with one content (thousands of equal files), those of the same name are tried first, and of those only the
    next few are compared.
    """

    def __init__(self, changes: Iterable[Change], content: Callable[[Entry], bytes | None]) -> None:
        self.taken: set[bytes] = set()
        self._by_name: dict[tuple[bytes, bytes], deque[Change]] = defaultdict(deque)
        self._all: dict[bytes, deque[Change]] = defaultdict(deque)
        for change in changes:
            if change.new is None and change.old is not None and (key := content(change.old)) is not None:
                self._by_name[key, _name(change.path)].append(change)
                self._all[key].append(change)

    def __bool__(self) -> bool:
        return bool(self._all)

    def take(self, key: bytes, path: bytes) -> Change | None:
        """The likeliest source of what is now at `path`: the same name first, then the longest common directory."""
        for waiting in (self._by_name.get((key, _name(path))), self._all.get(key)):
            while waiting and waiting[0].path in self.taken:
                waiting.popleft()
            if waiting:
                few = [each for each in islice(waiting, LIKELY) if each.path not in self.taken]
                found = max(few, key=lambda each: _likeness(each.path, path))
                self.taken.add(found.path)
                return found
        return None


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _likeness(one: bytes, other: bytes) -> int:
    """How many directories two paths have in common."""
    pairs = zip(one.split(b"/")[:-1], other.split(b"/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


# ---- applying


def apply_changes(core: State, changes: Iterable[Change], load: Loader, save: Saver) -> State:
    """The state that these changes lead to from `core`."""
    entries: dict[bytes, Entry | None] = {}
    links: dict[bytes, bytes | None] = {}
    for change in changes:
        if change.old_path is not None:
            entries.setdefault(change.old_path, None)
        if change.links is not None:
            if change.old_path is not None:
                links.setdefault(change.old_path, None)
            links[change.path] = change.links[1]
        entries[change.path] = _applied(change)
    return trees.edit(core, entries, links, load, save)


def _applied(change: Change) -> Entry | None:
    """A directory's own attributes only: what is in it has changes of its own, unless it was renamed as a whole."""
    new, old = change.new, change.old
    if new is None or not new.is_directory or change.old_path is not None:
        return new
    if old is not None and old.kind == EntryKind.DIRECTORY:
        return old._replace(mode=new.mode, ext=new.ext)
    return new._replace(target=None, size=0, count=0)
