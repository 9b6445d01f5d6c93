"""Device nodes. Only root can make them."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.posix.calls import as_user, fails, mode_of


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_a_device_node_keeps_its_numbers(folder: Path, kind: int) -> None:
    os.mknod(folder / "x", kind | 0o640, os.makedev(259, 70_000))
    found = (folder / "x").stat()
    assert stat.S_IFMT(found.st_mode) == kind and mode_of(folder / "x") == 0o640
    assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (259, 70_000)


def test_ordinary_users_make_no_device_nodes(folder: Path) -> None:
    folder.chmod(0o777)
    with fails(errno.EPERM):
        as_user(folder, lambda: os.mknod("x", stat.S_IFCHR | 0o666, os.makedev(1, 3)))


def test_a_device_node_in_the_mount_can_not_be_opened(mount_folder: Path) -> None:
    os.mknod(mount_folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with fails(errno.EACCES):
        os.open(mount_folder / "null", os.O_RDONLY)
