"""Prolly trees: sorted sequences in nodes whose borders depend on the keys alone (docs/format.md).

Equal sequences have equal roots, however they came about; a change rewrites the nodes on its way to the root; a
comparison reads only what differs. The codec and the split rule are native; the walking is here.

A `Loader` gives the bytes of a node, a `Saver` takes a new one (children before parents).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from itertools import chain
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store.ids import Kind, ObjectId

Loader = Callable[[ObjectId, Kind], bytes]
Saver = Callable[[Kind, bytes], ObjectId]
LeafEntry = tuple[Any, ...]

BUILD_STEP = 8192
MOST_ENTRIES = 256
KEY, CHILD = 0, 1


class Node(NamedTuple):
    """`n`, `size`: what it counts for above."""

    level: int
    entries: list[LeafEntry]
    n: int
    size: int

    @property
    def last(self) -> bytes:
        key: bytes = self.entries[-1][KEY]
        return key


class Made(NamedTuple):
    """A node that has been encoded, with the inner entry that will refer to it."""

    data: bytes
    inner: LeafEntry


def load_node(kind: Kind, object_id: bytes, load: Loader) -> Node:
    try:
        return Node(*_native.decode_node(kind, load(ObjectId(object_id), kind)))
    except _native.FormatError as error:
        raise InvalidObject(f"{kind.name.lower()} {bytes(object_id).hex()} is malformed: {error}") from error


def load_child(kind: Kind, node: Node, at: int, load: Loader) -> Node:
    """The node below an inner node's entry; InvalidObject unless it is what the entry says of it."""
    child = load_node(kind, node.entries[at][CHILD], load)
    check_child(node, at, child)
    return child


def _encode(kind: Kind, level: int, entries: list[LeafEntry]) -> list[Made]:
    return [
        Made(data, (last, node, n, size)) for node, data, last, n, size in _native.encode_level(kind, level, entries)
    ]


# ---- building


class Builder:
    """Builds from entries in ascending order, in memory bounded by the height of the tree."""

    def __init__(self, kind: Kind, save: Saver) -> None:
        self._kind = kind
        self._save = save
        self._waiting: list[list[LeafEntry]] = []
        self._nodes: list[int] = []

    def add(self, entries: Iterable[LeafEntry], level: int = 0) -> None:
        if level == len(self._waiting):
            self._waiting.append([])
            self._nodes.append(0)
        waiting = self._waiting[level]
        for entry in entries:
            waiting.append(entry)
            if len(waiting) >= BUILD_STEP:
                self._cut(level, finished=False)
                waiting = self._waiting[level]

    def _cut(self, level: int, finished: bool) -> None:
        """Save the nodes that are whole: all but the last, which may still grow."""
        made = _encode(self._kind, level, self._waiting[level])
        if not finished:
            open_entries = len(_native.decode_node(self._kind, made.pop().data)[1])
            self._waiting[level] = self._waiting[level][-open_entries:]
        else:
            self._waiting[level] = []
        self._nodes[level] += len(made)
        for node in made:
            self._save(self._kind, node.data)
        self.add((node.inner for node in made), level + 1)

    def finish(self) -> ObjectId | None:
        """The root, or None if there was nothing."""
        if not self._waiting or not self._waiting[0]:
            return None
        level = 0
        while True:
            if self._nodes[level] == 0:
                made = _encode(self._kind, level, self._waiting[level])
                if len(made) == 1:
                    return self._save(self._kind, made[0].data)
            self._cut(level, finished=True)
            level += 1


def build(kind: Kind, entries: Iterable[LeafEntry], save: Saver) -> ObjectId | None:
    """The root of these entries, which come in ascending order; None if there are none."""
    builder = Builder(kind, save)
    builder.add(entries)
    return builder.finish()


# ---- reading


def find(kind: Kind, root: bytes | None, key: bytes, load: Loader) -> LeafEntry | None:
    leaf = None if root is None else leaf_of(kind, root, key, load)
    return None if leaf is None else find_in(leaf, key)


