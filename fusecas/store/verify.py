"""Is everything that is stored what it should be?

First LMDB's own pages, by a walk that never maps them; then our tables and every object, in a child process: a page
that leads LMDB astray can kill whoever follows it, and then the child's death is the answer.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusecas import _native
from fusecas.errors import CorruptObject, DamagedEnvironment, FusecasError, InvalidObject, MissingObject
from fusecas.store import packs, prolly, slices
from fusecas.store.condemned import NO_MARKS
from fusecas.store.environment import Value
from fusecas.store.ids import EMPTY_CONTENT, Kind, ObjectId
from fusecas.store.kinds import Action, EntryKind, Layer, State, Workspace
from fusecas.store.rows import Row
from fusecas.store.snapshot import Snapshot, decoded_recipe, refs_in
from fusecas.store.store import Store
from fusecas.store.tables import Table
from fusecas.store.verify_tables import TableFindings
from fusecas.store.walk import Numbers

THREADS = 2
BATCH_BYTES = 8 << 20
BATCH_OBJECTS = 1024
AT_ONCE = 64
PROLLY = frozenset({Kind.TREE, Kind.LINKS, Kind.TIMES, Kind.INODES, Kind.MAP, Kind.LOG})
CONTENT = frozenset({Kind.CHUNK, Kind.RECIPE})
DIED = "the process that read the objects died of {}: pages of the store are damaged"

CHILD = """
import json, sys
task = json.loads(sys.stdin.readline())
sys.path[:] = task["path"]
from fusecas.store.verify import main
main(task)
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    ok: objects that are what they should be. corrupted: their bytes do not give their id. invalid: the bytes give the
    id, but are not a well-formed object of their kind, or do not fit what they refer to. missing: something live
    refers to them, and they are not there. problems: what else is wrong, in LMDB's pages or in our tables.
    """

    ok: int
    corrupted: tuple[ObjectId, ...] = ()
    invalid: tuple[ObjectId, ...] = ()
    missing: tuple[ObjectId, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        return not (self.corrupted or self.invalid or self.missing or self.problems)


def verify(store: Store, roots: Sequence[ObjectId] | None = None, progress: Progress | None = None) -> VerifyReport:
    """Check everything, or only what hangs from `roots`. `progress` is told (objects read, objects in all)."""
    from fusecas.store.lmdb_environment import LmdbEnvironment

    if not isinstance(store.environment, LmdbEnvironment):
        return verify_here(store, roots, progress)
    with store.environment.read():
        # Pages of this snapshot are not used again while it is open: so the file may be read beside writers.
        problems = page_problems(store.environment.folder / "data.mdb")
    if problems:
        return VerifyReport(0, problems=tuple(problems))
    return _verify_in_child(store.environment.folder.parent, roots, progress)


def page_problems(path: Path) -> list[str]:
    """What is wrong with the pages of an LMDB file; reads it, but maps nothing."""
    from lmdb import verify as pages

    try:
        return [f"{path.name}: {each}" for each in pages.verify(str(path))]  # type: ignore[no-untyped-call]
    except pages.VerifyError as error:
        return [f"{path.name}: {error}"]


# ---- in a child


def _verify_in_child(folder: Path, roots: Sequence[ObjectId] | None, progress: Progress | None) -> VerifyReport:
    task = {"path": sys.path, "folder": str(folder), "roots": None if roots is None else [r.hex() for r in roots]}
    command = [sys.executable, "-c", CHILD]
    with (
        tempfile.TemporaryFile() as complaints,  # not a pipe: it would have to be read beside the other one
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints) as child,
    ):
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(task).encode() + b"\n")
        child.stdin.close()
        report = None
        for line in child.stdout:
            said = json.loads(line)
            if "report" in said:
                report = _from_json(said["report"])
            elif progress is not None:
                progress(*said["progress"])
        child.wait()
        complaints.seek(0)
        complaint = complaints.read().decode(errors="replace").strip()
    if child.returncode < 0:
        return VerifyReport(0, problems=(DIED.format(signal.Signals(-child.returncode).name),))
    if child.returncode > 0 or report is None:
        return VerifyReport(0, problems=(complaint.splitlines()[-1] if complaint else "the verification ended early",))
    return report


def main(task: dict[str, Any]) -> None:
    """The child's side: the report as a line of JSON."""

    def tell(done: int, total: int) -> None:
        print(json.dumps({"progress": [done, total]}), flush=True)

    roots = None if task["roots"] is None else [ObjectId(bytes.fromhex(each)) for each in task["roots"]]
    try:
        with Store.open(Path(task["folder"])) as store:
            report = verify_here(store, roots, tell)
    except FusecasError as error:
        report = VerifyReport(0, problems=(error.message,))
    print(json.dumps({"report": _to_json(report)}), flush=True)


def _to_json(report: VerifyReport) -> dict[str, Any]:
    ids = {name: [each.hex() for each in getattr(report, name)] for name in ("corrupted", "invalid", "missing")}
    return {"ok": report.ok, "problems": report.problems, **ids}


