"""The processes of a run whose executor has gone: only a variable in their environment leads to them any more."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = b"FUSECAS_RUN="
GRACE = 5.0
ASK_EVERY = 0.02


def end_all_of(number: bytes) -> list[int]:
    """Tell them to end, then make them; those that were told. When this returns, none of them lives."""
    told: set[int] = set()
    give_up = time.monotonic() + GRACE
    while found := processes_of(number):
        harder = time.monotonic() >= give_up
        for pid in found:
            if harder or pid not in told:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if harder else signal.SIGTERM)
                told.add(pid)
        if time.monotonic() >= give_up + GRACE:
            break  # not ours to end, or in the middle of a system call that does not end
        time.sleep(ASK_EVERY)
    return sorted(told)


def processes_of(number: bytes) -> list[int]:
    """Those that live. Whoever has changed its own environment is not found."""
    wanted = VARIABLE + number.hex().encode()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it has ended, or is another user's
                if wanted in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
