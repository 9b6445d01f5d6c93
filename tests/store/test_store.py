"""What a store promises, whatever keeps its tables: the same tests on LMDB and in memory."""

import io
from pathlib import Path

import pytest

from fusecas import _native
from fusecas.errors import (
    AmbiguousPrefix,
    Conflict,
    CorruptObject,
    InUse,
    InvalidObject,
    MissingObject,
    ObjectNotFound,
    RepositoryNotFound,
    TooLarge,
    UnknownFormat,
    UsageError,
)
from fusecas.store import packs
from fusecas.store.ids import EMPTY_CONTENT, Kind, ObjectId
from fusecas.store.rows import Live, Move
from fusecas.store.store import Store
from fusecas.store.tables import Table, u64
from fusecas.store.verify import verify
from tests.store.making import ANYTHING, collect, condemn, kept, layer_over, node_over, noise

NOWHERE = ObjectId(b"\7" * 32)


# ---- content


@pytest.mark.parametrize("size", [1, 100, 65536, 65537, 1 << 20, 3 << 20])
def test_what_was_put_is_read_back(store: Store, size: int) -> None:
    data = noise(size)
    with store.write() as transaction:
        content = transaction.put_content(data)
    with store.read() as snapshot:
        assert content == _native.content_hash(data)
        assert snapshot.read_content(content) == data
        assert snapshot.content_size(content) == size


def test_the_empty_content_is_always_there(store: Store) -> None:
    with store.write() as transaction:
        assert transaction.put_content(b"") == EMPTY_CONTENT
    with store.read() as snapshot:
        assert snapshot.has(EMPTY_CONTENT)
        assert snapshot.read_content(EMPTY_CONTENT) == b""
        assert snapshot.content_size(EMPTY_CONTENT) == 0
        assert snapshot.refs_of(EMPTY_CONTENT) == []
        assert snapshot.row(EMPTY_CONTENT) is None


def test_equal_content_is_stored_once(store: Store) -> None:
    data = noise(300_000)
    with store.write() as transaction:
        transaction.put_content(data)
        transaction.put_content(data)
    with store.session() as session:
        session.put_content(data)
        session.put_content(data)
        session.flush()
        assert session.new_objects == 0
        assert session.hit_objects > 0
    with store.read() as snapshot:
        stored = sum(row.stored for _, row in packs.rows(snapshot.kv))
        assert stored < 1.05 * len(data)


def test_equal_content_within_one_batch_is_stored_once(store: Store) -> None:
    with store.session() as session:
        for _ in range(3):
            session.put_content(noise(200_000))
        session.publish(lambda transaction: None)
        assert session.new_bytes < 1.1 * 200_000


def test_any_range_is_read(store: Store) -> None:
    data = noise(400_000) + bytes(300_000) + noise(100_000, 1)
    with store.write() as transaction:
        content = transaction.put_content(data)
    with store.read() as snapshot:
        for start, length in [(0, 1), (399_990, 20), (65_530, 200_000), (500_000, 10), (799_999, 100), (900_000, 5)]:
            assert snapshot.read_range(content, start, length) == data[start : start + length]


def test_a_hole_takes_no_space(store: Store) -> None:
    with store.session() as session:
        content = session.put_stream(io.BytesIO(bytes(64 << 20)))
        session.publish(lambda transaction: transaction.set_ref("pins/hole", content, None))
        assert session.stored_bytes < 4096
    with store.read() as snapshot:
        assert snapshot.content_size(content) == 64 << 20
        assert snapshot.read_range(content, 32 << 20, 1000) == bytes(1000)


def content_with_a_chunk_that_alone_has_a_hole() -> tuple[bytes, bytes]:
    """A content, and one of its chunks: 16 zero pages, which are a hole only where they begin at a page."""
    head = noise(300_000, 3)
    batch = _native.Batch()
    _native.cut_bytes(batch, head)
    start = batch.sizes()[0]
    assert start % 4096
    whole = head[:start] + noise(8192, 5) + bytes(65536) + noise(300_000, 6)
    batch = _native.Batch()
    _native.cut_bytes(batch, whole)
    part = whole[start : start + batch.sizes()[1]]
    assert _native.content_hash(part) == batch.ids()[1]
    return whole, part