def _from_json(said: dict[str, Any]) -> VerifyReport:
    ids = {
        name: tuple(ObjectId(bytes.fromhex(each)) for each in said[name])
        for name in ("corrupted", "invalid", "missing")
    }
    return VerifyReport(said["ok"], problems=tuple(said["problems"]), **ids)


# ---- the checks


def verify_here(store: Store, roots: Sequence[ObjectId] | None, progress: Progress | None) -> VerifyReport:
    """The checks of tables and objects, in this process."""
    found = _Findings(progress)
    if roots is None:
        with _snapshot(store) as snapshot:
            tables = TableFindings(snapshot)
            tables.look()
            found.problems += tables.problems
            found.missing |= tables.missing
            found.total = snapshot.kv.count(Table.INDEX) + snapshot.kv.count(Table.YOUNG)
        _check_all(store, found)
    else:
        _check_closure(store, roots, found)
    return found.report()


@contextmanager
def _snapshot(store: Store) -> Iterator[Snapshot]:
    """Also of a store whose marks can't be read: that is one problem (of the tables), and must hide no other."""
    with store.environment.read() as kv:
        try:
            marks = store.marks(kv)
        except DamagedEnvironment:
            marks = NO_MARKS
        yield Snapshot(kv, marks)


@dataclass
class _Findings:
    """What has been found so far. Filled by one thread."""

    progress: Progress | None
    done: int = 0
    total: int = 0
    corrupted: set[ObjectId] = field(default_factory=set)
    invalid: set[ObjectId] = field(default_factory=set)
    missing: set[ObjectId] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def report(self) -> VerifyReport:
        bad = len(self.corrupted) + len(self.invalid)
        return VerifyReport(
            self.done - bad,
            tuple(sorted(self.corrupted)),
            tuple(sorted(self.invalid)),
            tuple(sorted(self.missing)),
            tuple(self.problems),
        )


def _check_all(store: Store, found: _Findings) -> None:
    """Every live object, in the order of ids, a snapshot for each batch."""
    start: bytes | None = b""
    while start is not None:
        with _snapshot(store) as snapshot:
            batch: list[tuple[ObjectId, Row]] = []
            size = 0
            rows, start = packs.raw_rows(snapshot.kv, start), None
            for object_id, value in rows:
                try:
                    row = Row.decode(value)
                except DamagedEnvironment:
                    continue  # a problem of the tables
                if not snapshot.marks.condemned(row.n):
                    batch.append((object_id, row))
                    size += row.size
                if size >= BATCH_BYTES or len(batch) >= BATCH_OBJECTS:
                    start = object_id + b"\0"
                    break
            _check_batch(snapshot, batch, found)


def _check_closure(store: Store, roots: Iterable[ObjectId], found: _Findings) -> None:
    """The last that was met comes first: so what waits stays as small as the trees are deep."""
    seen, waiting = Numbers(), list[ObjectId]()

    def reach(snapshot: Snapshot, object_id: ObjectId) -> None:
        if object_id == EMPTY_CONTENT:
            return
        row = snapshot.row(object_id)
        if row is None:
            found.missing.add(object_id)
        elif seen.add(row.n):
            waiting.append(object_id)
            found.total += 1

    with store.read() as snapshot:
        for root in roots:
            reach(snapshot, root)
    while waiting:
        deadline = time.monotonic() + slices.READ_TIME
        with store.read() as snapshot:
            while waiting and time.monotonic() < deadline:
                batch = [(each, snapshot.needed_row(each)) for each in waiting[-AT_ONCE:]]
                del waiting[-AT_ONCE:]
                for child in _check_batch(snapshot, batch, found):
                    reach(snapshot, child)


def _check_batch(snapshot: Snapshot, batch: Sequence[tuple[ObjectId, Row]], found: _Findings) -> list[ObjectId]:
    """Check these objects; what they refer to."""
    stored: list[tuple[bytes, int, int, int, Value]] = []
    intact: list[tuple[ObjectId, Row]] = []
    for object_id, row in batch:
        try:
            stored.append(
                (object_id, row.kind, row.codec, row.size, packs.joined(packs.stored_bytes(snapshot.kv, row)))
            )
            intact.append((object_id, row))
        except MissingObject:
            found.corrupted.add(object_id)
    children: list[ObjectId] = []
    for (object_id, row), (*_, data), right in zip(
        intact, stored, _native.verify_objects(stored, THREADS), strict=True
    ):
        if not right:
            (found.invalid if _gives_id(snapshot, object_id, row) else found.corrupted).add(object_id)
        elif row.kind != Kind.CHUNK:
            children += _check_node(snapshot, object_id, row, _native.decompress(data, row.codec, row.size), found)
    found.done += len(batch)
    if found.progress is not None:
        found.progress(found.done, found.total)
    return children


def _gives_id(snapshot: Snapshot, object_id: ObjectId, row: Row) -> bool:
    """Whether it is only the form of an object that is wrong."""
    try:
        packs.raw_bytes(snapshot.kv, object_id, row)
    except CorruptObject:
        return False
    return True


