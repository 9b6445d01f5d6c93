"""Prolly trees depend on what they hold alone; changes cost what changes, comparing what differs."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store import prolly
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import Entry

keys = st.binary(min_size=1, max_size=6)
sequences = st.dictionaries(keys, st.integers(0, 5), max_size=300)


class Nodes:
    """Where nodes are kept; counts what is read."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.reads = 0

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        node = ObjectId(_native.node_id(kind, data))
        self.kept[node] = data
        return node

    def load(self, object_id: ObjectId, kind: Kind) -> bytes:
        self.reads += 1
        return self.kept[object_id]


def build(nodes: Nodes, items: dict[bytes, Any]) -> ObjectId | None:
    return prolly.build(Kind.MAP, sorted(items.items()), nodes.save)


def many(count: int, seed: int = 0) -> dict[bytes, int]:
    rng = random.Random(seed)
    return {b"%08x" % rng.randrange(2**32): rng.randrange(100) for _ in range(count)}


@given(sequences, st.lists(st.dictionaries(keys, st.none() | st.integers(0, 5), min_size=1, max_size=40), max_size=4))
def test_a_tree_does_not_depend_on_its_history(items: dict[bytes, int], edits: list[dict[bytes, int | None]]) -> None:
    nodes = Nodes()
    root = build(nodes, items)
    now: dict[bytes, int] = dict(items)
    for edit in edits:
        changes = {key: None if value is None else (key, value) for key, value in edit.items()}
        root = prolly.edit(Kind.MAP, root, changes, nodes.load, nodes.save)
        now = {key: value for key, value in {**now, **edit}.items() if value is not None}
        assert root == build(nodes, now)
        prolly.check(Kind.MAP, root, nodes.load)


@pytest.mark.parametrize("seed", range(6))
def test_large_trees_grow_and_shrink_without_a_trace(seed: int) -> None:
    nodes, rng = Nodes(), random.Random(seed)
    now: dict[bytes, int] = many(20_000, seed)
    root = build(nodes, now)
    for share in (0.3, 0.01, 0.9, 0.5, 1.0):
        gone = rng.sample(sorted(now), int(len(now) * share))
        fresh = many(rng.choice([0, 3, 2000]), rng.randrange(10**6))
        changes = {key: None for key in gone} | {key: (key, value) for key, value in fresh.items()}
        root = prolly.edit(Kind.MAP, root, changes, nodes.load, nodes.save)
        now = {key: value for key, value in now.items() if key not in set(gone)} | fresh
        assert root == build(nodes, now)


@given(sequences, sequences)
def test_a_difference_applied_to_one_gives_the_other(a: dict[bytes, int], b: dict[bytes, int]) -> None:
    nodes = Nodes()
    left, right = build(nodes, a), build(nodes, b)
    found = dict(a)
    for key, old, new in prolly.diff(Kind.MAP, left, right, nodes.load):
        assert (old and old[1]) == a.get(key)
        if new is None:
            del found[key]
        else:
            found[key] = new[1]
    assert found == b


def test_comparing_large_trees_reads_what_differs_only() -> None:
    nodes, items = Nodes(), many(100_000)
    root = build(nodes, items)
    key = sorted(items)[50_000]
    other = prolly.edit(Kind.MAP, root, {key: (key, 1000)}, nodes.load, nodes.save)
    nodes.reads = 0
    assert [each[0] for each in prolly.diff(Kind.MAP, root, other, nodes.load)] == [key]
    assert nodes.reads <= 8


def test_changing_one_key_reads_and_writes_a_path() -> None:
    nodes, items = Nodes(), many(100_000)
    root = build(nodes, items)
    key = sorted(items)[70_000]
    nodes.reads, before = 0, len(nodes.kept)
    prolly.edit(Kind.MAP, root, {key: (key, 1000)}, nodes.load, nodes.save)
    assert nodes.reads <= 10 and len(nodes.kept) - before <= 5


def test_finding_and_listing_agree_with_a_dictionary() -> None:
    nodes, items = Nodes(), many(5_000)
    root = build(nodes, items)
    assert dict(prolly.entries(Kind.MAP, root, nodes.load)) == items
    start = sorted(items)[2_500]
    assert [key for key, _ in prolly.entries(Kind.MAP, root, nodes.load, start)] == sorted(items)[2_500:]
    for key in sorted(items)[::500]:
        assert prolly.find(Kind.MAP, root, key, nodes.load) == (key, items[key])
    assert prolly.find(Kind.MAP, root, b"zzz", nodes.load) is None
    assert prolly.totals(Kind.MAP, root, nodes.load) == (len(items), 0)


