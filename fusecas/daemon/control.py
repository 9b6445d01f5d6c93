"""The control socket: JSON-RPC 2.0, one document a line, for the user who owns the repository and nobody else.

docs/protocol.md says what clients must know. Everything that a client can make grow is bounded: clients, open requests,
lines, subscriptions, and how long an answer may wait to be taken (connection.py). A method that fails is answered; it
never ends the daemon. A request that has begun is never cancelled because its client has gone.
"""

import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from fusecas import __version__
from fusecas.daemon import rpc
from fusecas.daemon.connection import GONE, Caller, Connection, TooLong
from fusecas.errors import FusecasError, InternalError, InUse, PermissionProblem, UsageError, of_system
from fusecas.wire import LONGEST_ANSWER, LONGEST_REQUEST, PROTOCOL

MOST_CLIENTS = 64
MOST_OPEN = 256
MOST_OPEN_OF_ONE = 32
PATIENCE_WITH_REFUSED = 1.0
CREDENTIALS = struct.Struct("3i")

log = logging.getLogger(__name__)
Method = Callable[[dict[str, Any]], Awaitable[Any]]
Conversation = Callable[[dict[str, Any], Caller], Awaitable[Any]]


class Control:
    """Answers calls side by side, also those of one connection.

    `methods` take the parameters; `conversations` also take who calls, to notify on that connection later.
    """

    def __init__(
        self,
        folder: Path,
        methods: Mapping[str, Method],
        conversations: Mapping[str, Conversation] | None = None,
    ) -> None:
        self._folder = folder / "run"
        self._methods: dict[str, Method] = {"hello": self._hello, **methods}
        self._conversations = dict(conversations or {})
        assert not self._methods.keys() & self._conversations.keys(), "each method is one or the other"
        self._clients = 0
        self._open = 0
        self._idle = trio.lowlevel.ParkingLot()
        self._is_ending = False

    def listen(self) -> trio.SocketListener:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        bound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(descriptor, 0o700)
            (self._folder / "socket").unlink(missing_ok=True)
            mask = os.umask(0o177)
            try:
                # By the descriptor: the path of a socket may be 107 bytes long, that of a folder is not bounded so.
                bound._sock.bind(f"/proc/self/fd/{descriptor}/socket")  # type: ignore[attr-defined]
            finally:
                os.umask(mask)
        finally:
            os.close(descriptor)
        bound.listen(MOST_CLIENTS)
        return trio.SocketListener(bound)

    async def serve(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._client, [listener], handler_nursery=nursery)

    async def idle(self) -> None:
        """Until no call waits for its answer; no more are taken."""
        self._is_ending = True
        while self._open:
            await self._idle.park()

    # clients

    async def _client(self, stream: trio.SocketStream) -> None:
        async with stream:
            refused = self._refused(stream)
            if refused is not None:
                code, error = refused
                await self._turn_away(stream, rpc.refusal(None, code, error))
                return
            self._clients += 1
            try:
                await self._talk(stream)
            finally:
                self._clients -= 1

    def _refused(self, stream: trio.SocketStream) -> tuple[int, FusecasError] | None:
        peer = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        uid = CREDENTIALS.unpack(peer)[1]
        if uid not in (os.geteuid(), 0):
            return rpc.FAILED, PermissionProblem(f"user {uid} may not command this daemon")
        if self._clients >= MOST_CLIENTS:
            return rpc.BUSY, InUse(f"{MOST_CLIENTS} clients are connected already", hint="close some of them")
        return None

    @staticmethod
    async def _turn_away(stream: trio.SocketStream, line: bytes) -> None:
        try:
            with trio.move_on_after(PATIENCE_WITH_REFUSED):
                await stream.send_all(line)
        except GONE:
            log.debug("a client that was refused has gone")

    async def _talk(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            connection = Connection(stream, nursery)
            try:
                while await self._take(connection, nursery):
                    pass
            except GONE:
                log.debug("a client has gone")
            connection.end()

    async def _take(self, connection: Connection, nursery: trio.Nursery) -> bool:
        """The next line; False at the end."""
        try:
            line = await connection.lines.next()
        except TooLong:
            too_long = UsageError(f"a request is over {LONGEST_REQUEST} bytes")
            await connection.send(rpc.refusal(None, rpc.INVALID_REQUEST, too_long))
            return True
        if line is None:
            return False
        try:
            request = rpc.parse(line)
        except rpc.Malformed as error:
            await connection.send(rpc.refusal(error.id, error.code, UsageError(error.message)))
            return True
        busy = self._too_busy(connection)
        if busy is None:
            self._open += 1
            connection.open += 1
            nursery.start_soon(self._serve_one, connection, request)
        elif request.is_answered:
            await connection.send(rpc.refusal(request.id, rpc.BUSY, busy))
        return True

    def _too_busy(self, connection: Connection) -> FusecasError | None:
        if self._is_ending:
            return InUse("the daemon is about to end", hint="try again in a moment")
        if connection.open >= MOST_OPEN_OF_ONE:
            return InUse(f"this connection has {connection.open} open requests", hint="wait for their answers")
        if self._open >= MOST_OPEN:
            return InUse(f"the daemon has {self._open} open requests", hint="try again in a moment")
        return None

    # calls

    async def _serve_one(self, connection: Connection, request: rpc.Request) -> None:
        caller = Caller(connection)
        try:
            line = await self._answer(request, caller)
            if request.is_answered:
                await connection.send(line)
            caller.answered()
        except GONE:
            log.debug("a client has gone before it was answered")
        finally:
            self._open -= 1
            connection.open -= 1
            if not self._open:
                self._idle.unpark_all()

    async def _answer(self, request: rpc.Request, caller: Caller) -> bytes:
        try:
            if (method := self._methods.get(request.method)) is not None:
                return rpc.answer(request.id, await method(request.params))
            if (conversation := self._conversations.get(request.method)) is not None:
                return rpc.answer(request.id, await conversation(request.params, caller))
            return rpc.refusal(request.id, rpc.NO_SUCH_METHOD, UsageError(f"no method {request.method[:100]!r}"))
        except FusecasError as error:
            return rpc.failure(request.id, error)
        except OSError as error:
            log.warning("%s failed", request.method, exc_info=True)
            return rpc.failure(request.id, of_system(error))
        except Exception as error:
            log.exception("%s failed", request.method)
            bug = InternalError(f"this is a bug in fusecas: {type(error).__name__}: {error}", hint="see run/log")
            return rpc.failure(request.id, bug)

    async def _hello(self, params: dict[str, Any]) -> dict[str, Any]:
        limits = {"request": LONGEST_REQUEST, "answer": LONGEST_ANSWER, "open": MOST_OPEN_OF_ONE}
        return {"protocol": PROTOCOL, "version": __version__, "pid": os.getpid(), "limits": limits}
