"""What keeps objects: refs, live rows, operations, the times of layers, and what sessions hold (docs/dev/gc.md).

Every transaction that adds a root gives its row a new serial, and notes it in `recent`: so a collector that has read
the roots once asks again only for what came since, and pays for nothing else. A scan stops when its time is up and goes
on in another snapshot: what appears meanwhile has a later serial and is found by the next scan.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fusecas.store.environment import KV
from fusecas.store.ids import ObjectId
from fusecas.store.liveness import Liveness
from fusecas.store.rows import Hold, LayerTimes, Live, Operation, Recent, RefRow, SessionRow
from fusecas.store.run_rows import Record
from fusecas.store.snapshot import Snapshot
from fusecas.store.tables import ROOT_TABLES, SESSION_KEY, Table, to_session_key, to_u64, u64

SECOND = 1_000_000_000


class Reached(Protocol):
    """Who is told of roots."""

    def reach(self, snapshot: Snapshot, object_id: ObjectId) -> None:
        """A root that is to be walked."""

    def reach_leaf(self, n: int) -> None:
        """The number of a leaf that a session holds."""


@dataclass(frozen=True)
class Policy:
    """How long what was done can be undone. Times in ns since 1970."""

    undoable_since: int  # operations from here on keep all that they name
    kept_since: int  # operations from here on keep the layers that were heads

    def roots_of(self, operation: Operation) -> Iterable[ObjectId]:
        if operation.time >= self.undoable_since:
            return [each for move in operation.moves for each in move.roots()]
        if operation.time >= self.kept_since:
            return layers_of(operation)
        return ()


def layers_of(operation: Operation) -> list[ObjectId]:
    """The layers that an operation saw as heads."""
    pairs = [pair for move in operation.moves for pair in (move.old_live, move.new_live)]
    return [pair.layer for pair in pairs if pair is not None and pair.layer is not None]


class RootScan:
    """One pass over the roots that have appeared since a serial, in as many snapshots as it takes.

    `held`: over what sessions hold, but for the sessions in `ended`; else over all other roots.
    """

    def __init__(self, since: int, policy: Policy, ended: frozenset[int], *, held: bool) -> None:
        self._since = since
        self._policy = policy
        self._ended = ended
        if held:
            self._steps = [Table.SESSIONS]
        elif since > 0:
            self._steps = [Table.RECENT, Table.OPS]
        else:
            self._steps = [
                Table.REFS,
                Table.LIVE,
                Table.OPS,
                Table.RECORDS,
            ]  # the times of a layer are reached with the layer
        self._start = b""

    def run(self, snapshot: Snapshot, reached: Reached, deadline: float) -> bool:
        """Whether the scan is at its end; if not, the time was up."""
        while self._steps:
            table = self._steps[0]
            for key in self._scan(table, snapshot, reached):
                if time.monotonic() >= deadline:
                    self._start = key + b"\0"
                    return False
            self._steps.pop(0)
            self._start = b""
        return True

    def _scan(self, table: Table, snapshot: Snapshot, reached: Reached) -> Iterator[bytes]:
        match table:
            case Table.OPS:
                return self._operations(snapshot, reached)
            case Table.SESSIONS:
                return self._sessions(snapshot, reached)
            case Table.RECENT:
                return self._recent(snapshot, reached)
            case _:
                return self._rows(table, snapshot, reached)

    def _rows(self, table: Table, snapshot: Snapshot, reached: Reached) -> Iterator[bytes]:
        for key, value in snapshot.kv.scan(table, self._start):
            reach_row(snapshot, table, key, value, reached)
            yield key

    def _recent(self, snapshot: Snapshot, reached: Reached) -> Iterator[bytes]:
        for key, note in snapshot.kv.scan(Table.RECENT, max(self._start, u64(self._since))):
            recent = Recent.decode(note)
            if recent.table < len(ROOT_TABLES):
                table = ROOT_TABLES[recent.table]
                value = snapshot.kv.get(table, recent.key)
                if value is not None and table is Table.OPS:
                    self._operation(snapshot, recent.key, value, reached)
                elif value is not None:
                    reach_row(snapshot, table, recent.key, value, reached)
            yield key

    def _operations(self, snapshot: Snapshot, reached: Reached) -> Iterator[bytes]:
        for key, value in snapshot.kv.scan(Table.OPS, max(self._start, u64(self._since))):
            self._operation(snapshot, key, value, reached)
            yield key

    def _operation(self, snapshot: Snapshot, key: bytes, value: bytes | memoryview, reached: Reached) -> None:
        operation = Operation.decode(to_u64(key), value)
        for each in self._policy.roots_of(operation):
            # What an earlier gc, with a shorter time, was told to let go may be gone.
            if operation.time >= snapshot.marks.undoable_since or snapshot.has(each):
                reached.reach(snapshot, each)

    def _sessions(self, snapshot: Snapshot, reached: Reached) -> Iterator[bytes]:
        first = to_session_key(self._start[:16])[0] if self._start else 0
        for session in open_sessions(snapshot.kv, first):
            if session not in self._ended:
                start = max(self._start, SESSION_KEY.pack(session, max(1, self._since)))
                for key, value in snapshot.kv.scan(Table.SESSIONS, start, SESSION_KEY.pack(session + 1, 0)):
                    reach_held(snapshot, Hold.decode(value), reached)
                    yield key


def reach_row(snapshot: Snapshot, table: Table, key: bytes, value: bytes | memoryview, reached: Reached) -> None:
    """What one row of a table of roots keeps."""
    match table:
        case Table.REFS:
            reached.reach(snapshot, RefRow.decode(value).target)
        case Table.LIVE:
            for each in Live.decode(value).roots():
                reached.reach(snapshot, each)
        case Table.RECORDS:
            for each in Record.decode(value).roots():
                reached.reach(snapshot, each)
        case Table.LAYER_TIMES if snapshot.row(key) is not None:
            reached.reach(snapshot, LayerTimes.decode(value).times)


def reach_held(snapshot: Snapshot, hold: Hold, reached: Reached) -> None:
    """What one row of a session holds."""
    for first, count in hold.leaves:
        for n in range(first, first + count):
            reached.reach_leaf(n)
    for each in hold.nodes:
        reached.reach(snapshot, each)


def open_sessions(kv: KV, first: int = 0) -> Iterator[int]:
    """The sessions that have a row, ascending, from number `first`."""
    start: bytes | None = SESSION_KEY.pack(first, 0)
    while start is not None:
        key = next((key for key, _ in kv.scan(Table.SESSIONS, start)), None)
        if key is None:
            return
        session, serial = to_session_key(key)
        if serial == 0:
            yield session
        start = SESSION_KEY.pack(session + 1, 0)


def ended_sessions(kv: KV, liveness: Liveness, min_age: float, now: int) -> frozenset[int]:
    """Sessions whose process is dead, and whose last write is more than `min_age` seconds from now.

    In the future, too: a clock that was set right must not keep a row for years. `now` must have been read after `kv`
    was opened, or a session that ended in between is taken for one of the future.
    """
    found = []
    for session in open_sessions(kv):
        value = kv.get(Table.SESSIONS, SESSION_KEY.pack(session, 0))
        assert value is not None
        away = abs(SessionRow.decode(value).last_write - now)
        if away > min_age * SECOND and not liveness.lives(session):
            found.append(session)
    return frozenset(found)


def ended_holds(kv: KV, most: int) -> list[bytes]:
    """The keys of holds whose session has no row any more, at most so many."""
    found: list[bytes] = []
    start: bytes | None = b""
    while start is not None and len(found) < most:
        scanned, start = kv.scan(Table.SESSIONS, start), None
        for key, _ in scanned:
            session, serial = to_session_key(key)
            if serial == 0:
                start = SESSION_KEY.pack(session + 1, 0)
                break
            found.append(key)
            if len(found) == most:
                break
    return found
