"""One daemon a repository: mounts the workspace, answers on the socket, and goes when it is unmounted.

    python -m fusecas.daemon.serve REPOSITORY WORKSPACE MOUNTPOINT ALLOW_OTHER READY [detached]

When the mount answers, one line goes to the descriptor READY: `{}`, or the error as JSON. `detached`: whoever starts it
is not its parent, and may so be one that ends all that it leaves.
"""

import json
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from fusecas.daemon.changes import Changes
from fusecas.daemon.connection import Caller
from fusecas.daemon.control import Control, Conversation, Method
from fusecas.daemon.keeping import Keeper, close_all
from fusecas.daemon.reading import READS
from fusecas.daemon.rpc import problem
from fusecas.daemon.running import RunCalls
from fusecas.errors import EnvironmentProblem, FusecasError, InUse, Refused, StillRunning
from fusecas.mount.device import other_places
from fusecas.mount.mountpoint import lent, prepare, record
from fusecas.mount.session import MountSession
from fusecas.parameters import checked
from fusecas.run.runs import Runs
from fusecas.store.finding import FOLDER
from fusecas.store.repository import Repository
from fusecas.wire import path_fields
from fusecas.workspace.calls import CALLS, MOVING, Call, Parameters, op_revert
from fusecas.workspace.workspaces import Workspaces

T = TypeVar("T")
log = logging.getLogger("fusecas.daemon")
PATIENCE = 10.0
GRACE = 2.0
MOST_THREADS = 32
LIMITS = (
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_CPU,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
)