def uncut_names(count: int) -> list[bytes]:
    """Names after none of which the rule ends a node."""
    found, at = [], 0
    while len(found) < count:
        name = b"name%08d" % at
        at += 1
        if not _native.is_cut(0, name):
            found.append(name)
    return found


def test_a_node_ends_after_256_entries_if_the_rule_never_does() -> None:
    nodes, names = Nodes(), uncut_names(600)
    root = build(nodes, dict.fromkeys(names, 0))
    sizes = [len(_native.decode_node(Kind.MAP, data)[1]) for data in nodes.kept.values()]
    assert sorted(sizes)[-3:] == [88, 256, 256] and root is not None
    prolly.check(Kind.MAP, root, nodes.load)
    changes: dict[bytes, tuple[Any, ...] | None] = {names[3]: None, names[300]: None}
    again = prolly.edit(Kind.MAP, root, changes, nodes.load, nodes.save)
    assert again == build(nodes, dict.fromkeys(sorted(set(names) - set(changes)), 0))


def inner(nodes: Nodes, parts: list[list[bytes]]) -> ObjectId:
    """A root of one level above these leaf nodes, wherever they were cut."""
    children = []
    for part in parts:
        data = _native.cbor_encode([0, [[key, 0] for key in part]])
        children.append([part[-1], _native.Ref(nodes.save(Kind.MAP, data)), len(part)])
    return nodes.save(Kind.MAP, _native.cbor_encode([1, children]))


def test_any_other_split_is_refused() -> None:
    nodes, names = Nodes(), uncut_names(100)
    prolly.check(Kind.MAP, build(nodes, dict.fromkeys(names, 0)), nodes.load)
    with pytest.raises(InvalidObject):
        prolly.check(Kind.MAP, inner(nodes, [names[:50], names[50:]]), nodes.load)
    with pytest.raises(InvalidObject):
        prolly.check(Kind.MAP, inner(nodes, [names]), nodes.load)
    items = many(1_000)
    joined = _native.cbor_encode([0, [[key, 0] for key in sorted(items)[:250]]])
    with pytest.raises(InvalidObject):
        prolly.check(Kind.MAP, nodes.save(Kind.MAP, joined), nodes.load)


def test_wrong_counts_are_refused() -> None:
    nodes = Nodes()
    root = build(nodes, many(1_000))
    assert root is not None
    level, entries, _, _ = _native.decode_node(Kind.MAP, nodes.kept[root])
    key, child, n, _ = entries[0]
    lies = [[key, _native.Ref(child), n + 1], *([k, _native.Ref(c), m] for k, c, m, _ in entries[1:])]
    with pytest.raises(InvalidObject):
        prolly.check(Kind.MAP, nodes.save(Kind.MAP, _native.cbor_encode([level, lies])), nodes.load)


def test_a_directory_counts_all_that_is_below_it() -> None:
    nodes = Nodes()
    file = Entry(b"f", 1, 0o644, b"x" * 32, 100)
    below = prolly.build(Kind.TREE, [tuple(file), tuple(file._replace(name=b"g"))], nodes.save)
    directory = Entry(b"d", 2, 0o755, below, 200, 2)
    root = prolly.build(Kind.TREE, [tuple(directory), tuple(file)], nodes.save)
    assert prolly.totals(Kind.TREE, root, nodes.load) == (4, 300)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"", 1, 0o644),
        Entry(b"a/b", 1, 0o644),
        Entry(b"..", 1, 0o644),
        Entry(b"n" * 256, 1, 0o644),
        Entry(b"a", 0, 0o644),
        Entry(b"a", 8, 0o644),
        Entry(b"a", 1, 0o10000),
        Entry(b"a", 1, 0o644, b"x" * 32, 0),
        Entry(b"a", 1, 0o644, None, 5),
        Entry(b"a", 1, 0o644, b"x" * 31, 5),
        Entry(b"a", 2, 0o755, None, 0, 3),
        Entry(b"a", 3, 0o777, b""),
        Entry(b"a", 3, 0o644, b"x"),
        Entry(b"a", 1, 0o644, None, 0, 0, {}),
        Entry(b"a", 1, 0o644, None, 0, 0, {"Unknown": 1}),
        Entry(b"a", 1, 0o644, None, 0, 0, {"O": [None, None]}),
        Entry(b"a", 1, 0o644, None, 0, 0, {"X": [[b"user.a", b"x" * 257]]}),
        Entry(b"a", 1, 0o644, None, 0, 0, {"X": [[b"user.b", b""], [b"user.a", b""]]}),
    ],
)
def test_entries_that_no_file_system_or_rule_allows_are_refused(entry: Entry) -> None:
    with pytest.raises(_native.FormatError):
        _native.encode_level(Kind.TREE, 0, [tuple(entry)])


