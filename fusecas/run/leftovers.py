"""The processes of a run whose executor has gone: only a variable in their environment leads to them any more."""

import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

VARIABLE = b"FUSECAS_RUN="
GRACE = 5.0


def end_all_of(number: bytes) -> list[int]:
    """Tell them to end, then make them; those that were told. When this returns none of them lives, but who is not ours
    to end, or is in the middle of a system call that does not end."""
    told: set[int] = set()
    for how in (signal.SIGTERM, signal.SIGKILL):
        asked: set[int] = set()
        give_up = time.monotonic() + GRACE
        while (found := processes_of(number)) and time.monotonic() < give_up:
            for pid in set(found) - asked:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, how)
                    os.kill(pid, signal.SIGCONT)  # who is stopped hears nothing
            asked.update(found)  # and those that they have begun meanwhile, the next time
            wait_for_ends(found, give_up)
        told |= asked
    return sorted(told)


def wait_for_ends(pids: list[int], give_up: float) -> None:
    """Of all of them, or until it is time to give up."""
    with ExitStack() as opened:
        waiting = select.poll()
        left = 0
        for pid in pids:
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                opened.callback(os.close, descriptor)
                waiting.register(descriptor, select.POLLIN)
                left += 1
        while left and (patience := give_up - time.monotonic()) > 0:
            for descriptor, _ in waiting.poll(patience * 1000):
                waiting.unregister(descriptor)
                left -= 1


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
