"""Writing what one transaction can hold: refs, live rows, operations, and up to 4 MiB of objects.

Its law (docs/dev/gc.md): it refers only to what it sees live. Objects and everything that refers to them appear
together at the commit, or not at all.
"""

import time
from collections.abc import Iterable, Sequence
from enum import Enum

from fusecas import _native
from fusecas.errors import Conflict, DamagedEnvironment, MissingObject, TooLarge
from fusecas.store import packs
from fusecas.store.condemned import Marks
from fusecas.store.environment import KV
from fusecas.store.ids import ContentId, Kind, LayerId, ObjectId, StateId, TimesId
from fusecas.store.names import check_ref
from fusecas.store.rows import Baseline, Cursor, LayerTimes, Live, LivePair, Move, Operation, Recent, RefRow
from fusecas.store.run_rows import Record, Result, encode_holders
from fusecas.store.snapshot import Snapshot, ref_key
from fusecas.store.tables import ROOT_TABLES, Table, u64

MOST_BYTES = 4 << 20
EPOCH = 1767225600  # 2026-01-01 00:00 UTC, from which rows count their seconds
MICROSECOND = 1000


class Expect(Enum):
    """What a compare-and-swap may expect beside an id or None."""

    ANYTHING = "anything"


def created_now() -> int:
    return max(0, int(time.time()) - EPOCH)


