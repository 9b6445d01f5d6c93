"""One connection of the control socket: lines in, lines out, both bounded, and what it has subscribed to.

A line that is too long is refused and skipped, never kept. An answer is sent by the task that has it, one after the
other; a client that takes nothing for `PATIENCE` seconds is dropped: so what waits for it is no more than its open
requests, and nobody else waits for it.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from fusecas.daemon import rpc
from fusecas.errors import Refused
from fusecas.wire import LONGEST_REQUEST

PATIENCE = 10.0
PIECE = 1 << 16
MOST_SUBSCRIPTIONS = 16
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

log = logging.getLogger(__name__)


class TooLong(Exception):
    """A line over the limit. It is skipped: the next one may be read."""


class Lines:
    """The lines of a stream, without their ends; what comes after the last end is none."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._searched = 0
        self._skipping = False

    async def next(self) -> bytes | None:
        """The next line, None at the end."""
        while True:
            end = self._waiting.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._waiting[:end])
                del self._waiting[: end + 1]
                self._searched = 0
                if self._skipping:
                    self._skipping = False
                elif len(line) > LONGEST_REQUEST:
                    raise TooLong
                else:
                    return line
                continue
            self._searched = len(self._waiting)
            if self._searched > LONGEST_REQUEST:
                self._waiting.clear()
                self._searched = 0
                if not self._skipping:
                    self._skipping = True
                    raise TooLong
            data = await self._stream.receive_some(PIECE)
            if not data:
                return None
            self._waiting += data


class Connection:
    """Owns what is open for one client."""

    def __init__(self, stream: trio.SocketStream, nursery: trio.Nursery) -> None:
        self.lines = Lines(stream)
        self.open = 0
        self._stream = stream
        self._nursery = nursery
        self._sending = trio.Lock()
        self._subscriptions: dict[int, trio.CancelScope] = {}
        self._next_subscription = 1
        self._endings: dict[bytes, Callable[[], Awaitable[None]]] = {}
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether the client has said all that it will."""
        return self._is_over

    async def send(self, line: bytes) -> None:
        """One of `GONE` if nobody takes it."""
        async with self._sending:
            view = memoryview(line)
            for at in range(0, len(line), PIECE):
                with trio.move_on_after(PATIENCE) as patience:
                    await self._stream.send_all(view[at : at + PIECE])
                if patience.cancelled_caught:
                    log.info("a client that does not read what it is answered is dropped")
                    await trio.aclose_forcefully(self._stream)
                    raise trio.BrokenResourceError

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        await self.send(rpc.notification(method, params))

    # subscriptions

    def subscribe(self, tell: Callable[[int], Awaitable[None]]) -> "Subscription":
        """`tell(number)` will run until it is unsubscribed or the client goes; it begins with `begin`."""
        if len(self._subscriptions) >= MOST_SUBSCRIPTIONS:
            raise Refused(f"this connection has {MOST_SUBSCRIPTIONS} subscriptions already", hint="unsubscribe one")
        number, self._next_subscription = self._next_subscription, self._next_subscription + 1
        self._subscriptions[number] = trio.CancelScope()
        return Subscription(number, lambda: self._nursery.start_soon(self._tell, number, tell))

    def unsubscribe(self, number: int) -> bool:
        scope = self._subscriptions.pop(number, None)
        if scope is None:
            return False
        scope.cancel()
        return True

    async def _tell(self, number: int, tell: Callable[[int], Awaitable[None]]) -> None:
        scope = self._subscriptions.get(number)
        if scope is None or self._is_over:
            return
        try:
            with scope:
                await tell(number)
        except GONE:
            log.debug("a subscriber has gone")
        except Exception:
            log.exception("a subscription has failed; its client is dropped, so that it knows")
            await trio.aclose_forcefully(self._stream)

    def end(self) -> None:
        """The client has said all that it will: open requests are still answered, subscriptions are over."""
        self._is_over = True
        for scope in self._subscriptions.values():
            scope.cancel()
        for act in self._endings.values():
            self._nursery.start_soon(act)

    # what is to be done if the client goes

    def at_end(self, key: bytes, act: Callable[[], Awaitable[None]]) -> None:
        """At once, if it has gone already. It must not fail."""
        if self._is_over:
            self._nursery.start_soon(act)
        else:
            self._endings[key] = act

    def is_waiting(self, key: bytes) -> bool:
        """Whether something is to be done under that key when it ends."""
        return key in self._endings

    def not_at_end(self, key: bytes) -> None:
        self._endings.pop(key, None)


class Subscription:
    def __init__(self, number: int, begin: Callable[[], None]) -> None:
        self.number, self.begin = number, begin


class Caller:
    """Who made a request; what is begun `afterwards` comes after its answer."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._afterwards: list[Callable[[], None]] = []

    def afterwards(self, begin: Callable[[], None]) -> None:
        self._afterwards.append(begin)

    def answered(self) -> None:
        for begin in self._afterwards:
            begin()