class Daemon:
    """Lives from the mount to its end; the overlay is durable when it is gone."""

    def __init__(self, repository: Repository, name: str, mountpoint: Path, allow_other: bool) -> None:
        self._repository = repository
        self._workspaces = Workspaces(repository, name)
        self._runs = Runs(repository.store, repository.folder)
        self._name = name
        # Of their own: commits that wait for each other must not take the threads that an fsync needs.
        self._threads = trio.CapacityLimiter(MOST_THREADS)
        self._disk = os.open(repository.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._mountpoint = mountpoint
        with lent(repository.folder, mountpoint):
            self._session = MountSession(self._workspaces, name, mountpoint, self._disk, allow_other=allow_other)

    async def run(self, ready: Any) -> None:
        changes = Changes(lambda ws: self._workspaces.get(ws or self._name).overlay)
        calls = {**CALLS, **READS}
        methods: dict[str, Method] = {each: partial(self._call, calls[each]) for each in calls if each not in MOVING}
        moving: dict[str, Conversation] = {each: partial(self._move, CALLS[each]) for each in MOVING}
        methods |= {"status": self._status, "umount": self._umount, "ws.rm": self._ws_rm, **changes.methods}
        methods["op.revert"] = self._revert
        methods |= {each: partial(self._made, CALLS[each]) for each in ("fork", "ws.create")}
        self._running = running = RunCalls(self._runs, self._workspaces, self._session, self._place_of)
        methods |= running.methods
        conversations = {**changes.conversations, **running.conversations, **moving}
        self._control = control = Control(self._repository.folder, methods, conversations)
        await trio.to_thread.run_sync(self._runs.recover, self._workspaces)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_requests, nursery.cancel_scope)
                await self._until_it_answers()
                listener = control.listen()
                nursery.start_soon(control.serve, listener)
                nursery.start_soon(Keeper(self._workspaces).run)
                nursery.start_soon(self._watch_signals, nursery.cancel_scope)
                ready(None)
        finally:
            self._session.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(close_all, self._workspaces)

    async def _serve_requests(self, scope: trio.CancelScope) -> None:
        await self._session.serve()
        # The session is over: unmounted, from here or elsewhere. Who asked for it is answered.
        await self._control.idle()
        scope.cancel()

    async def _until_it_answers(self) -> None:
        """Asked by another process: a thread of this one that waits for our own answer could not end if we are killed,
        nor could then the mount."""
        asking = subprocess.Popen(["/bin/sh", "-c", 'test -d "$1"', "sh", self._mountpoint], stdin=subprocess.DEVNULL)
        ended = os.pidfd_open(asking.pid)
        try:
            with trio.move_on_after(PATIENCE) as waiting:
                await trio.lowlevel.wait_readable(ended)
        finally:
            os.close(ended)
        if self._session.device.failure is not None or waiting.cancelled_caught or asking.wait() != 0:
            raise EnvironmentProblem(f"{self._mountpoint} does not answer: {self._session.device.failure}")

    async def _watch_signals(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _number in signals:
                await self._end(lazy=True)
                await trio.sleep(GRACE)  # who is in it now keeps us no longer; all that they were told is done
                scope.cancel()

    async def _end(self, *, lazy: bool) -> None:
        await trio.to_thread.run_sync(partial(self._session.unmount, lazy=lazy))

    # calls

    async def _call(self, call: Callable[[Workspaces, Parameters], T], params: dict[str, Any]) -> T:
        return await trio.to_thread.run_sync(call, self._workspaces, params, limiter=self._threads)

    async def _move(self, call: Call, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """Not while a command is running there: it is refused, or waits for that if it is to."""

        def moved(workspaces: Workspaces, params: Parameters) -> dict[str, Any]:
            with self._runs.moving(workspaces.get(params.get("ws") or workspaces.default)):
                return call(workspaces, params)

        while True:
            ends = self._running.ends
            try:
                return await self._call(moved, params)
            except StillRunning:
                if params.get("wait") is not True:
                    raise
            await self._running.next_end(ends, caller)

    async def _status(self, params: dict[str, Any]) -> dict[str, Any]:
        found = await self._call(CALLS["status"], params)
        return {**found, **self._path_fields(found["workspace"], "mountpoint"), "pid": os.getpid()}

    def _place_of(self, name: str) -> Path:
        return self._mountpoint if name == self._name else self._mountpoint / FOLDER / "ws" / name

    def _path_fields(self, name: str, field: str) -> dict[str, str]:
        return path_fields(os.fsencode(self._place_of(name)), field)

    async def _made(self, call: Call, params: dict[str, Any]) -> dict[str, Any]:
        made = await self._call(call, params)
        return {**made, **self._path_fields(made["workspace"], "path")}

    def _remove(self, workspaces: Workspaces, params: Parameters) -> dict[str, Any]:
        if not isinstance(name := params.get("name"), str):
            return CALLS["ws.rm"](workspaces, params)
        with self._runs.moving(workspaces.get(name)):
            return CALLS["ws.rm"](workspaces, params)

    async def _ws_rm(self, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("name") == self._name:
            raise Refused(f"workspace {self._name} is mounted", hint="fusecas umount")
        removed = await self._call(self._remove, params)
        await self._has_gone(removed["workspace"])
        return removed

    async def _revert(self, params: dict[str, Any]) -> dict[str, Any]:
        done = await self._call(partial(op_revert, moving=self._runs.moving), params)
        if done["removed_workspace"]:
            await self._has_gone(done["workspace"])
        return done

    async def _has_gone(self, name: str) -> None:
        self._session.end_workspace(name)
        await trio.to_thread.run_sync(self._session.forget_name, name)

    async def _umount(self, params: dict[str, Any]) -> dict[str, Any]:
        lazy = checked(params, lazy=(bool, False))["lazy"]
        self._runs.refuse_running()
        if not lazy and (others := other_places(self._mountpoint)):
            raise InUse(f"{self._mountpoint} is bound at {others[0]}, too", hint=f"umount {others[0]} first, or --lazy")
        try:
            await self._end(lazy=lazy)
        except OSError as error:
            raise InUse(
                f"{self._mountpoint} can't be unmounted: {error.strerror}",
                hint="leave it (cd, close files), or fusecas umount --lazy",
            ) from error
        return {}


def lift_limits() -> None:
    """Whoever happens to start a daemon may have set limits for what he does: it serves others, too."""
    for each in LIMITS:
        most = resource.getrlimit(each)[1]
        resource.setrlimit(each, (most, most))


def main() -> int:
    folder, name, mountpoint, allow_other, ready_text, *how = sys.argv[1:]
    ready_on = int(ready_text)
    if how == ["detached"] and os.fork():
        os._exit(0)
    sys.setswitchinterval(0.0005)
    lift_limits()

    def ready(error: FusecasError | None) -> None:
        nonlocal ready_on
        if ready_on >= 0:
            said = {} if error is None else problem(0, error)["data"]
            os.write(ready_on, json.dumps(said).encode() + b"\n")
            os.close(ready_on)
            ready_on = -1

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with Repository.open(Path(folder)) as repository, repository.served():
            prepare(repository.folder, Path(mountpoint))
            record(repository.folder, Path(mountpoint))
            daemon = Daemon(repository, name, Path(mountpoint), allow_other == "1")
            os.chdir("/")
            trio.run(daemon.run, ready)
    except FusecasError as error:
        log.info("refused: %s", error.message)
        ready(error)
        return error.exit_code
    except BaseException as error:
        log.exception("the daemon has failed")
        ready(EnvironmentProblem(f"the daemon has failed: {error!r}", hint=f"{folder}/run/log"))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
