"""Fifos, sockets, symbolic links' own attributes, statfs, access."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted
from tests.posix.calls import fails, fchmod_of_link, in_child, mode_of, touch


def test_a_fifo_carries_bytes_between_processes(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    child = os.fork()
    if child == 0:
        try:
            (folder / "fifo").write_bytes(b"through")
        finally:
            os._exit(0)
    assert (folder / "fifo").read_bytes() == b"through"
    assert os.waitpid(child, 0)[1] == 0 and stat.S_ISFIFO((folder / "fifo").stat().st_mode)


def test_a_fifo_that_nobody_reads_is_enxio(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    with fails(errno.ENXIO):
        os.open(folder / "fifo", os.O_WRONLY | os.O_NONBLOCK)


def test_a_socket_can_be_bound_and_called(folder: Path) -> None:
    def bound() -> None:
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            assert stat.S_ISSOCK(os.stat("socket").st_mode)
            client.connect("socket")
            with server.accept()[0] as accepted:
                client.send(b"hello")
                assert accepted.recv(10) == b"hello"
        with socket.socket(socket.AF_UNIX) as again, fails(errno.EADDRINUSE):
            again.bind("socket")
        with socket.socket(socket.AF_UNIX) as late, fails(errno.ECONNREFUSED):
            late.connect("socket")
        os.unlink("socket")

    in_child(bound)


def test_a_socket_can_not_be_opened(folder: Path) -> None:
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    with fails(errno.ENXIO):
        os.open(folder / "socket", os.O_RDONLY)


def test_a_symbolic_link_has_all_permissions_whatever_the_umask(folder: Path) -> None:
    os.umask(0o777)
    (folder / "link").symlink_to("nowhere")
    assert mode_of(folder / "link") == 0o777


def test_the_mode_of_a_symbolic_link_can_not_be_changed(folder: Path) -> None:
    (folder / "link").symlink_to(touch(folder / "file", mode=0o600))
    with fails(errno.EOPNOTSUPP):
        fchmod_of_link(folder / "link", 0o700)
    assert (mode_of(folder / "link"), mode_of(folder / "file")) == (0o777, 0o600)


def test_statvfs_tells_of_the_disk_below(the_mount: Mounted) -> None:
    shown, below = os.statvfs(the_mount.work), os.statvfs(the_mount.repository)
    for field in ("f_bsize", "f_frsize", "f_blocks", "f_files"):
        assert getattr(shown, field) == getattr(below, field)
    assert abs(shown.f_bavail - below.f_bavail) * below.f_frsize < 1 << 32
    assert shown.f_namemax == 255 and 0 < shown.f_bavail <= shown.f_bfree <= shown.f_blocks


def test_access_follows_the_mode(folder: Path) -> None:
    path = touch(folder / "f", mode=0o644)
    assert os.access(path, os.R_OK | os.W_OK) and os.access(path, os.F_OK) and not os.access(path, os.X_OK)
    path.chmod(0o755)
    assert os.access(path, os.X_OK)
    assert not os.access(folder / "no", os.F_OK)


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK])
def test_mknod_obeys_the_umask(folder: Path, kind: int) -> None:
    os.umask(0o027)
    os.mknod(folder / "x", kind | 0o666)
    assert mode_of(folder / "x") == 0o640 and stat.S_IFMT((folder / "x").stat().st_mode) == kind


def test_inode_numbers_are_below_two_to_the_53_and_unlike(folder: Path) -> None:
    for name in "abc":
        touch(folder / name)
    numbers = {(folder / name).stat().st_ino for name in "abc"} | {folder.stat().st_ino}
    assert len(numbers) == 4 and max(numbers) < 1 << 53
