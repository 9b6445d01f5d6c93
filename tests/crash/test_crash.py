"""Nothing acknowledged is lost, whatever fails: writes, disks, processes, bytes (docs/dev/lmdb.md, docs/dev/gc.md)."""

import errno
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fusecas.store import gc
from fusecas.store.store import Store
from fusecas.store.verify import verify
from tests.crash.actors import FAIL, KILL_AFTER, KILL_BEFORE, TEAR
from tests.crash.conftest import Start, ended
from tests.store.making import ANYTHING, kept, layer_over, noise

CORES = 2


@pytest.mark.parametrize(
    ("action", "code", "step"),
    [
        pytest.param(FAIL, errno.EIO, 1, id="an I/O error"),
        pytest.param(FAIL, errno.ENOSPC, 4, id="no space"),
        pytest.param(KILL_BEFORE, 0, 1, id="killed before it"),
        pytest.param(KILL_AFTER, 0, 6, id="killed after it"),
        pytest.param(TEAR, 0, 1, id="killed half-way"),
    ],
)
def test_every_write_and_flush_fails_once_in_turn(
    tmp_path: Path, shim: Path, start: Start, action: int, code: int, step: int
) -> None:
    actors = [
        start("faults", tmp_path / str(i), action, code, 1 + i * step, CORES * step, preload=shim) for i in range(CORES)
    ]
    figures = [ended(each) for each in actors]
    assert all(each["calls"] > 100 for each in figures)
    if action == FAIL:
        # All of them are noticed, but those of a session that is given up anyway.
        assert all(each["failed"] >= each["runs"] - 3 for each in figures)


@pytest.mark.parametrize("seed", [1, 2])
def test_processes_killed_at_random_lose_nothing(tmp_path: Path, start: Start, seed: int) -> None:
    figures = ended(start("chaos", tmp_path, seed, 40, 25))
    assert figures["acknowledged"] > 200


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, start: Start) -> None:
    on_small_disk = f'mount -t tmpfs -o size=8m none {tmp_path} && exec "$@"'
    figures = ended(start("full_disk", tmp_path, before=("unshare", "-m", "sh", "-c", on_small_disk, "sh")))
    assert figures["refused"] == ["DiskFull"]
    assert figures["acknowledged"] > 5


def test_no_flipped_byte_gives_wrong_content(tmp_path: Path, start: Start) -> None:
    actors = []
    for i in range(CORES):
        (tmp_path / str(i)).mkdir()
        actors.append(start("flips", tmp_path / str(i), i, CORES))
    figures = [ended(each) for each in actors]
    assert sum(each["right"] + each["told"] + each["died"] for each in figures) == figures[0]["size"]
    assert sum(each["told"] for each in figures) > 0.9 * figures[0]["values"]  # some lie in pages of the past


# ---- processes that stop, starve, or look alike


def in_time(act: Callable[[], object]) -> None:
    """Do this in a thread; fail, rather than hang, if it never ends."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def is_stopped(process: "subprocess.Popen[str]") -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_stopped_importer_does_not_stop_others(folder: Path, start: Start) -> None:
    with Store.open(folder) as store:
        importer = start("stopping", folder)
        stops = 0
        while importer.poll() is None:
            if is_stopped(importer):
                stops += 1
                in_time(lambda: kept(store, lambda transaction: transaction.put_content(b"%d" % stops)))  # noqa: B023
                importer.send_signal(signal.SIGCONT)
        assert ended(importer) == {"ended": True}
        assert stops >= 3  # its beginning, what it puts, its publication
        with store.read() as snapshot:
            assert snapshot.get_ref("pins/stopped") is not None
        assert verify(store).clean


def test_one_pid_in_two_containers_is_told(folder: Path, start: Start) -> None:
    container = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    first = start("reading", folder, before=container)
    assert first.stdout is not None
    assert json.loads(first.stdout.readline()) == {"pid": 1}
    assert ended(start("reading", folder, before=container)) == {"error": "SharedPid", "exit": 6}
    first.communicate()
    assert first.returncode == 0
    assert ended(start("reading", folder, before=container)) == {"pid": 1}


@pytest.mark.parametrize(
    ("gibibytes", "said"),
    [
        (5000, {"map": 4096}),
        (2000, {"map": 1024}),
        (100, {"map": 64}),
        (50, {"error": "NoAddressSpace", "exit": 6}),
    ],
)
def test_little_address_space_gives_a_smaller_map_or_exit_6(
    folder: Path, start: Start, gibibytes: int, said: dict[str, object]
) -> None:
    assert ended(start("starved", folder, gibibytes)) == said


@pytest.mark.parametrize("checked_by", ["gc", "open"])
def test_killed_readers_do_not_make_the_store_grow(folder: Path, start: Start, checked_by: str) -> None:
    with Store.open(folder) as store:
        kept(store, lambda transaction: layer_over(transaction, noise(500_000)))
        readers = [start("reading", folder) for _ in range(3)]
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()
            reader.kill()
            reader.wait()
        if checked_by == "gc":
            gc.collect(store)
        else:
            ended(start("reading", folder))
        before = (folder / "store" / "data.mdb").stat().st_size
        for _ in range(200):
            with store.write() as transaction:
                transaction.set_ref("pins/moving", transaction.put_content(b"x"), ANYTHING)
        assert (folder / "store" / "data.mdb").stat().st_size < before + 200_000
        assert verify(store).clean


def test_a_file_that_was_cut_short_is_refused_before_it_is_mapped(folder: Path) -> None:
    with Store.open(folder) as store:
        kept(store, lambda transaction: layer_over(transaction, noise(500_000)))
    path = folder / "store" / "data.mdb"
    whole = path.read_bytes()
    for length in (0, 100, 5_000, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:length])
        command = [sys.executable, "-c", "from tests.crash.test_crash import open_it; open_it()", folder]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "DamagedEnvironment\n"), (length, done)


def open_it() -> None:
    from fusecas.errors import FusecasError

    try:
        with Store.open(Path(sys.argv[1])) as store, store.read() as snapshot:
            print([name for name, _ in snapshot.list_refs()])
    except FusecasError as error:
        print(type(error).__name__)
