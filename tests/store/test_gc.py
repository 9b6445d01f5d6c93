"""gc: what is reachable stays, what is not goes, and its space is used again (docs/dev/gc.md)."""

import time
from pathlib import Path

import pytest

from fusecas._native import Ref, cbor_encode
from fusecas.errors import Damaged, InUse, InvalidObject, MissingObject
from fusecas.store import gc, gc_packs, gc_roots, packs, prolly, slices
from fusecas.store.ids import Kind, LayerId, ObjectId, TimesId
from fusecas.store.rows import Baseline, Live, LivePair, Move
from fusecas.store.store import Store
from fusecas.store.tables import Table
from fusecas.store.transaction import Transaction
from fusecas.store.verify import verify
from fusecas.store.walk import closure
from tests.store.making import (
    AN_HOUR,
    ANYTHING,
    collect,
    condemn,
    in_an_hour,
    kept,
    layer_over,
    node_over,
    noise,
    unreadable_node,
)

DAY = 86400.0


def present(store: Store) -> int:
    with store.read() as snapshot:
        return sum(1 for _ in packs.rows(snapshot.kv))


def live_bytes(store: Store) -> int:
    with store.read() as snapshot:
        return sum(len(value) for _, value in snapshot.kv.scan(Table.DATA))


def times_of(transaction: Transaction, mtime: int = 7) -> TimesId:
    times = prolly.build(Kind.TIMES, [(b"file", mtime, None)], transaction.put_node)
    assert times is not None
    return TimesId(times)


# ---- what stays, what goes


def test_what_a_ref_reaches_stays_and_the_rest_goes(store: Store) -> None:
    target = kept(store, lambda transaction: layer_over(transaction, noise(300_000)))
    with store.read() as snapshot:
        reachable = set(closure(snapshot, [target]))
    with store.write() as transaction:
        layer_over(transaction, noise(300_000, 1))
    before = present(store)
    report = collect(store)
    assert report.deleted == before - len(reachable)
    assert report.retained == len(reachable) == present(store)
    assert report.bytes > 300_000
    assert report.skipped_young == 0
    with store.read() as snapshot:
        assert set(closure(snapshot, [target])) == reachable
    assert verify(store).clean


def test_a_second_gc_finds_nothing(store: Store) -> None:
    kept(store, lambda transaction: layer_over(transaction, noise(300_000)))
    with store.write() as transaction:
        transaction.put_content(noise(1000))
    collect(store)
    report = collect(store)
    assert (report.deleted, report.partial, report.bytes) == (0, 0, 0)


def test_an_empty_store_can_be_collected(store: Store) -> None:
    assert collect(store) == gc.GcReport(0, 0, 0, 0, 0)
    kept(store, lambda transaction: layer_over(transaction, b"x"))
    assert verify(store).clean


def test_a_live_row_keeps_all_that_it_names(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, b"layer")
        other = layer_over(transaction, b"other")
        times, baseline = times_of(transaction), times_of(transaction, 8)
        needed = transaction.put_content(b"needed")
    with store.write() as transaction:
        state = transaction.refs_of(other)[0]
        live = Live(layer, state, times, baseline=Baseline(baseline, state, 5), needs=(needed,))  # type: ignore[arg-type]
        transaction.set_live(b"w" * 16, live)
    collect(store)
    with store.read() as snapshot:
        assert all(snapshot.has(each) for each in (layer, state, times, baseline, needed))
        assert not snapshot.has(other)
    with store.write() as transaction:
        transaction.set_live(b"w" * 16, None)
    collect(store)
    assert present(store) == 0


