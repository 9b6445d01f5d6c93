"""What docs/posix.md says of the mount, where it is not as on ext4: each line of it is one of these tests."""

import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted
from tests.posix.calls import WHITEOUT, checked, fails, fallocate, libc, renameat2, statx_mask, touch

BTIME = 0x800
FICLONE, FS_IOC_GETFLAGS, FS_IOC_FIEMAP = 0x40049409, 0x80086601, 0xC020660B
TIB = 1 << 40


def test_a_read_does_not_move_atime(mount_folder: Path) -> None:
    path = touch(mount_folder / "f", b"x")
    os.utime(path, ns=(5, 10**9))
    path.read_bytes()
    assert path.stat().st_atime_ns == 5


def test_an_atime_that_was_not_set_is_the_mtime(mount_folder: Path) -> None:
    path = touch(mount_folder / "f", b"x")
    assert path.stat().st_atime_ns == path.stat().st_mtime_ns


@pytest.mark.parametrize("mode", [0, 1, 3, 16, 32])
def test_fallocate_is_eopnotsupp_in_all_its_modes(mount_folder: Path, mode: int) -> None:
    with (mount_folder / "f").open("wb") as file, fails(errno.EOPNOTSUPP):
        fallocate(file.fileno(), mode, 0, 8192)


def test_posix_fallocate_writes_zeros_instead(mount_folder: Path) -> None:
    with (mount_folder / "f").open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000 and os.fstat(file.fileno()).st_blocks * 512 >= 100_000


def test_a_file_is_one_piece_of_data_to_seek_data_and_seek_hole(mount_folder: Path) -> None:
    with (mount_folder / "f").open("w+b") as file:
        os.pwrite(file.fileno(), b"x", 1 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == (1 << 20) + 1
        with fails(errno.ENXIO):
            os.lseek(file.fileno(), (1 << 20) + 1, os.SEEK_DATA)


def test_there_is_no_time_of_birth(mount_folder: Path) -> None:
    assert statx_mask(mount_folder) & BTIME == 0


def test_a_file_without_any_name_can_not_be_made(mount_folder: Path) -> None:
    with fails(errno.EOPNOTSUPP):
        os.open(mount_folder, os.O_TMPFILE | os.O_RDWR)


def test_a_clone_is_eopnotsupp(mount_folder: Path) -> None:
    touch(mount_folder / "a", b"x" * 4096)
    with (mount_folder / "a").open("rb") as source, (mount_folder / "b").open("wb") as target, fails(errno.EOPNOTSUPP):
        fcntl.ioctl(target, FICLONE, source.fileno())


@pytest.mark.parametrize(("request_", "number"), [(FS_IOC_GETFLAGS, errno.ENOTTY), (FS_IOC_FIEMAP, errno.EOPNOTSUPP)])
def test_ioctls_are_refused(mount_folder: Path, request_: int, number: int) -> None:
    with touch(mount_folder / "f", b"x").open("rb") as file, fails(number):
        fcntl.ioctl(file, request_, struct.pack("QQIIII", 0, 1 << 20, 0, 0, 0, 0))


def test_a_whiteout_is_einval(mount_folder: Path) -> None:
    touch(mount_folder / "a")
    with fails(errno.EINVAL):
        renameat2(mount_folder / "a", mount_folder / "b", WHITEOUT)


def test_xattrs_that_a_state_would_not_keep_are_eopnotsupp(mount_folder: Path) -> None:
    path = touch(mount_folder / "f")
    for name in ("trusted.x", "security.selinux"):
        with fails(errno.EOPNOTSUPP):
            os.setxattr(path, name, b"x")
        with fails(errno.ENODATA):
            os.getxattr(path, name)


def test_a_value_of_64_kib_is_taken(mount_folder: Path) -> None:
    path = touch(mount_folder / "f")
    os.setxattr(path, "user.large", b"x" * 65536)
    assert os.getxattr(path, "user.large") == b"x" * 65536


def test_a_file_of_a_tebibyte_is_the_largest(mount_folder: Path) -> None:
    path = touch(mount_folder / "f")
    os.truncate(path, TIB)
    with fails(errno.EFBIG):
        os.truncate(path, TIB + 1)
    descriptor = os.open(path, os.O_WRONLY)
    with fails(errno.EFBIG):
        os.pwrite(descriptor, b"x", TIB)
    os.close(descriptor)


def test_a_directory_is_4096_bytes_and_no_blocks(mount_folder: Path) -> None:
    assert (mount_folder.stat().st_size, mount_folder.stat().st_blocks) == (4096, 0)


def test_the_holes_of_a_committed_file_count_as_blocks(mounted: Mounted) -> None:
    path = mounted.work / "f"
    with path.open("wb") as file:
        file.truncate(1 << 20)
    assert path.stat().st_blocks == 0
    mounted.ok("commit")
    path.chmod(0o600)  # the kernel asks again
    assert path.stat().st_blocks == (1 << 20) // 512
    assert path.read_bytes() == bytes(1 << 20)


def test_set_id_programs_run_as_who_calls_them_and_devices_stay_shut(the_mount: Mounted) -> None:
    assert os.statvfs(the_mount.work).f_flag & os.ST_NOSUID and os.statvfs(the_mount.work).f_flag & os.ST_NODEV


def test_syncfs_answers_at_once(mount_folder: Path) -> None:
    descriptor = os.open(mount_folder, os.O_RDONLY)
    checked(libc.syncfs(descriptor))
    os.close(descriptor)


def test_the_type_of_the_file_system_is_fuse(mount_folder: Path) -> None:
    done = subprocess.run(["stat", "-f", "-c", "%t", mount_folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "65735546"
