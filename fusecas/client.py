"""Talks to the daemon of a repository: blocking, one call after the other. Imports neither trio nor pyfuse3.

What goes over the socket is in docs/protocol.md.
"""

import json
import os
import socket
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fusecas import errors
from fusecas.errors import EnvironmentProblem, FusecasError, InternalError, TooLarge
from fusecas.wire import LONGEST_ANSWER, LONGEST_REQUEST, PROTOCOL, line_of

PATIENCE = 10.0
"""How long a daemon may take to say who it is; a call may take as long as it takes."""


class NoDaemon(EnvironmentProblem):
    """Nobody serves this repository."""


class NoAnswer(EnvironmentProblem):
    """The daemon is there, but it does not answer, or not as a daemon does."""


class Client:
    """One connection. A call raises what the daemon answered as the exception that it was there."""

    def __init__(self, folder: Path, *, patience: float = PATIENCE, any_protocol: bool = False) -> None:
        """`any_protocol`: also with a daemon of another version, for `hello` and `umount`, which are alike in all."""
        self.folder = folder
        self._number = 0
        self._notifications: deque[dict[str, Any]] = deque()
        self._socket = _connected(folder, patience)
        self._lines = self._socket.makefile("rb")
        try:
            self.hello = self.call("hello")
            if self.hello.get("protocol") != PROTOCOL and not any_protocol:
                raise NoAnswer(
                    f"the daemon of {folder} is another version ({self.hello.get('version')})",
                    hint="fusecas umount ends it; then mount again",
                )
            self._socket.settimeout(None)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def leave(self) -> None:
        """Break off what was begun on this connection: when this returns, the daemon has done with it."""
        try:
            self._socket.settimeout(PATIENCE)
            self._socket.shutdown(socket.SHUT_WR)
            self.wait_for_end()
        except OSError:  # it has gone, or it takes longer than we have patience
            pass
        finally:
            self.close()

    def fileno(self) -> int:
        """Readable when the daemon says something, or has gone."""
        return self._socket.fileno()

    def wait_for_end(self) -> None:
        """Until the daemon closes the connection."""
        while self._lines.readline(LONGEST_ANSWER):
            pass

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._send(line_of({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}))
        while True:
            answer = self._receive()
            if "method" in answer:
                self._notifications.append(answer)
            elif answer.get("id") in (self._number, None):  # null: it could not even tell what was asked
                if "error" in answer:
                    raise to_exception(answer["error"])
                return answer.get("result")

    def wait_for_notification(self) -> tuple[str, dict[str, Any]]:
        """(method, params) of the next, of those that a subscription brings."""
        while not self._notifications:
            found = self._receive()
            if "method" in found:
                self._notifications.append(found)
        first = self._notifications.popleft()
        return first["method"], first["params"]

    def _send(self, line: bytes) -> None:
        if len(line) > LONGEST_REQUEST:
            raise TooLarge(
                f"a request of {len(line)} bytes",
                hint=f"the daemon takes {LONGEST_REQUEST}: words, variables, what was typed",
            )
        try:
            self._socket.sendall(line)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has said why before it closed: that is still to be read
        except TimeoutError as error:
            raise self._silence() from error

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline(LONGEST_ANSWER + 1)
        except ConnectionResetError:
            line = b""
        except TimeoutError as error:
            raise self._silence() from error
        if len(line) > LONGEST_ANSWER:
            raise NoAnswer(f"the daemon's answer is over {LONGEST_ANSWER} bytes")
        if not line.endswith(b"\n"):
            raise EnvironmentProblem("the daemon has gone in the middle of a call", hint="fusecas mount")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise NoAnswer(f"the daemon's answer is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise NoAnswer("the daemon's answer is no object")
        return answer

    def _silence(self) -> NoAnswer:
        return NoAnswer(f"the daemon of {self.folder} does not answer", hint="fusecas doctor says more")


def _connected(folder: Path, patience: float) -> socket.socket:
    run = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience)
    try:
        # By the descriptor: the path of a socket may be 107 bytes long, that of a folder is not bounded so.
        connection.connect(f"/proc/self/fd/{run}/run/socket")
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NoDaemon(f"{folder} is not mounted", hint="fusecas mount") from error
    except (TimeoutError, BlockingIOError) as error:  # its queue is full: nobody has accepted for long
        connection.close()
        raise NoAnswer(f"the daemon of {folder} does not answer", hint="fusecas doctor says more") from error
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(run)
    return connection


def to_exception(problem: dict[str, Any]) -> FusecasError:
    """The error of an answer, as the class that it had."""
    data = problem.get("data", problem)
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    name = "".join(part.capitalize() for part in str(data.get("code")).split("-"))
    kind = kinds.get(name)
    if kind is None or not issubclass(kind, FusecasError):
        kind = InternalError if data.get("exit") == InternalError.exit_code else EnvironmentProblem
    return kind(str(data.get("message")), hint=data.get("hint"), details=data.get("details"))
