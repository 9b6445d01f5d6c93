"""Runs, hits and what moves a workspace between them, killed and cut off from power at any system call, in the start
after it too: the machine of tests/workspace/power.py, which now runs commands as well.

    python -m tests.run.crashes EXAMPLES SEED      with tests/crash/disk.c preloaded
    python -m tests.run.crashes every STEP

Promised, beyond what is promised of files: a run that was acknowledged is recorded as it ended, and served; one that
was not has ended, was interrupted, or never was. Records, results, operations and heads tell of the same. What has
happened can be undone to its beginning and redone to its end, and each step is one that was there.
"""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import rule

from fusecas import _native
from fusecas.errors import NotFound, Refused
from fusecas.run.hits import Served
from fusecas.run.request import Request
from fusecas.run.runs import Outcome, Running, Runs
from fusecas.store import heads
from fusecas.store.ids import Kind, LayerId, ObjectId
from fusecas.store.kinds import Layer
from fusecas.store.run_rows import DONE, INTERRUPTED, RUNNING, Record, Window
from fusecas.store.snapshot import Snapshot
from fusecas.workspace.calls import CALLS
from fusecas.workspace.mover import Deed
from tests.workspace.power import FILE, THEN, Machine, Moment, changed, main, shared
from tests.workspace.promises import Tree

SAID = b"said by the command"
Contents = dict[bytes, tuple[int, bytes]]


class Acknowledged(NamedTuple):
    """What somebody was told of a run, or will find of it: one of `status`, and a layer if it is DONE."""

    status: tuple[str, ...]
    layer: LayerId | None = None


