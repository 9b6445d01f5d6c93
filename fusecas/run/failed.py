"""Runs that have failed, as they are found again: to start from where one began, and to name what it has left."""

from itertools import islice

from fusecas.errors import NotFound, Refused
from fusecas.store.heads import Head
from fusecas.store.kinds import Action, Program, command_of
from fusecas.store.run_rows import INTERRUPTED, RUNNING, Record
from fusecas.store.snapshot import Snapshot

LONGEST_TEXT = 60
MOST_BACK = 100
"""So many records back is looked for the run of an operation: others are of other workspaces, or changed nothing."""


def to_retry(snapshot: Snapshot, workspace: bytes, program: Program) -> Record:
    """The last run of this program in a workspace: NotFound if there is none, Refused if it did not fail."""
    for _, record in snapshot.records_back():
        if record.workspace != workspace or record.status == RUNNING:
            continue
        if Action.decode(record.action).program != program:
            continue
        if not has_failed(record):
            raise Refused("its last run has not failed: there is nothing to start again", hint="run it without --retry")
        return record
    raise NotFound("this command was not run here before", hint="fusecas runs lists those that were")


def has_failed(record: Record) -> bool:
    return record.status == INTERRUPTED or bool(record.exit)


def left_by(snapshot: Snapshot, head: Head) -> str | None:
    """Whether what is uncommitted was left by a run that failed, perhaps with edits on it since; which one it was."""
    last = next(snapshot.ref_operations_back(head.ref), None)
    move = None if last is None else last.move_of(head.ref)
    if last is None or move is None or last.verb != "run" or move.old_live is None or move.new_live is None:
        return None
    if move.new_live.layer != move.old_live.layer:
        return None  # it made a layer: then there was nothing else
    for _, record in islice(snapshot.records_back(), MOST_BACK):
        is_it = record.workspace == head.workspace.id and record.base == move.old_live.state and has_failed(record)
        if is_it and record.state in (None, move.new_live.state):
            how = "interrupted" if record.status == INTERRUPTED else "failed"
            code = "" if record.exit is None else f" (exit {record.exit})"
            return f"left by {how} '{_short(Action.decode(record.action).program)}'{code}"
    return None


def _short(program: Program) -> str:
    line, _, rest = command_of(program).encode(errors="replace").decode().strip().partition("\n")
    return line if len(line) <= LONGEST_TEXT and not rest else f"{line[:LONGEST_TEXT]}…"
