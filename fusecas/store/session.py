"""Writing more than one transaction can hold: a session, its lock and its holds (docs/dev/gc.md, docs/dev/writer.md).

The caller fills batches; one thread looks them up and compresses what is missing, another stores it, in the order in
which it was put: so compressing goes on while the disk is waited for. What a session has put or hit is held from the
transaction that says so until the session ends, so that gc leaves it alone although no ref reaches it yet.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Protocol, Self, TypeVar

from fusecas import _native
from fusecas.errors import FusecasError, InUse, MissingObject, SessionLost
from fusecas.store import packs
from fusecas.store.condemned import Marks
from fusecas.store.environment import KV, Environment
from fusecas.store.ids import EMPTY_CONTENT, ContentId, Kind, ObjectId
from fusecas.store.liveness import Liveness
from fusecas.store.packs import NewObject, compressed
from fusecas.store.rows import Hold, Row, SessionRow
from fusecas.store.snapshot import Snapshot
from fusecas.store.tables import SESSION_KEY, Table
from fusecas.store.transaction import Transaction, created_now

T = TypeVar("T")

BATCH_BYTES = 8 << 20
BATCH_OBJECTS = 8192
TRANSACTION_BYTES = 4 << 20
TRANSACTION_OBJECTS = 4096
PAUSE = 0.0005  # LMDB's writer lock is unfair: without a pause a bulk writer starves small commits
READ_SIZE = 1 << 20
RECENT_IDS = 100_000
QUEUED_BATCHES = 2
OWN_COMMITS = 16

log = logging.getLogger(__name__)


class Shared(Protocol):
    """What a session needs of its store."""

    environment: Environment
    liveness: Liveness

    def marks(self, kv: KV) -> Marks: ...


class Session:
    """Made by Store.session. One caller thread; two threads of its own, the packer and the writer."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.number = self._begin()
        self.batch = _native.Batch()
        self.new_objects = self.new_bytes = self.stored_bytes = self.hit_objects = 0
        self._recent: set[bytes] = set()
        self._last_hold = 0
        self._own_commits: dict[int, set[ObjectId]] = {}
        self._queue: queue.Queue[_native.Batch | None] = queue.Queue(QUEUED_BATCHES)
        self._packed: queue.Queue[Incoming | None] = queue.Queue(2)
        self._failure: BaseException | None = None
        self._ended = False
        self._packer = threading.Thread(target=self._pack_batches, name=f"packer-{self.number}", daemon=True)
        self._writer = threading.Thread(target=self._write_batches, name=f"session-{self.number}", daemon=True)
        self._packer.start()
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        self._stop_writer()
        try:
            self._drop_row()
        except FusecasError:
            # Its holds go with the next gc; the first error is the one to tell.
            log.info("session %d could not be closed in the store", self.number, exc_info=True)
            if error is None:
                raise
        finally:
            self._shared.liveness.end(self.number)
            self._ended = True

    def abandon(self) -> None:
        """The store closes under us: nothing more is written, and what was put is garbage once gc finds us gone."""
        if not self._ended:
            self._failure = self._failure or SessionLost("the store was closed while a session was open")
            self._stop_writer()
            self._end()

    # what callers put

    def put_node(self, kind: Kind, data: bytes) -> ObjectId:
        """Add a node; what it refers to was put or hit by this session before, or is live."""
        node = ObjectId(_native.node_id(kind, data))
        self.batch.add(kind, node, data)
        self.pass_on()
        return node

    def put_content(self, data: bytes) -> ContentId:
        content, _ = _native.cut_bytes(self.batch, data)
        self.pass_on()
        return ContentId(ObjectId(content))

    def put_stream(self, stream: BinaryIO) -> ContentId:
        """All bytes of a stream, in bounded memory."""
        writer = _native.ContentWriter()
        while data := stream.read(READ_SIZE):
            writer.feed(self.batch, data)
            self.pass_on()
        content, _ = writer.finish(self.batch)
        self.pass_on()
        return ContentId(ObjectId(content))

    def put_batch(self, batch: _native.Batch) -> None:
        """Take a batch over, after all that was put before; waits while too many are under way."""
        self._hand_over()
        self._enqueue(batch)

    def pass_on(self) -> None:
        """Hand `batch` to the writer if it is full; then `batch` is a new one."""
        if self.batch.bytes >= BATCH_BYTES or len(self.batch) >= BATCH_OBJECTS:
            self._hand_over()

    def _hand_over(self) -> None:
        if len(self.batch):
            full, self.batch = self.batch, _native.Batch()
            self._enqueue(full)

    def _enqueue(self, batch: _native.Batch) -> None:
        self._raise_failure()
        if not self._writer.is_alive():
            raise RuntimeError("the session has ended, or its publication has failed: nothing can be put any more")
        self._queue.put(batch)

    def flush(self) -> None:
        """On return, all that was put is durable and held."""
        self._hand_over()
        self._queue.join()
        self._raise_failure()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A snapshot of the store: what was put is there after a flush."""
        with self._shared.environment.read() as kv:
            yield Snapshot(kv, self._shared.marks(kv))

    # how it ends

    def publish(self, publisher: Callable[[Transaction], T]) -> T:
        """Flush; then one transaction in which the caller makes roots of what it put, and the session ends."""
        self.flush()
        self._stop_writer()
        with self._shared.environment.write() as kv:
            self._check_row(kv)
            transaction = Transaction(kv, self._shared.marks(kv))
            result = publisher(transaction)
            transaction.finish()
            kv.delete(Table.SESSIONS, SESSION_KEY.pack(self.number, 0))
        self._end()
        return result

    def keep(self) -> None:
        """End without publishing: what was put is left alone for gc's min-age, for somebody to refer to."""
        self.flush()
        self._stop_writer()
        with self._shared.environment.write() as kv:
            self._check_row(kv)
            self._touch_row(kv, self.number, self._last_hold)  # min-age counts from here
        self._end()

    def _end(self) -> None:
        self._shared.liveness.end(self.number)
        self._ended = True

    def _begin(self) -> int:
        number = 0
        try:
            with self._shared.environment.write() as kv:
                number = self._lock_number(kv)
                self._touch_row(kv, number, 0)
        except BaseException:
            # The number was not given out: the next session, maybe another process's, gets it.
            if number:
                self._shared.liveness.end(number)
            raise
        return number

    def _lock_number(self, kv: KV) -> int:
        """A number that nobody has locked. A process that is killed here loses LMDB's lock before its own locks."""
        while True:
            number = packs.next_serial(kv)
            with suppress(InUse):
                self._shared.liveness.begin(number)
                return number

    def _drop_row(self) -> None:
        with self._shared.environment.write() as kv:
            kv.delete(Table.SESSIONS, SESSION_KEY.pack(self.number, 0))

    def _touch_row(self, kv: KV, number: int, last_hold: int) -> None:
        kv.put(Table.SESSIONS, SESSION_KEY.pack(number, 0), SessionRow(time.time_ns(), last_hold).encode())

    def _check_row(self, kv: KV) -> None:
        if kv.get(Table.SESSIONS, SESSION_KEY.pack(self.number, 0)) is None:
            raise SessionLost(f"session {self.number} was taken for dead and collected", hint="run it again")

    # the threads

    def _stop_writer(self) -> None:
        if self._writer.is_alive():
            self._queue.put(None)
            self._packer.join()
            self._writer.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _pack_batches(self) -> None:
        while (batch := self._queue.get()) is not None:
            incoming = Incoming(batch)
            self._unless_failed(lambda: self._pack(incoming))  # noqa: B023
            self._packed.put(incoming)
        self._packed.put(None)

    def _write_batches(self) -> None:
        while (incoming := self._packed.get()) is not None:
            self._unless_failed(lambda: self._store(incoming))
            self._queue.task_done()
        self._queue.task_done()

    def _unless_failed(self, work: Callable[[], None]) -> None:
        try:
            if self._failure is None:
                work()
        except BaseException as error:  # noqa: BLE001 - handed to the caller by _raise_failure
            self._failure = error

    def _pack(self, incoming: "Incoming") -> None:
        with self._shared.environment.read() as kv:
            incoming.look_up(kv, self._shared.marks(kv))
        incoming.compress()

    def _store(self, incoming: "Incoming") -> None:
        if len(self._recent) > RECENT_IDS:
            self._recent.clear()
        for group in incoming.groups():
            with self._shared.environment.write() as kv:
                self._check_row(kv)
                marks = self._shared.marks(kv)
                incoming.look_again(kv, marks, self._own_commits)
                self._check_refs(kv, marks, incoming, group)
                stored = self._put(kv, incoming, group)
                commit = kv.id()
            self._own_commits[commit] = stored
            if len(self._own_commits) > OWN_COMMITS:
                del self._own_commits[min(self._own_commits)]
            time.sleep(PAUSE)

    def _check_refs(self, kv: KV, marks: Marks, incoming: "Incoming", group: range) -> None:
        """What is new refers to what this session holds, or to what is live now."""
        for i in group:
            if incoming.kinds[i] != Kind.CHUNK and i not in incoming.hits:
                for each in incoming.batch.refs(i):
                    if each not in self._recent and each != EMPTY_CONTENT:
                        row = packs.find_row(kv, each)
                        if row is None or marks.condemned(row.n):
                            raise MissingObject(f"{incoming.ids[i].hex()} refers to {each.hex()}, which is not there")
            self._recent.add(incoming.ids[i])

    def _put(self, kv: KV, incoming: "Incoming", group: range) -> set[ObjectId]:
        """Store what of a group is new, and hold all of it; which objects that were."""
        fresh = incoming.take_new(kv, group)
        # A hit is what its row says: what we have as a chunk may be there as the content of a recipe.
        kinds = {i: incoming.hits[i].kind if i in incoming.hits else incoming.kinds[i] for i in group}
        hits = [incoming.hits[i].n for i in group if i in incoming.hits and kinds[i] == Kind.CHUNK]
        nodes = [incoming.ids[i] for i in group if kinds[i] != Kind.CHUNK]
        holds = []
        if fresh:
            first = packs.append_objects(kv, fresh, created_now())
            if leaves := leaf_ranges(first, fresh):
                holds.append(Hold.of_put(leaves))
        if hits:
            holds.append(Hold.of_hits(hits))
        if nodes:
            holds.append(Hold.of_nodes(nodes))
        serial = 0
        for hold in holds:
            serial = packs.next_serial(kv)
            kv.put(Table.SESSIONS, SESSION_KEY.pack(self.number, serial), hold)
        self._last_hold = serial or self._last_hold
        self._touch_row(kv, self.number, self._last_hold)
        self.new_objects += len(fresh)
        self.new_bytes += sum(each.size for each in fresh)
        self.stored_bytes += sum(len(each.data) for each in fresh)
        self.hit_objects += len(group) - len(fresh)
        return {each.id for each in fresh}