def test_the_times_of_a_live_layer_stay_and_those_of_a_deleted_one_go(store: Store) -> None:
    with store.write() as transaction:
        parent = layer_over(transaction, b"parent")
        child = layer_over(transaction, b"child", (parent,))
        transaction.set_ref("pins/child", child, None)
    with store.write() as transaction:
        times = times_of(transaction)
    with store.write() as transaction:
        transaction.set_layer_times(parent, times)
    collect(store)
    with store.read() as snapshot:
        assert snapshot.layer_times(parent) == times
        assert snapshot.has(times)
    with store.write() as transaction:
        transaction.set_ref("pins/child", None, ANYTHING)
    collect(store)
    with store.read() as snapshot:
        assert snapshot.kv.count(Table.LAYER_TIMES) == 0
        assert snapshot.kv.count(Table.LAYERS) == 0
    assert present(store) == 0


def test_a_layer_put_over_a_condemned_one_has_no_times_of_it(store: Store) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, b"layer")
        transaction.set_layer_times(layer, times_of(transaction))
    condemn(store)
    kept(store, lambda transaction: layer_over(transaction, b"layer"))
    with store.read() as snapshot:
        assert snapshot.layer_times(layer) is None
    assert verify(store).clean


def test_a_kind_that_nobody_knows_keeps_what_it_refers_to(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        unknown = transaction.put_node(20, cbor_encode([Ref(content)]))  # type: ignore[arg-type]
        transaction.set_ref("pins/unknown", unknown, None)
    collect(store)
    with store.read() as snapshot:
        assert snapshot.has(content)


def test_gc_refuses_if_something_reachable_is_no_cbor(store: Store) -> None:
    unreadable = unreadable_node(store)
    kept(store, lambda transaction: unreadable)
    with store.write() as transaction:
        transaction.put_content(b"garbage")
    with pytest.raises(InvalidObject):
        collect(store)
    assert present(store) == 2


def test_gc_refuses_if_something_reachable_is_missing(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x")
        transaction.set_ref("pins/a", node_over(transaction, [content]), None)
        transaction.put_content(b"garbage")
    with store.environment.write() as kv:
        row = packs.find_row(kv, content)
        assert row is not None
        packs.delete_row(kv, content, row)
    with pytest.raises(MissingObject):
        collect(store)
    assert present(store) == 2


def test_an_unreachable_broken_object_goes_like_any_other(store: Store) -> None:
    unreadable_node(store)
    assert collect(store).deleted == 1


# ---- operations


def moved(store: Store, new: ObjectId | None, pair: LivePair | None = None) -> None:
    with store.write() as transaction:
        row = transaction.get_ref("heads/main")
        old = None if row is None else row.target
        transaction.operate("commit", [], "me", [Move("heads/main", old, new, None, pair)])


def workspace_with_history(store: Store) -> tuple[LayerId, ObjectId, ObjectId]:
    """A layer that was a head, its workspace node and its times; the ref has gone since."""
    with store.write() as transaction:
        layer = layer_over(transaction, b"was a head")
        node, times = node_over(transaction, [layer]), times_of(transaction)
    with store.read() as snapshot:
        state = snapshot.refs_of(layer)[0]
    moved(store, node, LivePair(layer, state, times))  # type: ignore[arg-type]
    moved(store, None)
    return layer, node, times


def test_what_an_operation_names_stays_for_the_grace_time(store: Store) -> None:
    named = workspace_with_history(store)
    collect(store)
    with store.read() as snapshot:
        assert all(snapshot.has(each) for each in named)


def test_after_the_grace_time_only_layers_that_were_heads_stay(store: Store) -> None:
    layer, node, times = workspace_with_history(store)
    collect(store, grace=0.0)
    with store.read() as snapshot:
        assert snapshot.has(layer)
        assert not snapshot.has(node)
        assert not snapshot.has(times)
        assert len(list(snapshot.operations())) == 2


def test_expire_takes_old_heads_too_and_gc_goes_on_without_them(store: Store) -> None:
    named = workspace_with_history(store)
    collect(store, expire=DAY)
    with store.read() as snapshot:
        assert all(snapshot.has(each) for each in named)
    collect(store, expire=60.0)
    assert present(store) == 0
    assert collect(store).retained == 0
    assert verify(store).clean


# ---- sessions


def test_what_a_living_session_has_put_or_hit_stays_however_old(store: Store) -> None:
    with store.write() as transaction:
        hit = transaction.put_content(b"hit")
        hit_node = node_over(transaction, [transaction.put_content(b"below")])
    with store.session() as session:
        session.put_content(b"hit")
        below = session.put_content(b"below")
        assert node_over(session, [below]) == hit_node
        put = node_over(session, [session.put_content(noise(300_000))])
        session.flush()
        report = collect(store)
        assert report.deleted == 0
        assert report.skipped_young == report.retained == present(store)
        with store.read() as snapshot:
            assert all(snapshot.has(each) for each in (hit, hit_node, put))
        session.publish(lambda transaction: transaction.set_ref("pins/put", put, None))
    assert collect(store).skipped_young == 0
    with store.read() as snapshot:
        assert not snapshot.has(hit)
        assert snapshot.read_content(snapshot.refs_of(put)[0]) == noise(300_000)
        assert snapshot.kv.count(Table.SESSIONS) == 0


def test_the_children_of_a_held_node_are_held_though_the_session_never_met_them(store: Store) -> None:
    with store.write() as transaction:
        below = transaction.put_content(b"below")
        middle = node_over(transaction, [below])
    with store.session() as session:
        node_over(session, [middle])
        session.flush()
        collect(store)
        with store.read() as snapshot:
            assert snapshot.has(below)


def test_what_put_printed_stays_for_min_age(store: Store) -> None:
    with store.session() as session:
        content = session.put_content(b"put")
        session.keep()
    report = gc.collect(store, min_age=60.0)
    assert (report.deleted, report.retained, report.skipped_young) == (0, 1, 1)
    with store.read() as snapshot:
        assert snapshot.has(content)
    report = gc.collect(store, min_age=60.0, now=lambda: time.time_ns() + 61 * 10**9)
    assert report.deleted == 1
    with store.read() as snapshot:
        assert snapshot.kv.count(Table.SESSIONS) == 0


def test_a_last_write_in_the_future_counts_as_old(store: Store) -> None:
    with store.session() as session:
        session.put_content(b"put")
        session.keep()
    assert gc.collect(store, min_age=60.0, now=lambda: time.time_ns() - AN_HOUR).deleted == 1


def test_what_an_aborted_session_put_goes_at_once(store: Store) -> None:
    with store.session() as session:
        session.put_content(b"put")
        session.flush()
    assert gc.collect(store).deleted == 1


# ---- condemned rows


def test_a_killed_sweep_is_finished_by_the_next_gc(store: Store) -> None:
    target = kept(store, lambda transaction: layer_over(transaction, b"kept"))
    with store.write() as transaction:
        layer_over(transaction, noise(100_000))
    condemn(store)
    assert verify(store).clean
    assert collect(store).deleted > 0
    with store.read() as snapshot:
        assert set(closure(snapshot, [target])) == {each for each, _ in packs.rows(snapshot.kv)}


@pytest.mark.parametrize("session", [True, False])
def test_a_hit_against_a_condemned_object_is_a_put(store: Store, session: bool) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, noise(300_000))
    condemn(store)
    if session:
        with store.session() as writer:
            layer_over(writer, noise(300_000))
            writer.publish(lambda transaction: transaction.set_ref("pins/again", layer, None))
            assert writer.hit_objects == 0
    else:
        kept(store, lambda transaction: layer_over(transaction, noise(300_000)))
    collect(store)
    assert verify(store).clean
    with store.read() as snapshot:
        assert len(list(closure(snapshot, [layer]))) == present(store)


def test_a_sweep_spares_what_was_put_again_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.write() as transaction:
        layer_over(transaction, b"again")
    find = slices.in_snapshots

    def put_again_after_the_look(*arguments: object) -> object:
        for each in find(*arguments):  # type: ignore[arg-type]
            kept(store, lambda transaction: layer_over(transaction, b"again"))
            yield each

    monkeypatch.setattr(slices, "in_snapshots", put_again_after_the_look)
    collect(store)
    monkeypatch.undo()
    assert verify(store).clean
    assert present(store) == 4


# ---- roots that appear while gc marks


def between_rounds(monkeypatch: pytest.MonkeyPatch, happens: object) -> None:
    """Let something happen after the marking, before T2."""
    mark = gc._Collection._mark

    def mark_then_happen(collection: gc._Collection) -> None:
        mark(collection)
        happens()  # type: ignore[operator]

    monkeypatch.setattr(gc._Collection, "_mark", mark_then_happen)


def test_a_ref_set_after_the_marking_is_seen_by_t2(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.write() as transaction:
        layer = layer_over(transaction, b"tagged late")
    between_rounds(monkeypatch, lambda: kept(store, lambda transaction: layer))
    assert collect(store).deleted == 0
    assert verify(store).clean


def test_what_is_put_after_the_marking_is_seen_by_t2(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    between_rounds(monkeypatch, lambda: kept(store, lambda transaction: layer_over(transaction, noise(200_000))))
    collect(store)
    assert verify(store).clean
    assert present(store) > 4


def test_times_set_after_their_layer_was_marked_are_seen_by_t2(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerId(kept(store, lambda transaction: layer_over(transaction, b"layer")))
    with store.write() as transaction:
        times = times_of(transaction)

    def set_times() -> None:
        with store.write() as transaction:
            transaction.set_layer_times(layer, times)

    between_rounds(monkeypatch, set_times)
    assert collect(store).deleted == 0
    assert verify(store).clean


def test_a_session_that_begins_after_the_marking_is_seen_by_t2(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.session() as session:
        between_rounds(monkeypatch, lambda: (layer_over(session, noise(200_000)), session.flush()))
        assert collect(store).deleted == 0
        assert verify(store).clean


def test_what_a_session_publishes_after_the_marking_is_seen_by_t2(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.session() as session:
        layer = layer_over(session, noise(200_000))

        def publish() -> None:
            session.publish(lambda transaction: transaction.set_ref("pins/late", layer, None))

        between_rounds(monkeypatch, publish)
        collect(store)
    assert verify(store).clean
    with store.read() as snapshot:
        assert len(list(closure(snapshot, [layer]))) == present(store)


def test_many_new_roots_send_t2_back_to_the_marking(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def many_nodes() -> None:
        rounds.append(1)
        with store.write() as transaction:
            for i in range(600):
                content = transaction.put_content(b"%d %d" % (len(rounds), i))
                transaction.set_ref(f"pins/{len(rounds)}/{i}", node_over(transaction, [content]), None)

    between_rounds(monkeypatch, many_nodes)
    report = collect(store)
    assert len(rounds) == gc.MOST_RETURNS + 1
    assert report.deleted == 0
    assert report.retained == len(rounds) * 1200


def test_gc_gives_up_if_another_one_has_published(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.write() as transaction:
        layer_over(transaction, b"x")
    mark = gc._Collection._mark

    def overtaken(collection: gc._Collection) -> None:
        mark(collection)
        monkeypatch.undo()
        condemn(store)

    monkeypatch.setattr(gc._Collection, "_mark", overtaken)
    with pytest.raises(InUse):
        collect(store)


def test_one_gc_at_a_time(store: Store) -> None:
    with store.liveness.collecting(), pytest.raises(InUse):
        collect(store)
    collect(store)


# ---- space


def test_a_dry_run_gives_the_same_figures_and_changes_nothing(store: Store) -> None:
    for seed in range(20):
        with store.write() as transaction:
            for i in range(10):
                content = transaction.put_content(noise(3000, seed * 100 + i))
                if i % 3 == 0:
                    transaction.set_ref(f"pins/{seed}/{i}", content, None)
    with store.session() as session:
        session.put_content(noise(5000, 1))
        session.keep()
    with store.environment.read() as kv:
        before = kv.id()
    options = {"now": time.time_ns}
    rehearsed = collect(store, dry_run=True, **options)
    with store.environment.read() as kv:
        assert kv.id() == before
    assert collect(store, **options) == rehearsed
    assert rehearsed.deleted == 120
    assert rehearsed.partial > 0
    assert rehearsed.skipped_young == 1


def test_sparse_packs_are_rewritten_and_rows_keep_their_numbers(store: Store) -> None:
    with store.write() as transaction:
        ids = [transaction.put_content(noise(5000, i)) for i in range(400)]
        for i in range(0, 400, 5):
            transaction.set_ref(f"pins/{i}", ids[i], None)
    with store.read() as snapshot:
        numbers = {i: snapshot.needed_row(ids[i]).n for i in range(0, 400, 5)}
    report = collect(store)
    assert report.partial > 3
    assert live_bytes(store) < 400_000 / gc_packs.LIVE_SHARE
    with store.read() as snapshot:
        for i, n in numbers.items():
            assert snapshot.needed_row(ids[i]).n == n
            assert snapshot.read_content(ids[i]) == noise(5000, i)
    assert verify(store).clean
    assert collect(store).partial == 0


def test_rewriting_in_many_passes_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_packs, "PLACES_AT_ONCE", 7)
    test_sparse_packs_are_rewritten_and_rows_keep_their_numbers(store)


def test_space_is_used_again(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        for round_ in range(12):
            with store.session() as session:
                content = session.put_content(noise(2 << 20, round_))
                session.publish(lambda txn, content=content: txn.set_ref("pins/one", content, ANYTHING))  # type: ignore[misc]
            collect(store)
        assert verify(store).clean
    assert (tmp_path / "store" / "data.mdb").stat().st_size < 8 << 20


def test_gc_of_a_damaged_store_says_so(store: Store) -> None:
    with store.write() as transaction:
        transaction.set_ref("pins/a", node_over(transaction, [transaction.put_content(b"x")]), None)
    with store.environment.write() as kv:
        key, value = next((key, bytes(value)) for key, value in kv.scan(Table.DATA))
        kv.put(Table.DATA, key, value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(Damaged):
        collect(store)


def test_marks_are_counted_from_one_gc_to_the_next(store: Store) -> None:
    for _ in range(3):
        condemn(store)
    with store.read() as snapshot:
        assert snapshot.marks.k == 3
    assert in_an_hour() > time.time_ns()


def test_old_roots_cost_the_last_transaction_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.write() as transaction:
        target = transaction.put_content(b"x")
        for at in range(500):
            transaction.set_ref(f"pins/old{at}", target, None)
    rows: list[int] = []
    real = gc_roots.reach_row

    def counted(*arguments: object) -> None:
        rows[-1] += 1
        real(*arguments)  # type: ignore[arg-type]

    catch_up = gc._Collection._catch_up

    def last_transaction(collection: gc._Collection, *arguments: object, **options: object) -> bool:
        rows.append(0)
        return catch_up(collection, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gc_roots, "reach_row", counted)
    monkeypatch.setattr(gc._Collection, "_catch_up", last_transaction)
    rows.append(0)
    between_rounds(monkeypatch, lambda: kept(store, lambda transaction: transaction.put_content(b"new"), "pins/new"))
    collect(store)
    assert rows[0] >= 500 and rows[1:] == [1]


def test_what_was_noted_as_recent_is_forgotten(store: Store) -> None:
    for at in range(20):
        kept(store, lambda transaction: transaction.put_content(b"x"), f"pins/{at}")
    with store.read() as snapshot:
        assert snapshot.kv.count(Table.RECENT) == 20
    collect(store)
    with store.read() as snapshot:
        assert snapshot.kv.count(Table.RECENT) == 0


def test_a_condemned_row_whose_pack_is_gone_does_not_stop_gc(store: Store) -> None:
    with store.write() as transaction:
        content = transaction.put_content(b"x" * 100)
    with store.environment.write() as kv:
        row = packs.find_row(kv, content)
        assert row is not None
        kv.delete(Table.DATA, packs.u64(row.pack))
    assert collect(store).deleted == 1
