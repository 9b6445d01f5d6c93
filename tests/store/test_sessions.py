"""Sessions: what they promise their writer, and how they end (docs/dev/writer.md)."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusecas import _native
from fusecas.errors import Conflict, InUse, MissingObject, SessionLost
from fusecas.store import packs
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.liveness import FileLiveness
from fusecas.store.rows import HoldKind
from fusecas.store.session import Incoming, leaf_ranges
from fusecas.store.store import Store
from fusecas.store.tables import Table
from fusecas.store.verify import verify
from tests.store.making import collect, condemn, layer_over, node_over, noise


def rows_of_sessions(store: Store) -> int:
    with store.read() as snapshot:
        return snapshot.kv.count(Table.SESSIONS)


def session_rows(store: Store) -> list[int]:
    from fusecas.store.gc_roots import open_sessions

    with store.read() as snapshot:
        return list(open_sessions(snapshot.kv))


def test_a_publication_makes_all_reachable_and_ends_the_session(store: Store) -> None:
    with store.session() as session:
        layer = layer_over(session, noise(3 << 20))
        assert session.publish(lambda transaction: transaction.set_ref("pins/a", layer, None)) is None
    assert session_rows(store) == []
    assert not store.liveness.lives(session.number)
    collect(store)
    assert verify(store, [layer]).clean
    assert rows_of_sessions(store) == 0


def test_a_session_without_publication_leaves_no_row(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.session() as session:
        session.put_content(b"x")
        session.flush()
        raise ZeroDivisionError
    assert session_rows(store) == []
    assert not store.liveness.lives(session.number)


def test_a_kept_session_leaves_its_row_but_lives_no_more(store: Store) -> None:
    with store.session() as session:
        session.put_content(b"x")
        session.keep()
    assert session_rows(store) == [session.number]
    assert not store.liveness.lives(session.number)


def test_flush_makes_all_that_was_put_durable_and_held(store: Store) -> None:
    with store.session() as session:
        content = session.put_content(noise(200_000))
        session.flush()
        with store.read() as snapshot:
            assert snapshot.read_content(content) == noise(200_000)
        assert rows_of_sessions(store) > 1


def test_a_session_that_was_taken_for_dead_is_told(store: Store) -> None:
    with store.session() as session:
        session.put_content(b"before")
        session.flush()
        store.liveness.end(session.number)
        collect(store)
        with store.read() as snapshot:
            assert list(packs.rows(snapshot.kv)) == []
        session.put_content(b"after")
        with pytest.raises(SessionLost):
            session.flush()
        with pytest.raises(SessionLost):
            session.publish(lambda transaction: None)


@pytest.mark.parametrize("end", ["keep", "publish"])
def test_a_lost_session_can_not_end_well(store: Store, end: str) -> None:
    with store.session() as session:
        content = session.put_content(b"before")
        session.flush()
        store.liveness.end(session.number)
        collect(store)
        with pytest.raises(SessionLost):
            if end == "keep":
                session.keep()
            else:
                session.publish(lambda transaction: transaction.set_ref("pins/a", content, None))


def test_a_failed_publication_can_be_tried_again(store: Store) -> None:
    with store.session() as session:
        content = session.put_content(b"x")
        with pytest.raises(Conflict):
            session.publish(lambda transaction: transaction.set_ref("pins/a", content, ObjectId(b"\7" * 32)))
        session.publish(lambda transaction: transaction.set_ref("pins/a", content, None))
    with store.read() as snapshot:
        assert snapshot.get_ref("pins/a") is not None


def test_after_a_failed_publication_nothing_more_can_be_put(store: Store) -> None:
    with store.session() as session:
        with pytest.raises(ZeroDivisionError):
            session.publish(lambda transaction: 1 // 0)
        session.put_content(b"more")
        with pytest.raises(RuntimeError):
            session.flush()


def test_a_source_that_fails_leaves_a_usable_store(store: Store) -> None:
    class Broken(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"), store.session() as session:
        session.put_content(noise(1 << 20))
        session.put_stream(Broken())  # type: ignore[arg-type]
    assert session_rows(store) == []
    collect(store)
    assert verify(store).clean


def test_batches_are_stored_in_the_order_in_which_they_were_put(store: Store) -> None:
    with store.session() as session:
        batch = _native.Batch()
        content, _ = _native.cut_bytes(batch, noise(100_000))
        session.put_batch(batch)
        node = node_over(session, [ObjectId(content)])
        session.publish(lambda transaction: transaction.set_ref("pins/a", node, None))
    assert verify(store, [node]).clean


def test_many_more_objects_than_a_transaction_takes(store: Store) -> None:
    with store.session() as session:
        contents = [session.put_content(b"%d" % i) for i in range(20_000)]
        node = node_over(session, contents)
        session.publish(lambda transaction: transaction.set_ref("pins/a", node, None))
        assert session.new_objects > 20_000
    report = collect(store)
    assert report.deleted == 0
    assert verify(store).clean


def test_a_node_whose_child_was_collected_between_look_and_write_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.write() as transaction:
        child = transaction.put_content(b"child")
    compress = Incoming.compress

    def compress_then_gc(incoming: Incoming) -> None:
        compress(incoming)
        condemn(store)

    with store.session() as session:
        node_over(session, [child])
        monkeypatch.setattr(Incoming, "compress", compress_then_gc)
        with pytest.raises(MissingObject):
            session.flush()
        monkeypatch.undo()


@pytest.mark.parametrize("swept", [False, True])
def test_what_was_found_is_put_again_if_it_was_collected_before_the_write(
    store: Store, monkeypatch: pytest.MonkeyPatch, swept: bool
) -> None:
    with store.write() as transaction:
        layer_over(transaction, noise(200_000))
    compress = Incoming.compress

    def compress_then_gc(incoming: Incoming) -> None:
        compress(incoming)
        monkeypatch.setattr(Incoming, "compress", compress)
        (collect if swept else condemn)(store)

    with store.session() as session:
        layer = layer_over(session, noise(200_000))
        monkeypatch.setattr(Incoming, "compress", compress_then_gc)
        session.publish(lambda transaction: transaction.set_ref("pins/a", layer, None))
    collect(store)
    assert verify(store, [layer]).clean


def test_leaves_are_held_by_number_and_nodes_by_id(store: Store) -> None:
    with store.session() as session:
        contents = [session.put_content(b"%d" % i) for i in range(3)]
        node = node_over(session, contents)
        late = session.put_content(b"late")
        session.flush()
        with store.read() as snapshot:
            numbers = {each: snapshot.needed_row(each).n for each in (*contents, node, late)}
            holds = [bytes(value) for key, value in snapshot.kv.scan(Table.SESSIONS) if key[8:] != bytes(8)]
    by_kind = {hold[0]: hold[1:] for hold in holds}
    assert by_kind[HoldKind.NODES] == node
    assert _native.unpack_varints(by_kind[HoldKind.PUT]) == [numbers[contents[0]], 3, numbers[late], 1]


def test_runs_of_leaves_leave_nodes_out() -> None:
    def new(kind: Kind) -> packs.NewObject:
        return packs.NewObject(ObjectId(bytes(32)), kind, 0, 1, memoryview(b"x"))

    chunk, node = new(Kind.CHUNK), new(Kind.TREE)
    assert leaf_ranges(5, [node, chunk, chunk, node, chunk]) == [6, 2, 9, 1]
    assert leaf_ranges(5, [node]) == []


# ---- who is alive


def test_a_lock_says_that_a_session_lives_until_it_ends(tmp_path: Path) -> None:
    liveness = FileLiveness(tmp_path / "sessions.lock")
    other = FileLiveness(tmp_path / "sessions.lock")
    liveness.begin(7)
    assert liveness.lives(7) and other.lives(7)
    assert not other.lives(6) and not other.lives(8)
    with pytest.raises(InUse):
        other.begin(7)
    liveness.end(7)
    assert not other.lives(7)
    liveness.begin(8)
    liveness.close()
    assert not other.lives(8)
    other.close()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from fusecas.store.liveness import FileLiveness;"
        "FileLiveness(pathlib.Path(sys.argv[1])).begin(1 << 40); print('locked', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "sessions.lock"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        liveness = FileLiveness(path)
        assert liveness.lives(1 << 40)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert not liveness.lives(1 << 40)
        liveness.close()


def test_a_session_that_could_not_begin_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(tmp_path) as store:
        monkeypatch.setattr("fusecas.store.session.time.time_ns", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            store.session()
        monkeypatch.undo()
        other = FileLiveness(tmp_path / "sessions.lock")
        with store.read() as snapshot:
            other.begin(packs.get_meta(snapshot.kv, "next_serial"))
        other.close()


def test_a_number_that_a_dying_process_still_locks_is_passed_over(tmp_path: Path) -> None:
    with Store.create(tmp_path) as store:
        dying = FileLiveness(tmp_path / "sessions.lock")
        with store.read() as snapshot:
            number = packs.get_meta(snapshot.kv, "next_serial")
        dying.begin(number)
        with store.session() as session:
            assert session.number == number + 1
        dying.close()


def test_a_store_that_closes_ends_its_sessions(tmp_path: Path) -> None:
    """Whatever the session's writer is doing: in a process of its own, so that a hang is a failure and not a wait."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fusecas.errors import SessionLost\n"
        "from fusecas.store.store import Store\n"
        "store = Store.create(Path(sys.argv[1]))\n"
        "session = store.session()\n"
        "for at in range(40):\n"
        "    session.put_content(os.urandom(1 << 20))\n"
        "store.close()\n"
        "try:\n"
        "    session.flush()\n"
        "except SessionLost:\n"
        "    print('told')\n"
    )
    for at in range(4):
        folder = tmp_path / str(at)
        folder.mkdir()
        done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("told\n", "")


def test_a_forked_process_does_not_keep_a_session_alive(tmp_path: Path) -> None:
    ours, theirs = FileLiveness(tmp_path / "sessions.lock"), FileLiveness(tmp_path / "sessions.lock")
    ours.begin(7)
    looked, look = os.pipe()
    ready, is_ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(look)
        os.write(is_ready, b".")
        os.read(looked, 1)  # until the parent has looked
        os._exit(0)
    os.read(ready, 1)
    ours.close()
    try:
        assert not theirs.lives(7)
    finally:
        os.close(look)
        os.waitpid(child, 0)
        theirs.close()