def _check_node(snapshot: Snapshot, object_id: ObjectId, row: Row, data: bytes, found: _Findings) -> list[ObjectId]:
    try:
        children = refs_in(object_id, row.kind, data)
        found.missing.update(each for each in children if not snapshot.has(each))
        _Wellformed(snapshot).check(object_id, row.kind, data)
    except InvalidObject:
        found.invalid.add(object_id)
        return []
    except DamagedEnvironment as error:  # a row of what it refers to can't be read
        if error.message not in found.problems:
            found.problems.append(error.message)
        return []
    return children


class _Wellformed:
    """Whether an object is what its kind demands, and whether what it refers to is what it says of it.

    What is missing or corrupt below it is not its own fault, and is found by itself.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def check(self, object_id: ObjectId, kind: int, data: bytes) -> None:
        if kind in PROLLY:
            self._prolly(object_id, Kind(kind), data)
        elif kind == Kind.STATE:
            state = State.decode(data)
            self._root(Kind.TREE, state.tree)
            self._root(Kind.LINKS, state.links)
        elif kind == Kind.LAYER:
            layer = Layer.decode(data)
            self._is(layer.state, Kind.STATE)
            for parent in layer.parents:
                self._is(parent, Kind.LAYER)
        elif kind == Kind.WORKSPACE:
            workspace = Workspace.decode(data)
            if workspace.layer is not None:
                self._is(workspace.layer, Kind.LAYER)
        elif kind == Kind.ACTION:
            Action.decode(data)
        elif kind == Kind.RECIPE:
            _, items, _ = decoded_recipe(object_id, data)
            self._items(items)
        elif kind == Kind.PART:
            self._items(_part(data))

    def _is(self, object_id: bytes, *kinds: Kind) -> Row | None:
        """The row of what must be one of these kinds; None if it is missing."""
        row = self._snapshot.row(object_id)
        if row is not None and row.kind not in kinds:
            raise InvalidObject(f"{object_id.hex()} is of kind {row.kind}")
        return row

    def _node(self, kind: Kind, object_id: bytes) -> prolly.Node | None:
        if self._is(object_id, kind) is None:
            return None
        try:
            return prolly.load_node(kind, object_id, self._snapshot.read_node)
        except (CorruptObject, MissingObject):
            return None

    def _root(self, kind: Kind, root: bytes | None, totals: tuple[int, int] | None = None) -> None:
        node = None if root is None else self._node(kind, root)
        if node is None:
            return
        if node.level > 0 and len(node.entries) < 2:
            raise InvalidObject("a root with one child")
        if totals is not None and (node.n, node.size) != totals:
            raise InvalidObject("other counts than its directory's")

    def _prolly(self, object_id: ObjectId, kind: Kind, data: bytes) -> None:
        node = prolly.load_node(kind, object_id, lambda _id, _kind: data)
        if node.level > 0:
            self._children(kind, node)
        elif kind == Kind.TREE:
            for entry in node.entries:
                self._tree_entry(entry)
        elif kind in (Kind.TIMES, Kind.INODES):
            for entry in node.entries:
                self._root(kind, entry[-1])

    def _tree_entry(self, entry: prolly.LeafEntry) -> None:
        _, kind, _, target, size, count, _ = entry
        if kind == EntryKind.DIRECTORY and target is not None:
            self._root(Kind.TREE, target, (count, size))
        elif kind == EntryKind.FILE and target is not None:
            row = self._is(target, *CONTENT)
            if row is not None and self._size(target, row) not in (None, size):
                raise InvalidObject("a file of another size than its content's")

    def _size(self, content: bytes, row: Row) -> int | None:
        if row.kind == Kind.CHUNK:
            return row.size
        try:
            return self._snapshot.content_size(content)
        except (CorruptObject, MissingObject):
            return None

    def _children(self, kind: Kind, node: prolly.Node) -> None:
        for at, inner in enumerate(node.entries):
            child = self._node(kind, inner[prolly.CHILD])
            if child is not None:
                prolly.check_child(node, at, child)
                if at < len(node.entries) - 1:
                    self._ends_with_cut(kind, child)

    def _ends_with_cut(self, kind: Kind, node: prolly.Node) -> None:
        """A node that is not the last of its level ends where the rule ends it, and so do the last ones below it."""
        prolly.check_end(node)
        if node.level > 0:
            last = self._node(kind, node.entries[-1][prolly.CHILD])
            if last is not None:
                self._ends_with_cut(kind, last)

    def _items(self, items: Iterable[tuple[Any, ...]]) -> None:
        """Each item of a recipe or part is as long as it says."""
        for target, length, *is_part in items:
            if target is None:
                continue
            row = self._is(target, *([Kind.PART] if is_part else CONTENT))
            if row is None:
                continue
            if is_part:
                try:
                    actual = sum(item[1] for item in _part(self._snapshot.read_node(target, Kind.PART)))
                except (CorruptObject, MissingObject):
                    continue
            else:
                actual = self._size(target, row) or length
            if actual != length:
                raise InvalidObject("an item of another length than it says")


def _part(data: bytes) -> list[tuple[Any, ...]]:
    try:
        items: list[tuple[Any, ...]] = _native.decode_part(data)
        return items
    except _native.FormatError as error:
        raise InvalidObject(f"a malformed part: {error}") from error
