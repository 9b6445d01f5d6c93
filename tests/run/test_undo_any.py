"""Whatever was done in a workspace, undo goes back through it step by step, down to the first, and redo the same way
up."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusecas.errors import PathNotFound, Refused
from fusecas.run.hits import Served
from fusecas.run.request import Request
from fusecas.run.runs import Outcome, Runs
from fusecas.store import heads, revisions
from fusecas.store.heads import Head
from fusecas.store.ids import LayerId, StateId, TimesId
from fusecas.store.repository import Repository
from fusecas.store.rows import LivePair
from fusecas.store.run_rows import Window
from fusecas.store.snapshot import Snapshot
from fusecas.workspace.going import parts, whole
from fusecas.workspace.mover import Deed
from fusecas.workspace.sides import ROOT
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Workspace

EFFORT = int(os.environ.get("FUSECAS_TEST_EFFORT", "1"))
NAMES = [b"a", b"b", b"c"]
names, numbers = st.sampled_from(NAMES), st.integers(0, 1 << 20)


class Step(NamedTuple):
    what: str
    name: bytes
    number: int


WHATS = ("write", "write", "remove", "chmod", "commit", "run", "again", "checkout", "part")
steps = st.lists(st.builds(Step, st.sampled_from(WHATS), names, numbers), min_size=1, max_size=14)


class Place(NamedTuple):
    """Where a workspace stood. It had other times before a verb than after the one before, if nothing else changed."""

    layer: LayerId | None
    state: StateId
    times: set[TimesId | None]


class Doing:
    """A workspace, and where it has stood: before and after each verb, equal neighbours counting once."""

    def __init__(self, repository: Repository) -> None:
        self.workspace = Workspace(repository)
        self.runs = Runs(repository.store, repository.folder)
        self.store = repository.store
        first = self.now()
        self.stood = [Place(first.layer, first.state, {first.times})]
        self.layers: list[LayerId] = []
        self.commands: list[str] = []
        self.written = 0

    def now(self) -> LivePair:
        self.workspace.seal()
        with self.store.read() as snapshot:
            return heads.read_head(snapshot, self.workspace.name).live.pair

    def stand(self, now: LivePair) -> None:
        if now[:2] != self.stood[-1][:2]:
            self.stood.append(Place(now.layer, now.state, set()))
        self.stood[-1].times.add(now.times)
        if now.layer is not None:
            self.layers.append(now.layer)

    def is_at(self, place: Place) -> bool:
        now = self.now()
        return now[:2] == place[:2] and now.times in place.times

    def newest(self) -> int:
        with self.store.read() as snapshot:
            return next(snapshot.ref_operations_back(heads.NAMESPACE + self.workspace.name)).number

    def do(self, step: Step) -> None:
        if step.what in ("write", "remove", "chmod"):
            self.edit(step)
            return
        before, newest = self.now(), self.newest()
        match step.what:
            case "commit":
                self.workspace.commit()
            case "run":
                self.commands.append(f"command {len(self.commands)}")
                self.run(self.commands[-1], step)
            case "again" if self.commands:
                self.run(self.commands[step.number % len(self.commands)], step)
            case "checkout" | "part" if self.layers:
                self.go(step)
        if self.newest() != newest:  # else it came to nothing, and is no step
            self.stand(before)
            self.stand(self.now())

    def edit(self, step: Step) -> None:
        overlay = self.workspace.overlay
        found = overlay.lookup(ROOT, step.name)
        if step.what == "remove" and found is not None:
            overlay.unlink(ROOT, step.name)
        elif step.what == "chmod" and found is not None:
            overlay.setattr(found[0], mode=0o600 | step.number % 64)
        elif step.what == "write":
            made = found or overlay.make(ROOT, step.name, 0o100644, 0o022, os.geteuid(), os.getegid())
            self.written += 1
            overlay.write(made[0], 0, b"%08d" % self.written)
            if found is None:
                overlay.forget(made[0], 1)
        if found is not None:
            overlay.forget(found[0], 1)

    def run(self, command: str, step: Step) -> None:
        request = Request({"shell": command.encode()}, b"", b"/nowhere", (), None, 0o022, privileged=False)
        begun = self.runs.begin(self.workspace, request, Deed())
        if isinstance(begun, Served):
            return
        started = time.time_ns()
        for log in self.runs.logs(begun.number):
            log.write_bytes(b"")
        for what in ("write", "chmod"):
            self.edit(step._replace(what=what))
        outcome = Outcome(0 if step.number % 4 else 1, None, Window(started, time.time_ns()))
        self.runs.end(begun.number, outcome, Deed())

    def go(self, step: Step) -> None:
        layer = self.layers[step.number % len(self.layers)]

        def find(snapshot: Snapshot, head: Head) -> Target:
            to = revisions.of_layer(snapshot, layer, "")
            if step.what == "checkout":
                return whole(snapshot, head, to, touch=False)
            return parts(snapshot, head, to, [step.name])

        with suppress(PathNotFound):
            self.workspace.checkout(find)


@settings(max_examples=25 * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_undo_goes_back_through_all_of_it_and_redo_the_same_way_up(done: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder, Repository.create(Path(folder) / ".fusecas") as repository:
        doing = Doing(repository)
        for step in done:
            doing.do(step)
        doing.stand(doing.now())
        way = doing.stood
        for place in way[-2::-1]:
            doing.workspace.undo()
            assert doing.is_at(place)
        for place in way[1:]:
            doing.workspace.redo()
            assert doing.is_at(place)
        try:
            doing.workspace.redo()
        except Refused:
            return
        raise AssertionError("there was nothing to redo")