class RunMachine(Machine):
    def __init__(self) -> None:
        self.told_of: dict[bytes, Acknowledged] = {}
        self.on: Running | None = None
        self.seen: list[Contents] = []
        super().__init__()

    def opened(self) -> None:
        self.runs = Runs(self.repository.store, self.repository.folder)
        self.runs.recover(self.workspaces)

    def recovered(self, unsure: set[str]) -> None:
        super().recovered(unsure)
        self.on = None
        self.check_rows()

    def see(self, changes: int | None = None) -> None:
        super().see(changes)
        self.seen.append(contents(self.past[-1]))

    # runs

    def begin_run(self, name: str, **wishes: Any) -> Served | None:
        """A hit, or the run is on; neither if a crash came in between."""
        request = Request({"shell": name.encode()}, b"", b"/nowhere", (), None, 0o022, privileged=False, **wishes)
        begun: list[Running | Served] = []

        def begin() -> None:
            with suppress(NotFound, Refused) if request.retry else nullcontext():  # nothing to be tried again
                begun.append(self.runs.begin(self.workspace, request, Deed()))

        if not self.act(begin) or not begun:
            return None
        self.promise.sure = len(self.past) - 1
        self.others_are_the_same()
        if isinstance(begun[0], Running):
            self.on = begun[0]
            self.told_of[self.on.number] = Acknowledged((INTERRUPTED,))
            return None
        self.check_rows()
        return begun[0]

    def work(self) -> None:
        """What a command does: one file gone, one there, one changed."""
        if self.on is None:
            return
        name = self.on.request.program["shell"]
        self.attempt(lambda: self.overlay.unlink(0, b"c"))
        self.attempt(lambda: self.overlay.write(self.made(b"out-" + name), 0, name * 3000))
        ino = self.file([b"a"], b"a")
        if ino is not None:
            self.act(lambda: self.overlay.write(ino, 40, name * 10), changes=ino)

    def made(self, name: bytes) -> int:
        return self.hold(self.overlay.lookup(0, name) or self.overlay.make(0, name, FILE, 0, 0, 0))

    def end_run(self, exit: int) -> None:
        run = self.on
        if run is None:
            return
        for each in self.runs.logs(run.number):
            each.write_bytes(SAID)
        ended = []
        self.told_of[run.number] = Acknowledged((INTERRUPTED, DONE))
        outcome = Outcome(exit, None, Window(run.started, time.time_ns()))
        if self.act(lambda: ended.append(self.runs.end(run.number, outcome, Deed())), sure=True):
            self.on = None
            self.told_of[run.number] = Acknowledged((DONE,), ended[0].layer)
            self.others_are_the_same()
            self.check_rows()

    def interrupt(self) -> None:
        run = self.on
        if run is not None and self.act(lambda: self.runs.interrupt(run.number), sure=True):
            self.on = None
            self.check_rows()

    @rule(
        name=st.sampled_from("xy"),
        exit=st.sampled_from([0, 0, 0, 1, None]),
        rollback=st.booleans(),
        retry=st.sampled_from([False, False, True]),
        then=THEN,
    )
    def run_command(self, name: str, exit: int | None, rollback: bool, retry: bool, then: str) -> None:
        """`exit`: None if whoever runs it has gone."""
        self.begin_run(name, rollback=rollback, retry=retry)
        self.work()
        self.interrupt() if exit is None else self.end_run(exit)
        self.after(then)

    @rule(
        what=st.sampled_from(
            [
                ("checkout", {"ref": "@empty"}),
                ("checkout", {"ref": "@~1"}),
                ("checkout", {"ref": "@", "touch": True}),
                ("checkout", {"ref": "@", "paths": ["a", "c"]}),
            ]
        ),
        then=THEN,
    )
    def move(self, what: tuple[str, dict[str, Any]], then: str) -> None:
        self.call(what[0], **what[1])
        self.after(then)

    @rule(back=st.integers(0, 2))
    def take_back(self, back: int) -> None:
        """One of the last operations that moved this workspace."""
        ref = heads.NAMESPACE + self.name
        with self.repository.store.read() as snapshot:
            newest = [each for each in islice(snapshot.ref_operations_back(ref), back + 1)]
        move = newest[-1].move_of(ref) if len(newest) > back else None
        if move is not None and move.old is not None and move.new is not None:
            self.call("op.revert", operation=newest[-1].number)

    def call(self, verb: str, **parameters: Any) -> None:
        where = {} if verb == "op.revert" else {"ws": self.name}

        moved: list[object] = []

        def move() -> None:
            with suppress(NotFound, Refused):
                moved.append(CALLS[verb](self.workspaces, {**parameters, **where}))

        if self.act(move) and moved:
            self.promise.sure = len(self.past) - 1
            self.others_are_the_same()

    def last_operation(self) -> int:
        with self.repository.store.read() as snapshot:
            return next(snapshot.operations_back()).number

    # what is there

    def check_rows(self) -> None:
        """What was told is there, and rows of all kinds tell of the same."""
        with self.repository.store.read() as snapshot:
            records = dict(snapshot.records_back())
            for number, told in self.told_of.items():
                record = records[number]
                assert record.status in told.status or (self.on is not None and number == self.on.number), record
                assert told.layer is None or record.layer == told.layer, (record, told)
            for number, record in records.items():
                check_record(snapshot, number, record)
                assert record.status != RUNNING or (self.on is not None and number == self.on.number), record

    def go_on(self, number: int) -> None:
        self.moment = None  # it was later than the end of what it was meant for
        for name in sorted(self.promises):
            self.go_to(name)
            self.everything_can_be_undone()
        self.go_to(heads.DEFAULT)
        self.what_was_done_is_served()
        super().go_on(number)

    def everything_can_be_undone(self) -> None:
        """Each step is one that was there once; and redo leads to where we are."""
        here = contents(self.past[-1])
        steps = 0
        while self.goes(self.workspace.undo):
            steps += 1
            assert contents(self.past[-1]) in self.seen
        for _ in range(steps):
            assert self.goes(self.workspace.redo)
        assert contents(self.past[-1]) == here

    def goes(self, step: Callable[[], object]) -> bool:
        went: list[object] = []

        def move() -> None:
            with suppress(Refused):
                went.append(step())

        assert self.act(move)
        return bool(went)

    def what_was_done_is_served(self) -> None:
        """On what it was done on, if that can be undone to."""
        with self.repository.store.read() as snapshot:
            records = dict(snapshot.records_back())
        done = [records[number] for number, told in self.told_of.items() if told.layer is not None]
        while done:
            with self.repository.store.read() as snapshot:
                live = heads.read_head(snapshot, self.name).live
                there = next((each for each in done if (each.base, each.base_times) == (live.state, live.times)), None)
            if there is not None:
                program = program_of(there)
                served = self.begin_run(program)
                assert served is not None and served.result.state == there.state and served.said == (SAID, SAID)
                assert self.goes(self.workspace.undo)
                done.remove(there)
            elif not self.goes(self.workspace.undo):
                return


