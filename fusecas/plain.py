"""A command that is executed as it is: no layer, no record. What it says goes to files, not pipes: what it leaves
running may hold them as long as it likes."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from fusecas.executor import GRACE, TIMED_OUT, cannot_start, complaint


class Ended(NamedTuple):
    """`exit`: as a shell has it."""

    exit: int
    signal: int | None
    timed_out: bool


def execute(
    words: Sequence[bytes],
    cwd: Path,
    env: Mapping[bytes, bytes],
    streams: tuple[int | None, IO[bytes], IO[bytes]],
    *,
    apart: bool = False,
    timeout: float | None = None,
) -> Ended:
    """`streams`: stdin is ours if it is None. `apart`: in a session of its own, which is ended if we are interrupted or
    after `timeout`; else it is in our terminal and process group. One that can't be started ends as a shell's would."""
    assert apart or timeout is None, "there is no session to end"
    stdin, stdout, stderr = streams
    try:
        process = subprocess.Popen(
            words, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=apart
        )
    except OSError as error:
        stderr.write(complaint(error))
        stderr.flush()
        return Ended(cannot_start(error), None, timed_out=False)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        code = _end(process)
        return Ended(TIMED_OUT, -code if code < 0 else None, timed_out=True)
    except BaseException:
        if apart:
            _end(process)
        raise
    return Ended(128 - code, -code, timed_out=False) if code < 0 else Ended(code, None, timed_out=False)


def _end(process: subprocess.Popen[bytes]) -> int:
    """It, and what it has left running in its session."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
