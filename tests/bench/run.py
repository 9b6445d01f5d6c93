"""What a run costs, and what is done about it: hit, one-file run, unchanged run, status, checkout, diff.

Parts: api (calls of the Python API, on a connection that is open), program (whole processes of the command line), each
among 20 000 files, among 1 000, and beside git on ext4; million (the API among 1 000 000 files beside 1 000), history
(with 500 layers beside one), large_hits (of layers of many files). Needs root.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import lmdb

import fusecas
from fusecas import runner
from fusecas.client import Client
from fusecas.outlet import Kept
from tests.bench.measure import Bench, program, run, settle, timed
from tests.bench.peers import Ext4, Mount, Ours
from tests.bench.workspace import Workspace, fill

MOST, MANY, FEW = 1_000_000, 20_000, 1000
LAYERS = 500
TABLES = 12
LEAST = 50
ROUNDS = 5
HIT = "echo hit > hit"
CHANGE = "echo {} > changed"
NOTHING = "true"


class Commands:
    at = 0

    def new(self) -> str:
        """One that has never run."""
        self.at += 1
        return CHANGE.format(self.at)


class Asking(Client):
    """Knows how long it waited for the daemon."""

    seconds = 0.0

    def call(self, method: str, **params: Any) -> Any:
        start = time.perf_counter()
        try:
            return super().call(method, **params)
        finally:
            self.seconds = time.perf_counter() - start


class Serving:
    """Hits as the daemon sees them: from the request to its answer, in milliseconds."""

    def __init__(self, repository: Path) -> None:
        self.client = Asking(repository)
        self._place = runner.place_of(self.client).path

    def served(self, text: str) -> float:
        came = runner.run(
            self.client,
            runner.Program(shell=text.encode()),
            place=self._place,
            cwd=self._place,
            env=os.environb,
            stdout=Kept(0),
            stderr=Kept(0),
            deed={},
        )
        assert came.cached
        return self.client.seconds * 1000


class ByApi(Workspace, Commands):
    """Each measure is in milliseconds, and leaves things as they were."""

    def start(self) -> None:
        super().start()
        self.repo = fusecas.open(self.folder)
        self.space = self.repo.workspace()
        self.space.run("echo first > changed")
        self.serving = Serving(self.repository)
        self.hit_once()

    def hit_once(self) -> None:
        self.space.run(HIT)
        self.space.undo()

    def stop(self) -> None:
        self.serving.client.close()
        self.repo.close()
        super().stop()

    def then_undo(self, work: Callable[[], object]) -> float:
        taken = timed(work) * 1000
        self.space.undo()
        return taken

    def hit(self) -> float:
        return self.then_undo(lambda: self.space.run(HIT))

    def request(self) -> float:
        taken = self.serving.served(HIT)
        self.space.undo()
        return taken

    def one_file_run(self) -> float:
        return self.then_undo(lambda: self.space.run(self.new()))

    def unchanged_run(self) -> float:
        return timed(lambda: self.space.run(NOTHING)) * 1000

    def status(self) -> float:
        return timed(self.space.status) * 1000

    def checkout(self) -> float:
        return self.then_undo(lambda: self.space.checkout("@~1"))

    def diff(self) -> float:
        return timed(lambda: self.space.diff("@~1", "@")) * 1000


class WithLayers(ByApi):
    """Many layers stand on its files."""

    def start(self) -> None:
        super().start()
        for at in range(self.layers):
            self.space.run(f"echo {at} > changed")
        self.hit_once()

    def __init__(self, folder: Path, layers: int) -> None:
        self.layers = layers
        where = folder / f"layers-{layers}"
        where.mkdir()
        super().__init__(where, FEW)


class ByProgram(ByApi):
    def call(self, *words: str) -> None:
        run(program(), *words, FUSECAS_DIR=str(self.repository))

    def hit_once(self) -> None:
        self.call("run", HIT)
        self.space.undo()

    def hit(self) -> float:
        return self.then_undo(lambda: self.call("run", HIT))

    def one_file_run(self) -> float:
        return self.then_undo(lambda: self.call("run", self.new()))

    def unchanged_run(self) -> float:
        return timed(lambda: self.call("run", NOTHING)) * 1000

    def status(self) -> float:
        return timed(lambda: self.call("status")) * 1000

    def checkout(self) -> float:
        return self.then_undo(lambda: self.call("checkout", "@~1"))

    def diff(self) -> float:
        return timed(lambda: self.call("diff", "@~1", "@")) * 1000


class Git(Ext4, Commands):
    """The same by git on ext4: a run is the command, then `git add -A && git commit`."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        super().__init__(folder)

    def start(self) -> None:
        super().start()
        fill(self.work / "tree", self.count)
        self.tree = self.work / "tree"
        self.shell("git init -q && git config user.name bench && git config user.email bench@localhost && git add -A")
        self.shell("git commit -qm first && echo first > changed && git add -A && git commit -qm second")

    def shell(self, text: str) -> None:
        subprocess.run(["sh", "-euc", text], cwd=self.tree, check=True, stdout=subprocess.DEVNULL)

    def run_of(self, text: str) -> float:
        taken = timed(lambda: self.shell(f"{text}; git add -A && git commit -q --allow-empty -m run")) * 1000
        self.shell("git reset -q --hard @~1")
        return taken

    def hit(self) -> float:
        return self.run_of(HIT)

    def one_file_run(self) -> float:
        return self.run_of(self.new())

    def unchanged_run(self) -> float:
        return self.run_of(NOTHING)

    def status(self) -> float:
        return timed(lambda: self.shell("git status --porcelain")) * 1000

    def checkout(self) -> float:
        taken = timed(lambda: self.shell("git checkout -q @~1")) * 1000
        self.shell("git checkout -q -")
        return taken

    def diff(self) -> float:
        return timed(lambda: self.shell("git diff --name-status @~1 @")) * 1000


