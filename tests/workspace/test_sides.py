"""Times and numbers that were implied are written down as a plain walk over the entries would do it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store import prolly
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import Entry, EntryKind
from fusecas.workspace.sides import OLDEST, DirIds, changed_inodes, written_inodes, written_times

FIRST, FALLBACK = 1000, 77
names = st.binary(min_size=1, max_size=5).filter(lambda name: name not in (b".", b"..") and not {0, 47} & {*name})
moments = st.integers(OLDEST, (1 << 64) - 1)
directories = st.dictionaries(names, st.tuples(st.integers(0, 4), st.none() | moments), max_size=400)


class Nodes:
    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        assert all(each in self.kept for each in _native.cbor_refs(data)), "children come before parents"
        node = ObjectId(_native.node_id(kind, data))
        self.kept[node] = data
        return node

    def load(self, object_id: ObjectId, kind: Kind) -> bytes:
        assert isinstance(kind, Kind)
        return self.kept[object_id]


def entry_of(name: bytes, below: int) -> Entry:
    if below == 0:
        return Entry(name, EntryKind.FILE, 0o644)
    return Entry(name, EntryKind.DIRECTORY, 0o755, bytes(32), 0, below)


def stored(nodes: Nodes, items: dict[bytes, tuple[int, int | None]]) -> DirIds:
    """A directory with these names: how much is in each, and its time if it has one."""
    nodes.kept[bytes(32)] = b""
    tree = prolly.build(
        Kind.TREE, [tuple(entry_of(name, below)) for name, (below, _) in sorted(items.items())], nodes.save
    )
    timed = [(name, time, None) for name, (_, time) in sorted(items.items()) if time is not None]
    times = prolly.build(Kind.TIMES, [(b"", 5, None), *timed], nodes.save)
    return DirIds(tree, times, None, FIRST)


def plain_inodes(nodes: Nodes, items: dict[bytes, tuple[int, int | None]]) -> ObjectId | None:
    made, number = [], FIRST
    for name, (below, time) in sorted(items.items()):
        made.append((name, number, FALLBACK if time is None else time, None))
        number += 1 + below
    return prolly.build(Kind.INODES, made, nodes.save)


def check_same_as_plain(items: dict[bytes, tuple[int, int | None]]) -> None:
    ours, plain = Nodes(), Nodes()
    base = stored(ours, items)
    stored(plain, items)
    assert written_inodes(base, FALLBACK, ours.load, ours.save) == plain_inodes(plain, items)
    untimed = base._replace(times=None)
    entries = [(name, FALLBACK, None) for name in sorted(items)]
    assert written_times(untimed, FALLBACK, ours.load, ours.save) == prolly.build(Kind.TIMES, entries, plain.save)
    assert ours.kept == plain.kept


@given(directories)
def test_small_directories_are_numbered_in_the_order_of_a_walk(items: dict[bytes, tuple[int, int | None]]) -> None:
    check_same_as_plain(items)


@pytest.mark.parametrize("count", [1, 256, 1000, 20_000])
def test_large_directories_are_numbered_in_the_order_of_a_walk(count: int) -> None:
    rng = random.Random(count)
    check_same_as_plain(
        {b"name%08x" % rng.randrange(1 << 32): (rng.randrange(3), rng.choice([None, 9])) for _ in range(count)}
    )


@given(directories, st.dictionaries(names, st.none() | st.integers(1, 99), max_size=30), st.randoms())
def test_numbers_are_written_down_with_what_has_changed_since(
    items: dict[bytes, tuple[int, int | None]], others: dict[bytes, int | None], rng: random.Random
) -> None:
    some = {name: rng.choice([None, 7]) for name in rng.sample(sorted(items), len(items) // 4)}
    changes = {name: None if to is None else (name, to, 3, None) for name, to in {**some, **others}.items()}
    ours, plain = Nodes(), Nodes()
    base = stored(ours, items)
    stored(plain, items)
    expected = prolly.edit(Kind.INODES, plain_inodes(plain, items), changes, plain.load, plain.save)
    assert changed_inodes(base, FALLBACK, changes, ours.load, ours.save) == expected
    assert ours.kept.items() <= plain.kept.items()
    written = base._replace(inodes=plain_inodes(ours, items))
    if written.inodes is not None:
        assert changed_inodes(written, FALLBACK, changes, ours.load, ours.save) == expected


def test_what_is_written_down_already_stays() -> None:
    nodes = Nodes()
    base = DirIds(None, b"t" * 32, b"i" * 32, FIRST)
    assert written_times(base, FALLBACK, nodes.load, nodes.save) == base.times
    assert written_inodes(base, FALLBACK, nodes.load, nodes.save) == base.inodes
    assert nodes.kept == {}


def test_a_tree_whose_parts_are_not_what_it_says_is_refused() -> None:
    nodes = Nodes()
    base = stored(nodes, {b"%05d" % number: (0, 1) for number in range(1000)})
    assert base.tree is not None and base.times is not None
    for kind, root, side in ((Kind.TREE, base.tree, "tree"), (Kind.TIMES, base.times, "times")):
        level, entries, _, _ = _native.decode_node(kind, nodes.kept[root])
        entries[0], entries[1] = (entries[0][0], *entries[1][1:]), (entries[1][0], *entries[0][1:])
        [(other, data, *_)] = _native.encode_level(kind, level, entries)
        nodes.kept[other] = data
        with pytest.raises(InvalidObject):
            written_inodes(base._replace(**{side: other}), FALLBACK, nodes.load, nodes.save)
