"""The control socket: JSON-RPC 2.0, one document a line, for the user who owns the repository and nobody else."""

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from fusecas import __version__
from fusecas.client import PROTOCOL
from fusecas.errors import FusecasError, UsageError

LONGEST_LINE = 1 << 20
MOST_CLIENTS = 64
CREDENTIALS = struct.Struct("3i")
INVALID_REQUEST, NO_SUCH_METHOD, FAILED = -32600, -32601, -32000

log = logging.getLogger(__name__)
Method = Callable[[dict[str, Any]], Awaitable[Any]]


class Control:
    """Answers calls; each connection's one after the other, connections side by side."""

    def __init__(self, folder: Path, methods: Mapping[str, Method]) -> None:
        self._folder = folder / "run"
        self._methods = {"hello": self._hello, **methods}
        self._clients = trio.CapacityLimiter(MOST_CLIENTS)
        self._answering = 0
        self._idle = trio.Condition()

    def listen(self) -> trio.SocketListener:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        place = self._folder / "socket"
        place.unlink(missing_ok=True)
        descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bound = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            mask = os.umask(0o177)
            try:
                os.stat(f"/proc/self/fd/{descriptor}")
                bound_path = f"/proc/self/fd/{descriptor}/socket"
                bound._sock.bind(bound_path)  # type: ignore[attr-defined]
            finally:
                os.umask(mask)
        finally:
            os.close(descriptor)
        bound.listen(MOST_CLIENTS)
        return trio.SocketListener(bound)

    async def serve(self, listener: trio.SocketListener) -> None:
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._client, [listener], handler_nursery=nursery)

    async def _client(self, stream: trio.SocketStream) -> None:
        peer = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        if CREDENTIALS.unpack(peer)[1] not in (os.geteuid(), 0):
            return
        try:
            async with self._clients, stream:
                await self._talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client has gone")

    async def _talk(self, stream: trio.SocketStream) -> None:
        waiting = bytearray()
        async for data in stream:
            waiting += data
            while (end := waiting.find(b"\n")) >= 0:
                line = bytes(waiting[:end])
                del waiting[: end + 1]
                await self._reply(stream, line)
            if len(waiting) > LONGEST_LINE:
                refusal = problem(INVALID_REQUEST, UsageError(f"a request over {LONGEST_LINE} bytes"))
                await stream.send_all(json.dumps({"jsonrpc": "2.0", "id": None, "error": refusal}).encode() + b"\n")
                return

    async def _reply(self, stream: trio.SocketStream, line: bytes) -> None:
        self._answering += 1
        try:
            await stream.send_all(json.dumps(await self._answer(line)).encode() + b"\n")
        finally:
            self._answering -= 1
            with trio.CancelScope(shield=True):
                async with self._idle:
                    self._idle.notify_all()

    async def idle(self) -> None:
        """Until no call waits for its answer."""
        async with self._idle:
            while self._answering:
                await self._idle.wait()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        number = None
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or not isinstance(request.get("method"), str):
                raise UsageError("a request is {jsonrpc, id, method, params}")
            number = request.get("id")
            method = self._methods.get(request["method"])
            if method is None:
                unknown = UsageError(f"no method {request['method']!r}")
                return {"jsonrpc": "2.0", "id": number, "error": problem(NO_SUCH_METHOD, unknown)}
            return {"jsonrpc": "2.0", "id": number, "result": await method(request.get("params") or {})}
        except FusecasError as error:
            return {"jsonrpc": "2.0", "id": number, "error": problem(FAILED, error)}
        except ValueError as error:
            return {"jsonrpc": "2.0", "id": number, "error": problem(INVALID_REQUEST, UsageError(str(error)))}

    async def _hello(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"protocol": PROTOCOL, "version": __version__, "pid": os.getpid()}


def problem(code: int, error: FusecasError) -> dict[str, Any]:
    details = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_code,
        "details": error.details,
    }
    return {"code": code, "message": error.message, "data": details}
