"""Where the output of a command goes, beside its record: to a descriptor, into memory, to lines of JSON.

Whoever reads what we write may be slow, or stop. The command is looked after all the same: so nothing here waits when
it is offered something. What is not taken yet is kept, up to a bound; then the command has to wait, not we.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from fusecas.wire import line_of, path_fields

MOST_KEPT = 1 << 20
Wake = Callable[[], None]


class Sink(Protocol):
    @property
    def error(self) -> OSError | None:
        """Why nothing goes there any more, if it doesn't."""

    def has_room(self) -> bool:
        """Whether more may be offered now."""

    def offer(self, data: bytes) -> None: ...

    def watch(self, wake: Wake | None) -> None:
        """Call `wake`, from any thread, whenever there is room again or nothing goes there any more."""

    def finish(self, patience: float | None = None) -> bool:
        """Wait until all is taken; False if it was not in time."""


class Outlet:
    """A descriptor, written to in order by a thread of its own."""

    def __init__(self, descriptor: int) -> None:
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wake: Wake | None = None
        self._is_idle = False

    def watch(self, wake: Wake | None) -> None:
        with self._changed:
            self._wake = wake

    def has_room(self) -> bool:
        return self._size < MOST_KEPT

    def offer(self, data: bytes) -> None:
        with self._changed:
            if self.error is not None:
                return
            self._waiting.append(data)
            self._size += len(data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True)  # it may wait when we end
                self._thread.start()
            self._changed.notify_all()

    def finish(self, patience: float | None = None) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._size, patience):
                return False
            ending, self._thread = self._thread, None
            self._is_idle = True
            self._changed.notify_all()
        if ending is not None:
            ending.join()
        self._is_idle = False
        return True

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._is_idle)
                if not self._waiting:
                    return
                data = self._waiting.popleft()
            try:
                write_all(self._descriptor, data)
                self._taken(len(data), None)
            except OSError as error:  # its reader, its terminal or the room on its disk is gone
                self._taken(self._size, error)
                return

    def _taken(self, size: int, error: OSError | None) -> None:
        with self._changed:
            self._size -= size
            self.error = error
            if error is not None:
                self._waiting.clear()
            self._changed.notify_all()
            if self._wake is not None:
                self._wake()


class Kept:
    """In memory, up to so many bytes; the rest is dropped, as it is in the record."""

    error: OSError | None = None

    def __init__(self, most: int) -> None:
        self._parts: list[bytes] = []
        self._left = most

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)

    def watch(self, wake: Wake | None) -> None:
        pass

    def has_room(self) -> bool:
        return True

    def offer(self, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self._parts.append(kept)

    def finish(self, patience: float | None = None) -> bool:
        return True


class Lines:
    """As JSON, one event a line: {event: NAME, NAME: text}, with NAME_b64 if it is not UTF-8. What comes in the middle
    of a character waits for the rest of it."""

    def __init__(self, name: str, outlet: Outlet) -> None:
        self._name = name
        self._outlet = outlet
        self._rest = b""

    @property
    def error(self) -> OSError | None:
        return self._outlet.error

    def watch(self, wake: Wake | None) -> None:
        self._outlet.watch(wake)

    def has_room(self) -> bool:
        return self._outlet.has_room()

    def offer(self, data: bytes) -> None:
        data = self._rest + data
        end = _end_of_characters(data)
        self._rest = data[end:]
        self._say(data[:end])

    def finish(self, patience: float | None = None) -> bool:
        self._say(self._rest)
        self._rest = b""
        return self._outlet.finish(patience)

    def _say(self, data: bytes) -> None:
        if data:
            self._outlet.offer(line_of({"event": self._name, **path_fields(data, self._name)}))


def _end_of_characters(data: bytes) -> int:
    """Where the last whole character of UTF-8 ends."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < length else len(data)
        if byte < 0x80:
            break
    return len(data)


def write_all(descriptor: int, data: bytes) -> None:
    """Also if whoever gave us the descriptor has made it non-blocking."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def outlets(stdout: int, stderr: int) -> tuple[Outlet, Outlet]:
    """One for both if they lead to the same file: so what comes in turn is not mixed up more than it was."""
    first = Outlet(stdout)
    return first, first if os.path.samestat(os.fstat(stdout), os.fstat(stderr)) else Outlet(stderr)
