"""Damaged tables: verify names each damage and hides none; nothing worse than a typed error comes of any.

The pages of LMDB themselves are damaged in tests/crash.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fusecas.errors import Damaged, FusecasError
from fusecas.store import heads, history, packs, prolly, revisions, tags, trees
from fusecas.store.environment import KV
from fusecas.store.gc import collect
from fusecas.store.ids import Kind, LayerId, ObjectId
from fusecas.store.importer import import_tree
from fusecas.store.repository import Repository
from fusecas.store.rows import Row
from fusecas.store.snapshot import Snapshot
from fusecas.store.stats import measure
from fusecas.store.store import Store
from fusecas.store.tables import Table, u64
from fusecas.store.verify import verify, verify_here
from fusecas.workspace.importing import import_layer
from fusecas.workspace.mover import Deed
from tests.store.making import in_an_hour, noise


def fill(folder: Path) -> None:
    """A repository with a row in each table: layers, tags, operations, marks, a session."""
    source = folder / "source"
    source.mkdir()
    with Repository.create(folder / ".fusecas") as repository:
        for round in range(3):
            (source / f"file{round}").write_bytes(noise(3000, round))
            import_layer(repository, source, message=str(round), deed=Deed((b"import",), "somebody"))
        with repository.store.write() as transaction:
            tags.set_tag(transaction, "v1", layer_of(transaction), (), "somebody")
        collect(repository.store, now=in_an_hour)
        with repository.store.session() as session:
            session.put_content(b"held")
            import_tree(session, source)
            session.keep()
        with repository.store.write() as transaction:
            tags.set_tag(transaction, "v2", layer_of(transaction), (), "somebody")


def layer_of(reader: Snapshot) -> LayerId:
    layer = heads.read_head(reader).workspace.layer
    assert layer is not None
    return layer


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    fill(tmp_path)
    with Repository.open(tmp_path / ".fusecas") as opened:
        assert verify(opened.store).clean
        yield opened


def first(kv: KV, table: Table) -> bytes:
    return next(key for key, _ in kv.scan(table))


def last(kv: KV, table: Table) -> bytes:
    return next(key for key, _ in kv.scan_back(table))


def a_hold(kv: KV) -> bytes:
    return next(key for key, _ in kv.scan(Table.SESSIONS) if key[8:] != bytes(8))


def a_session(kv: KV) -> bytes:
    return next(key for key, _ in kv.scan(Table.SESSIONS) if key[8:] == bytes(8))


BREAKAGES: dict[str, tuple[Callable[[KV], object], str]] = {
    "a live row that is gone": (lambda kv: kv.delete(Table.LIVE, first(kv, Table.LIVE)), "has no live row"),
    "a live row that is garbage": (lambda kv: kv.put(Table.LIVE, first(kv, Table.LIVE), b"?"), "a live row can't be"),
    "an operation that is garbage": (lambda kv: kv.put(Table.OPS, first(kv, Table.OPS), b"?"), "operation 1 can't be"),
    "an operation that is gone": (lambda kv: kv.delete(Table.OPS, last(kv, Table.OPS)), "the logs of refs have"),
    "no logs of refs": (
        lambda kv: [kv.delete(Table.REF_OPS, key) for key, _ in list(kv.scan(Table.REF_OPS))],
        "is not in the log of",
    ),
    "a ref that is garbage": (lambda kv: kv.put(Table.REFS, b"tags/v1", b"?"), "a ref can't be read"),
    "a tag on something else": (
        lambda kv: kv.put(Table.REFS, b"tags/v1", bytes(kv.get(Table.REFS, b"heads/main") or b"")),
        "tags/v1 points to an object of kind 10, not to a layer",
    ),
    "times that are garbage": (
        lambda kv: kv.put(Table.LAYER_TIMES, first(kv, Table.LAYER_TIMES), b"\x82\x01\x02"),
        "the times of a layer can't be read",
    ),
    "a pack's count that is garbage": (
        lambda kv: kv.put(Table.PACKS, first(kv, Table.PACKS), b"\x80"),
        "the count of a pack can't be read",
    ),
    "a hold that is garbage": (lambda kv: kv.put(Table.SESSIONS, a_hold(kv), b"\x09"), "a hold can't be read"),
    "a session that is garbage": (lambda kv: kv.put(Table.SESSIONS, a_session(kv), b"\x00"), "a session can't be"),
    "a session's key that is cut short": (lambda kv: kv.put(Table.SESSIONS, b"abc", b"\x00"), "a session's key"),
    "gc's state that is garbage": (lambda kv: kv.put(Table.GC, b"state", b"\x83\x01\x02\x61a"), "the state of gc"),
    "marks that are too few": (lambda kv: kv.put(Table.GC, first(kv, Table.GC), b"\xff"), "the marks of gc 1"),
    "a serial counter set back": (lambda kv: kv.put(Table.META, b"next_serial", u64(2)), "was never given out"),
    "a number counter set back": (lambda kv: kv.put(Table.META, b"next_n", u64(2)), "was never given out"),
    "no cache domain": (lambda kv: kv.delete(Table.META, b"domain"), "meta has no domain"),
    "a row of recent that is garbage": (
        lambda kv: kv.put(Table.RECENT, last(kv, Table.RECENT), b""),
        "a row of recent",
    ),
    "a row that is garbage": (lambda kv: kv.put(Table.YOUNG, first(kv, Table.YOUNG), b"?"), "a row of the index"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_verify_names_the_damage_and_what_else_is_wrong(repository: Repository, name: str) -> None:
    store = repository.store
    with store.read() as snapshot:
        [flipped] = [each for each, row in rows_of(snapshot) if row.kind == Kind.CHUNK and row.size == 4]
    breakage, said = BREAKAGES[name]
    with store.environment.write() as kv:
        flip_chunk(kv, flipped)
        breakage(kv)
    report = verify(store)
    assert any(said in problem for problem in report.problems), report
    assert report.corrupted == (flipped,), report


def rows_of(snapshot: Snapshot) -> Iterator[tuple[ObjectId, Row]]:
    return packs.rows(snapshot.kv)


def flip_chunk(kv: KV, object_id: ObjectId) -> None:
    row = packs.find_row(kv, object_id)
    assert row is not None
    value = bytearray(kv.get(Table.DATA, u64(row.pack)) or b"")
    value[row.offset] ^= 1
    kv.put(Table.DATA, u64(row.pack), bytes(value))


def test_what_an_operation_needs_and_is_gone_is_missing(repository: Repository) -> None:
    with repository.store.read() as snapshot:
        operation = next(each for each in snapshot.operations_back() if each.verb == "import")
        old = operation.moves[0].old
        assert old is not None
    with repository.store.environment.write() as kv:
        row = packs.find_row(kv, old)
        assert row is not None
        packs.delete_row(kv, old, row)
    assert old in verify(repository.store).missing
    with pytest.raises(Damaged):
        collect(repository.store)


def test_a_head_and_a_live_row_that_disagree_are_a_problem(repository: Repository) -> None:
    with repository.store.write() as transaction:
        head = heads.read_head(transaction)
        transaction.set_live(head.workspace.id, head.live._replace(layer=None))
    assert any("name different layers" in each for each in verify(repository.store).problems)


def test_a_missing_node_of_a_big_tree_hides_nothing(store: Store) -> None:
    """The last leaf below the first inner node of a tree of three levels, and a chunk that is corrupt."""
    with store.session() as session:
        bad = session.put_content(b"to be flipped")
        entries = [(b"%05d" % i, 1, 0o644, bad, 13, 0, None) for i in range(20_000)]
        tree = prolly.build(Kind.TREE, entries, session.put_node)
        assert tree is not None
        session.publish(lambda transaction: transaction.set_ref("pins/tree", tree, None))
    with store.environment.write() as kv:
        with_root = store.marks(kv)
        snapshot = Snapshot(kv, with_root)
        root = prolly.load_node(Kind.TREE, tree, snapshot.read_node)
        assert root.level == 2
        inner = prolly.load_child(Kind.TREE, root, 0, snapshot.read_node)
        leaf = ObjectId(inner.entries[-1][prolly.CHILD])
        row = packs.find_row(kv, leaf)
        assert row is not None
        packs.delete_row(kv, leaf, row)
        flip_chunk(kv, bad)
    report = verify(store)
    assert (report.missing, report.corrupted, report.problems) == ((leaf,), (bad,), ())


def everything(repository: Repository, scratch: Path) -> Iterator[Callable[[], object]]:
    """What people do with a repository, one after the other."""
    store = repository.store

    def read() -> None:
        with store.read() as snapshot:
            for text in ("@", "v1", "main@{1}", "@~1", "main@{yesterday}"):
                revision = revisions.resolve(snapshot, text)
                list(trees.walk(snapshot, trees.read_state(snapshot, revision.state).tree))
            list(history.entries(snapshot, layer_of(snapshot)))
            list(snapshot.operations())

    def tag() -> None:
        with store.write() as transaction:
            tags.set_tag(transaction, f"t{random.random()}", layer_of(transaction), (), "")

    yield read
    yield tag
    yield lambda: import_layer(repository, scratch / "source")
    yield lambda: measure(store, repository.folder)
    yield lambda: collect(store, dry_run=True)
    yield lambda: collect(store, now=in_an_hour)
    yield lambda: verify_here(store, None, None)
    yield tag


TABLES = (Table.META, Table.PACKS, Table.REFS, Table.OPS, Table.REF_OPS, Table.LIVE, Table.LAYER_TIMES, Table.RECENT)
TABLES += (Table.SESSIONS, Table.GC, Table.YOUNG, Table.DATA)


@pytest.mark.parametrize("table", TABLES)
def test_a_flipped_byte_in_a_value_is_never_more_than_a_typed_error(tmp_path: Path, table: Table) -> None:
    fill(tmp_path)
    rng = random.Random(table)
    folder = tmp_path / ".fusecas"
    with Repository.open(folder) as repository:
        with repository.store.environment.read() as kv:
            rows = [(key, bytes(value)) for key, value in kv.scan(table) if len(value)]
        for _ in range(30 if rows else 0):
            key, value = rng.choice(rows)
            at = rng.randrange(len(value))
            damaged = value[:at] + bytes([value[at] ^ (1 << rng.randrange(8))]) + value[at + 1 :]
            with repository.store.environment.write() as kv:
                kv.put(table, key, damaged)
            for act in everything(repository, tmp_path):
                with suppress(FusecasError):
                    act()
            with repository.store.environment.write() as kv:
                for old, _ in list(kv.scan(table)):
                    kv.delete(table, old)
                for old, was in rows:
                    kv.put(table, old, was)
