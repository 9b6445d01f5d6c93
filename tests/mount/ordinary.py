"""Calls as an ordinary user, who has nothing but fusermount3.

Tests may run as root, with everything below root's home: so the calls run as another user, in a mount namespace of
their own, where what they need can be reached and /dev/fuse and /etc/fuse.conf are as a test wants them. It goes with
its last process. Where tests run as an ordinary user already, calls are just made.
"""

import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from fusecas.client import NoDaemon
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT, Answer
from tests.mount.conftest import Mounted, wait_for

IS_ROOT = os.geteuid() == 0
USER = 65534 if IS_ROOT else os.geteuid()
NEEDED = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]


class Namespace:
    """A process that holds the namespace until it is closed."""

    def __init__(self, folder: Path, device_mode: int, configuration: str, then: str) -> None:
        (folder / "fuse.conf").write_text(configuration)
        lines = ["set -e", "mount --make-rprivate /", *self._setting(folder, device_mode), then, "echo ready; cat"]
        script = "\n".join(lines)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder / "home",
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    @staticmethod
    def _setting(folder: Path, device_mode: int) -> list[str]:
        # Mounts of others must be able to end: not copied, they are held by nobody here.
        lines = ["grep ' fuse\\.' /proc/self/mounts | cut -d' ' -f2 | while read at; do umount -l \"$at\"; done"]
        needed = [(folder / f"needed-{at}", place.resolve()) for at, place in enumerate(NEEDED)]
        for here, place in needed:
            lines += [f"mkdir {quoted(here)}", f"mount --bind {quoted(place)} {quoted(here)}"]
        for hidden in sorted({above for _, place in needed if (above := first_private(place)) is not None}):
            lines.append(f"mount -t tmpfs -o mode=755 hidden {quoted(hidden)}")
        for here, place in needed:
            lines += [f"mkdir -p {quoted(place)}", f"mount --bind {quoted(here)} {quoted(place)}"]
        return [
            *lines,
            f"mknod -m {device_mode:o} {quoted(folder / 'fuse')} c 10 229",
            f"mount --bind {quoted(folder / 'fuse')} /dev/fuse",
            f"mount --bind {quoted(folder / 'fuse.conf')} /etc/fuse.conf",
        ]

    def words(self, user: int, folder: Path) -> list[str]:
        """What makes a command one of this user, in here."""
        ids = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *ids, "env", "-C", os.fspath(folder)]

    def close(self) -> None:
        self._holder.communicate(timeout=TIMEOUT)


def quoted(place: Path) -> str:
    return shlex.quote(os.fspath(place))


def first_private(place: Path) -> Path | None:
    """The outermost folder above a place that others may not enter."""
    return next((above for above in reversed(place.parents) if not above.stat().st_mode & 0o001), None)


class Ordinary(Mounted):
    """A repository of an ordinary user; `then` is done by root to the user's namespace."""

    def __init__(self, base: Path, *, device_mode: int = 0o666, allow_other: bool = False, then: str = ":") -> None:
        super().__init__(base / "home")
        self.folder.mkdir()
        self._namespace: Namespace | None = None
        if IS_ROOT:
            base.chmod(0o755)
            os.chown(self.folder, USER, USER)
            self._namespace = Namespace(base, device_mode, "user_allow_other\n" if allow_other else "", then)

    def start(self, *words: str | bytes, env: dict[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        return self.start_as(USER, PROGRAM, *words, env=env, **how)

    def start_as(
        self, user: int, *words: Any, env: dict[str, str] | None = None, cwd: Path | None = None, **how: Any
    ) -> subprocess.Popen[bytes]:
        before = [] if self._namespace is None else self._namespace.words(user, cwd or self.folder)
        environment = {**ENVIRONMENT, "HOME": os.fspath(self.folder), **(env or {})}
        return subprocess.Popen([*before, *words], env=environment, cwd=cwd or self.folder, **how)

    def sh(self, text: str, user: int = USER) -> Answer:
        process = self.start_as(user, "sh", "-euc", text, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
        return Answer(process.returncode, stdout, stderr.decode())

    def mounts(self) -> list[str]:
        """Where something of ours is mounted, as this user sees it."""
        own = [line.split() for line in self.sh("cat /proc/self/mounts").lines]
        return [
            fields[1] for fields in own if fields[2] == "fuse.fusecas" and Path(fields[1]).is_relative_to(self.folder)
        ]

    def signal(self, number: int) -> None:
        """Send it to the daemon, and wait until that has ended."""
        descriptor = os.pidfd_open(self.pid())
        signal.pidfd_send_signal(descriptor, number)
        wait_for(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        with suppress(NoDaemon, FileNotFoundError):
            self.signal(signal.SIGKILL)
        for place in self.mounts():
            assert self.sh(f"fusermount3 -uz {shlex.quote(place)}").code == 0
        if self._namespace is not None:
            self._namespace.close()
