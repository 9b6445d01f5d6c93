"""Undo and redo: a workspace's past as the sequence of where it stood, and a cursor in it.

Each operation on its head adds where it stood before and after, equal neighbours counting once; so a step is one verb,
or the edits between two. Undo and redo add nothing but edits that nobody had sealed yet: they move the cursor. Any
other operation, or an edit, ends the sequence at the cursor. All of it is read from the operations, as far as needed.
"""

from collections.abc import Iterator

from fusecas.errors import ExpiredError, Refused
from fusecas.store import heads
from fusecas.store.ids import StateId
from fusecas.store.rows import Cursor, LivePair, Operation, Position
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import StatCaches
from fusecas.workspace.target import Target

THIS = 0


class Past:
    """The sequence of one workspace, whose newest place may not be in any operation yet: `now`, sealed edits."""

    def __init__(self, reader: Snapshot, head: heads.Head, stat_caches: StatCaches) -> None:
        self._reader = reader
        self._stat_caches = stat_caches
        self._ref = head.ref
        self._now = head.live.pair
        last = next(reader.ref_operations_back(self._ref), None)
        if last is None:
            raise Refused("nothing has been done here yet")
        standing = self._standing(last)
        if self._same(self._pair(standing.at), self._now):
            self._cursor = standing
        else:  # edits: the sequence ends with them, and what could be redone is cut off
            self._before_edits = standing.at
            self._cursor = Cursor(Position(THIS, False), Position(THIS, False))

    def back(self, steps: int) -> Target:
        """Refused if there is nothing (so far) to go back to; ExpiredError if gc has taken it."""
        at, pair = self._cursor.at, self._now
        for done in range(steps):
            found = next((each for each in self._steps_back(at) if not self._same(each[1], pair)), None)
            if found is None:
                raise Refused("nothing to undo" if done == 0 else f"only {done} steps can be undone")
            at, pair = found
        return self._target(pair, Cursor(self._cursor.top, at))

    def forward(self, steps: int) -> Target:
        ahead: list[tuple[Position, LivePair]] = []
        if self._cursor.at != self._cursor.top:
            top = self._pair(self._cursor.top)
            assert top is not None, "undo never begins before the first operation"
            ahead = [(self._cursor.top, top)]
            for each in self._steps_back(self._cursor.top):
                if each[0] == self._cursor.at:
                    break
                ahead.append(each)
        at, pair = self._cursor.at, self._now
        for done in range(steps):
            while ahead and self._same(ahead[-1][1], pair):
                ahead.pop()
            if not ahead:
                hint = "what was edited or done since the undo has taken its place; see fusecas op log"
                if done:
                    raise Refused(f"only {done} steps can be redone")
                raise Refused("nothing to redo", hint=hint)
            at, pair = ahead.pop()
        return self._target(pair, Cursor(self._cursor.top, at))

    # the sequence

    def _steps_back(self, at: Position) -> Iterator[tuple[Position, LivePair]]:
        while (earlier := self._earlier(at)) is not None:
            pair = self._pair(earlier)
            if pair is None:
                return
            yield earlier, pair
            at = earlier

    def _earlier(self, at: Position) -> Position | None:
        if at.operation == THIS:
            return self._before_edits
        if at.after:
            return Position(at.operation, False)
        before = next(self._reader.ref_operations_back(self._ref, at.operation), None)
        return None if before is None else self._standing(before).at

    @staticmethod
    def _standing(operation: Operation) -> Cursor:
        """Where the cursor was after an operation."""
        if operation.cursor is None:
            here = Position(operation.number, True)
            return Cursor(here, here)
        top, at = (each._replace(operation=each.operation or operation.number) for each in operation.cursor)
        return Cursor(top, at)

    def _pair(self, at: Position) -> LivePair | None:
        if at.operation == THIS:
            return self._now
        operation = self._reader.operation(at.operation)
        move = None if operation is None else operation.move_of(self._ref)
        if move is None:
            return None
        return move.new_live if at.after else move.old_live

    def _same(self, one: LivePair | None, other: LivePair) -> bool:
        """Also if a prompt has asked git for the status in between: that writes its index anew."""
        if one is None or one.layer != other.layer:
            return False
        return self._stat_caches.alike(self._reader, StateId(one.state), StateId(other.state))

    def _target(self, pair: LivePair, cursor: Cursor) -> Target:
        if not all(map(self._reader.has, pair.roots())):
            raise ExpiredError("gc has collected that state; it is past its grace time")
        return Target(pair.layer, StateId(pair.state), pair.times, self._reader.still(pair.baseline), cursor=cursor)