def leaf_of(kind: Kind, root: bytes, key: bytes, load: Loader) -> Node | None:
    """The leaf that has a key if any has it; None if all keys are below it."""
    node = load_node(kind, root, load)
    while node.level:
        at = bisect_left(node.entries, key, key=_key)
        if at == len(node.entries):
            return None
        node = load_child(kind, node, at, load)
    return node


def find_in(leaf: Node, key: bytes) -> LeafEntry | None:
    at = bisect_left(leaf.entries, key, key=_key)
    return leaf.entries[at] if at < len(leaf.entries) and leaf.entries[at][KEY] == key else None


def entries(kind: Kind, root: bytes | None, load: Loader, start: bytes = b"") -> Iterator[LeafEntry]:
    """Leaf entries in order, from the first that is not below `start`."""
    if root is None:
        return
    yield from chain.from_iterable(_leaves_below(kind, load_node(kind, root, load), load, start))


def _leaves_below(kind: Kind, node: Node, load: Loader, start: bytes) -> Iterator[list[LeafEntry]]:
    """What each leaf has from `start` on."""
    first = bisect_left(node.entries, start, key=_key)
    if node.level == 0:
        yield node.entries[first:]
        return
    for at in range(first, len(node.entries)):
        yield from _leaves_below(kind, load_child(kind, node, at, load), load, start)


def totals(kind: Kind, root: bytes | None, load: Loader) -> tuple[int, int]:
    """(entries, bytes) below a root; reads the root only."""
    if root is None:
        return 0, 0
    node = load_node(kind, root, load)
    return node.n, node.size


# ---- changing


class _Level:
    """The nodes of one level of a tree, found through the levels above; remembers what it has read."""

    def __init__(self, kind: Kind, root: bytes, load: Loader) -> None:
        self._kind = kind
        self._load = load
        self.root = self.load(root)
        self.height = self.root.level
        self._children: dict[bytes, Node] = {}

    def load(self, object_id: bytes) -> Node:
        return load_node(self._kind, object_id, self._load)

    def child(self, node: Node, at: int) -> Node:
        child_id: bytes = node.entries[at][CHILD]
        found = self._children.get(child_id)
        if found is None:
            found = self._children[child_id] = load_child(self._kind, node, at, self._load)
        return found

    def holding(self, level: int, key: bytes) -> Node:
        """The node of that level in which `key` is or would be."""
        node = self.root
        while node.level > level:
            node = self.child(node, min(bisect_left(node.entries, key, key=_key), len(node.entries) - 1))
        return node

    def after(self, level: int, key: bytes) -> Node | None:
        """The first node of that level whose keys all lie beyond `key`, which ends a node."""
        node = self.root
        while node.level > level:
            at = bisect_right(node.entries, key, key=_key)
            if at == len(node.entries):
                return None
            node = self.child(node, at)
        return node if node.entries[0][KEY] > key else None


def edit(
    kind: Kind, root: bytes | None, changes: Mapping[bytes, LeafEntry | None], load: Loader, save: Saver
) -> ObjectId | None:
    """The root after these changes: a key's new entry, or None to delete it. Equal to building the result anew.

    Reads and writes the nodes on the way from each change to the root, and now and then a neighbour.
    """
    if root is None:
        return build(kind, (entry for _, entry in sorted(changes.items()) if entry is not None), save)
    levels = _Level(kind, root, load)
    made_by_level: list[list[Made]] = []
    pending: dict[bytes, LeafEntry | None] = dict(changes)
    for level in range(levels.height + 1):
        made, pending = _edit_level(kind, levels, level, pending)
        made_by_level.append(made)
        if not pending:
            return ObjectId(root)
    return _crown(kind, levels, made_by_level, save)


