"""verify tells what is corrupted, invalid or missing, and what does not fit between tables."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fusecas import _native
from fusecas._native import Ref
from fusecas.store import packs, prolly
from fusecas.store import verify as verifying
from fusecas.store.environment import KV
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import State
from fusecas.store.rows import Row
from fusecas.store.store import Store
from fusecas.store.tables import Table, u64
from fusecas.store.verify import VerifyReport, verify
from tests.store.making import collect, condemn, kept, layer_over, node_over, noise, unreadable_node

NOWHERE = ObjectId(b"\7" * 32)


def force(store: Store, kind: Kind, data: bytes) -> ObjectId:
    """Store a node without any check."""
    node = ObjectId(_native.node_id(kind, data))
    with store.environment.write() as kv:
        packs.append_objects(kv, [packs.NewObject(node, kind, 0, len(data), memoryview(data))], 0)
    return node


def change(store: Store, object_id: ObjectId) -> None:
    """Flip a bit in an object's stored bytes."""
    with store.environment.write() as kv:
        row = packs.find_row(kv, object_id)
        assert row is not None
        value = bytearray(kv.get(Table.DATA, u64(row.pack)) or b"")
        value[row.offset + row.stored // 2] ^= 1
        kv.put(Table.DATA, u64(row.pack), bytes(value))


def test_a_clean_store_is_clean(store: Store) -> None:
    layer = kept(store, lambda transaction: layer_over(transaction, noise(1 << 20)))
    with store.write() as transaction:
        transaction.put_content(b"unreachable")
    with store.read() as snapshot:
        present = sum(1 for _ in packs.rows(snapshot.kv))
    assert verify(store) == VerifyReport(present)
    assert verify(store, [layer]) == VerifyReport(present - 1)


def test_progress_ends_at_the_number_of_objects(store: Store) -> None:
    layer = kept(store, lambda transaction: layer_over(transaction, noise(1 << 20)))
    for roots in (None, [layer]):
        told: list[int] = []
        report = verify(store, roots, lambda *figures, told=told: told.extend(figures))  # type: ignore[misc]
        assert told[-2:] == [report.ok, report.ok]


def test_a_changed_chunk_is_corrupted(store: Store) -> None:
    content = kept(store, lambda transaction: transaction.put_content(noise(1000)))
    change(store, content)
    for roots in (None, [content]):
        report = verify(store, roots)
        assert (report.ok, report.corrupted, report.clean) == (0, (content,), False)


def test_a_changed_node_is_corrupted_and_its_parent_is_not(store: Store) -> None:
    with store.write() as transaction:
        child = node_over(transaction, [transaction.put_content(b"x" * 100)])
        parent = node_over(transaction, [child])
    change(store, child)
    report = verify(store)
    assert (report.ok, report.corrupted, report.invalid) == (2, (child,), ())
    assert verify(store, [parent]).corrupted == (child,)


def test_what_is_referred_to_and_not_there_is_missing(store: Store) -> None:
    node = force(store, Kind.MAP, _native.cbor_encode([0, [[b"key", Ref(NOWHERE)]]]))
    for roots in (None, [node]):
        report = verify(store, roots)
        assert (report.ok, report.missing) == (1, (NOWHERE,))
    assert verify(store, [NOWHERE]).missing == (NOWHERE,)


def test_the_target_of_a_ref_that_is_not_there_is_missing(store: Store) -> None:
    content = kept(store, lambda transaction: transaction.put_content(b"x"))
    with store.environment.write() as kv:
        row = packs.find_row(kv, content)
        assert row is not None
        packs.delete_row(kv, content, row)
    assert verify(store).missing == (content,)


def test_what_is_condemned_is_not_looked_at_but_missing_where_it_is_needed(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(noise(1000))
    change(store, content)
    condemn(store)
    assert verify(store) == VerifyReport(0)
    node = force(store, Kind.MAP, _native.cbor_encode([0, [[b"key", Ref(content)]]]))
    assert verify(store, [node]).missing == (content,)


def test_a_node_that_is_not_of_its_form_is_invalid(store: Store) -> None:
    nodes = {
        force(store, Kind.STATE, _native.cbor_encode({"tree": None})),
        force(store, Kind.LAYER, _native.cbor_encode(["not", "a", "layer"])),
        force(store, Kind.WORKSPACE, _native.cbor_encode({})),
        force(store, Kind.ACTION, _native.cbor_encode({})),
        force(store, Kind.TREE, _native.cbor_encode([0, []])),
        force(store, Kind.PART, _native.cbor_encode({})),
        unreadable_node(store),
    }
    assert set(verify(store).invalid) == nodes


def test_a_reference_to_an_object_of_another_kind_is_invalid(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        state = transaction.put_node(Kind.STATE, State(tree=content, mode=0o755, links=None).encode())  # type: ignore[arg-type]
    assert verify(store).invalid == (state,)
    assert verify(store, [state]).invalid == (state,)


def test_a_size_that_is_not_the_contents_is_invalid(store: Store) -> None:
    with store.write() as transaction:
        small, large = transaction.put_content(b"x"), transaction.put_content(noise(200_000))
        made = [
            prolly.build(Kind.TREE, [(b"name", 1, 0o644, target, 7, 0, None)], transaction.put_node)
            for target in (small, large)
        ]
    assert set(verify(store).invalid) == set(made)


def test_counts_that_are_not_the_directorys_are_invalid(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        inner = prolly.build(Kind.TREE, [(b"name", 1, 0o644, content, 1, 0, None)], transaction.put_node)
        right = prolly.build(Kind.TREE, [(b"dir", 2, 0o755, inner, 1, 1, None)], transaction.put_node)
        wrong = prolly.build(Kind.TREE, [(b"dir", 2, 0o755, inner, 1, 2, None)], transaction.put_node)
    report = verify(store)
    assert report.invalid == (wrong,)
    assert right is not None


def test_a_tree_that_was_split_in_another_way_is_invalid(store: Store) -> None:
    keys = [key for i in range(40) if not _native.is_cut(0, key := b"%02d" % i)]
    halves = []
    for part in (keys[:10], keys[10:]):
        [(node, data, last, n, _)] = _native.encode_level(Kind.MAP, 0, [(key, 1) for key in part])
        force(store, Kind.MAP, data)
        halves.append([last, Ref(node), n])
    root = force(store, Kind.MAP, _native.cbor_encode([1, halves]))
    assert verify(store).invalid == (root,)


def test_a_big_tree_is_clean_as_a_whole(store: Store) -> None:
    with store.session() as session:
        content = session.put_content(b"x")
        entries = [(b"%06d" % i, 1, 0o644, content, 1, 0, None) for i in range(20_000)]
        tree = prolly.build(Kind.TREE, entries, session.put_node)
        assert tree is not None
        session.publish(lambda transaction: transaction.set_ref("pins/tree", tree, None))
    assert verify(store).clean
    assert verify(store, [tree]).clean


# ---- tables


def set_row(kv: KV, object_id: ObjectId, **changes: int) -> None:
    row = packs.find_row(kv, object_id)
    assert row is not None
    kv.put(Table.YOUNG, object_id, row._replace(**changes).encode())


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (lambda kv, layer: kv.put(Table.PACKS, u64(1), _native.pack_varints([1])), "pack 1 counts 1 live bytes"),
        (
            lambda kv, layer: kv.put(Table.PACKS, u64(99), _native.pack_varints([1])),
            "pack 99 is counted, but not there",
        ),
        (lambda kv, layer: kv.delete(Table.PACKS, u64(1)), "pack 1 holds objects, but is not counted"),
        (lambda kv, layer: kv.delete(Table.LAYERS, layer), "not listed among the layers"),
        (lambda kv, layer: kv.put(Table.LAYERS, NOWHERE, b""), "2 layers are listed, 1 are there"),
        (lambda kv, layer: packs.set_meta(kv, "young", 7), "young has 4 rows, its counter says 7"),
        (
            lambda kv, layer: kv.put(Table.INDEX, layer, packs.find_row(kv, layer).encode()),
            "both in index and in young",
        ),
        (lambda kv, layer: set_row(kv, layer, n=1), "of another object"),
        (lambda kv, layer: set_row(kv, layer, n=77), "never given out"),
    ],
)
def test_tables_that_do_not_fit_are_a_problem(
    store: Store, breakage: Callable[[KV, ObjectId], None], said: str
) -> None:
    layer = kept(store, lambda transaction: layer_over(transaction, b"x" * 50))
    with store.environment.write() as kv:
        breakage(kv, layer)
    problems = verify(store).problems
    assert any(said in each for each in problems), problems


def test_a_row_that_leads_nowhere_is_corrupted(store: Store) -> None:
    content = kept(store, lambda transaction: transaction.put_content(b"x"))
    with store.environment.write() as kv:
        set_row(kv, content, pack=55)
    assert verify(store).corrupted == (content,)
    assert isinstance(Row.decode(b"\0\0" + b"\1" * 6), Row)


# ---- LMDB's pages, and the child


def test_a_changed_page_of_lmdb_is_a_problem(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        kept(store, lambda transaction: layer_over(transaction, noise(100_000)))
    path = tmp_path / "store" / "data.mdb"
    data = bytearray(path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096] ^= 0xFF  # its own number
    path.write_bytes(data)
    assert verifying.page_problems(path) != []


def test_the_death_of_the_child_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "CHILD", "import os; os.kill(os.getpid(), 7)")
    with Store.create(tmp_path) as store:
        report = verify(store)
    assert not report.clean
    assert "SIGBUS" in report.problems[0]


def test_a_failure_of_the_child_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "CHILD", "import nowhere")
    with Store.create(tmp_path) as store:
        report = verify(store)
    assert "No module named 'nowhere'" in report.problems[0]


def test_verify_runs_beside_a_writer_and_a_gc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(tmp_path) as store:
        kept(store, lambda transaction: layer_over(transaction, noise(100_000)))
        page_problems = verifying.page_problems

        def write_meanwhile(path: Path) -> list[str]:
            with store.write() as transaction:
                layer_over(transaction, noise(1000, 9))
            collect(store)
            return page_problems(path)

        monkeypatch.setattr(verifying, "page_problems", write_meanwhile)
        assert verify(store).clean
