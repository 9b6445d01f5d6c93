"""One at a time: adopt, release, and clearing up after one that was interrupted."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusecas.errors import InUse


@contextmanager
def turn(repository: Path) -> Iterator[None]:
    """A lock of the repository's folder itself: it moves with it, and goes with the process, however that ends."""
    descriptor = os.open(repository, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(f"{repository} is being adopted or released", hint="wait until that is done") from error
        yield
    finally:
        os.close(descriptor)


def inode_of(folder: Path) -> int | None:
    """Of what lies there on the disk of the folder above; what is mounted there does not count."""
    try:
        found = os.lstat(folder)
    except OSError:
        return None  # nothing, or a mount whose daemon is gone
    return found.st_ino if found.st_dev == os.lstat(folder.parent).st_dev else None
