"""Heads: where each workspace stands. A head, its live row and the operation that says so move in one transaction."""

from collections.abc import Sequence
from typing import NamedTuple

from fusecas.errors import Conflict, Damaged, RefNotFound
from fusecas.store.ids import Kind, LayerId, ObjectId, StateId, WorkspaceNodeId
from fusecas.store.kinds import State, Workspace
from fusecas.store.names import check_name
from fusecas.store.rows import Live, Move, Operation
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
        raise RefNotFound(f"no workspace {name}", details={"name": name})
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
) -> Head:
    """A new workspace, empty, without a layer."""
    state = StateId(transaction.put_node(Kind.STATE, EMPTY_STATE.encode()))
    workspace = Workspace(id=workspace_id)
    node = WorkspaceNodeId(transaction.put_node(Kind.WORKSPACE, workspace.encode()))
    live = Live(layer=None, state=state, times=None, owner=owner)
    move = Move(NAMESPACE + check_name(name), None, node, None, live.pair)
    transaction.operate("init", argv, actor, [move])
    transaction.set_live(workspace_id, live)
    return Head(name, node, workspace, live)


def advance(
    transaction: Transaction,
    head: Head,
    layer: LayerId,
    live: Live,
    verb: str,
    argv: Sequence[bytes],
    actor: str,
) -> Operation:
    """Move a head to a layer and its live row with it. Conflict if either has moved since it was read."""
    now = transaction.get_live(head.workspace.id)
    if now is None or now.serial != head.live.serial:
        raise Conflict(f"workspace {head.name} has changed meanwhile", hint="look, and try again")
    node: ObjectId = transaction.put_node(Kind.WORKSPACE, head.workspace._replace(layer=layer).encode())
    move = Move(head.ref, head.id, node, head.live.pair, live.pair)
    operation = transaction.operate(verb, argv, actor, [move])
    transaction.set_live(head.workspace.id, live)
    return operation
