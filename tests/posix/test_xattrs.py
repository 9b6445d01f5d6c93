"""Extended attributes of users."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import checked, fails, libc, touch


@pytest.fixture(params=["file", "directory"])
def owner(request: pytest.FixtureRequest, folder: Path) -> Path:
    path = folder / "x"
    if request.param == "file":
        return touch(path)
    path.mkdir()
    return path


def test_values_of_any_bytes_come_back(owner: Path) -> None:
    for name, value in {
        "user.a": b"a",
        "user.empty": b"",
        "user.bytes": bytes(range(256)),
        "user.large": b"x" * 3000,
    }.items():
        os.setxattr(owner, name, value)
        assert os.getxattr(owner, name) == value
    assert sorted(os.listxattr(owner)) == ["user.a", "user.bytes", "user.empty", "user.large"]


def test_a_value_is_replaced_and_removed(owner: Path) -> None:
    os.setxattr(owner, "user.a", b"long before")
    os.setxattr(owner, "user.a", b"after")
    assert os.getxattr(owner, "user.a") == b"after"
    os.removexattr(owner, "user.a")
    assert os.listxattr(owner) == []


def test_what_is_absent_is_enodata(owner: Path) -> None:
    with fails(errno.ENODATA):
        os.getxattr(owner, "user.no")
    with fails(errno.ENODATA):
        os.removexattr(owner, "user.no")


def test_create_refuses_what_is_there_and_replace_what_is_not(owner: Path) -> None:
    with fails(errno.ENODATA):
        os.setxattr(owner, "user.a", b"x", os.XATTR_REPLACE)
    os.setxattr(owner, "user.a", b"1", os.XATTR_CREATE)
    with fails(errno.EEXIST):
        os.setxattr(owner, "user.a", b"2", os.XATTR_CREATE)
    assert os.getxattr(owner, "user.a") == b"1"
    os.setxattr(owner, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(owner, "user.a") == b"3"


def test_names_and_values_have_limits(owner: Path) -> None:
    os.setxattr(owner, "user." + "n" * 250, b"x")
    with fails(errno.ERANGE):
        os.setxattr(owner, "user." + "n" * 251, b"x")
    with fails(errno.E2BIG):
        os.setxattr(owner, "user.a", b"x" * 65537)


def test_a_namespace_that_is_none_is_eopnotsupp(owner: Path) -> None:
    with fails(errno.EOPNOTSUPP):
        os.setxattr(owner, "none.a", b"x")
    with fails(errno.EOPNOTSUPP):
        os.getxattr(owner, "none.a")
    with fails(errno.EOPNOTSUPP):
        os.removexattr(owner, "none.a")


def test_a_name_without_a_name_is_einval(owner: Path) -> None:
    with fails(errno.EINVAL):
        os.setxattr(owner, "user.", b"x")


def test_links_and_fifos_have_no_attributes_of_users(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    for name in ("link", "fifo"):
        with fails(errno.EPERM):
            os.setxattr(folder / name, "user.a", b"x", follow_symlinks=False)
        assert os.listxattr(folder / name, follow_symlinks=False) == []


def test_a_buffer_that_is_too_small_is_erange(owner: Path) -> None:
    os.setxattr(owner, "user.a", b"12345")
    with fails(errno.ERANGE):
        checked(libc.getxattr(os.fsencode(owner), b"user.a", b"\0" * 3, 3))
    with fails(errno.ERANGE):
        checked(libc.listxattr(os.fsencode(owner), b"\0" * 3, 3))
    assert checked(libc.getxattr(os.fsencode(owner), b"user.a", None, 0)) == 5


def test_attributes_follow_a_rename_and_are_shared_by_links(folder: Path) -> None:
    path = touch(folder / "a")
    os.setxattr(path, "user.a", b"x")
    os.link(path, folder / "b")
    os.setxattr(folder / "b", "user.b", b"y")
    path.rename(folder / "c")
    assert sorted(os.listxattr(folder / "c")) == ["user.a", "user.b"]
