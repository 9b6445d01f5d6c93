"""Layers, states, workspaces, actions: what they encode to, and what they refuse."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import cbor_values, ids

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store.ids import LayerId, LinksId, ObjectId, StateId, TreeId
from fusecas.store.kinds import Action, Layer, Plane, State, Workspace

programs = st.one_of(
    st.none(),
    st.binary().map(lambda text: {"shell": text}),
    st.lists(st.binary(), min_size=1).map(lambda words: {"argv": words}),
    st.text().map(lambda verb: {"verb": verb}),
)
planes = st.dictionaries(
    st.text(max_size=5), st.builds(Plane, st.text(max_size=4), st.none() | ids.map(ObjectId), st.integers(0, 9))
)
layers = st.builds(
    Layer,
    st.lists(ids.map(ObjectId).map(LayerId), max_size=3).map(tuple),
    ids.map(ObjectId).map(StateId),
    planes,
    programs,
    st.none() | st.binary(),
    st.none() | st.integers(0, 255),
    st.none() | st.integers(1, 64),
    st.none() | st.text(),
)
states = st.builds(
    State,
    st.none() | ids.map(ObjectId).map(TreeId),
    st.integers(0, 0o7777),
    st.none() | ids.map(ObjectId).map(LinksId),
    st.sampled_from([None, {"O": [5, None]}, {"X": [[b"user.a", b"1"]]}]),
)
workspaces = st.builds(
    Workspace,
    st.binary(min_size=16, max_size=16),
    st.none() | ids.map(ObjectId).map(LayerId),
    planes,
    st.none() | st.tuples(st.binary(min_size=16, max_size=16), ids, st.integers(0, 9)),
    st.sampled_from(["active", "archived"]),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4)),
    st.dictionaries(st.text(max_size=4), st.integers(0, 9)),
    st.none() | st.text(),
)


@given(st.one_of(layers, states, workspaces))
def test_what_is_encoded_decodes_to_the_same(node: Any) -> None:
    assert type(node).decode(node.encode()) == node


def test_an_action_comes_back() -> None:
    action = Action(
        "run", {"shell": b"make"}, b"", ((b"/", "state", b"x" * 32),),
        ((b"a.c", None), (b"b.c", True), (b"c.c", -5)), ((b"CC", b"d" * 32),), None, False,
        0o022, True, {"os": "linux"}, b"d" * 16,
    )  # fmt: skip
    assert Action.decode(action.encode()) == action


@given(cbor_values)
def test_other_values_are_refused(value: object) -> None:
    data = _native.cbor_encode(value)
    for kind in (State, Layer, Workspace, Action):
        with pytest.raises(InvalidObject):
            kind.decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"more": 1},
        {"state": None},
        {"state": b"x" * 32},
        {"exit": "0"},
        {"exit": True},
        {"program": {}},
        {"program": {"shell": "text"}},
        {"program": {"argv": []}},
        {"program": {"shell": b"a", "verb": "b"}},
        {"parents": [b"x" * 32]},
        {"planes": {"p": {}}},
    ],
)
def test_a_layer_with_a_field_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    fields = _native.cbor_decode(Layer((), StateId(ObjectId(b"s" * 32))).encode())
    with pytest.raises(InvalidObject):
        Layer.decode(_native.cbor_encode({**fields, **change}))


def test_a_weak_id_is_no_reference() -> None:
    workspace = Workspace(b"w" * 16, forked_from=(b"w" * 16, b"s" * 32, 3))
    assert _native.cbor_refs(workspace.encode()) == []
