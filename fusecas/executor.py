"""Runs one command in the caller's terminal and process group, until none of its descendants lives.

The caller adopts what the command leaves behind (child subreaper), and has no other children meanwhile. Terminal
signals go to the whole group by themselves: the caller outlives them, and passes on only what was sent to it alone.
"""

import ctypes
import errno
import os
import select
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

PR_SET_CHILD_SUBREAPER = 36
PIECE = 1 << 16
GRACE = 5.0
"""So long may descendants take to end when they are told to."""
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
NOT_FOUND, NOT_EXECUTABLE, TIMED_OUT = 127, 126, 124


class Command(NamedTuple):
    argv: Sequence[bytes]
    cwd: bytes
    env: Mapping[bytes, bytes]
    umask: int
    timeout: float | None = None


class Done(NamedTuple):
    """How it ended: `exit` as a shell has it (128 and the signal's number), in ns since 1970 from when to when.

    `killed`: descendants that were left when the command itself had ended, and were made to end. `cut`: whether
    somebody did not take all of the output, so that it was told so, as it would have been without us. `abandoned`: it
    was ended since whoever it was run for has gone.
    """

    exit: int
    signal: int | None
    started: int
    ended: int
    killed: tuple[str, ...]
    timed_out: bool
    cut: bool
    abandoned: bool


class Stream(NamedTuple):
    """Where one of its outputs goes: what comes is written to all of them."""

    to: Sequence[BinaryIO]


class CannotStart(Exception):
    """The command was never there. Its cause is the OSError."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def execute(command: Command, stdout: Stream, stderr: Stream, watched: int) -> Done:
    """CannotStart if it can't be started. When the descriptor `watched` becomes readable, the command is ended."""
    _become_subreaper()
    return _Execution(command, stdout, stderr, watched).run()


class _Execution:
    def __init__(self, command: Command, stdout: Stream, stderr: Stream, watched: int) -> None:
        self._command = command
        self._watched = watched
        self._abandoned = False
        self._streams = (stdout, stderr)
        self._child = 0
        self._status: int | None = None
        self._killed: list[str] = []
        self._timed_out = False
        self._cut = False

    def run(self) -> Done:
        pipes = [os.pipe(), os.pipe()]
        started = time.time_ns()
        with self._signals():
            try:
                self._child = self._start([write for _, write in pipes])
            except BaseException:
                for each in pipes:
                    os.close(each[0])
                raise
            finally:
                for each in pipes:
                    os.close(each[1])
            self._pump([read for read, _ in pipes])
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        died_of = -code if code < 0 else None
        exit_code = TIMED_OUT if self._timed_out else 128 - code if code < 0 else code
        return Done(
            exit_code,
            died_of,
            started,
            time.time_ns(),
            tuple(self._killed),
            self._timed_out,
            self._cut,
            self._abandoned,
        )

    def _start(self, outputs: Sequence[int]) -> int:
        import subprocess

        with open(os.devnull, "rb") as nothing:
            try:
                process = subprocess.Popen(
                    list(self._command.argv),
                    cwd=self._command.cwd,
                    env=dict(self._command.env),
                    umask=self._command.umask,
                    stdin=nothing,
                    stdout=outputs[0],
                    stderr=outputs[1],
                )
            except OSError as error:
                raise CannotStart(error) from error
        process.returncode = 0  # we wait for it ourselves, as for all that it leaves
        return process.pid

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handlers, not SIG_IGN: that would be handed down to the command."""
        before = {number: signal.getsignal(number) for number in (*FROM_THE_TERMINAL, *PASSED_ON)}
        for number in FROM_THE_TERMINAL:
            signal.signal(number, lambda *_: None)
        for number in PASSED_ON:
            signal.signal(number, lambda number, _frame: self._pass_on(number))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_on(self, number: int) -> None:
        if self._child and self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self._child, number)

    # waiting

    def _pump(self, pipes: Sequence[int]) -> None:
        """Pass on what comes until all have ended. A pipe that somebody else still holds open is not waited for."""
        deadline = None if self._command.timeout is None else time.monotonic() + self._command.timeout
        main = os.pidfd_open(self._child)
        with selectors.DefaultSelector() as waiting:
            for pipe, stream in zip(pipes, self._streams, strict=True):
                os.set_blocking(pipe, False)
                waiting.register(pipe, selectors.EVENT_READ, stream)
            waiting.register(main, selectors.EVENT_READ, None)
            waiting.register(self._watched, selectors.EVENT_READ, None)
            told: float | None = None
            while not self._all_have_ended():
                now = time.monotonic()
                if deadline is not None and now >= deadline and not self._timed_out:
                    self._timed_out = True
                    told = self._end(signal.SIGTERM)
                elif self._abandoned and told is None:
                    told = self._end(signal.SIGTERM)
                elif self._status is not None and told is None:
                    told = self._end(signal.SIGTERM, named=True)
                elif told is not None and now >= told:
                    told = self._end(signal.SIGKILL)
                self._pass(waiting, main, self._patience(deadline, told, now))
            for pipe in pipes:
                if pipe in waiting.get_map():
                    self._drain(waiting, pipe)
                if pipe in waiting.get_map():
                    self._close(waiting, pipe)
        os.close(main)

    def _patience(self, deadline: float | None, told: float | None, now: float) -> float | None:
        ends = [each - now for each in (None if self._timed_out else deadline, told) if each is not None]
        if self._status is not None or told is not None:
            ends.append(0.01)  # descendants: nothing tells when the last one ends but asking
        return max(min(ends), 0) if ends else None

    def _pass(self, waiting: selectors.BaseSelector, main: int, patience: float | None) -> None:
        for key, _ in waiting.select(patience):
            if key.fd in (main, self._watched):
                waiting.unregister(key.fd)
                self._abandoned |= key.fd == self._watched
            else:
                self._drain(waiting, key.fd, once=True)

    def _drain(self, waiting: selectors.BaseSelector, pipe: int, *, once: bool = False) -> None:
        """All that is there (or one piece of it)."""
        stream: Stream = waiting.get_key(pipe).data
        while True:
            try:
                data = os.read(pipe, PIECE)
            except BlockingIOError:
                return
            if not data:
                self._close(waiting, pipe)
                return
            try:
                for each in stream.to:
                    _write(each, data)
            except OSError:  # its reader, its terminal or the room on its disk is gone: the command is told so
                self._cut = True
                self._close(waiting, pipe)
                return
            if once:
                return

    @staticmethod
    def _close(waiting: selectors.BaseSelector, pipe: int) -> None:
        waiting.unregister(pipe)
        os.close(pipe)

    def _all_have_ended(self) -> bool:
        """Reap whoever has; True when there is nobody left to wait for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._child:
                self._status = status

    def _end(self, number: int, *, named: bool = False) -> float:
        """Tell all descendants; when to tell them again, harder."""
        for pid in descendants(os.getpid()):
            if named:
                self._killed.append(_name_of(pid))
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return time.monotonic() + GRACE


def _write(stream: BinaryIO, data: bytes) -> None:
    """All of it, also if whoever gave us the stream has made it non-blocking."""
    left = memoryview(data)
    while True:
        try:
            left = left[stream.write(left) :]
            stream.flush()
            if not left:
                return
        except BlockingIOError as error:
            left = left[error.characters_written :]
            select.select([], [stream], [])


def _become_subreaper() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def descendants(pid: int) -> list[int]:
    """Children, and theirs."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _name_of(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text().strip()} ({pid})"
    except OSError:
        return str(pid)


def cannot_start(error: OSError) -> int:
    """The exit code of a command that could not be started, as a shell has it."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