def test_extensions_that_are_not_critical_are_kept() -> None:
    entry = tuple(Entry(b"a", 1, 0o644, None, 0, 0, {"later": [1, 2]}))
    [(_, data, *_)] = _native.encode_level(Kind.TREE, 0, [entry])
    assert _native.decode_node(Kind.TREE, data) == (0, [entry], 1, 0)


@given(st.sampled_from([1, 3, 4, 5, 6, 7]), st.binary(max_size=100))
def test_random_bytes_are_no_node(kind: int, data: bytes) -> None:
    try:
        level, entries, _, _ = _native.decode_node(kind, data)
    except _native.FormatError:
        return
    assert len(_native.encode_level(kind, level, entries)) == 1


# ---- trees that somebody else made


def hostile(nodes: Nodes, change: Callable[[list[Any]], object]) -> ObjectId:
    """A root whose inner entries were changed."""
    root = build(nodes, many(1_000))
    assert root is not None
    level, entries, _, _ = _native.decode_node(Kind.MAP, nodes.kept[root])
    assert level == 1
    change(entries)
    made = _native.encode_level(Kind.MAP, 1, entries)
    return ObjectId(nodes.save(Kind.MAP, made[0][1]))


def swapped(entries: list[Any]) -> None:
    entries[0] = (entries[0][0], entries[1][1], *entries[0][2:])


def with_other_last_key(entries: list[Any]) -> None:
    entries[0] = (entries[0][0] + b"0", *entries[0][1:])


@pytest.mark.parametrize("change", [swapped, with_other_last_key])
def test_who_walks_a_tree_refuses_children_that_are_not_what_their_parent_says(change: Callable[[Any], None]) -> None:
    nodes = Nodes()
    honest = build(nodes, many(1_000))
    root = hostile(nodes, change)
    first = min(many(1_000))
    walks: list[Callable[[], object]] = [
        lambda: list(prolly.entries(Kind.MAP, root, nodes.load)),
        lambda: prolly.find(Kind.MAP, root, first, nodes.load),
        lambda: list(prolly.diff(Kind.MAP, root, honest, nodes.load)),
        lambda: prolly.edit(Kind.MAP, root, {first: None}, nodes.load, nodes.save),
    ]
    for walk in walks:
        with pytest.raises(InvalidObject):
            walk()


def test_a_run_without_cuts_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key for key in (b"%08d" % at for at in range(20_000)) if not _native.is_cut(0, key)][:10_000]
    nodes = Nodes()
    root = prolly.build(Kind.MAP, ((key, 1) for key in keys), nodes.save)
    looked: list[int] = []
    real = _native.open_tail

    def counted(level: int, buffer: list[Any]) -> int:
        looked.append(len(buffer))
        return real(level, buffer)

    monkeypatch.setattr(_native, "open_tail", counted)
    early = b"-"
    assert not _native.is_cut(0, early)
    after = prolly.edit(Kind.MAP, root, {early: (early, 2)}, nodes.load, nodes.save)
    assert after == prolly.build(Kind.MAP, ((key, 2 if key == early else 1) for key in [early, *keys]), nodes.save)
    assert sum(looked) < 4 * len(keys)


def test_a_tree_compared_with_nothing_is_read_node_by_node() -> None:
    nodes = Nodes()
    root = build(nodes, many(5_000))
    nodes.reads = 0
    assert next(prolly.diff(Kind.MAP, None, root, nodes.load))[1] is None
    assert nodes.reads <= 3
