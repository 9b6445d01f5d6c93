"""Real processes of the real program: piped, or on a pseudo-terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = Path(sys.executable).parent / "fusecas"
OURS = ("FUSECAS_", "STATEKIT_", "E3_", "NO_COLOR")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
    "TERM": "xterm",
    "COLUMNS": "100",
}
NOT_UTF8 = b"caf\xe9"
TIMEOUT = 30


class Answer(NamedTuple):
    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def result(self) -> Any:
        document = json.loads(self.stdout)
        assert document["ok"], document
        return document["result"]

    @property
    def error(self) -> dict[str, Any]:
        document = json.loads(self.stdout)
        assert not document["ok"], document
        return document["error"]


class Place:
    """A folder to call fusecas in, and the variables that it sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / ".fusecas"

    def start(self, *words: str | bytes, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        how.setdefault("cwd", self.folder)
        return subprocess.Popen([PROGRAM, *words], env={**ENVIRONMENT, **(env or {})}, **how)

    def run(
        self, *words: str | bytes, input: bytes | None = None, env: dict[str, str] | None = None, **how: Any
    ) -> Answer:
        """Everything piped."""
        source = {"stdin": subprocess.DEVNULL} if input is None else {"stdin": subprocess.PIPE}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **source, **how}
        process = self.start(*words, env=env, **pipes)
        stdout, stderr = process.communicate(input, timeout=TIMEOUT)
        answer = Answer(process.returncode, stdout or b"", (stderr or b"").decode())
        assert "Traceback" not in answer.stderr, answer.stderr
        return answer

    def ok(self, *words: str | bytes, **how: Any) -> Answer:
        answer = self.run(*words, **how)
        assert answer.code == 0, answer
        return answer

    def on_terminal(self, *words: str | bytes, env: dict[str, str] | None = None) -> str:
        """What a person sees: stdout and stderr on a pseudo-terminal."""
        master, slave = pty.openpty()
        process = self.start(*words, env=env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        seen = read_all(master)
        assert process.wait(TIMEOUT) == 0, seen
        return seen


def read_all(master: int) -> str:
    seen = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # EIO: the last who had the terminal open has closed it
            part = b""
        if not part:
            os.close(master)
            return seen.decode().replace("\r\n", "\n")
        seen += part
