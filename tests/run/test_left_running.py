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

from fusecas.errors import DiskFull
from fusecas.run.leftovers import end_all_of, processes_of
from fusecas.run.request import Request
from fusecas.run.runs import Running, Runs
from fusecas.store.repository import Repository
from fusecas.store.run_rows import INTERRUPTED, RUNNING
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


def test_processes_that_do_not_want_to_end_are_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusecas.run.leftovers.GRACE", 0.5)
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
    known = {**os.environ, "FUSECAS_RUN": NUMBER.hex()}
    with subprocess.Popen([sys.executable, "-c", ignores], env=known, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert end_all_of(NUMBER) == [process.pid] and processes_of(NUMBER) == []
        assert process.wait() == -signal.SIGKILL
