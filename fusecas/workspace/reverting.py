"""Taking back one operation by its number, whatever it moved: tags, or a workspace.

Only if all that it moved still is where it left it. Tags are in the store alone; a workspace goes back through whoever
has it open, as by a checkout, and what is uncommitted there is kept by the new operation.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from fusecas.errors import Conflict, ExpiredError, RefNotFound, Refused
from fusecas.store import heads, tags, trees
from fusecas.store.heads import Head
from fusecas.store.ids import Kind
from fusecas.store.kinds import Workspace as WorkspaceCore
from fusecas.store.rows import Live, LivePair, Move, Operation
from fusecas.store.snapshot import Snapshot
from fusecas.store.transaction import Transaction
from fusecas.workspace.mover import Deed, Moved
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Workspace
from fusecas.workspace.workspaces import Workspaces

VERB = "op revert"


class Reverted(NamedTuple):
    """What was taken back. `moved`: of a workspace that went back; `removed`, `restored`: the name of one that was."""

    operation: Operation
    moved: Moved | None = None
    workspace: str | None = None
    removed: bool = False
    restored: bool = False


Moving = Callable[[Workspace], AbstractContextManager[None]]


def nothing_held(_workspace: Workspace) -> AbstractContextManager[None]:
    """Where no commands run in workspaces."""
    return nullcontext()


def revert(
    workspaces: Workspaces,
    number: int,
    deed: Deed,
    moving: Moving = nothing_held,
) -> Reverted:
    """Conflict, naming them, if refs have moved since. `moving` is held around what moves a workspace."""
    store = workspaces.repository.store
    with store.read() as snapshot:
        operation = snapshot.operation(number)
        if operation is None:
            raise RefNotFound(f"no operation {number}", hint="fusecas op log lists them")
        check_standing(snapshot, operation)
    move, *others = operation.moves or (None,)
    if move is None or all(each.ref.startswith(tags.NAMESPACE) for each in operation.moves):
        with store.write() as transaction:
            check_standing(transaction, operation)
            transaction.operate(VERB, *deed, [Move(each.ref, each.new, each.old) for each in operation.moves])
        return Reverted(operation)
    if others:
        raise Refused(f"operation {number} has moved several workspaces: they can't be taken back at once")
    name = move.ref.removeprefix(heads.NAMESPACE)
    if move.new is None:
        with store.write() as transaction:
            check_standing(transaction, operation)
            _restore(transaction, name, move, deed)
        return Reverted(operation, workspace=name, restored=True)
    workspace = workspaces.get(name)
    if move.old is None:
        if name in (workspaces.default, heads.DEFAULT):
            raise Refused(f"operation {number} has made workspace {name}, which is mounted or the default: it stays")
        with moving(workspace):
            workspaces.remove(name, deed, verb=VERB)
        return Reverted(operation, workspace=name, removed=True)
    back = move.old_live

    def find(snapshot: Snapshot, head: Head) -> Target:
        check_standing(snapshot, operation)
        assert back is not None, "a head that was moved stood somewhere"
        return Target(back.layer, back.state, back.times, snapshot.still(back.baseline))

    with moving(workspace):
        return Reverted(operation, workspace.bring(VERB, find, deed), name)


def check_standing(reader: Snapshot, operation: Operation) -> None:
    """Whether each ref holds what the operation gave it, and the store what it had before."""
    moved = [move.ref for move in operation.moves if not _stands(reader, move)]
    if moved:
        names = ", ".join(moved)
        raise Conflict(
            f"operation {operation.number} can't be taken back: moved since: {names}",
            hint=f"fusecas op log {moved[0].partition('/')[2]} tells by what",
            details={"refs": moved},
        )
    for move in operation.moves:
        live = [] if move.old_live is None else move.old_live.roots()
        if not all(map(reader.has, live if move.old is None else [move.old, *live])):
            raise ExpiredError(f"operation {operation.number} is past its grace time: gc has collected what was before")


def _stands(reader: Snapshot, move: Move) -> bool:
    now = reader.get_ref(move.ref)
    if (None if now is None else now.target) != move.new:
        return False
    last = next(reader.ref_operations_back(move.ref), None)
    then = None if last is None else last.move_of(move.ref)
    return then is not None and _place(then.new_live) == _place(move.new_live)


def _place(pair: LivePair | None) -> tuple[object, ...] | None:
    return None if pair is None else (pair.layer, pair.state)


def _restore(transaction: Transaction, name: str, move: Move, deed: Deed) -> None:
    """A workspace that was removed, with what was in it; its inodes have other numbers now."""
    assert move.old is not None and move.old_live is not None, "it was there before"
    core = WorkspaceCore.decode(transaction.read_node(move.old, Kind.WORKSPACE))
    pair = move.old_live
    count = trees.root_entry(transaction, pair.state).count
    baseline, owner = transaction.still(pair.baseline), _owner(transaction, core)
    live = Live(pair.layer, pair.state, pair.times, baseline=baseline, owner=owner, next_inode=count + 1)
    transaction.operate(VERB, *deed, [Move(heads.NAMESPACE + name, None, move.old, None, pair)])
    transaction.set_live(core.id, live)


def _owner(reader: Snapshot, core: WorkspaceCore) -> tuple[int, int]:
    """Who owns what has no owner recorded: as in the workspace that it was forked from."""
    source = None if core.forked_from is None else reader.get_live(core.forked_from[0])
    return (os.geteuid(), os.getegid()) if source is None else source.owner
