"""Runs one command in the caller's terminal and process group, until none of its descendants lives.

The caller adopts what the command leaves behind (child subreaper), and has no other children meanwhile. Terminal
signals go to the whole group by themselves: the caller outlives them, and passes on only what was sent to it alone.

A daemon that a command has started (`fusecas run` does, in a repository that is not mounted) serves whoever comes: it
is neither waited for nor made to end.
"""

import ctypes
import errno
import fcntl
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from fusecas.outlet import Sink

PR_SET_CHILD_SUBREAPER = 36
PIECE = 1 << 16
GRACE = 5.0
"""So long may descendants take to end when they are told to."""
FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
NOT_FOUND, NOT_EXECUTABLE, TIMED_OUT = 127, 126, 124
DAEMON = b"fusecas.daemon.serve"


class Command(NamedTuple):
    """`stdin`: a descriptor; None: nothing is there to be read."""

    argv: Sequence[bytes]
    cwd: bytes
    env: Mapping[bytes, bytes]
    umask: int
    timeout: float | None = None
    stdin: int | None = None


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
    is_long: bool = False


class Stream(NamedTuple):
    """Where one of its outputs goes: to its record, so many bytes of it, and to a sink, all of it."""

    log: BinaryIO
    to: Sink
    limit: int


class CannotStart(Exception):
    """The command was never there. Its cause is the OSError."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def executed(command: Command, logs: Sequence[bytes], limit: int, sinks: tuple[Sink, Sink], watched: int) -> Done:
    """Here, in this process, which has no other children; one that can't be started ends as a shell's would.

    `logs`: the files of its stdout and stderr, `limit` bytes of each. When the descriptor `watched` becomes readable,
    the command is ended."""
    with ExitStack() as opened:
        files = [opened.enter_context(open(log, "wb", buffering=0)) for log in logs]
        stdout, stderr = (Stream(file, sink, limit) for file, sink in zip(files, sinks, strict=True))
        _become_subreaper()
        try:
            return _Execution(command, stdout, stderr, watched).run()
        except CannotStart as failed:
            said = complaint(failed.error)
            files[1].write(said)
            sinks[1].offer(said)
            now = time.time_ns()
            return Done(cannot_start(failed.error), None, now, now, (), timed_out=False, cut=False, abandoned=False)


class _Output:
    """One stream of the command: the pipe that it comes from, until that is closed."""

    def __init__(self, stream: Stream) -> None:
        self.to = stream.to
        self.pipe = -1
        self.is_cut = False
        self.is_long = False
        self._log = stream.log
        self._left = stream.limit

    def take(self, most: int) -> int:
        """Pass on a piece of what has come: its size, 0 if there is none now. At its end the pipe is closed."""
        try:
            data = os.read(self.pipe, most)
        except BlockingIOError:
            return 0
        try:
            self._record(data)
        except OSError:  # no room on the disk: the command is told so
            self.is_cut = True
        if self.is_cut or not data:
            self.close()
            return 0
        self.to.offer(data)
        return len(data)

    def _record(self, data: bytes) -> None:
        kept = data[: self._left]
        self._left -= len(kept)
        self._log.write(kept)
        if len(kept) < len(data) and not self.is_long:
            self.is_long = True
            self._log.write(b"\nfusecas: there was more, over the limit of what is recorded\n")

    def close_if_nobody_takes_it(self) -> None:
        """The command is told so, as it would have been without us."""
        if self.pipe >= 0 and self.to.error is not None:
            self.is_cut = True
            self.close()

    def drain(self) -> None:
        """What is in the pipe now. Somebody else may still hold it open: who writes on is not waited for."""
        left = fcntl.fcntl(self.pipe, fcntl.F_GETPIPE_SZ) if self.pipe >= 0 else 0
        while left > 0 and self.pipe >= 0 and (size := self.take(min(left, PIECE))):
            left -= size

    def close(self) -> None:
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1


class _Execution:
    def __init__(self, command: Command, stdout: Stream, stderr: Stream, watched: int) -> None:
        self._command = command
        self._watched = watched
        self._abandoned = False
        self._outputs = (_Output(stdout), _Output(stderr))
        self._child = 0
        self._status: int | None = None
        self._killed: list[str] = []
        self._timed_out = False
        self._daemons: set[int] = set()
        self._attended: dict[int, _Output] = {}

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
            for output, (read, _) in zip(self._outputs, pipes, strict=True):
                os.set_blocking(read, False)
                output.pipe = read
            self._pump()
        assert self._status is not None
        code = os.waitstatus_to_exitcode(self._status)
        died_of = -code if code < 0 else None
        exit_code = TIMED_OUT if self._timed_out else 128 - code if code < 0 else code
        return Done(
            exit_code,
            died_of,
            started,
            max(time.time_ns(), started),  # the clock may be set back meanwhile
            tuple(self._killed),
            self._timed_out,
            any(each.is_cut for each in self._outputs),
            self._abandoned,
            any(each.is_long for each in self._outputs),
        )

    def _start(self, outputs: Sequence[int]) -> int:
        import subprocess

        if not self._command.argv[0]:  # it would be looked for in PATH, and the folders there be found
            raise CannotStart(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "''"))
        with open(os.devnull, "rb") as nothing:
            try:
                process = subprocess.Popen(
                    list(self._command.argv),
                    cwd=self._command.cwd,
                    env=dict(self._command.env),
                    umask=self._command.umask,
                    stdin=nothing if self._command.stdin is None else self._command.stdin,
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

    def _pump(self) -> None:
        """Pass on what comes until all have ended. A pipe that somebody else still holds open is not waited for."""
        deadline = None if self._command.timeout is None else time.monotonic() + self._command.timeout
        main = os.pidfd_open(self._child)
        awake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for each in self._outputs:
            each.to.watch(lambda: os.eventfd_write(awake, 1))
        try:
            with selectors.DefaultSelector() as waiting:
                for descriptor in (main, self._watched, awake):
                    waiting.register(descriptor, selectors.EVENT_READ)
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
                    self._attend(waiting)
                    self._pass(waiting, awake, self._patience(deadline, told, now))
        finally:
            for each in self._outputs:
                each.to.watch(None)
                each.drain()
                each.close()
            os.close(main)
            os.close(awake)

    def _attend(self, waiting: selectors.BaseSelector) -> None:
        """Wait for the outputs that somebody takes; the command waits for those that nobody takes just now."""
        for each in self._outputs:
            each.close_if_nobody_takes_it()
        wanted = {each.pipe: each for each in self._outputs if each.pipe >= 0 and each.to.has_room()}
        for pipe in self._attended.keys() - wanted.keys():
            waiting.unregister(pipe)
        for pipe in wanted.keys() - self._attended.keys():
            waiting.register(pipe, selectors.EVENT_READ, wanted[pipe])
        self._attended = wanted

    def _patience(self, deadline: float | None, told: float | None, now: float) -> float | None:
        ends = [each - now for each in (None if self._timed_out else deadline, told) if each is not None]
        if self._status is not None or told is not None:
            ends.append(0.01)  # descendants: nothing tells when the last one ends but asking
        return max(min(ends), 0) if ends else None

    def _pass(self, waiting: selectors.BaseSelector, awake: int, patience: float | None) -> None:
        for key, _ in waiting.select(patience):
            if key.data is not None:
                key.data.take(PIECE)
            elif key.fd == awake:
                os.eventfd_read(awake)
            else:
                waiting.unregister(key.fd)
                self._abandoned |= key.fd == self._watched

    def _all_have_ended(self) -> bool:
        """Reap whoever has; True when there is nobody left to wait for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return self._status is not None and not self._left()
            if pid == self._child:
                self._status = status

    def _left(self) -> list[int]:
        """Descendants that are still there, but for daemons."""
        found: list[int] = []
        waiting = [os.getpid()]
        while waiting:
            below = [pid for pid in children(waiting.pop()) if not self._is_daemon(pid)]
            found += below
            waiting += below
        return found

    def _is_daemon(self, pid: int) -> bool:
        repository = _served_by(pid)
        if repository is None:
            return False
        if pid not in self._daemons and _serves(pid, repository):
            self._daemons.add(pid)
        return pid in self._daemons

    def _end(self, number: int, *, named: bool = False) -> float:
        """Tell all descendants; when to tell them again, harder."""
        for pid in self._left():
            if named:
                self._killed.append(_name_of(pid))
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
                os.kill(pid, signal.SIGCONT)  # who is stopped hears nothing
        return time.monotonic() + GRACE


def _become_subreaper() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _served_by(pid: int) -> Path | None:
    """The repository whose daemon this process says that it is."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return Path(os.fsdecode(words[3])) if len(words) > 4 and words[1:3] == [b"-m", DAEMON] else None


def _serves(pid: int, repository: Path) -> bool:
    """Whether it really is: anybody may give himself such words."""
    from fusecas.client import Client
    from fusecas.errors import FusecasError

    try:
        with Client(repository, patience=1) as client:
            return bool(client.hello["pid"] == pid)
    except (FusecasError, OSError):
        return False


def _name_of(pid: int) -> str:
    try:
        return f"{Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()} ({pid})"
    except OSError:
        return str(pid)


def cannot_start(error: OSError) -> int:
    """The exit code of a command that could not be started, as a shell has it."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE


def complaint(error: OSError) -> bytes:
    """About a command that could not be started, as a shell has it: the file may be the program or the folder."""
    return f"{os.fsdecode(error.filename)}: {error.strerror}\n".encode(errors="surrogateescape")
