"""Times: nanoseconds, what sets them and what moves them."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import UTIME_NOW, UTIME_OMIT, fails, touch, utimensat

SECOND = 10**9


@pytest.mark.parametrize(
    "ns", [0, 1, 123_456_789, 2**31 * SECOND + 7, 2**33 * SECOND + 999_999_999, -1, (1 - 2**31) * SECOND]
)
def test_times_are_kept_to_the_nanosecond(folder: Path, ns: int) -> None:
    for path in (touch(folder / "f"), folder):
        os.utime(path, ns=(ns + 1, ns))
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (ns + 1, ns)


def test_a_link_has_times_of_its_own(folder: Path) -> None:
    (folder / "link").symlink_to(touch(folder / "f"))
    os.utime(folder / "f", ns=(3, 4))
    os.utime(folder / "link", ns=(1, 2), follow_symlinks=False)
    assert os.lstat(folder / "link").st_mtime_ns == 2 and (folder / "f").stat().st_mtime_ns == 4


def test_one_time_can_be_set_and_the_other_left(folder: Path) -> None:
    path = touch(folder / "f")
    os.utime(path, ns=(1 * SECOND, 2 * SECOND))
    utimensat(path, (0, UTIME_OMIT), (5, 6))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (1 * SECOND, 5 * SECOND + 6)
    utimensat(path, (7, 8), (0, UTIME_OMIT))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (7 * SECOND + 8, 5 * SECOND + 6)
    before = path.stat()
    utimensat(path, (0, UTIME_OMIT), (0, UTIME_OMIT))
    assert path.stat() == before


def test_now_is_now(folder: Path) -> None:
    path = touch(folder / "f")
    os.utime(path, ns=(1, 2))
    before = time.time_ns() - SECOND // 50
    utimensat(path, (0, UTIME_NOW), (0, UTIME_NOW))
    for moment in (path.stat().st_atime_ns, path.stat().st_mtime_ns, path.stat().st_ctime_ns):
        assert before <= moment <= time.time_ns()


def test_nanoseconds_out_of_range_are_einval(folder: Path) -> None:
    path = touch(folder / "f")
    for wrong in (-1, SECOND):
        with fails(errno.EINVAL):
            utimensat(path, (0, 0), (0, wrong))


CHANGES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: path.write_bytes(b"x"),
    "truncate": lambda path: os.truncate(path, 3),
}
ATTRIBUTES: dict[str, Callable[[Path], object]] = {
    "chmod": lambda path: path.chmod(0o600),
    "chmod to the same": lambda path: path.chmod(0o644),
    "utime": lambda path: os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns)),
    "setxattr": lambda path: os.setxattr(path, "user.x", b"x"),
    "link": lambda path: os.link(path, path.with_name("other")),
    "rename": lambda path: path.rename(path.with_name("g")).rename(path),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_changes_bytes_moves_mtime_and_ctime(folder: Path, how: str) -> None:
    path = touch(folder / "f", b"0123456789")
    before = path.stat()
    CHANGES[how](path)
    after = path.stat()
    assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns


@pytest.mark.parametrize("how", ATTRIBUTES)
def test_what_changes_attributes_moves_ctime_and_not_mtime(folder: Path, how: str) -> None:
    path = touch(folder / "f", b"0123456789")
    before = path.stat()
    ATTRIBUTES[how](path)
    after = path.stat()
    assert after.st_ctime_ns > before.st_ctime_ns and after.st_mtime_ns == before.st_mtime_ns


def test_what_comes_and_goes_moves_the_directorys_times(folder: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: touch(folder / "f"),
        lambda: os.mkdir(folder / "d"),
        lambda: os.symlink("x", folder / "l"),
        lambda: os.link(folder / "f", folder / "g"),
        lambda: os.rename(folder / "g", folder / "h"),
        lambda: os.unlink(folder / "h"),
        lambda: os.rmdir(folder / "d"),
    ]
    for call in calls:
        before = folder.stat()
        call()
        after = folder.stat()
        assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns
    before = folder.stat()
    (folder / "f").write_bytes(b"x")
    (folder / "f").chmod(0o600)
    assert folder.stat().st_mtime_ns == before.st_mtime_ns


def test_a_new_file_has_three_equal_times(folder: Path) -> None:
    os.close(os.open(folder / "f", os.O_CREAT | os.O_WRONLY))
    found = (folder / "f").stat()
    assert found.st_atime_ns == found.st_mtime_ns == found.st_ctime_ns


def test_a_write_of_nothing_moves_no_time(folder: Path) -> None:
    path = touch(folder / "f")
    before = path.stat()
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, b"")
    os.close(descriptor)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