def check_record(snapshot: Snapshot, number: bytes, record: Record) -> None:
    result = snapshot.result(ObjectId(_native.node_id(Kind.ACTION, record.action)))
    if record.status == DONE and record.exit == 0:
        assert result is not None and result.record >= number, "it is not remembered"
    if result is not None and result.record == number:
        assert (record.status, record.exit, record.state) == (DONE, 0, result.state)
        assert (record.stdout, record.stderr) == (result.stdout, result.stderr)
    if record.layer is None:
        return
    assert Layer.decode(snapshot.read_node(record.layer, Kind.LAYER)).state == record.state
    moves = [move for each in snapshot.operations_back() if each.verb == "run" for move in each.moves]
    pairs = [(each.old_live, each.new_live) for each in moves if each.old_live and each.new_live]
    came_from = {old.state for old, new in pairs if new.layer == record.layer != old.layer}
    assert came_from == {record.base}, "no operation made it"


def program_of(record: Record) -> str:
    from fusecas.store.kinds import Action

    return bytes(Action.decode(record.action).program["shell"]).decode()


def contents(tree: Tree) -> Contents:
    """Without what undo gives anew: numbers of inodes, times of status changes."""
    return {path: (what[1], what[-1] if isinstance(what[-1], bytes) else b"") for path, what in tree.items()}


# ---- what is to be interrupted


def running(machine: RunMachine) -> None:
    changed(machine)
    machine.begin_run("x")
    machine.work()


def taken_back(machine: RunMachine) -> None:
    """What is here is as before a run that is known."""
    running(machine)
    machine.end_run(0)
    machine.undo(redo=False)


def to_be_rolled_back(machine: RunMachine) -> None:
    changed(machine)
    machine.begin_run("x", rollback=True)
    machine.work()


def failed(machine: RunMachine) -> None:
    running(machine)
    machine.end_run(1)


def done(machine: RunMachine) -> None:
    running(machine)
    machine.end_run(0)


def running_in_a_fork(machine: RunMachine) -> None:
    shared(machine)
    machine.begin_run("x")
    machine.work()


RUNS = [
    Moment("run.begin", changed, lambda machine: machine.begin_run("x")),
    Moment("run.begin in a fork", shared, lambda machine: machine.begin_run("x")),
    Moment("run.end", running, lambda machine: machine.end_run(0)),
    Moment("run.end in a fork", running_in_a_fork, lambda machine: machine.end_run(0)),
    Moment("run.end of a failed run", running, lambda machine: machine.end_run(1)),
    Moment("rollback", to_be_rolled_back, lambda machine: machine.end_run(1)),
    Moment("retry", failed, lambda machine: machine.begin_run("x", retry=True)),
    Moment("a client that has gone", running, lambda machine: machine.interrupt()),
    Moment("a client that has gone, with rollback", to_be_rolled_back, lambda machine: machine.interrupt()),
    Moment("hit", taken_back, lambda machine: machine.begin_run("x")),
    Moment("undo of a run", done, lambda machine: machine.undo(redo=False)),
    Moment("redo of a run", taken_back, lambda machine: machine.undo(redo=True)),
    Moment("checkout", done, lambda machine: machine.call("checkout", ref="@empty")),
    Moment("checkout of dirty work", failed, lambda machine: machine.call("checkout", ref="@", touch=True)),
    Moment("checkout of paths", failed, lambda machine: machine.call("checkout", ref="@", paths=["a", "c"])),
    Moment("op revert", done, lambda machine: machine.call("op.revert", operation=machine.last_operation())),
    Moment("a start after a kill in a run", running),
    Moment("a start after a power cut in a run", running, after_power=True),
]


if __name__ == "__main__":
    main(sys.argv[1:], RunMachine, RUNS)
