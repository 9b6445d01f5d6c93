"""What a daemon that died has left running, as the next one finds it."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas.errors import DiskFull, Refused
from fusecas.run.failed import to_retry
from fusecas.run.leftovers import end_all_of, processes_of
from fusecas.run.request import Request
from fusecas.run.runs import Outcome, Running, Runs
from fusecas.store.repository import Repository
from fusecas.store.run_rows import INTERRUPTED, RUNNING, Window
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import Workspace
from fusecas.workspace.workspaces import Workspaces

NUMBER = bytes(range(16))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / ".fusecas") as made:
        yield made


@pytest.mark.expects_log("could not be recorded as interrupted")
def test_a_start_goes_on_if_the_end_of_a_run_can_not_be_written_and_the_next_one_writes_it(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspaces = Workspaces(repository)
    workspace = workspaces.get("main")
    request = Request({"shell": b"true"}, b"", b"/nowhere", [], None, 0o022, False)
    begun = Runs(repository.store, repository.folder).begin(workspace, request, Deed())
    assert isinstance(begun, Running)
    workspace.overlay.make(0, b"made", stat.S_IFREG | 0o644, 0, 0, 0)

    def status() -> str:
        with repository.store.read() as snapshot:
            record = snapshot.record(begun.number)
            assert record is not None
            return record.status

    def full(*_: Any) -> None:
        raise DiskFull("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "seal_into", full)
        Runs(repository.store, repository.folder).recover(workspaces)
    assert status() == RUNNING
    Runs(repository.store, repository.folder).recover(workspaces)
    assert status() == INTERRUPTED
    workspace.undo()
    assert workspace.overlay.lookup(0, b"made") is None


def test_what_was_run_last_is_known_though_the_clock_was_set_back(repository: Repository) -> None:
    """Since then: so its record has a number from the future. The next daemon goes on from there."""
    workspace = Workspaces(repository).get("main")

    def run(runs: Runs, name: bytes, exit: int) -> bytes:
        request = Request({"shell": name}, b"", b"/nowhere", [], None, 0o022, False)
        begun = runs.begin(workspace, request, Deed())
        assert isinstance(begun, Running)
        for log in runs.logs(begun.number):
            log.touch()
        runs.end(begun.number, Outcome(exit, None, Window(begun.started, begun.started)), Deed())
        return begun.number

    first = run(Runs(repository.store, repository.folder), b"build", 1)
    hour = int.from_bytes(first[:6], "big") + 3_600_000
    with repository.store.write() as transaction:
        record = transaction.record(first)
        assert record is not None
        transaction.set_record(hour.to_bytes(6, "big") + first[6:], record)
    runs = Runs(repository.store, repository.folder)
    later = [run(runs, b"build", 0), run(runs, b"other", 1)]
    with repository.store.read() as snapshot:
        assert [number for number, _ in snapshot.records_back()][:2] == later[::-1]
        with pytest.raises(Refused, match="has not failed"):
            to_retry(snapshot, workspace.id, {"shell": b"build"})


def test_processes_that_do_not_want_to_end_are_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusecas.run.leftovers.GRACE", 0.5)
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    known = {**os.environ, "FUSECAS_RUN": NUMBER.hex()}
    with subprocess.Popen([sys.executable, "-c", ignores], env=known, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end_all_of(NUMBER) == [process.pid] and processes_of(NUMBER) == []
        assert process.wait() == -signal.SIGKILL
