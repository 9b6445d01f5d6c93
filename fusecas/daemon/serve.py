"""One daemon a repository: mounts the workspace, answers on the socket, and goes when it is unmounted.

    python -m fusecas.daemon.serve REPOSITORY MOUNTPOINT ALLOW_OTHER READY

When the mount answers, one line goes to the descriptor READY: `{}`, or the error as JSON.
"""

import json
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from fusecas.daemon.control import Control, problem
from fusecas.errors import EnvironmentProblem, FusecasError, InUse, Refused
from fusecas.mount import device as devices
from fusecas.mount.operations import Operations
from fusecas.mount.session import MountSession
from fusecas.store.repository import Repository
from fusecas.workspace.status import status
from fusecas.workspace.workspace import LONG, Committed, Workspace

log = logging.getLogger("fusecas.daemon")
PATIENCE = 10.0
MARK_EVERY = 5.0


class Daemon:
    """Lives from the mount to its end; the overlay is durable when it is gone."""

    def __init__(self, repository: Repository, mountpoint: Path, allow_other: bool) -> None:
        self._repository = repository
        self._workspace = Workspace(repository)
        self._disk = os.open(repository.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._mountpoint = mountpoint
        operations = Operations(self._workspace.overlay, self._disk)
        self._session = MountSession(operations, mountpoint, allow_other=allow_other)
        self._workspace.flush_mappings_by(self._session.flush_mappings)
        self._committing = trio.Lock()
        self._seal_at = 0

    async def run(self, ready: Any) -> None:
        methods = {"status": self._status, "commit": self._commit, "umount": self._umount, "changes": self._changes}
        self._control = control = Control(self._repository.folder, methods)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_requests, nursery.cancel_scope)
                await self._until_it_answers()
                listener = control.listen()
                nursery.start_soon(control.serve, listener)
                nursery.start_soon(self._mark_now_and_then)
                nursery.start_soon(self._watch_signals)
                ready(None)
        finally:
            self._session.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close)

    async def _serve_requests(self, scope: trio.CancelScope) -> None:
        await self._session.serve()
        # The session is over: unmounted, from here or elsewhere. Who asked for it is answered.
        await self._control.idle()
        scope.cancel()

    async def _until_it_answers(self) -> None:
        with trio.move_on_after(PATIENCE) as waiting:
            await trio.to_thread.run_sync(os.stat, self._mountpoint, abandon_on_cancel=True)
        if self._session.device.failure is not None or waiting.cancelled_caught:
            raise EnvironmentProblem(f"{self._mountpoint} does not answer: {self._session.device.failure}")

    def _close(self) -> None:
        try:
            self._workspace.close()
        except OSError as error:
            log.error("%s; what was not synced before is there as long as this machine runs", self._said(error))

    def _said(self, error: OSError | None) -> str:
        why = "" if error is None else f" ({error.strerror})"
        return f"workspace {self._workspace.name}: the disk has failed to store what was written{why}"

    async def _mark_now_and_then(self) -> None:
        """So that little is lost to a power cut even of what nobody has synced, and a start never takes long."""
        last = -1
        while not self._workspace.overlay.failed:
            await trio.sleep(MARK_EVERY)
            now = self._workspace.overlay.event
            if now == last:
                continue
            last = now
            try:
                await trio.to_thread.run_sync(self._workspace.overlay.sync)
            except OSError as error:
                log.error("%s: it is read-only until it is mounted again", self._said(error))
                return
            await self._seal_if_long()
        log.error("%s: it is read-only until it is mounted again", self._said(None))

    async def _seal_if_long(self) -> None:
        overlay = self._workspace.overlay
        if overlay.log_bytes < self._seal_at or not self._workspace.is_long():
            return
        try:
            async with self._committing:
                await trio.to_thread.run_sync(self._workspace.seal)
            self._seal_at = 0
        except FusecasError as error:
            # Nothing is lost, only a start takes longer: so the next attempt comes when there is a reason for it.
            self._seal_at = overlay.log_bytes + LONG
            log.warning("the journal is long, and could not be made shorter: %s", error.message)

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _number in signals:
                await self._end(lazy=True)

    async def _end(self, *, lazy: bool) -> None:
        await trio.to_thread.run_sync(partial(self._session.unmount, lazy=lazy))

    # calls

    async def _status(self, params: dict[str, Any]) -> dict[str, Any]:
        found = await trio.to_thread.run_sync(status, self._workspace)
        return {
            "mountpoint": str(self._mountpoint),
            "pid": os.getpid(),
            "workspace": self._workspace.name,
            "failed": self._workspace.overlay.failed,
            "changes": [[each.letter, os.fsdecode(each.path), each.is_directory] for each in found],
        }

    async def _changes(self, params: dict[str, Any]) -> dict[str, Any]:
        since = int(params.get("since", 0))
        events = self._workspace.overlay.events(since)
        paths = None if events is None else [[number, os.fsdecode(path)] for number, path in events]
        return {"last": self._workspace.overlay.event, "changes": paths}

    async def _commit(self, params: dict[str, Any]) -> dict[str, Any]:
        argv = [each.encode(errors="surrogateescape") for each in params.get("argv", [])]
        message, actor = params.get("message"), params.get("actor", "")
        async with self._committing:
            done: Committed = await trio.to_thread.run_sync(
                partial(self._workspace.commit, message, argv=argv, actor=actor)
            )
        return {
            "layer": None if done.layer is None else done.layer.hex(),
            "state": done.state.hex(),
            "new_objects": done.new_objects,
            "stored_bytes": done.stored_bytes,
        }

    async def _umount(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            await self._end(lazy=bool(params.get("lazy")))
        except OSError as error:
            raise InUse(
                f"{self._mountpoint} can't be unmounted: {error.strerror}",
                hint="leave it (cd, close files), or fusecas umount --lazy",
            ) from error
        return {}


def check_mountpoint(mountpoint: Path) -> None:
    if devices.is_stale(mountpoint):
        devices.detach(mountpoint)
    if devices.is_mounted(mountpoint):
        raise InUse(f"{mountpoint} is a mount already")
    if any(mountpoint.iterdir()):
        raise Refused(f"{mountpoint} is not empty", hint="mount on an empty folder")


def main() -> int:
    folder, mountpoint, allow_other, ready_text = sys.argv[1:]
    ready_on = int(ready_text)
    sys.setswitchinterval(0.0005)

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
            check_mountpoint(Path(mountpoint))
            daemon = Daemon(repository, Path(mountpoint), allow_other == "1")
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