def _edit_level(
    kind: Kind, levels: _Level, level: int, changes: Mapping[bytes, LeafEntry | None]
) -> tuple[list[Made], dict[bytes, LeafEntry | None]]:
    """(new nodes of this level, what changes for the level above)."""
    keys = sorted(changes)
    made: list[Made] = []
    above: dict[bytes, LeafEntry | None] = {}
    at = 0
    while at < len(keys):
        node: Node | None = levels.holding(level, keys[at])
        buffer: list[LeafEntry] = []
        while node is not None:
            above.setdefault(node.last, None)
            following = levels.after(level, node.last)
            stop = len(keys) if following is None else bisect_right(keys, node.last, at)
            buffer += _merged(node.entries, [(key, changes[key]) for key in keys[at:stop]])
            at = stop
            if following is None:
                break
            tail = _native.open_tail(level, buffer)
            if tail == 0:
                break
            # The last node may have lost its border: whole nodes are settled, the rest runs on.
            if tail < len(buffer):
                made += _encode(kind, level, buffer[:-tail])
                buffer = buffer[-tail:]
            node = following
        if buffer:
            made += _encode(kind, level, buffer)
    above.update((each.inner[KEY], each.inner) for each in made)
    return made, {key: inner for key, inner in above.items() if not _is_same(levels, level, key, inner)}


def _merged(old: list[LeafEntry], changes: list[tuple[bytes, LeafEntry | None]]) -> list[LeafEntry]:
    if not changes:
        return old
    merged = {entry[KEY]: entry for entry in old}
    for key, entry in changes:
        if entry is None:
            merged.pop(key, None)
        else:
            merged[key] = entry
    return [merged[key] for key in sorted(merged)]


def _is_same(levels: _Level, level: int, key: bytes, inner: LeafEntry | None) -> bool:
    """Whether the level above already says just this."""
    if inner is None or level == levels.height:
        return False
    parent = levels.holding(level + 1, key)
    at = bisect_left(parent.entries, key, key=_key)
    return at < len(parent.entries) and parent.entries[at] == inner


def _crown(kind: Kind, levels: _Level, made_by_level: list[list[Made]], save: Saver) -> ObjectId | None:
    """Save what is new and find the root: the lowest level that has one node."""
    top = made_by_level[-1]
    if not top:
        return None
    height = len(made_by_level) - 1
    if len(top) > 1:
        for made in made_by_level:
            for node in made:
                save(kind, node.data)
        return build_above(kind, height + 1, [node.inner for node in top], save)
    fresh = {node.inner[CHILD]: node.data for made in made_by_level for node in made}
    root = top[0].inner[CHILD]
    while height > 0:
        data = fresh.get(root)
        inner = levels.load(root).entries if data is None else _native.decode_node(kind, data)[1]
        if len(inner) > 1:
            break
        height, root = height - 1, inner[0][CHILD]
    for made in made_by_level[: height + 1]:
        for node in made:
            save(kind, node.data)
    return ObjectId(root)


def build_above(kind: Kind, level: int, inner: list[LeafEntry], save: Saver) -> ObjectId:
    while True:
        made = _encode(kind, level, inner)
        for node in made:
            save(kind, node.data)
        if len(made) == 1:
            return ObjectId(made[0].inner[CHILD])
        level, inner = level + 1, [node.inner for node in made]


# ---- comparing

Difference = tuple[bytes, LeafEntry | None, LeafEntry | None]


def diff(kind: Kind, a: bytes | None, b: bytes | None, load: Loader) -> Iterator[Difference]:
    """(key, entry in a, entry in b) where they differ, in order. Nodes that both have are not read."""
    if a == b:
        return
    if a is None or b is None:  # a whole tree, entry by entry: it may be large
        for entry in entries(kind, b if a is None else a, load):
            yield (entry[KEY], None, entry) if a is None else (entry[KEY], entry, None)
        return
    left, right = _Side(kind, load, a), _Side(kind, load, b)
    while left.level > right.level:
        left = left.lower()
    while right.level > left.level:
        right = right.lower()
    yield from _diff_sides(left, right)


