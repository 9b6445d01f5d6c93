"""The bracket of a run: what is done before a command and after it (docs/dev/runs.md). Thread-safe."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import NamedTuple

from fusecas.errors import (
    DiskFull,
    EnvironmentProblem,
    ExpiredError,
    FusecasError,
    MissingObject,
    NotFound,
    Refused,
    StillRunning,
)
from fusecas.run import failed, times
from fusecas.run.hits import Served, delta, said_by, why_not
from fusecas.run.leftovers import end_all_of
from fusecas.run.near import Missed, missed
from fusecas.run.outsiders import Watch
from fusecas.run.policy import Policy, policy_of
from fusecas.run.request import Key, KeyMaker, Keys, Request
from fusecas.store import bound, heads
from fusecas.store.diff import ChangeKind, diff_states
from fusecas.store.heads import Head
from fusecas.store.ids import ContentId, LayerId, StateId, TimesId
from fusecas.store.prolly import Loader, Saver
from fusecas.store.rows import Baseline, Operation
from fusecas.store.run_rows import DONE, INTERRUPTED, RUNNING, Record, Result, Window
from fusecas.store.session import Session
from fusecas.store.snapshot import Snapshot
from fusecas.store.store import Store
from fusecas.store.transaction import Transaction
from fusecas.workspace.mover import Deed
from fusecas.workspace.target import Target
from fusecas.workspace.workspace import Committed, Workspace
from fusecas.workspace.workspaces import Workspaces

log = logging.getLogger(__name__)
LOGS = "run/logs"
MOST_LEFT = 1000
"""So many records back may one be that a former daemon left running: one a workspace, and hardly any newer ones."""
OUTPUTS = ("stdout", "stderr")
LATEST = (1 << 48) - 1


class Running(NamedTuple):
    """A command that is executed now. `missed`: what alone was different before; `refused`: why what is known is not
    served."""

    number: bytes
    workspace: Workspace
    request: Request
    policy: Policy
    keys: Keys
    started: int
    deed: Deed
    missed: Missed | None
    refused: str | None


class Outcome(NamedTuple):
    """What the executor says of a command. `killed`: descendants that were still there when it had ended. `keep`:
    whether its output is whole. `watch` has seen who else changed something."""

    exit: int
    signal: int | None
    window: Window
    killed: tuple[str, ...] = ()
    keep: bool = True
    watch: Watch | None = None


class Ended(NamedTuple):
    """What a run came to. `layer` is None if it failed or changed nothing; `edits`: of what was uncommitted before.
    `state`: what is there now. `mixed`: why it is never served, if so: others had a hand in it, say. `put_back`:
    whether it failed, and what was there before is there again."""

    layer: LayerId | None
    edits: LayerId | None
    state: StateId
    added: int
    removed: int
    changed: int
    mixed: str | None
    put_back: bool = False


class HasMoved(Exception):
    """The workspace no longer stands where the key was made."""


class Runs:
    """Of one repository: at most one run in each workspace."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._keys = KeyMaker()
        self._lock = threading.Condition()
        self._running: dict[bytes, bytes] = {}
        self._moving: Counter[bytes] = Counter()
        self._runs: dict[bytes, Running] = {}
        self._newest = newest_number(store)
        self._unrecorded: dict[bytes, Running] = {}
        self._recording = threading.Lock()

    def recover(self, workspaces: Workspaces) -> None:
        """What a former daemon left running was interrupted."""
        with self._store.read() as snapshot:
            newest = islice(snapshot.records_back(), MOST_LEFT)
            left = [(number, record) for number, record in newest if record.status == RUNNING]
            names = {head.workspace.id: head.name for head in heads.all_heads(snapshot)} if left else {}
        for number, record in left:
            end_all_of(number)
            try:
                if record.workspace in names:
                    self._set_interrupted(number, record, workspaces.get(names[record.workspace]), Deed())
                else:
                    with self._store.write() as transaction:
                        transaction.set_record(number, record._replace(status=INTERRUPTED))
            except (
                FusecasError,
                OSError,
            ):  # a full disk, say: the mount is needed to free it; the next start tries again
                log.warning("run %s could not be recorded as interrupted", number.hex(), exc_info=True)
        for file in self._logs_folder().iterdir():
            file.unlink()

    @contextmanager
    def moving(self, workspace: Workspace) -> Iterator[None]:
        """Around whatever moves a workspace: not while a command is running there; one that begins waits for it."""
        with self._lock:
            number = self._running.get(workspace.id)
            if number is not None:
                raise still_running(workspace, number)
            self._moving[workspace.id] += 1
        try:
            self._record_left(workspace)
            yield
        finally:
            with self._lock:
                self._moving[workspace.id] -= 1
                self._lock.notify_all()

    def refuse_running(self) -> None:
        """StillRunning if a command is, in any workspace."""
        with self._lock:
            for run in self._runs.values():
                raise still_running(run.workspace, run.number)

    def begin(self, workspace: Workspace, request: Request, deed: Deed) -> Running | Served:
        """A hit, put in place; or the run to be executed, which `end` or `interrupt` then ends."""
        with self._lock:
            number = self._newest = new_number(self._newest)
            if (other := self._running.get(workspace.id)) is not None:
                raise still_running(workspace, other)
            self._running[workspace.id] = number
            self._lock.wait_for(lambda: not self._moving[workspace.id])
        try:
            self._record_left(workspace)
            begun = self._begin(workspace, request, deed, number)
        except BaseException:
            self._forget(workspace, number)
            raise
        if isinstance(begun, Served):
            self._forget(workspace, number)
        else:
            with self._lock:
                self._runs[number] = begun
        return begun

    def policy_of(self, workspace: Workspace) -> Policy:
        """As the files say by now."""
        workspace.seal()
        with self._store.read() as snapshot:
            return policy_of(snapshot, heads.read_head(snapshot, workspace.name).live.state, self._folder)

    def _begin(self, workspace: Workspace, request: Request, deed: Deed, number: bytes) -> Running | Served:
        if request.retry:
            self._go_back(workspace, request, deed)
        while True:
            workspace.seal()
            with self._store.read() as snapshot:
                head = heads.read_head(snapshot, workspace.name)
                live = head.live
                policy = policy_of(snapshot, live.state, self._folder)
                if request.refuse_dirty and self._is_dirty(snapshot, head, policy):
                    hint = "fusecas status shows it; fusecas commit makes a layer of it"
                    raise Refused(f"something is uncommitted in workspace {head.name}", hint=hint)
                keys = self._keys.keys_of(snapshot, live, request, policy)
                known = [(key, snapshot.result(key.id)) for key in keys.all] if request.serve else []
                found = next(((key, result) for key, result in known if result is not None), None)
                refused = None if found is None else why_not(found[1], request, policy)
                near = missed(snapshot, keys.action) if request.serve and found is None else None
            if found is not None and refused is None:
                try:
                    return self._serve(workspace, request, policy, keys, *found, deed)
                except HasMoved:
                    continue
                except MissingObject:
                    if self._is_there(found[0]):
                        raise
                    continue  # gc has taken it meanwhile
            started = time.time_ns()
            with self._store.write() as transaction:
                record = Record(
                    workspace.id, RUNNING, keys.plain.data, base=live.state, base_times=live.times, started=started
                )
                transaction.set_record(number, record)
            return Running(number, workspace, request, policy, keys, started, deed, near, refused)

    def _is_there(self, key: Key) -> bool:
        """Whether a result can still be served."""
        with self._store.read() as snapshot:
            return snapshot.result(key.id) is not None

    def _go_back(self, workspace: Workspace, request: Request, deed: Deed) -> None:
        """To where the last run of this command began. What was left by it is kept by the operation."""
        with self._store.read() as snapshot:
            record = failed.to_retry(snapshot, workspace.id, request.program)
            if not all(snapshot.has(each) for each in (record.base, record.base_times) if each is not None):
                raise ExpiredError("gc has collected what was there before that run; it is past its grace time")

        def find(_snapshot: Snapshot, head: Head) -> Target:
            return Target(head.workspace.layer, record.base, record.base_times, head.live.baseline)

        workspace.bring("retry", find, deed)

    def _put_back(self, run: Running, deed: Deed) -> None:
        """What was there before a run that failed, as it was; what it had made is kept by the operation."""
        base = run.keys.live

        def find(_snapshot: Snapshot, head: Head) -> Target:
            return Target(head.workspace.layer, base.state, base.times, base.baseline)  # what was touched still is

        run.workspace.bring("rollback", find, deed)

    def _serve(
        self,
        workspace: Workspace,
        request: Request,
        policy: Policy,
        keys: Keys,
        key: Key,
        result: Result,
        deed: Deed,
    ) -> Served:
        live, found_at = keys.live, time.time_ns()
        with self._store.read() as snapshot:
            said = said_by(snapshot, result)
        if result.state == result.base:
            with self._store.write() as transaction:
                transaction.set_result(key.id, result._replace(hits=result.hits + 1))
            return Served(None, live.state, result, said)

        def work_out(load: Loader, save: Saver) -> tuple[StateId, TimesId | None]:
            with self._store.read() as snapshot:
                state = delta(snapshot, result, live, policy, self._keys.stat_caches, load, save)
            to = Window(found_at, max(time.time_ns(), found_at))
            brought = times.brought(result.base_times, result.times, live.times, result.window, to, load, save)
            return state, brought

        def make_layer(transaction: Transaction, head: Head, target: Target) -> LayerId:
            transaction.set_result(key.id, result._replace(hits=result.hits + 1))
            holders = bound.joined(transaction.bound(live.state), transaction.bound(result.state))
            transaction.set_bound(target.state, holders)
            edits = self._edit_layer(transaction, head, policy)
            parent = edits or head.workspace.layer
            return run_layer(transaction, parent, target.state, target.times, request, result.exit)

        def find(_snapshot: Snapshot, head: Head) -> Target:
            if (head.live.state, head.live.times) != (live.state, live.times):
                raise HasMoved
            return Target(None, result.state, None, make_layer=make_layer, work_out=work_out)

        moved = workspace.bring("hit", find, deed)
        assert moved.layer is not None, "a hit makes a layer"
        return Served(moved.layer, moved.state, result, said, moved.added, moved.removed, moved.changed)

    def end(self, number: bytes, outcome: Outcome, deed: Deed) -> Ended:
        """What the command did becomes layers; durable when this returns."""
        run = self._taken(number)
        if run is None:
            raise NotFound(f"no run {number.hex()} is on")
        try:
            with self._store.session() as session:
                outputs = [_stored(log, session) for log in self.logs(number)]
                session.flush()
                says_path = any(_holds(each, run.request.place) for each in self.logs(number))
                ended = self._end(run, outcome, outputs, says_path, deed)
            if outcome.exit and run.request.rollback:
                self._put_back(run, deed)
                ended = ended._replace(state=run.keys.live.state, put_back=True)
        except BaseException as error:
            if isinstance(error, DiskFull):
                error.hint = "free some space; what the command changed is uncommitted"
            try:
                self._interrupt(run)
            except (FusecasError, OSError):
                log.warning("run %s could not be recorded as interrupted yet", number.hex(), exc_info=True)
            raise
        self._done(run)
        return ended

    def _end(self, run: Running, outcome: Outcome, outputs: list[ContentId], says_path: bool, deed: Deed) -> Ended:
        """`says_path`: whether the path of the workspace is in its output."""
        base = run.keys.live
        layers: list[LayerId | None] = [None, None]
        stood: list[Head] = []
        mixed: str | None = None

        def publish(transaction: Transaction, head: Head) -> Committed:
            nonlocal mixed
            stood[:] = [head]
            # What is in this state was seen before it was done.
            mixed = None if outcome.watch is None else outcome.watch.complaint
            is_changed = head.live.state != base.state
            came_from = head._replace(live=head.live._replace(state=base.state, times=base.times))
            operation: Operation | None = None
            left = head.live._replace(baseline=Baseline(head.live.times, head.live.state, time.time_ns()))
            if not is_changed:
                # What it touched itself is its own; but what was newer than all else when it began still is.
                settles = not (outcome.exit or mixed or run.keys.action.touched)
                transaction.set_live(run.workspace.id, left if settles else head.live)
            elif outcome.exit:
                operation = heads.advance(transaction, came_from, head.live, "run", *deed)
            else:
                layers[:] = self._layers(transaction, run, came_from, head)
                operation = heads.advance(transaction, came_from, left._replace(layer=layers[1]), "run", *deed)
            if run.request.keep and outcome.keep and mixed is None and not outcome.exit:
                result = Result(
                    base=base.state,
                    base_times=base.times,
                    state=head.live.state,
                    times=head.live.times,
                    window=outcome.window,
                    exit=0,
                    stdout=outputs[0],
                    stderr=outputs[1],
                    record=run.number,
                )
                is_bound = says_path or bound.is_bound(transaction, head.live.state)
                transaction.set_result((run.keys.here if is_bound else run.keys.plain).id, result)
            record = Record(
                run.workspace.id,
                DONE,
                run.keys.plain.data,
                base=base.state,
                base_times=base.times,
                started=outcome.window.start,
                ended=outcome.window.end,
                exit=outcome.exit,
                signal=outcome.signal,
                state=head.live.state,
                layer=layers[1],
                stdout=outputs[0],
                stderr=outputs[1],
                killed=outcome.killed,
                mixed=mixed,
            )
            transaction.set_record(run.number, record)
            return Committed(layers[1], head.live.state, operation)

        run.workspace.seal_into(publish)
        state = stood[0].live.state
        return Ended(layers[1], layers[0], state, *self._counts(base.state, state), mixed)

    def _layers(
        self, transaction: Transaction, run: Running, came_from: Head, head: Head
    ) -> tuple[LayerId | None, LayerId]:
        edits = self._edit_layer(transaction, came_from, run.policy)
        parent = edits or head.workspace.layer
        return edits, run_layer(transaction, parent, head.live.state, head.live.times, run.request, 0)

    def _edit_layer(self, transaction: Transaction, head: Head, policy: Policy) -> LayerId | None:
        """What was uncommitted before a run, as a layer; None if nothing was."""
        if not self._is_dirty(transaction, head, policy):
            return None
        live, message = head.live, failed.left_by(transaction, head)
        return heads.add_layer(
            transaction, head.workspace.layer, live.state, live.times, live.baseline, message=message
        )

    def _is_dirty(self, snapshot: Snapshot, head: Head, policy: Policy) -> bool:
        committed = heads.state_of(snapshot, head.workspace.layer)
        return not self._keys.stat_caches.alike(snapshot, head.live.state, committed, policy.stat_cache_paths)

    def _counts(self, before: StateId, after: StateId) -> tuple[int, int, int]:
        """(added, removed, changed) paths."""
        counts = [0, 0, 0]
        with self._store.read() as snapshot:
            for change in diff_states(snapshot, before, after, renames=False):
                kind = 0 if ChangeKind.ADDED in change.kinds else 1 if ChangeKind.REMOVED in change.kinds else 2
                counts[kind] += 1
        return counts[0], counts[1], counts[2]

    def interrupt(self, number: bytes) -> None:
        """It can't be ended as a run any more: its processes are made to end, what they have written is uncommitted."""
        run = self._taken(number)
        if run is not None:
            self._interrupt(run)

    def _taken(self, number: bytes) -> Running | None:
        """A run that is on, to be ended: whoever takes it is the only one who does."""
        with self._lock:
            return self._runs.pop(number, None)

    def _interrupt(self, run: Running) -> None:
        end_all_of(run.number)
        try:
            self._record_interrupted(run)
        except BaseException:
            self._unrecorded[run.workspace.id] = run
            raise
        finally:
            self._done(run)

    def _record_interrupted(self, run: Running) -> None:
        with self._store.read() as snapshot:
            record = snapshot.record(run.number)
        if record is not None and record.status == RUNNING:
            self._set_interrupted(run.number, record, run.workspace, run.deed)
            if run.request.rollback:
                self._put_back(run, run.deed)

    def _record_left(self, workspace: Workspace) -> None:
        """A run whose end could not be written, on a full disk, say: before anything else moves its workspace."""
        with self._recording:
            if (run := self._unrecorded.get(workspace.id)) is not None:
                self._record_interrupted(run)
                del self._unrecorded[workspace.id]

    def _set_interrupted(self, number: bytes, record: Record, workspace: Workspace, deed: Deed) -> None:
        """What it has changed is an operation, as that of a failed run: so undo brings back what was there before."""

        def publish(transaction: Transaction, head: Head) -> Committed:
            operation: Operation | None = None
            if head.live.state != record.base:
                came_from = head._replace(live=head.live._replace(state=record.base, times=record.base_times))
                operation = heads.advance(transaction, came_from, head.live, "run", *deed)
            transaction.set_record(number, record._replace(status=INTERRUPTED, ended=time.time_ns()))
            return Committed(None, head.live.state, operation)

        workspace.seal_into(publish)

    def _done(self, run: Running) -> None:
        self._forget(run.workspace, run.number)
        for file in self.logs(run.number):
            file.unlink(missing_ok=True)

    def _forget(self, workspace: Workspace, number: bytes) -> None:
        with self._lock:
            if self._running.get(workspace.id) == number:
                del self._running[workspace.id]

    # output

    def logs(self, number: bytes) -> list[Path]:
        """Where the executor writes what the command says."""
        return [self._logs_folder() / f"{number.hex()}.{each}" for each in OUTPUTS]

    def _logs_folder(self) -> Path:
        folder = self._folder / LOGS
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def _stored(log: Path, session: Session) -> ContentId:
    try:
        with log.open("rb") as file:
            return session.put_stream(file)
    except FileNotFoundError as error:
        hint = "what the command changed is uncommitted; if the repository was removed: umount its workspace"
        raise EnvironmentProblem(f"what the command has said is not there any more: {log}", hint=hint) from error


