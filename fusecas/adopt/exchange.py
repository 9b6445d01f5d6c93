"""System calls that Python has no names for, on folders that change places; and removing a copy."""

import ctypes
import errno
import os
import subprocess
from pathlib import Path

from fusecas.errors import AlreadyExists, EnvironmentProblem, PermissionProblem, Refused, of_system
from fusecas.store.durable import sync_folder

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

libc = ctypes.CDLL(None, use_errno=True)


def exchange(one: Path, other: Path) -> None:
    """Both change places at once, durably. They lie in one folder."""
    _rename(one, other, RENAME_EXCHANGE)
    sync_folder(one.parent)


def move(source: Path, target: Path) -> None:
    """To a name that nothing has yet, durably."""
    _rename(source, target, RENAME_NOREPLACE)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def _rename(source: Path, target: Path, how: int) -> None:
    paths = (AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target))
    if libc.renameat2(*paths, how) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EINVAL:
        raise EnvironmentProblem(f"the file system of {source} can't exchange two folders", hint="ext4, xfs, btrfs can")
    if number == errno.EXDEV:
        raise Refused(f"{source} and {target} are on two file systems", hint="adopt a folder below it")
    if number == errno.EEXIST:
        raise AlreadyExists(f"{target} is there already", hint="rename it")
    if number in (errno.EACCES, errno.EPERM):
        raise PermissionProblem(f"{source} can't be renamed: {os.strerror(number)}")
    raise of_system(OSError(number, os.strerror(number), os.fspath(source)))


def sync_file_system(place: Path) -> None:
    """All that was written to the file system that has this folder."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise of_system(OSError(number, os.strerror(number), os.fspath(place)))
    finally:
        os.close(descriptor)


def remove_copy(folder: Path) -> None:
    """However deep, and whatever modes its directories have. No link in it is followed."""
    for words in (["chmod", "-R", "u+rwX"], ["rm", "-rf", "--one-file-system"]):
        done = subprocess.run([*words, "--", folder], capture_output=True, text=True)
        if done.returncode != 0:
            raise EnvironmentProblem(f"{folder} can't be removed: {done.stderr.strip().splitlines()[-1]}")
    sync_folder(folder.parent)
