"""Runs over the socket: a client begins one, executes the command itself, and ends it on the same connection."""

import logging
import os
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import trio

from fusecas.daemon.connection import Caller
from fusecas.daemon.run_parameters import (
    LARGEST_EXIT,
    LARGEST_MASK,
    LARGEST_SIGNAL,
    at_most,
    below,
    bytes_of,
    id_of,
    number_of,
    one_of,
    pairs_of,
    path_given,
    program_of,
)
from fusecas.errors import FusecasError, InUse, NotFound, StillRunning, UsageError
from fusecas.mount.session import MountSession
from fusecas.parameters import REQUIRED, checked
from fusecas.run.hits import Served
from fusecas.run.near import Missed
from fusecas.run.outsiders import Watch
from fusecas.run.request import Request
from fusecas.run.runs import Ended, Outcome, Running, Runs
from fusecas.store.run_rows import Window
from fusecas.store.trees import join
from fusecas.wire import path_fields
from fusecas.workspace.calls import WHERE, WHO, deed_of
from fusecas.workspace.workspace import Workspace
from fusecas.workspace.workspaces import Workspaces

log = logging.getLogger(__name__)
PlaceOf = Callable[[str], Path]
Arguments = TypeVarTuple("Arguments")
Answer = TypeVar("Answer")
MOST_THREADS = 32