@pytest.mark.parametrize("by", ["transaction", "session"])
def test_a_chunk_may_be_there_as_a_content_with_a_hole(store: Store, by: str) -> None:
    whole, part = content_with_a_chunk_that_alone_has_a_hole()
    kept(store, lambda transaction: transaction.put_content(part), "pins/part")
    with store.read() as snapshot:
        assert snapshot.needed_row(_native.content_hash(part)).kind == Kind.RECIPE
    if by == "transaction":
        content = kept(store, lambda transaction: transaction.put_content(whole))
    else:
        with store.session() as session:
            content = session.put_content(whole)
            session.flush()
            with store.write() as transaction:
                transaction.set_ref("pins/part", None, ANYTHING)
            collect(store)
            session.publish(lambda transaction: transaction.set_ref("pins/kept", content, None))
    with store.read() as snapshot:
        assert snapshot.read_content(content) == whole
        assert snapshot.read_range(content, 60_000, 80_000) == whole[60_000:140_000]
        assert all(p.chunk is None or snapshot.needed_row(p.chunk).kind == 0 for p in snapshot.content_pieces(content))
    assert verify(store).clean


def test_a_stream_is_the_content_of_its_bytes(store: Store) -> None:
    data = noise(9 << 20)
    with store.session() as session:
        content = session.put_stream(io.BytesIO(data))
        session.publish(lambda transaction: transaction.set_ref("pins/stream", content, None))
    with store.read() as snapshot:
        assert content == _native.content_hash(data)
        assert snapshot.read_content(content) == data


def test_objects_run_on_from_pack_to_pack(store: Store) -> None:
    contents = [noise(size, size) for size in range(9_000, 13_000, 1_000)]
    with store.write() as transaction:
        ids = [transaction.put_content(each) for each in contents]
    with store.read() as snapshot:
        rows = [snapshot.row(each) for each in ids]
        assert any(row is not None and len(packs.spans(snapshot.kv, row)) > 1 for row in rows)
        assert [snapshot.read_content(each) for each in ids] == contents


