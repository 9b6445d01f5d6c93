"""Executes one command for a process that must not become its ancestor: that keeps its own children and terminal.

The child adopts what the command leaves behind, in a session of its own. Its stdin brings the command; more on it, or
its end, or the death of the process that asked, ends the command. Its stdout takes back what that came to.
"""

import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from fusecas.errors import EnvironmentProblem
from fusecas.executor import Command, Done, executed

CODE = "import sys; sys.path.append(sys.argv[1]); from fusecas.runner_child import main; main()"
ROOT = Path(__file__).parents[1]
ERRORS = "surrogateescape"


class Child:
    """Owns the process, from its start to its end. Use it in a `with`: whatever happens, nothing of it is left."""

    def __init__(self, stdin: int | None = None) -> None:
        """`stdin`: a descriptor that the command is to read."""
        if not sys.executable:
            raise EnvironmentProblem("no Python to execute commands with: sys.executable is empty")
        import subprocess  # not for the child, which imports this module, too

        # Alone with the standard library and this package: whatever the host has set up for itself is no matter.
        words = [sys.executable, "-I", "-S", "-X", "utf8", "-c", CODE, str(ROOT)]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=() if stdin is None else (stdin,),
        )
        self.pid = self._process.pid

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_raised: object) -> None:
        self._let_go()
        self._process.wait()
        for each in (_pipe(self._process.stdout), _pipe(self._process.stderr)):
            each.close()

    def _let_go(self) -> None:
        """End the command, if it has not ended. Said, not only closed: a process that was forked from this one may hold
        the pipe, too."""
        stdin = _pipe(self._process.stdin)
        if not stdin.closed:
            with suppress(BrokenPipeError):
                stdin.write(b"\n")
                stdin.flush()
            with suppress(BrokenPipeError):
                stdin.close()

    def execute(self, command: Command, logs: Sequence[bytes], limit: int, watched: int) -> Done:
        told = {
            "asked_by": os.getpid(),
            "argv": [_text(each) for each in command.argv],
            "cwd": _text(command.cwd),
            "env": [[_text(name), _text(value)] for name, value in command.env.items()],
            "umask": command.umask,
            "timeout": command.timeout,
            "stdin": command.stdin,
            "logs": [_text(each) for each in logs],
            "limit": limit,
        }
        with suppress(BrokenPipeError):  # it has died: it has said why, or nothing
            _pipe(self._process.stdin).write(json.dumps(told).encode() + b"\n")
            _pipe(self._process.stdin).flush()
        answer = _pipe(self._process.stdout)
        if answer.fileno() not in select.select([answer.fileno(), watched], [], [])[0]:
            self._let_go()
        said = answer.read()
        if not said:
            why = _pipe(self._process.stderr).read().decode(errors="replace").strip().rpartition("\n")[2]
            raise EnvironmentProblem(f"the process that executed the command has died: {why or 'killed'}")
        fields: dict[str, Any] = json.loads(said)
        return Done(**{**fields, "killed": tuple(fields["killed"])})


def main() -> None:
    """The child: reads a command, executes it, says what it came to."""
    from fusecas.outlet import Kept

    given = json.loads(sys.stdin.buffer.readline())
    command = Command(
        [_bytes(each) for each in given["argv"]],
        _bytes(given["cwd"]),
        {_bytes(name): _bytes(value) for name, value in given["env"]},
        given["umask"],
        given["timeout"],
        given["stdin"],
    )
    logs = [_bytes(each) for each in given["logs"]]
    with select.epoll() as end:  # readable when one of these is
        end.register(sys.stdin.fileno(), select.EPOLLIN)
        asked_by = os.pidfd_open(given["asked_by"])
        if os.getppid() != given["asked_by"]:
            return
        end.register(asked_by, select.EPOLLIN)
        done = executed(command, logs, given["limit"], (Kept(0), Kept(0)), end.fileno())
    os.write(1, json.dumps(done._asdict()).encode())


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _text(data: bytes) -> str:
    return data.decode(errors=ERRORS)


def _bytes(text: str) -> bytes:
    return text.encode(errors=ERRORS)