def _holds(log: Path, path: bytes) -> bool:
    with log.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            return bound.holds(data, path)


def still_running(workspace: Workspace, number: bytes) -> StillRunning:
    message = f"a command is running in workspace {workspace.name}"
    return StillRunning(message, hint=f"it is run {number.hex()[:12]}", details={"run": number.hex()})


def run_layer(
    transaction: Transaction, parent: LayerId | None, state: StateId, times: TimesId | None, request: Request, exit: int
) -> LayerId:
    return heads.add_layer(
        transaction,
        parent,
        state,
        times,
        program=request.program,
        cwd=request.cwd,
        exit=exit,
        message=request.message,
    )


def newest_number(store: Store) -> bytes:
    """Of all executions that are recorded."""
    with store.read() as snapshot:
        return next((number for number, _ in snapshot.records_back()), b"")


def new_number(newest: bytes) -> bytes:
    """Of an execution: in the order of time, and never the same (UUID version 7). Also if the clock was set back: what
    was done last is looked for by it."""
    moment = max(time.time_ns() // 1_000_000, int.from_bytes(newest[:6], "big") + 1)
    number = bytearray(min(moment, LATEST).to_bytes(6, "big") + os.urandom(10))
    number[6] = number[6] & 0x0F | 0x70
    number[8] = number[8] & 0x3F | 0x80
    return bytes(number)
