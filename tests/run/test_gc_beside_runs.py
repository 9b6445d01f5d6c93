"""Gc that keeps nothing longer than it must, again and again, beside runs, hits and undo in two workspaces."""

import os
import random
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fusecas
from fusecas.errors import ExpiredError
from fusecas.run.request import Request
from fusecas.run.runs import Outcome, Running, Runs
from fusecas.store import gc
from fusecas.store.repository import Repository
from fusecas.store.run_rows import Window
from fusecas.store.verify import verify
from fusecas.workspace.mover import Deed, Mover
from fusecas.workspace.workspace import Workspace
from tests.run.conftest import Runner

SPAN = 5.0
COMMANDS = 6


class Worker:
    """Runs one of a few commands, or takes back, in one workspace; knows what must be there."""

    def __init__(self, work: fusecas.Workspace, place: Path, counter: Path, seed: int) -> None:
        self.work, self.place, self.counter = work, place, counter
        self.chance = random.Random(seed)
        self.layers = [work.head()]
        self.files: list[frozenset[str]] = [frozenset(os.listdir(place))]
        self.did: Counter[str] = Counter()

    def until(self, end: float) -> None:
        while time.monotonic() < end:
            self.run() if self.chance.random() < 0.6 else self.undo()
            assert frozenset(os.listdir(self.place)) == self.files[-1]
            assert self.work.head() == self.layers[-1]

    def run(self) -> None:
        name = f"made{self.chance.randrange(COMMANDS)}"
        came = self.work.run(f"echo x >> {self.counter}; [ ! -e {name} ] || exit 0; seq 2000 > {name}; echo {name}")
        assert came.exit_code == 0
        self.did["hits" if came.cached else "runs"] += 1
        if not came.empty:
            assert came.stdout == f"{name}\n"
            self.layers.append(came.hash)
            self.files.append(self.files[-1] | {name})

    def undo(self) -> None:
        if len(self.layers) == 1:
            return
        try:
            self.work.undo()
        except ExpiredError:  # gc was told to keep nothing of it
            self.did["expired"] += 1
            return
        self.did["undone"] += 1
        self.layers.pop()
        self.files.pop()

    def check(self) -> None:
        """Every layer that the head stands on can be gone to, and is what it was."""
        for layer, files in zip(self.layers, self.files, strict=True):
            if layer is not None:
                self.work.checkout(layer)
                assert frozenset(os.listdir(self.place)) == files
                assert all((self.place / each).read_text().endswith("2000\n") for each in files - self.files[0])


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / ".fusecas") as made:
        yield made


@contextmanager
def gc_before_it_is_put_in_place(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Between the moment when it is worked out where a workspace goes and the one when it goes there."""
    put = Mover.put_in_place

    def late(mover: Mover, *rest: Any) -> Any:
        gc.collect(repository.store, min_age=0, expire=0)
        return put(mover, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Mover, "put_in_place", late)
        yield


def made(workspace: Workspace, name: bytes) -> None:
    ino = int(workspace.overlay.make(0, name, stat.S_IFREG | 0o644, 0, 0, 0)[0])
    workspace.overlay.write(ino, 0, name * 1000)


def test_what_gc_takes_before_undo_is_there_is_told_as_expired(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    for name in (b"one", b"two"):
        made(workspace, name)
        workspace.commit()
    workspace.undo(2)
    with gc_before_it_is_put_in_place(repository, monkeypatch), pytest.raises(ExpiredError):
        workspace.redo()
    assert [name for name, _ in workspace.overlay.names(0)[0]] == [b"one"]
    made(workspace, b"three")
    assert workspace.commit().layer is not None
    assert verify(repository.store).clean


def test_a_result_that_gc_takes_before_it_is_served_is_a_miss(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    runs = Runs(repository.store, repository.folder)
    request = Request({"shell": b"make it"}, b"", b"/nowhere", (), None, 0o022, privileged=False)

    def begun() -> Running:
        found = runs.begin(workspace, request, Deed())
        assert isinstance(found, Running)
        return found

    run = begun()
    made(workspace, b"one")
    for log in runs.logs(run.number):
        log.touch()
    runs.end(run.number, Outcome(0, None, Window(run.started, time.time_ns())), Deed())
    workspace.undo()
    with gc_before_it_is_put_in_place(repository, monkeypatch):
        begun()
    assert verify(repository.store).clean


def test_gc_in_a_loop_takes_nothing_that_was_acknowledged(runner: Runner) -> None:
    runner.ok("run", "echo base > base")
    runner.ok("fork", "other")
    failures: list[BaseException] = []
    end = time.monotonic() + SPAN

    def guarded(worker: Worker) -> None:
        try:
            worker.until(end)
        except BaseException as error:
            failures.append(error)
            raise

    with fusecas.open(runner.folder) as repo:
        places = {"main": runner.work, "other": runner.work / ".fusecas" / "ws" / "other"}
        workers = [
            Worker(repo.workspace(name), place, runner.counter, seed)
            for seed, (name, place) in enumerate(places.items())
        ]
        threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers]
        for each in threads:
            each.start()
        collections = 0
        while time.monotonic() < end:
            runner.ok("gc", "--min-age", "0", "--expire", "0")
            collections += 1
        for each in threads:
            each.join()
        assert not failures, failures
        did = sum((worker.did for worker in workers), Counter())
        assert runner.executions == did["runs"] and collections > 3, (runner.executions, did)
        assert did["hits"] > 3 and did["undone"] > 3 and did["runs"] > 3, did
        for worker in workers:
            worker.check()
    runner.ok("verify")