def test_a_batch_makes_big_packs(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(noise(1 << 20))
    with store.read() as snapshot:
        lengths = [len(value) for _, value in snapshot.kv.scan(Table.DATA)]
        assert lengths[:4] == [packs.BIG_PACK] * 4
        assert all(length <= packs.SMALL_PACK for length in lengths[4:])
        assert snapshot.read_content(content) == noise(1 << 20)


def test_new_rows_are_merged_into_the_index(store: Store) -> None:
    ids = []
    for start in range(0, packs.YOUNG_ROWS + 500, 500):
        with store.write() as transaction:
            ids += [transaction.put_content(b"%d" % i) for i in range(start, start + 500)]
    with store.read() as snapshot:
        assert snapshot.kv.count(Table.INDEX) >= packs.YOUNG_ROWS
        assert snapshot.kv.count(Table.YOUNG) == packs.get_meta(snapshot.kv, "young") < packs.YOUNG_ROWS
        assert all(snapshot.has(each) for each in ids)
        assert len({row.n for _, row in packs.rows(snapshot.kv)}) == len(ids)


# ---- nodes


def test_a_node_is_read_as_its_kind_only(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"content")
        node = node_over(transaction, [content])
    with store.read() as snapshot:
        assert snapshot.refs_of(node) == [content]
        assert snapshot.read_node(node, Kind.MAP) == snapshot.read_node(node)
        with pytest.raises(InvalidObject):
            snapshot.read_node(node, Kind.TREE)
        with pytest.raises(InvalidObject):
            snapshot.read_node(content)
        with pytest.raises(InvalidObject):
            snapshot.read_content(node)
        with pytest.raises(MissingObject):
            snapshot.read_node(NOWHERE)


def test_a_node_over_something_missing_is_refused(store: Store) -> None:
    with pytest.raises(MissingObject), store.write() as transaction:
        node_over(transaction, [NOWHERE])
    with store.session() as session:
        node_over(session, [NOWHERE])
        with pytest.raises(MissingObject):
            session.flush()


def test_a_changed_byte_is_a_typed_error(store: Store) -> None:
    content = kept(store, lambda transaction: transaction.put_content(noise(1000)))
    with store.environment.write() as kv:
        key, value = next((key, bytes(value)) for key, value in kv.scan(Table.DATA))
        kv.put(Table.DATA, key, value[:500] + bytes([value[500] ^ 1]) + value[501:])
    with store.read() as snapshot, pytest.raises(CorruptObject):
        snapshot.read_content(content)


# ---- transactions


def test_over_4_mib_in_one_transaction_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(TooLarge), store.write() as transaction:
        for seed in range(6):
            transaction.put_content(noise(1 << 20, seed))
    with store.read() as snapshot:
        assert list(packs.rows(snapshot.kv)) == []


def test_an_exception_leaves_nothing_of_a_transaction(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.write() as transaction:
        content = transaction.put_content(b"lost")
        transaction.set_ref("pins/lost", content, None)
        raise ZeroDivisionError
    with store.read() as snapshot:
        assert snapshot.get_ref("pins/lost") is None
        assert not snapshot.has(content)


def test_a_snapshot_does_not_change(store: Store) -> None:
    with store.read() as before:
        target = kept(store, lambda transaction: transaction.put_content(b"later"))
        assert not before.has(target)
        assert before.get_ref("pins/kept") is None
    with store.read() as after:
        assert after.has(target)


# ---- refs, live rows, operations


def test_a_ref_moves_by_compare_and_swap(store: Store) -> None:
    with store.write() as transaction:
        one, other = transaction.put_content(b"one"), transaction.put_content(b"other")
        transaction.set_ref("pins/a", one, None)
        with pytest.raises(Conflict):
            transaction.set_ref("pins/a", other, None)
        with pytest.raises(Conflict):
            transaction.set_ref("pins/a", other, other)
        transaction.set_ref("pins/a", other, one)
        transaction.set_ref("pins/b", one, ANYTHING)
    with store.read() as snapshot:
        assert [(name, row.target) for name, row in snapshot.list_refs("pins/")] == [("pins/a", other), ("pins/b", one)]
        serials = [row.serial for _, row in snapshot.list_refs()]
        assert len(set(serials)) == 2
    with store.write() as transaction:
        transaction.set_ref("pins/a", None, other)
    with store.read() as snapshot:
        assert snapshot.get_ref("pins/a") is None


def test_a_ref_to_something_missing_is_refused(store: Store) -> None:
    with pytest.raises(MissingObject), store.write() as transaction:
        transaction.set_ref("pins/a", NOWHERE, None)


def test_operations_are_numbered_and_later_each_time(store: Store) -> None:
    targets = []
    for i in range(3):
        with store.write() as transaction:
            target = transaction.put_content(b"%d" % i)
            move = Move("pins/a", targets[-1] if targets else None, target)
            transaction.operate("tag", [b"tag", b"a"], "me", [move])
            targets.append(target)
    with store.read() as snapshot:
        operations = list(snapshot.operations())
        assert [each.moves[0].new for each in operations] == targets
        assert operations[0].time < operations[1].time < operations[2].time
        assert operations[0].number < operations[1].number < operations[2].number
        row = snapshot.get_ref("pins/a")
        assert row is not None and row.operation == operations[2].number
        assert list(snapshot.operations_back()) == operations[::-1]


def test_the_log_of_a_ref_outlives_it(store: Store) -> None:
    with store.write() as transaction:
        target = transaction.put_content(b"x")
        transaction.operate("tag", [], "me", [Move("pins/a", None, target)])
        transaction.operate("tag", [], "me", [Move("pins/ab", None, target)])
    with store.write() as transaction:
        transaction.operate("tag", [], "me", [Move("pins/a", target, None)])
    with store.read() as snapshot:
        assert snapshot.get_ref("pins/a") is None
        assert [each.moves[0].new for each in snapshot.ref_operations_back("pins/a")] == [None, target]


def test_an_operation_whose_ref_has_moved_changes_nothing(store: Store) -> None:
    with store.write() as transaction:
        one, other = transaction.put_content(b"one"), transaction.put_content(b"other")
        transaction.set_ref("pins/a", one, None)
    with pytest.raises(Conflict), store.write() as transaction:
        moves = [Move("pins/b", None, other), Move("pins/a", other, None)]
        transaction.operate("tag", [], "me", moves)
    with store.read() as snapshot:
        assert snapshot.get_ref("pins/b") is None
        assert list(snapshot.operations()) == []


def test_a_live_row_is_kept_with_a_new_serial_each_time(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, b"file")
    with store.write() as transaction:
        state = transaction.refs_of(layer)[0]
        transaction.set_live(b"w" * 16, Live(layer, state, None, needs=(state,), owner=(7, 8)))  # type: ignore[arg-type]
    with store.read() as snapshot:
        first = snapshot.get_live(b"w" * 16)
    assert first is not None
    assert (first.layer, first.state, first.needs, first.owner) == (layer, state, (state,), (7, 8))
    with store.write() as transaction:
        transaction.set_live(b"w" * 16, first)
    with store.read() as snapshot:
        again = snapshot.get_live(b"w" * 16)
        assert again is not None and again.serial > first.serial
    with pytest.raises(MissingObject), store.write() as transaction:
        transaction.set_live(b"w" * 16, Live(None, NOWHERE, None))  # type: ignore[arg-type]


# ---- prefixes


def test_a_prefix_names_the_one_object_that_has_it(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
    with store.read() as snapshot:
        for digits in (4, 5, 12, 63, 64):
            assert snapshot.resolve_prefix(content.hex()[:digits]) == content
        for wrong in ("abc", "ABCD", "xyz1", content.hex() + "0"):
            with pytest.raises(UsageError):
                snapshot.resolve_prefix(wrong)
        with pytest.raises(ObjectNotFound):
            snapshot.resolve_prefix("0000")
        with pytest.raises(ObjectNotFound):
            snapshot.resolve_prefix(content.hex()[:8], layers_only=True)


def test_an_ambiguous_prefix_lists_its_candidates(store: Store) -> None:
    with store.write() as transaction:
        ids = [transaction.put_content(b"%d" % i) for i in range(2000)]
    by_prefix: dict[str, list[str]] = {}
    for each in ids:
        by_prefix.setdefault(each.hex()[:4], []).append(each.hex())
    prefix, shared = next((prefix, each) for prefix, each in by_prefix.items() if len(each) == 2)
    with store.read() as snapshot:
        with pytest.raises(AmbiguousPrefix) as refused:
            snapshot.resolve_prefix(prefix)
        assert refused.value.candidates == sorted(shared)
        for each in shared:
            short = snapshot.abbreviate(bytes.fromhex(each))
            assert len(short) > 4
            assert snapshot.resolve_prefix(short).hex() == each


def test_prefixes_find_layers_alone_when_asked(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, b"file")
    with store.read() as snapshot:
        assert snapshot.resolve_prefix(layer.hex()[:6], layers_only=True) == layer
        assert snapshot.abbreviate(layer) == layer.hex()[:4]


# ---- what is condemned


def test_what_is_condemned_is_absent_for_everybody(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, noise(1000))
    condemn(store)
    with store.read() as snapshot:
        assert packs.find_row(snapshot.kv, layer) is not None
        assert not snapshot.has(layer)
        with pytest.raises(MissingObject):
            snapshot.read_node(layer)
        for layers_only in (False, True):
            with pytest.raises(ObjectNotFound):
                snapshot.resolve_prefix(layer.hex()[:8], layers_only)
    with pytest.raises(MissingObject), store.write() as transaction:
        transaction.set_ref("pins/a", layer, None)
    with pytest.raises(MissingObject), store.write() as transaction:
        node_over(transaction, [layer])


@pytest.mark.parametrize("by", ["transaction", "session"])
def test_what_is_put_over_a_condemned_row_gets_a_new_number(store: Store, by: str) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, noise(1000))
    with store.read() as snapshot:
        old = snapshot.needed_row(layer)
    condemn(store)
    if by == "session":
        with store.session() as session:
            layer_over(session, noise(1000))
            session.publish(lambda transaction: transaction.set_ref("pins/a", layer, None))
    else:
        kept(store, lambda transaction: layer_over(transaction, noise(1000)))
    with store.read() as snapshot:
        assert snapshot.needed_row(layer).n > old.n
        assert snapshot.resolve_prefix(layer.hex(), layers_only=True) == layer
        assert len(list(packs.rows(snapshot.kv))) == 4


# ---- opening


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store, store.environment.write() as kv:
        kv.put(Table.META, b"format", u64(2))
    with pytest.raises(UnknownFormat, match="format 2"):
        Store.open(tmp_path)


def test_a_folder_without_a_store_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFound):
        Store.open(tmp_path)


def test_a_store_is_opened_once_in_a_process(tmp_path: Path) -> None:
    with Store.create(tmp_path), pytest.raises(InUse):
        Store.open(tmp_path)
    Store.open(tmp_path).close()


def test_a_store_is_there_after_it_was_closed(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        target = kept(store, lambda transaction: layer_over(transaction, noise(100_000)))
    with Store.open(tmp_path) as store, store.read() as snapshot:
        row = snapshot.get_ref("pins/kept")
        assert row is not None and row.target == target