def leaf_ranges(first: int, objects: Sequence[NewObject]) -> list[int]:
    """(first number, count) of each run of leaves among objects with consecutive numbers. Nodes are held by id: a
    node that gc took for a leaf would not be walked."""
    ranges: list[int] = []
    for n, each in enumerate(objects, first):
        if each.kind != Kind.CHUNK:
            continue
        if ranges and ranges[-2] + ranges[-1] == n:
            ranges[-1] += 1
        else:
            ranges += [n, 1]
    return ranges


class Incoming:
    """A batch on its way into the store: what of it is there already, what is new, compressed."""

    def __init__(self, batch: _native.Batch) -> None:
        self.batch = batch
        self.ids = [ObjectId(each) for each in batch.ids()]
        self.kinds = batch.kinds()
        self.hits: dict[int, Row] = {}
        self._condemned: dict[int, Row] = {}
        self._new: dict[int, NewObject] = {}
        self._seen = 0

    def look_up(self, kv: KV, marks: Marks) -> None:
        self.hits, self._condemned = {}, {}
        for i in range(len(self.ids)):
            self._look_up_one(kv, marks, i)
        self._seen = kv.id()

    def _look_up_one(self, kv: KV, marks: Marks, at: int) -> None:
        row = packs.find_row(kv, self.ids[at])
        if row is not None:
            (self._condemned if marks.condemned(row.n) else self.hits)[at] = row

    def look_again(self, kv: KV, marks: Marks, own_commits: Mapping[int, set[ObjectId]]) -> None:
        """In the writing transaction: all of it if somebody else has written since the last look; if only this session
        has, what it has stored since."""
        since = range(self._seen + 1, kv.id())
        if all(commit in own_commits for commit in since):
            stored = [own_commits[commit] for commit in since]
            for i, object_id in enumerate(self.ids):
                if any(object_id in each for each in stored):
                    self._look_up_one(kv, marks, i)
            self._seen = kv.id()
        else:
            self.look_up(kv, marks)

    def compress(self) -> None:
        missing = [i for i in range(len(self.ids)) if i not in self.hits and i not in self._new]
        self._new.update(compressed(self.batch, self.ids, self.kinds, missing))

    def groups(self) -> Iterator[range]:
        """The objects in their order, in stretches that one transaction should hold."""
        start = size = 0
        for i in range(len(self.ids)):
            size += len(self._new[i].data) if i in self._new else 0
            if size >= TRANSACTION_BYTES or i + 1 - start >= TRANSACTION_OBJECTS:
                yield range(start, i + 1)
                start, size = i + 1, 0
        if start < len(self.ids):
            yield range(start, len(self.ids))

    def take_new(self, kv: KV, group: range) -> list[NewObject]:
        """What of the group is to be appended; a condemned row in its way is deleted."""
        wanted = [i for i in group if i not in self.hits]
        if any(i not in self._new for i in wanted):
            self.compress()  # live when first looked up, and collected since
        for i in wanted:
            if i in self._condemned:
                packs.delete_row(kv, self.ids[i], self._condemned[i])
        return [self._new[i] for i in wanted]
