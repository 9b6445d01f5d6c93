"""Do our tables fit together? Rows and packs, refs and what they point to, operations, sessions, counters.

Each row is decoded by itself: one that can't be read is one problem, and hides no other. All of it is asked of one
snapshot, since it compares counts (docs/dev/lmdb.md).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from fusecas.errors import CorruptObject, DamagedEnvironment, InvalidObject, MissingObject
from fusecas.store import heads, packs, tags
from fusecas.store.condemned import NO_MARKS, read_marks
from fusecas.store.environment import Value
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import Workspace
from fusecas.store.rows import Hold, LayerTimes, Live, Operation, Recent, RefRow, Row, SessionRow, decode_count
from fusecas.store.run_rows import Record, Result, decode_holders
from fusecas.store.snapshot import Snapshot, read_name, ref_key
from fusecas.store.tables import ROOT_TABLES, Table, to_session_key, to_u64, u64
from fusecas.store.walk import Numbers

COUNTERS = ("format", "next_n", "next_serial", "young", "created")
NEEDED_META = (*COUNTERS, "repository", "domain")
T = TypeVar("T")
REF_KINDS = {heads.NAMESPACE: Kind.WORKSPACE, tags.NAMESPACE: Kind.LAYER}


class TableFindings:
    """What is wrong with the tables of one snapshot: `problems` in words, `missing` objects that rows name."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.problems: list[str] = []
        self.missing: set[ObjectId] = set()
        self._snapshot = snapshot
        self._kv = snapshot.kv
        self._live_rows: dict[bytes, Live] = {}

    def look(self) -> None:
        self._meta()
        self._rows_and_packs()
        self._live()
        self._refs()
        self._operations()
        self._times()
        self._sessions()
        self._recent()
        self._runs()
        self._gc()

    def _scan(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, Value]]:
        return self._kv.scan(table, start)

    def _try(self, read: Callable[[], T]) -> T | None:
        """What this reads; if that is damaged, one more problem, and None."""
        try:
            return read()
        except DamagedEnvironment as error:
            if error.message not in self.problems:
                self.problems.append(error.message)
            return None

    def _needs(self, *ids: ObjectId) -> None:
        for each in ids:
            if self._try(lambda: self._snapshot.has(each)) is False:  # noqa: B023
                self.missing.add(each)

    def _serial(self, what: str, serial: int) -> None:
        if not 0 < serial < self._next_serial:
            self.problems.append(f"{what} has serial {serial}, which was never given out")

    # meta

    def _meta(self) -> None:
        for name in NEEDED_META:
            value = self._kv.get(Table.META, name.encode())
            if value is None:
                self.problems.append(f"meta has no {name}")
            elif name in COUNTERS:
                self._try(lambda: to_u64(value))  # noqa: B023
        self._next_serial = self._try(lambda: packs.get_meta(self._kv, "next_serial")) or 0
        self._next_n = self._try(lambda: packs.get_meta(self._kv, "next_n")) or 0

    # rows and packs

    def _rows_and_packs(self) -> None:
        live: Counter[int] = Counter()
        numbers = Numbers()
        layers = 0
        for table in (Table.YOUNG, Table.INDEX):
            other = Table.INDEX if table == Table.YOUNG else None
            for key, value in self._scan(table):
                row = self._try(lambda: Row.decode(value))  # noqa: B023
                if row is None:
                    continue
                if other is not None and self._kv.get(other, key) is not None:
                    self.problems.append(f"{key.hex()} is both in index and in young")
                self._row(key, row, numbers)
                layers += row.kind == Kind.LAYER
                try:
                    for span in packs.spans(self._kv, row):
                        live[span.pack] += span.stop - span.start
                except MissingObject:
                    pass  # found again, as corrupt, when the object is read
        if layers != self._kv.count(Table.LAYERS):
            self.problems.append(f"{self._kv.count(Table.LAYERS)} layers are listed, {layers} are there")
        young = self._try(lambda: packs.get_meta(self._kv, "young"))
        if young is not None and self._kv.count(Table.YOUNG) != young:
            self.problems.append(f"young has {self._kv.count(Table.YOUNG)} rows, its counter says {young}")
        self._packs(live)

    def _row(self, object_id: bytes, row: Row, numbers: Numbers) -> None:
        if not 0 < row.n < self._next_n:
            self.problems.append(f"{object_id.hex()} has number {row.n}, which was never given out")
        elif not numbers.add(row.n):
            self.problems.append(f"{object_id.hex()} has number {row.n} of another object")
        if row.kind == Kind.LAYER and self._kv.get(Table.LAYERS, object_id) is None:
            self.problems.append(f"{object_id.hex()} is not listed among the layers")

    def _packs(self, live: Counter[int]) -> None:
        for key, value in self._scan(Table.PACKS):
            pack, said = to_u64(key), self._try(lambda: decode_count(value))  # noqa: B023
            if said is not None and said != live.pop(pack, 0):
                self.problems.append(f"pack {pack} counts {said} live bytes, which is not what its objects take")
            if self._kv.get(Table.DATA, key) is None:
                self.problems.append(f"pack {pack} is counted, but not there")
        self.problems += [f"pack {pack} holds objects, but is not counted" for pack in sorted(live)]
        if self._kv.count(Table.PACKS) != self._kv.count(Table.DATA):
            there, counted = self._kv.count(Table.DATA), self._kv.count(Table.PACKS)
            self.problems.append(f"{there} packs are there, {counted} are counted")

    # refs, live rows, operations

    def _live(self) -> None:
        for key, value in self._scan(Table.LIVE):
            live = self._try(lambda: Live.decode(value))  # noqa: B023
            if live is not None:
                self._live_rows[key] = live
                self._serial(f"live row {key.hex()}", live.serial)
                self._needs(*live.roots())

    def _refs(self) -> None:
        for key, value in self._scan(Table.REFS):
            name = self._try(lambda: read_name(key))  # noqa: B023
            row = self._try(lambda: RefRow.decode(value))  # noqa: B023
            if name is None or row is None:
                continue
            self._serial(name, row.serial)
            self._needs(row.target)
            wanted = next((kind for space, kind in REF_KINDS.items() if name.startswith(space)), None)
            found = self._try(lambda: self._snapshot.row(row.target))  # noqa: B023
            if found is not None and wanted is not None and found.kind != wanted:
                self.problems.append(f"{name} points to an object of kind {found.kind}, not to a {wanted.name.lower()}")
            elif found is not None and wanted == Kind.WORKSPACE:
                self._head(name, row.target)

    def _head(self, name: str, target: ObjectId) -> None:
        try:
            workspace = Workspace.decode(self._snapshot.read_node(target, Kind.WORKSPACE))
        except (CorruptObject, InvalidObject, MissingObject, DamagedEnvironment):
            return  # found when the object, or its row, is read
        live = self._live_rows.get(workspace.id)
        if live is None:
            self.problems.append(f"{name} has no live row")
        elif live.layer != workspace.layer:
            self.problems.append(f"{name} and its live row name different layers")

    def _operations(self) -> None:
        since = self._snapshot.marks.undoable_since
        listed = 0
        for key, value in self._scan(Table.OPS):
            operation = self._try(lambda: Operation.decode(to_u64(key), value))  # noqa: B023
            if operation is None:
                continue
            self._serial(f"operation {operation.number}", operation.number)
            for move in operation.moves:
                listed += 1
                if self._kv.get(Table.REF_OPS, ref_key(move.ref) + b"\0" + u64(operation.number)) is None:
                    self.problems.append(f"operation {operation.number} is not in the log of {move.ref}")
                if operation.time >= since:
                    self._needs(*move.roots())
        if listed != self._kv.count(Table.REF_OPS):
            there = self._kv.count(Table.REF_OPS)
            self.problems.append(f"the logs of refs have {there} entries, the operations moved {listed}")

    def _times(self) -> None:
        for key, value in self._scan(Table.LAYER_TIMES):
            row = self._try(lambda: LayerTimes.decode(value))  # noqa: B023
            if row is not None:
                self._serial(f"the times of {key.hex()}", row.serial)
                if self._try(lambda: self._snapshot.row(key)) is not None:  # noqa: B023
                    self._needs(row.times)

    # sessions, gc

    def _sessions(self) -> None:
        for key, value in self._scan(Table.SESSIONS):
            found = self._try(lambda: to_session_key(key))  # noqa: B023
            if found is None:
                continue
            session, serial = found
            if serial:
                self._serial(f"a hold of session {session}", serial)
                self._try(lambda: Hold.decode(value))  # noqa: B023
            else:
                row = self._try(lambda: SessionRow.decode(value))  # noqa: B023
                if row is not None and not row.last_hold < self._next_serial:
                    self._serial(f"session {session}", row.last_hold)

    def _recent(self) -> None:
        for key, value in self._scan(Table.RECENT):
            recent = self._try(lambda: Recent.decode(value))  # noqa: B023
            self._serial("a row of recent", to_u64(key))
            if recent is not None and recent.table >= len(ROOT_TABLES):
                self.problems.append(f"a row of recent names table {recent.table}, which is not known")

    def _runs(self) -> None:
        for _, value in self._scan(Table.RECORDS):
            record = self._try(lambda: Record.decode(value))  # noqa: B023
            if record is not None:
                self._needs(*record.roots())
        for _, value in self._scan(Table.ACTIONS):
            self._try(lambda: Result.decode(value))  # noqa: B023
        for _, value in self._scan(Table.BOUND):
            self._try(lambda: decode_holders(value))  # noqa: B023

    def _gc(self) -> None:
        marks = self._try(lambda: read_marks(self._kv, NO_MARKS))
        if marks is not None and marks.next_n > max(self._next_n, 1):
            self.problems.append(f"gc {marks.k} has judged numbers up to {marks.next_n}, which were never given out")
