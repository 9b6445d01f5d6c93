"""Talks to the daemon of a repository: blocking, one call after the other. Imports neither trio nor pyfuse3."""

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fusecas import errors
from fusecas.errors import EnvironmentProblem, FusecasError

PROTOCOL = 1
LONGEST_LINE = 1 << 24


class NoDaemon(EnvironmentProblem):
    """Nobody serves this repository."""


class Client:
    """One connection. A call raises what the daemon answered as the exception that it was there."""

    def __init__(self, folder: Path) -> None:
        self._number = 0
        run = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # By the descriptor: the path of a socket may be 107 bytes long, that of a folder is not bounded so.
            self._socket.connect(f"/proc/self/fd/{run}/run/socket")
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._socket.close()
            raise NoDaemon(f"{folder} is not mounted", hint="fusecas mount") from error
        finally:
            os.close(run)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def wait_for_end(self) -> None:
        """Until the daemon closes the connection."""
        while self._lines.readline(LONGEST_LINE):
            pass

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        request = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            line = self._lines.readline(LONGEST_LINE)
            if not line:
                raise EnvironmentProblem("the daemon has gone in the middle of a call", hint="fusecas mount")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise to_exception(answer["error"]["data"])
                return answer["result"]


def to_exception(problem: dict[str, Any]) -> FusecasError:
    """The error of an answer, as the class that it had."""
    kinds = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type)}
    name = "".join(part.capitalize() for part in problem["code"].split("-"))
    kind = kinds.get(name)
    if kind is None or not issubclass(kind, FusecasError) or kind is errors.AmbiguousPrefix:
        kind = EnvironmentProblem
    return kind(problem["message"], hint=problem["hint"], details=problem["details"])