class _Side:
    """A run of one level of a tree, as if it were one node's; each entry knows the node that it stands in."""

    def __init__(self, kind: Kind, load: Loader, root: bytes) -> None:
        node = load_node(kind, root, load)
        self._kind, self._load = kind, load
        self.level = node.level
        self.places = [(node, at) for at in range(len(node.entries))]

    def part(self, places: list[tuple[Node, int]]) -> "_Side":
        side = copy(self)
        side.places = places
        return side

    def inner_entries(self) -> set[LeafEntry]:
        return {node.entries[at] for node, at in self.places}

    def _children(self) -> Iterator[Node]:
        for node, at in self.places:
            yield load_child(self._kind, node, at, self._load)

    def lower(self) -> "_Side":
        side = self.part([(child, at) for child in self._children() for at in range(len(child.entries))])
        side.level -= 1
        return side

    def leaves(self) -> Iterator[LeafEntry]:
        if self.level == 0:
            return (node.entries[at] for node, at in self.places)
        return chain.from_iterable(child.entries for child in self._children())


def _diff_sides(a: _Side, b: _Side) -> Iterator[Difference]:
    if a.level == 0:
        yield from _diff_entries(a.leaves(), b.leaves())
        return
    for left, right in _unequal_runs(a, b):
        if a.level == 1:
            yield from _diff_entries(left.leaves(), right.leaves())
        else:
            yield from _diff_sides(left.lower(), right.lower())


def _unequal_runs(a: _Side, b: _Side) -> Iterator[tuple[_Side, _Side]]:
    """What lies between the children that both have."""
    common = a.inner_entries() & b.inner_entries()
    i = j = 0
    while i < len(a.places) or j < len(b.places):
        start, other_start = i, j
        i, j = _to_common(a, i, common), _to_common(b, j, common)
        if i > start or j > other_start:
            yield a.part(a.places[start:i]), b.part(b.places[other_start:j])
        i, j = i + 1, j + 1


def _to_common(side: _Side, at: int, common: set[LeafEntry]) -> int:
    while at < len(side.places):
        node, index = side.places[at]
        if node.entries[index] in common:
            break
        at += 1
    return at


def _diff_entries(a: Iterator[LeafEntry], b: Iterator[LeafEntry]) -> Iterator[Difference]:
    left, right = next(a, None), next(b, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[KEY] < right[KEY]):
            assert left is not None
            yield left[KEY], left, None
            left = next(a, None)
        elif left is None or right[KEY] < left[KEY]:
            yield right[KEY], None, right
            right = next(b, None)
        else:
            if left != right:
                yield left[KEY], left, right
            left, right = next(a, None), next(b, None)


# ---- checking


def check(kind: Kind, root: bytes | None, load: Loader) -> None:
    """Read a whole tree and raise InvalidObject unless it is just what `build` would give."""
    if root is None:
        return
    node = load_node(kind, root, load)
    if node.level > 0 and len(node.entries) < 2:
        raise InvalidObject(f"the root {bytes(root).hex()} has one child: the child is the root")
    _check_below(kind, node, load, last_of_level=True)


def _check_below(kind: Kind, node: Node, load: Loader, last_of_level: bool) -> None:
    if node.level == 0:
        return
    for at in range(len(node.entries)):
        child = load_child(kind, node, at, load)
        is_last = last_of_level and at == len(node.entries) - 1
        if not is_last:
            check_end(child)
        _check_below(kind, child, load, is_last)


def check_child(node: Node, at: int, child: Node) -> None:
    """Raise InvalidObject unless a child is what its inner entry says, and lies between those beside it."""
    last, child_id, *counts = node.entries[at]
    name = f"node {bytes(child_id).hex()}"
    if child.level != node.level - 1:
        raise InvalidObject(f"{name} is of level {child.level} below one of level {node.level}")
    if child.last != last or counts != [child.n, child.size][: len(counts)]:
        raise InvalidObject(f"{name} is not what the entry above says of it")
    if at > 0 and child.entries[0][KEY] <= node.entries[at - 1][KEY]:
        raise InvalidObject(f"{name} overlaps the one before it")
    if at < len(node.entries) - 1:
        check_end(child)


def check_end(node: Node) -> None:
    """Raise InvalidObject unless a node that is not the last of its level ends where the split rule ends it."""
    if len(node.entries) < MOST_ENTRIES and not _native.is_cut(node.level, node.last):
        raise InvalidObject(f"a node ends at {node.last!r}, where the rule would not have ended it")


def _key(entry: LeafEntry) -> bytes:
    key: bytes = entry[KEY]
    return key
