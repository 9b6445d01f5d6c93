"""Who is alive: a lock for each session, which dies with its process.

A session's number is a byte of the file `sessions.lock`, locked as an open file description lock: it goes with the
last descriptor, whatever killed the process, and is seen across containers. gc asks from a description of its own, so
it also sees the sessions of its own process.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakMethod

from fusecas.errors import InUse

FLOCK = struct.Struct("hhqqi4x")


class Liveness(Protocol):
    def begin(self, session: int) -> None: ...

    def end(self, session: int) -> None: ...

    def lives(self, session: int) -> bool: ...

    def collecting(self) -> AbstractContextManager[None]:
        """For the one gc of the moment; InUse if there is one."""

    def close(self) -> None: ...


class FileLiveness:
    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._ours = os.open(path, flags, 0o600)
        self._asking = os.open(path, flags, 0o600)
        self._gc_lock = path.with_name("gc.lock")
        # A process forked from us, without exec, would keep our sessions alive as long as it lives itself.
        forget = WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def begin(self, session: int) -> None:
        try:
            self._lock(fcntl.F_WRLCK, session)
        except BlockingIOError as error:
            raise InUse(f"session {session} is locked by another process") from error

    def end(self, session: int) -> None:
        self._lock(fcntl.F_UNLCK, session)

    def _lock(self, kind: int, session: int) -> None:
        fcntl.fcntl(self._ours, fcntl.F_OFD_SETLK, FLOCK.pack(kind, os.SEEK_SET, session, 1, 0))

    def lives(self, session: int) -> bool:
        question = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, session, 1, 0)
        answer = fcntl.fcntl(self._asking, fcntl.F_OFD_GETLK, question)
        return bool(FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        descriptor = os.open(self._gc_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUse("another gc is at work here", hint="wait until it is done") from error
            yield
        finally:
            os.close(descriptor)

    def _forget(self) -> None:
        if self._ours >= 0:
            self.close()

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._asking)
        self._ours = self._asking = -1


class MemoryLiveness:
    """For a store in memory: its sessions are all of this process."""

    def __init__(self) -> None:
        self._alive: set[int] = set()
        self._lock = threading.Lock()
        self._collecting = threading.Lock()

    def begin(self, session: int) -> None:
        with self._lock:
            self._alive.add(session)

    def end(self, session: int) -> None:
        with self._lock:
            self._alive.discard(session)

    def lives(self, session: int) -> bool:
        with self._lock:
            return session in self._alive

    @contextmanager
    def collecting(self) -> Iterator[None]:
        if not self._collecting.acquire(blocking=False):
            raise InUse("another gc is at work here", hint="wait until it is done")
        try:
            yield
        finally:
            self._collecting.release()

    def close(self) -> None:
        pass
