"""What of the machine is in the key of a run: the system, its installed packages, and the program itself."""

import errno
import os
import shutil
import stat
import threading
from typing import Any, NamedTuple

from blake3 import blake3

from fusecas.run.policy import AUTO, NONE

SYSTEM = (b"/etc/os-release", b"/usr/lib/os-release")
PACKAGES = (
    b"/var/lib/dpkg/status",
    b"/var/lib/rpm/rpmdb.sqlite",
    b"/var/lib/rpm/Packages",
    b"/usr/lib/sysimage/rpm/rpmdb.sqlite",
    b"/lib/apk/db/installed",
    b"/var/lib/pacman/local",
)
PIECE = 1 << 20
MOST_KNOWN = 10_000


class Stamp(NamedTuple):
    """By which a file that has not changed is known again."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


class Host:
    """Digests of files outside of the workspaces, read again when they have changed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Stamp, bytes]] = {}

    def of(
        self, executable: bytes | None, workspace: bytes, what: str | tuple[str, ...], path: bytes
    ) -> dict[str, Any]:
        """For the key. `executable`: what runs, without symbolic links in its path; one in the workspace is in the
        state already. `what` of it all counts: AUTO, NONE, or files, and programs that are found by `path`."""
        if what == NONE:
            return {}
        if what != AUTO:
            return {"chosen": [[each, self._chosen(each, os.fsdecode(path))] for each in what]}
        system = next((found for path in SYSTEM if (found := self._digest(path)) is not None), None)
        packages = [[path, digest] for path in PACKAGES if (digest := self._digest(path)) is not None]
        is_outside = executable is not None and not executable.startswith(workspace + b"/")
        digest = self._digest(executable) if executable is not None and is_outside else None
        return {"system": system, "packages": packages, "program": None if digest is None else [executable, digest]}

    def _chosen(self, name: str, path: str) -> bytes | None:
        found = name if "/" in name else shutil.which(name, path=path)
        return None if found is None else self._digest(os.fsencode(os.path.realpath(found)))

    def _digest(self, path: bytes) -> bytes | None:
        """None if it can't be read: then so it is for the command."""
        try:
            found = os.stat(path)
            stamp = Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            with self._lock:
                known = self._known.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            digest = _names_of(path) if os.path.isdir(path) else _content_of(path)
        except OSError:
            return None
        with self._lock:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[path] = (stamp, digest)
        return digest


def _content_of(path: bytes) -> bytes:
    """OSError if it is no plain file: a device never ends, and a pipe waits for somebody."""
    digest = blake3()
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        while data := file.read(PIECE):
            digest.update(data)
    return digest.digest()


def _names_of(folder: bytes) -> bytes:
    """A database that is a folder has one for each package, with its version in the name."""
    return blake3(b"\0".join(sorted(os.listdir(folder)))).digest()
