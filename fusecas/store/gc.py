"""Garbage collection: mark, publish, sweep, rewrite (docs/dev/gc.md has the protocol, and why it is safe).

Runs beside any number of readers and writers: it reads in snapshots of under 100 ms and writes in transactions of
under 20 ms. A death anywhere leaves nothing to repair.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from fusecas.errors import DamagedEnvironment, InUse
from fusecas.store import gc_packs, packs, slices
from fusecas.store.condemned import Marks, write_marks
from fusecas.store.gc_roots import SECOND, Policy, RootScan, ended_holds, ended_sessions
from fusecas.store.ids import EMPTY_CONTENT, Kind, LayerId, ObjectId
from fusecas.store.rows import Row
from fusecas.store.snapshot import Snapshot, refs_in
from fusecas.store.store import Store
from fusecas.store.tables import SESSION_KEY, Table, u64
from fusecas.store.walk import Numbers

T = TypeVar("T")

MIN_AGE = 60.0  # seconds
GRACE = 30 * 86400.0  # seconds
READ_TIME = 0.05
WRITE_TIME = 0.008  # of a transaction's 20 ms; the rest is for its commit
PAUSE = 0.0005  # LMDB's writer lock is unfair: without it, a sweep starves small commits
FEW_NODES = 256
MOST_RETURNS = 8
IDS_AT_ONCE = 4096


@dataclass(frozen=True)
class GcReport:
    """What a gc did; of a dry run, what it would have done.

    deleted: objects deleted.
    partial: packs of the data stream that were rewritten, because under 60% of their bytes were live.
    retained: objects that stay.
    skipped_young: those of them that only a session holds: a writer at work, or a `put` younger than min_age.
    bytes: what the deleted objects took in the data stream (as stored: compressed).
    """

    deleted: int
    partial: int
    retained: int
    skipped_young: int
    bytes: int


def collect(
    store: Store,
    *,
    min_age: float = MIN_AGE,
    dry_run: bool = False,
    expire: float | None = None,
    grace: float = GRACE,
    now: Callable[[], int] = time.time_ns,
) -> GcReport:
    """Delete what nothing reaches, and give its space back to the store. InUse while another gc is at work.

    min_age: seconds for which a dead session's objects are left alone. grace: seconds for which an operation can be
    undone. expire: layers that were heads longer ago than so many seconds are kept no more (None: they always are).
    Damaged, and nothing done, if something reachable is missing or can't be read.
    """
    with store.liveness.collecting():
        store.environment.reader_check()
        collection = _Collection(store, _policy(now(), grace, expire), min_age, now)
        return collection.rehearse() if dry_run else collection.run()


def _policy(now: int, grace: float, expire: float | None) -> Policy:
    if expire is None:
        return Policy(undoable_since=now - int(grace * SECOND), kept_since=0)
    return Policy(undoable_since=now - int(min(grace, expire) * SECOND), kept_since=now - int(expire * SECOND))


class _Marking:
    """What has been reached so far, and the nodes that wait to be read."""

    def __init__(self) -> None:
        self.reached = Numbers()
        self.nodes = 0
        self.young = 0
        self.held = False  # what is reached now was reached by no root, but by a session
        self._waiting: list[ObjectId] = []

    def reach(self, snapshot: Snapshot, object_id: ObjectId) -> None:
        if object_id == EMPTY_CONTENT:
            return
        row = snapshot.needed_row(object_id)
        if self.reached.add(row.n):
            self.young += self.held
            if row.kind != Kind.CHUNK:
                self._waiting.append(object_id)
                self.nodes += 1

    def reach_leaf(self, n: int) -> None:
        if self.reached.add(n):
            self.young += self.held

    def run(self, snapshot: Snapshot, deadline: float, most_nodes: float = float("inf")) -> bool:
        """Read what waits; whether all of it was read in time, and no more nodes were reached in all than so many.

        The last comes first: so what waits stays as small as the trees are deep.
        """
        while self._waiting:
            if time.monotonic() >= deadline or self.nodes > most_nodes:
                return False
            self._read(snapshot, self._waiting.pop())
        return True

    def _read(self, snapshot: Snapshot, node: ObjectId) -> None:
        row, data = snapshot.read_object(node)
        for each in refs_in(node, row.kind, data):
            self.reach(snapshot, each)
        if row.kind == Kind.LAYER:
            times = snapshot.layer_times(LayerId(node))
            if times is not None:
                self.reach(snapshot, times)


class _Collection:
    """One gc. Its marks and figures are its own; nothing is shared but through the store."""

    def __init__(self, store: Store, policy: Policy, min_age: float, now: Callable[[], int]) -> None:
        self._store = store
        self._policy = policy
        self._min_age = min_age
        self._now = now
        self._ended: frozenset[int] = frozenset()
        self._marking = _Marking()
        self._since = 0
        with store.read() as snapshot:
            self._k = snapshot.marks.k

    def run(self) -> GcReport:
        self._end_sessions()
        serial = self._publish()
        self._forget_recent(serial)
        deleted, size, retained = self._sweep()
        rewritten = gc_packs.rewrite_sparse(self._store)
        return GcReport(deleted, rewritten, retained, self._marking.young, size)

    def rehearse(self) -> GcReport:
        """The same figures, from reading alone."""
        with self._store.environment.read() as kv:
            self._ended = ended_sessions(kv, self._store.liveness, self._min_age, self._now())
        self._mark()
        with self._snapshot() as snapshot:
            self._catch_up(snapshot, hurried=False)
            marks = self._marks(snapshot)
        deleted = size = retained = 0
        released: Counter[int] = Counter()

        def count(snapshot: Snapshot, _: ObjectId, row: Row) -> None:
            nonlocal deleted, size, retained
            if not marks.condemned(row.n):
                retained += 1
                return
            deleted, size = deleted + 1, size + row.stored
            for span in packs.spans(snapshot.kv, row):
                released[span.pack] += span.stop - span.start

        slices.every_row(self._store, count)
        partial = len(gc_packs.sparse_packs(self._store, released))
        return GcReport(deleted, partial, retained, self._marking.young, size)

    # sessions

    def _end_sessions(self) -> None:
        """Drop the rows of sessions that are dead for long enough, then every hold without such a row."""
        with self._store.environment.write() as kv:
            for session in ended_sessions(kv, self._store.liveness, self._min_age, self._now()):
                kv.delete(Table.SESSIONS, SESSION_KEY.pack(session, 0))
        while True:
            with self._store.environment.read() as kv:
                holds = ended_holds(kv, IDS_AT_ONCE)
            if not holds:
                return
            for snapshot, key in self._in_transactions(holds):
                snapshot.kv.delete(Table.SESSIONS, key)

    # marking

    @contextmanager
    def _snapshot(self) -> Iterator[Snapshot]:
        with self._store.read() as snapshot:
            self._check_number(snapshot.marks)
            yield snapshot

    def _check_number(self, marks: Marks) -> None:
        if marks.k != self._k:
            raise InUse("another gc has published its marks meanwhile", hint="run gc again")

    def _mark(self) -> None:
        """Rounds over what is new, until a round finds little."""
        while True:
            before = self._marking.nodes
            with self._snapshot() as snapshot:
                upto = packs.get_meta(snapshot.kv, "next_serial")
            for held in (False, True):
                self._mark_roots(self._scan(held))
            self._since = upto
            if self._marking.nodes - before < FEW_NODES:
                return

    def _scan(self, held: bool) -> RootScan:
        self._marking.held = held
        return RootScan(self._since, self._policy, self._ended, held=held)

    def _mark_roots(self, scan: RootScan) -> None:
        done = False
        while not done:
            with self._snapshot() as snapshot:
                deadline = time.monotonic() + READ_TIME
                done = scan.run(snapshot, self._marking, deadline) and self._marking.run(snapshot, deadline)

    def _catch_up(self, snapshot: Snapshot, hurried: bool) -> bool:
        """Mark from the roots that are new in this last transaction; False if, hurried, that is too much for it."""
        deadline = most_nodes = float("inf")
        if hurried:
            deadline, most_nodes = time.monotonic() + WRITE_TIME, self._marking.nodes + FEW_NODES
        for held in (False, True):
            scan = self._scan(held)
            if not (scan.run(snapshot, self._marking, deadline) and self._marking.run(snapshot, deadline, most_nodes)):
                return False
        return True

    def _marks(self, snapshot: Snapshot) -> Marks:
        """What this transaction would publish."""
        next_n = packs.get_meta(snapshot.kv, "next_n")
        self._marking.reached.reserve(next_n)
        if len(self._marking.reached.bits) != (next_n >> 3) + 1:
            raise DamagedEnvironment(f"a row has a number beyond {next_n}, the next one to be given out")
        undoable_since = max(snapshot.marks.undoable_since, self._policy.undoable_since)
        return Marks(self._k + 1, next_n, bytes(self._marking.reached.bits), undoable_since)

    def _publish(self) -> int:
        """T2. What it does not reach is condemned, however young. The next serial at that moment."""
        for returns in range(MOST_RETURNS + 1):
            self._mark()
            with self._store.environment.write() as kv:
                snapshot = Snapshot(kv, self._store.marks(kv))
                self._check_number(snapshot.marks)
                if self._catch_up(snapshot, hurried=returns < MOST_RETURNS):
                    write_marks(kv, self._marks(snapshot))
                    return packs.get_meta(kv, "next_serial")
        raise AssertionError("the last attempt is not hurried")

    def _forget_recent(self, serial: int) -> None:
        """What has been noted before these marks is no news to any gc that may still publish."""
        while True:
            with self._store.environment.read() as kv:
                keys = [key for key, _ in islice(kv.scan(Table.RECENT, stop=u64(serial)), IDS_AT_ONCE)]
            if not keys:
                return
            for snapshot, key in self._in_transactions(keys):
                snapshot.kv.delete(Table.RECENT, key)

    # sweeping

    def _sweep(self) -> tuple[int, int, int]:
        """Delete what is condemned: (objects deleted, their bytes, objects left)."""
        retained = deleted = size = 0
        condemned: list[ObjectId] = []

        def sort(snapshot: Snapshot, object_id: ObjectId, row: Row) -> None:
            nonlocal retained
            if snapshot.marks.condemned(row.n):
                condemned.append(object_id)
            else:
                retained += 1

        for _ in slices.in_snapshots(self._store, sort):
            for snapshot, object_id in self._in_transactions(condemned):
                row = packs.find_row(snapshot.kv, object_id)
                if row is not None and snapshot.marks.condemned(row.n):
                    packs.delete_row(snapshot.kv, object_id, row)
                    deleted, size = deleted + 1, size + row.stored
            condemned.clear()
        return deleted, size, retained

    def _in_transactions(self, items: Sequence[T]) -> Iterator[tuple[Snapshot, T]]:
        """Each item with a write transaction to treat it in: as many in one as its time allows."""
        waiting = iter(items)
        item = next(waiting, None)
        while item is not None:
            with self._store.environment.write() as kv:
                deadline = time.monotonic() + WRITE_TIME
                snapshot = Snapshot(kv, self._store.marks(kv))
                while item is not None and time.monotonic() < deadline:
                    yield snapshot, item
                    item = next(waiting, None)
            time.sleep(PAUSE)