class RunCalls:
    """`place_of` says where a workspace is in the mount. All of it in the mount's own thread."""

    def __init__(self, runs: Runs, workspaces: Workspaces, session: MountSession, place_of: PlaceOf) -> None:
        self._runs = runs
        self._workspaces = workspaces
        self._session = session
        self._place_of = place_of
        self._watches: dict[bytes, tuple[str, Watch]] = {}
        self.ends = 0
        """How many runs have ended so far."""
        self._waiting = trio.lowlevel.ParkingLot()
        # Of their own: runs that wait for a workspace must not take the threads that its files need.
        self._threads = trio.CapacityLimiter(MOST_THREADS)
        self.methods = {"place": self._place}
        self.conversations = {"run.begin": self._begin, "run.executor": self._executor, "run.end": self._end}

    async def _place(self, params: dict[str, Any]) -> dict[str, Any]:
        """Where a workspace is; and the run there that the caller is part of: by its number, or as a descendant."""
        given = checked(params, pid=(int, 0), run=(str, None), **WHERE)
        name = given["ws"] or self._workspaces.default
        workspace = await self._in_thread(self._workspaces.get, name)
        outer = [
            number.hex()
            for number, (where, watch) in self._watches.items()
            if where == name and (number.hex() == given["run"] or watch.descends(given["pid"]))
        ]
        place = path_fields(os.fsencode(self._place_of(workspace.name)), "place")
        return {"workspace": name, "run": outer[0] if outer else None, **place}

    async def _in_thread(self, act: Callable[[*Arguments], Answer], *arguments: *Arguments) -> Answer:
        return await trio.to_thread.run_sync(act, *arguments, limiter=self._threads)

    async def _executor(self, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        """For who knows only after the beginning which process executes the command, and before it does."""
        given = checked(params, run=(str, REQUIRED), executor=(int, REQUIRED))
        number = number_of(given["run"])
        watched = self._watches.get(number) if caller.connection.is_waiting(number) else None
        if watched is None:
            raise not_on(number)
        watched[1].executor = given["executor"]
        return {}

    async def _begin(self, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        given = checked(
            params,
            program=(dict, REQUIRED),
            cwd=(list, []),
            env=(list, REQUIRED),
            executable=(list, []),
            umask=(int, 0o022),
            privileged=(bool, False),
            message=(str, None),
            serve=(bool, True),
            keep=(bool, True),
            pure=(bool, False),
            max_age=(int, None),
            executor=(int, 0),
            stdin=(str, None),
            retry=(bool, False),
            on_failure=(str, "keep"),
            dirty=(str, "layer"),
            wait=(bool, False),
            **WHERE,
            **WHO,
        )
        workspace = await self._in_thread(self._workspaces.get, given["ws"] or self._workspaces.default)
        place = self._place_of(workspace.name)
        request = Request(
            program=program_of(given["program"]),
            cwd=below(os.fsencode(place), path_given("cwd", given)),
            place=os.fsencode(place),
            env=pairs_of(given["env"]),
            executable=self._outside(path_given("executable", given)),
            umask=at_most(LARGEST_MASK, "umask", given),
            privileged=given["privileged"],
            message=given["message"],
            serve=given["serve"],
            keep=given["keep"],
            max_age=given["max_age"],
            pure=given["pure"],
            stdin=None if given["stdin"] is None else id_of(given["stdin"]),
            retry=given["retry"],
            rollback=one_of("on_failure", given, "rollback", "keep"),
            refuse_dirty=one_of("dirty", given, "fail", "layer"),
        )
        while True:
            ends = self.ends
            # Before the workspace is sealed: what others do after that would be taken for the run's.
            policy = await self._in_thread(self._runs.policy_of, workspace)
            held = self._session.writers(workspace.name)
            watch = Watch(given["executor"], held, path_in(workspace), policy.counts_in)
            self._session.watch(workspace.name, watch)
            try:
                begun = await self._in_thread(self._runs.begin, workspace, request, deed_of(given))
                break
            except StillRunning:
                self._session.unwatch(workspace.name, watch)
                if not given["wait"]:
                    raise
            except BaseException:
                self._session.unwatch(workspace.name, watch)
                self._one_has_ended()
                raise
            await self.next_end(ends, caller)
        if isinstance(begun, Served):
            self._session.unwatch(workspace.name, watch)
            self._one_has_ended()
            return {"workspace": workspace.name, **_served(begun)}
        self._watches[begun.number] = (workspace.name, watch)
        caller.connection.at_end(begun.number, partial(self._interrupt, begun.number))
        return {"workspace": workspace.name, **path_fields(os.fsencode(place), "place"), **self._running(begun)}

    def _outside(self, executable: bytes) -> bytes | None:
        """What is in the mount is in a state, or makes a run that looks there one that is not remembered. To read it by
        its path would be to wait for ourselves: who is killed meanwhile can't end."""
        mountpoint = os.fsencode(self._place_of(self._workspaces.default))
        return executable if executable and not executable.startswith(mountpoint + b"/") else None

    def _one_has_ended(self) -> None:
        self.ends += 1
        self._waiting.unpark_all()

    async def next_end(self, ends: int, caller: Caller) -> None:
        """Until more runs have ended than those; InUse if the client does not wait any more."""

        async def look() -> None:
            self._waiting.unpark_all()

        key = os.urandom(8)
        caller.connection.at_end(key, look)
        try:
            while self.ends == ends and not caller.connection.is_over:
                await self._waiting.park()
        finally:
            caller.connection.not_at_end(key)
        if caller.connection.is_over:
            raise InUse("whoever waited for its turn has gone")

    def _running(self, begun: Running) -> dict[str, Any]:
        return {
            "cached": False,
            "run": begun.number.hex(),
            "action": begun.keys.plain.id.hex(),
            "logs": [path_fields(os.fsencode(each)) for each in self._runs.logs(begun.number)],
            **path_fields(begun.request.cwd, "cwd"),
            "home": begun.policy.home,
            "output_limit": begun.policy.output_limit,
            "missed": None if begun.missed is None else _missed(begun.missed),
            "refused": begun.refused,
            "pure": begun.policy.is_pure(begun.request.command),
        }

    async def _interrupt(self, number: bytes) -> None:
        """A client that goes without ending its run has interrupted it; one that goes while it is ended has not."""
        watched = self._watches.pop(number, None)
        if watched is None:
            return
        try:
            await self._in_thread(self._runs.interrupt, number)
        except (FusecasError, OSError):
            log.warning("the record of run %s could not be written", number.hex(), exc_info=True)
        finally:
            self._session.unwatch(*watched)
            self._one_has_ended()

    async def _end(self, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        given = checked(
            params,
            run=(str, REQUIRED),
            exit=(int, REQUIRED),
            signal=(int, None),
            started=(int, REQUIRED),
            ended=(int, REQUIRED),
            killed=(list, []),
            keep=(bool, True),
            **WHO,
        )
        number = number_of(given["run"])
        killed = tuple(bytes_of(each).decode(errors="replace") for each in given["killed"])
        if given["ended"] < given["started"]:
            raise UsageError("a run that has ended before it was started")
        window = Window(given["started"], given["ended"])
        code, died_of = at_most(LARGEST_EXIT, "exit", given), at_most(LARGEST_SIGNAL, "signal", given)
        is_theirs = caller.connection.is_waiting(number)
        watched = self._watches.pop(number, None) if is_theirs else None  # whoever takes it alone ends the run
        if watched is None:
            raise not_on(number)
        outcome = Outcome(code, died_of, window, killed, given["keep"], watched[1])
        try:
            ended = await self._in_thread(self._runs.end, number, outcome, deed_of(given))
        finally:
            caller.connection.not_at_end(number)
            self._session.unwatch(*watched)
            self._one_has_ended()
        return _ended(ended)


def not_on(number: bytes) -> NotFound:
    return NotFound(f"no run {number.hex()} is on that was begun on this connection")


def path_in(workspace: Workspace) -> Callable[[int, bytes], bytes | None]:
    def path(ino: int, name: bytes) -> bytes | None:
        above = workspace.overlay.path(ino)
        return above if above is None or not name else join(above, name)

    return path


def _served(served: Served) -> dict[str, Any]:
    result = served.result
    return {
        "cached": True,
        "run": result.record.hex(),
        "layer": None if served.layer is None else served.layer.hex(),
        "state": served.state.hex(),
        "exit": result.exit,
        "recorded_ns": str(result.window.end),
        "took_ns": str(result.window.end - result.window.start),
        "said": None if served.said is None else [b64encode(each).decode() for each in served.said],
        "stdout": result.stdout.hex(),
        "stderr": result.stderr.hex(),
        "added": served.added,
        "removed": served.removed,
        "changed": served.changed,
    }


def _missed(missed: Missed) -> dict[str, Any]:
    touched = [path_fields(each) for each in missed.touched]
    return {"env": list(missed.env), "host": list(missed.host), "touched": touched, "other": list(missed.other)}


def _ended(ended: Ended) -> dict[str, Any]:
    return {
        "layer": None if ended.layer is None else ended.layer.hex(),
        "edits": None if ended.edits is None else ended.edits.hex(),
        "state": ended.state.hex(),
        "added": ended.added,
        "removed": ended.removed,
        "changed": ended.changed,
        "mixed": ended.mixed,
        "put_back": ended.put_back,
    }