class Transaction(Snapshot):
    """The one write transaction of the moment. Made by Store.write and Session.publish."""

    def __init__(self, kv: KV, marks: Marks) -> None:
        super().__init__(kv, marks)
        self._batch = _native.Batch()
        self._pending: set[bytes] = set()
        self._known: set[bytes] = set()
        self.new_objects = self.stored_bytes = 0

    def has(self, object_id: bytes) -> bool:
        return object_id in self._pending or super().has(object_id)

    def read_node(self, object_id: bytes, kind: Kind | None = None) -> bytes:
        data = super().read_node(object_id, kind)
        # What a live object refers to is live: no need to look it up when a new node refers to it too.
        self._known.update(_native.cbor_refs(data))
        return data

    def put_node(self, kind: Kind, data: bytes) -> ObjectId:
        """Add a node; all that it refers to must be live."""
        for each in _native.cbor_refs(data):
            if each not in self._known and not self.has(each):
                raise MissingObject(f"a new {kind.name.lower()} refers to {each.hex()}, which is not there")
        node = ObjectId(_native.node_id(kind, data))
        self._add(kind, node, data)
        return node

    def take(self, batch: _native.Batch) -> None:
        """Contents that have been cut before the transaction began, and all that they are made of."""
        assert not self._pending, "a batch comes first"
        self._batch = batch
        self._pending.update(batch.ids())
        self._check_size()

    def put_content(self, data: bytes) -> ContentId:
        before = len(self._batch)
        content, _ = _native.cut_bytes(self._batch, data)
        self._pending.update(self._batch.ids()[before:])
        self._check_size()
        return ContentId(ObjectId(content))

    def _add(self, kind: Kind, object_id: ObjectId, data: bytes) -> None:
        if object_id not in self._pending:
            self._batch.add(kind, object_id, data)
            self._pending.add(object_id)
            self._check_size()

    def _check_size(self) -> None:
        if self._batch.bytes > MOST_BYTES:
            raise TooLarge(f"over {MOST_BYTES >> 20} MiB of objects in one transaction: use a session")

    def finish(self) -> None:
        """Store the objects. The last step before the commit."""
        ids = [ObjectId(each) for each in self._batch.ids()]
        missing = []
        for i, object_id in enumerate(ids):
            found = packs.find_row(self.kv, object_id)
            if found is not None and self.marks.condemned(found.n):
                packs.delete_row(self.kv, object_id, found)
                found = None
            if found is None:
                missing.append(i)
        if missing:
            new = packs.compressed(self._batch, ids, self._batch.kinds(), missing)
            packs.append_objects(self.kv, [new[i] for i in missing], created_now())
            self.new_objects = len(missing)
            self.stored_bytes = sum(len(new[i].data) for i in missing)

    # refs, live rows, operations

    def _must_be_live(self, target: ObjectId, what: str) -> None:
        if not self.has(target):
            raise MissingObject(f"{what} would point to {target.hex()}, which is not there")

    def set_ref(self, name: str, target: ObjectId | None, expect: ObjectId | Expect | None, operation: int = 0) -> None:
        """Compare and swap: None is no ref. Conflict if it does not point to `expect`; the target must be live."""
        key = ref_key(check_ref(name))
        now = self.get_ref(name)
        current = None if now is None else now.target
        if not isinstance(expect, Expect) and current != expect:
            raise Conflict(
                f"{name} has moved: it points to {short(current)}, not to {short(expect)}",
                hint="look, and try again",
            )
        if target is None:
            self.kv.delete(Table.REFS, key)
            return
        self._must_be_live(target, name)
        self.kv.put(Table.REFS, key, RefRow(target, self._root_serial(Table.REFS, key), operation).encode())

    def set_live(self, workspace_id: bytes, live: Live | None) -> None:
        if live is None:
            self.kv.delete(Table.LIVE, workspace_id)
            return
        for each in live.roots():
            self._must_be_live(each, "a live row")
        serial = self._root_serial(Table.LIVE, workspace_id)
        self.kv.put(Table.LIVE, workspace_id, live._replace(serial=serial).encode())

    def set_record(self, number: bytes, record: Record) -> None:
        for each in record.roots():
            self._must_be_live(each, "the record of a run")
        self._root_serial(Table.RECORDS, number)
        self.kv.put(Table.RECORDS, number, record.encode())

    def set_result(self, action: ObjectId, result: Result) -> None:
        self.kv.put(Table.ACTIONS, action, result.encode())

    def set_bound(self, state: StateId, holders: Iterable[bytes]) -> None:
        """Only added to: a state does not lose what it holds."""
        if found := {*holders}:
            self.kv.put(Table.BOUND, state, encode_holders(found | self.bound(state)))

    def set_layer_times(self, layer: LayerId, times: TimesId, baseline: Baseline | None = None) -> None:
        self._must_be_live(layer, "a row of times")
        self._must_be_live(times, "a row of times")
        serial = self._root_serial(Table.LAYER_TIMES, layer)
        self.kv.put(Table.LAYER_TIMES, layer, LayerTimes(times, serial, baseline).encode())

    def _root_serial(self, table: Table, key: bytes) -> int:
        """A new serial for a row that makes a root; noted, so that gc finds it among any number of old ones."""
        serial = packs.next_serial(self.kv)
        self.kv.put(Table.RECENT, u64(serial), Recent(ROOT_TABLES.index(table), key).encode())
        return serial

    def operate(
        self, verb: str, argv: Sequence[bytes], actor: str, moves: Sequence[Move], cursor: Cursor | None = None
    ) -> Operation:
        """Move refs and write the operation that says so. Conflict, and nothing, if one is no longer at its `old`."""
        number = packs.next_serial(self.kv)
        last = next(self.operations_back(), None)
        if last is not None and last.number >= number:
            raise DamagedEnvironment(f"serial {number} was given out before: the counter of the store has gone back")
        now = time.time_ns() // MICROSECOND * MICROSECOND
        moment = now if last is None else max(now, last.time + MICROSECOND)
        operation = Operation(number, verb, tuple(argv), actor, moment, tuple(moves), cursor)
        for move in moves:
            self.set_ref(move.ref, move.new, move.old, number)
            for each in move.roots():
                self._must_be_live(each, "an operation")
            self.kv.put(Table.REF_OPS, ref_key(move.ref) + b"\0" + u64(number), b"")
        self.kv.append(Table.OPS, [(u64(number), operation.encode())])
        return operation

    def complete(self, operation: Operation, ref: str, live: LivePair) -> None:
        """Where an operation has brought a workspace, as is known only now."""
        for each in live.roots():
            self._must_be_live(each, "an operation")
        moves = tuple(move._replace(new_live=live) if move.ref == ref else move for move in operation.moves)
        key = u64(operation.number)
        self._root_serial(Table.OPS, key)
        self.kv.put(Table.OPS, key, operation._replace(moves=moves).encode())


def short(object_id: ObjectId | None) -> str:
    return "nothing" if object_id is None else object_id.hex()[:12]
