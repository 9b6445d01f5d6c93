"""Heads: where each workspace stands. A head, its live row and the operation that says so move in one transaction."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.errors import AlreadyExists, Conflict, Damaged, RefNotFound
from fusecas.store.ids import Kind, LayerId, ObjectId, StateId, TimesId, WorkspaceNodeId
from fusecas.store.kinds import Layer, State, Workspace
from fusecas.store.names import check_name
from fusecas.store.rows import Baseline, Cursor, Live, Move, Operation, Range
from fusecas.store.snapshot import Snapshot
from fusecas.store.transaction import Transaction

DEFAULT = "main"
NAMESPACE = "heads/"
EMPTY_STATE = State(tree=None, mode=0o755, links=None)


class Head(NamedTuple):
    """A workspace by name, as one transaction sees it."""

    name: str
    id: WorkspaceNodeId
    workspace: Workspace
    live: Live

    @property
    def ref(self) -> str:
        return NAMESPACE + self.name


def read_head(reader: Snapshot, name: str = DEFAULT) -> Head:
    found = reader.get_ref(NAMESPACE + check_name(name))
    if found is None:
        known = names(reader)
        raise RefNotFound(f"no workspace {name}", details={"name": name, "known": known})
    workspace = Workspace.decode(reader.read_node(found.target, Kind.WORKSPACE))
    live = reader.get_live(workspace.id)
    if live is None:
        raise Damaged(f"workspace {name} has no live row", hint="fusecas verify")
    return Head(name, WorkspaceNodeId(found.target), workspace, live)


def create_head(
    transaction: Transaction,
    name: str,
    workspace_id: bytes,
    owner: tuple[int, int],
    argv: Sequence[bytes],
    actor: str,
    verb: str = "init",
) -> Head:
    """A new workspace, empty, without a layer. AlreadyExists if the name is taken."""
    _refuse_taken(transaction, name)
    state = StateId(transaction.put_node(Kind.STATE, EMPTY_STATE.encode()))
    workspace = Workspace(id=workspace_id)
    node = WorkspaceNodeId(transaction.put_node(Kind.WORKSPACE, workspace.encode()))
    live = Live(layer=None, state=state, times=None, baseline=Baseline(None, state, time.time_ns()), owner=owner)
    move = Move(NAMESPACE + check_name(name), None, node, None, live.pair)
    transaction.operate(verb, argv, actor, [move])
    transaction.set_live(workspace_id, live)
    return Head(name, node, workspace, live)


def fork_head(
    transaction: Transaction,
    source: Head,
    name: str,
    workspace_id: bytes,
    ranges: Sequence[Range],
    argv: Sequence[bytes],
    actor: str,
) -> None:
    """A new workspace that stands where another one does. `ranges`: what of the source's journal belongs to it, too;
    what that needs is taken along."""
    _refuse_taken(transaction, name)
    live = source.live._replace(ranges=tuple(ranges), boot=None, needs=source.live.needs if ranges else ())
    moved = transaction.get_ref(source.ref)
    origin = (source.workspace.id, live.state, 0 if moved is None else moved.operation)
    workspace = source.workspace._replace(id=workspace_id, forked_from=origin, pin=None)
    node = WorkspaceNodeId(transaction.put_node(Kind.WORKSPACE, workspace.encode()))
    transaction.operate("fork", argv, actor, [Move(NAMESPACE + name, None, node, None, live.pair)])
    transaction.set_live(workspace_id, live)


def settle_fork(transaction: Transaction, fork: Head, live: Live) -> None:
    """What a fork shared of its source's journal is a state now: that is where its operation has brought it."""
    transaction.set_live(fork.workspace.id, live)
    for operation in transaction.ref_operations_back(fork.ref):
        move = operation.move_of(fork.ref)
        if move is not None and move.old is None:
            transaction.complete(operation, fork.ref, live.pair)
            return


def names(reader: Snapshot) -> list[str]:
    return [ref.removeprefix(NAMESPACE) for ref, _ in reader.list_refs(NAMESPACE)]


def all_heads(reader: Snapshot) -> Iterator[Head]:
    for name in names(reader):
        yield read_head(reader, name)


def remove_head(transaction: Transaction, head: Head, argv: Sequence[bytes], actor: str, verb: str = "ws rm") -> None:
    """The operation keeps where it stood."""
    transaction.operate(verb, argv, actor, [Move(head.ref, head.id, None, head.live.pair, None)])
    transaction.set_live(head.workspace.id, None)


def _refuse_taken(transaction: Transaction, name: str) -> None:
    if transaction.get_ref(NAMESPACE + check_name(name)) is not None:
        raise AlreadyExists(f"workspace {name} is there already", hint="fusecas ws list")


def advance(
    transaction: Transaction,
    head: Head,
    live: Live,
    verb: str,
    argv: Sequence[bytes],
    actor: str,
    cursor: Cursor | None = None,
) -> Operation:
    """Move a head to where its new live row stands. Conflict if it has moved since it was read.

    What `head.live` says is where the operation says that the workspace came from.
    """
    now = transaction.get_live(head.workspace.id)
    if now is None or now.serial != head.live.serial:
        raise Conflict(f"workspace {head.name} has changed meanwhile", hint="look, and try again")
    node: ObjectId = transaction.put_node(Kind.WORKSPACE, head.workspace._replace(layer=live.layer).encode())
    move = Move(head.ref, head.id, node, head.live.pair, live.pair)
    operation = transaction.operate(verb, argv, actor, [move], cursor)
    transaction.set_live(head.workspace.id, live)
    return operation


def add_layer(
    transaction: Transaction,
    parent: LayerId | None,
    state: StateId,
    times: TimesId | None,
    baseline: Baseline | None = None,
    **core: Any,
) -> LayerId:
    """A layer on another one (or on nothing), with the times of its files. `baseline`: what those are measured by, if
    not by themselves."""
    parents = () if parent is None else (parent,)
    layer = LayerId(transaction.put_node(Kind.LAYER, Layer(parents, state, **core).encode()))
    if times is not None:
        transaction.set_layer_times(layer, times, baseline)
    return layer


def state_of(reader: Snapshot, layer: LayerId | None) -> StateId:
    """The state of a layer; that of nothing is empty."""
    if layer is None:
        return StateId(ObjectId(_native.node_id(Kind.STATE, EMPTY_STATE.encode())))
    return Layer.decode(reader.read_node(layer, Kind.LAYER)).state