def steps(hit: str) -> list[tuple[str, Callable[[Any], float | None], str]]:
    return [
        ("hit of a run that made one file", lambda each: each.hit(), f"{hit}, x1.5"),
        ("run that makes one file", lambda each: each.one_file_run(), "x1.5"),
        ("run that changes nothing", lambda each: each.unchanged_run(), "x1.5"),
        ("status", lambda each: each.status(), "x1.5"),
        ("checkout of one file's difference", lambda each: each.checkout(), "x1.5"),
        ("diff of one file's difference", lambda each: each.diff(), "x1.5"),
    ]


def compared(bench: Bench, hit: str, peers: Mapping[str, Mount]) -> None:
    bench.rounds *= ROUNDS
    with ExitStack() as stack:
        for each in peers.values():
            stack.enter_context(each)
        settle()
        ours = {name: each for name, each in peers.items() if isinstance(each, ByApi)}
        bench.among([("hit of a run that made one file, in the daemon", ByApi.request, "x1.5")], ours, "ms")
        bench.among(steps(hit), peers, "ms")
        least = [commit_of_nothing(bench.folder / "lmdb") for _ in range(LEAST)]
        bench.note("a commit of LMDB alone, 12 tables", f"{median(least):.4g} ms", "", "", "")


def commit_of_nothing(folder: Path) -> float:
    """What a hit can't do without: one row of 300 bytes in as many tables as it touches, in milliseconds."""
    with lmdb.open(os.fspath(folder), map_size=1 << 28, max_dbs=TABLES) as environment:
        tables = [environment.open_db(b"%d" % at) for at in range(TABLES)]
        start = time.perf_counter()
        with environment.begin(write=True) as transaction:
            for table in tables:
                transaction.put(os.urandom(16), os.urandom(300), db=table)
        return (time.perf_counter() - start) * 1000


def beside_git(bench: Bench, kind: type[ByApi], hit: str) -> None:
    peers = {"of 20 000": kind(bench.folder, MANY), "of 1 000": kind(bench.folder, FEW)}
    compared(bench, hit, {**peers, "git, 20 000": Git(bench.folder, MANY)})


def api(bench: Bench) -> None:
    beside_git(bench, ByApi, "3 ms")


def by_program(bench: Bench) -> None:
    beside_git(bench, ByProgram, "100 ms")


def million(bench: Bench) -> None:
    compared(bench, "3 ms", {"of 1 000 000": ByApi(bench.folder, MOST), "of 1 000": ByApi(bench.folder, FEW)})


def history(bench: Bench) -> None:
    compared(bench, "3 ms", {f"{count} layers": WithLayers(bench.folder, count) for count in (LAYERS, 1)})


class Empty(Ours):
    """Nothing is in it but what a run has made, and what undo has taken back."""

    def __init__(self, folder: Path, count: int) -> None:
        self.name = f"makes-{count}"
        self.command = f"mkdir made; cd made; seq {count} | xargs touch"
        super().__init__(folder)

    def start(self) -> None:
        super().start()
        self.repo = fusecas.open(self.folder)
        self.space = self.repo.workspace()
        self.space.run("echo first > first")
        self.space.run(self.command)
        self.space.undo()
        self.serving = Serving(self.repository)

    def stop(self) -> None:
        self.serving.client.close()
        self.repo.close()
        super().stop()

    def by_api(self) -> float:
        return self._served(lambda: self.space.run(self.command).cached)

    def request(self) -> float:
        taken = self.serving.served(self.command)
        self.space.undo()
        return taken

    def by_program(self) -> float:
        return self._served(lambda: run(program(), "run", self.command, FUSECAS_DIR=str(self.repository)))

    def _served(self, work: Callable[[], object]) -> float:
        taken = timed(work) * 1000
        self.space.undo()
        return taken


def large_hits(bench: Bench) -> None:
    bench.rounds *= ROUNDS
    with ExitStack() as stack:
        many, few = (stack.enter_context(Empty(bench.folder, count)) for count in (MANY, FEW))
        stack.callback(settle)
        bench.among(
            [
                ("", lambda each: each.by_program() and None, ""),
                ("hit that brings files, in the daemon", Empty.request, "20 ms"),
                ("hit that brings files, by the API", Empty.by_api, ""),
                ("hit that brings files, whole process", Empty.by_program, "170 ms"),
            ],
            {"20 000": many, "1 000": few},
            "ms",
        )


PARTS = {"api": api, "program": by_program, "million": million, "history": history, "large_hits": large_hits}
