"""refs, walk and closure over all kinds."""

import pytest

from fusecas._native import Ref, cbor_encode
from fusecas.errors import InvalidObject, MissingObject
from fusecas.store.ids import EMPTY_CONTENT, Kind, ObjectId
from fusecas.store.store import Store
from fusecas.store.walk import Numbers, closure, refs, walk
from tests.store.making import UNKNOWN, layer_over, node_over, noise, unreadable_node


def test_numbers_are_a_set() -> None:
    numbers = Numbers()
    assert [numbers.add(n) for n in (9, 0, 9, 100_000, 0)] == [True, True, False, True, False]
    assert [n for n in (0, 1, 8, 9, 10, 99_999, 100_000, 10**9) if n in numbers] == [0, 9, 100_000]


def test_a_walk_is_breadth_first_and_meets_each_object_once(store: Store) -> None:
    with store.write() as transaction:
        leaves = [transaction.put_content(b"%d" % i) for i in range(4)]
        low = [node_over(transaction, leaves[:2]), node_over(transaction, leaves[1:])]
        root = node_over(transaction, [low[0], leaves[3], low[1]])
    with store.read() as snapshot:
        assert refs(snapshot, root) == [low[0], leaves[3], low[1]]
        ids = [each for each, _ in walk(snapshot, [root])]
        assert ids == [root, low[0], leaves[3], low[1], leaves[0], leaves[1], leaves[2]]
        assert list(closure(snapshot, [low[0], root, low[0]])) == [
            low[0],
            root,
            *leaves[:2],
            leaves[3],
            low[1],
            leaves[2],
        ]


def test_a_walk_goes_through_every_kind(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, noise(300_000))
        child = layer_over(transaction, b"small", (layer,))
    with store.read() as snapshot:
        kinds = {kind for _, kind in walk(snapshot, [child])}
        assert kinds == {Kind.LAYER, Kind.STATE, Kind.TREE, Kind.RECIPE, Kind.CHUNK}


def test_the_empty_content_is_met_once(store: Store) -> None:
    with store.write() as transaction:
        root = node_over(transaction, [EMPTY_CONTENT])
    with store.read() as snapshot:
        assert list(closure(snapshot, [root, EMPTY_CONTENT])) == [root, EMPTY_CONTENT]


def test_a_kind_that_nobody_knows_is_walked_by_its_references(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        unknown = transaction.put_node(UNKNOWN, cbor_encode({"new": [Ref(content)]}))  # type: ignore[arg-type]
    with store.read() as snapshot:
        assert list(walk(snapshot, [unknown])) == [(unknown, UNKNOWN), (content, Kind.CHUNK)]


def test_an_unknown_kind_that_is_no_cbor_ends_the_walk(store: Store) -> None:
    unreadable = unreadable_node(store)
    with store.read() as snapshot, pytest.raises(InvalidObject):
        list(walk(snapshot, [unreadable]))


def test_what_is_missing_ends_the_walk(store: Store) -> None:
    with store.read() as snapshot, pytest.raises(MissingObject):
        list(walk(snapshot, [ObjectId(b"\7" * 32)]))
