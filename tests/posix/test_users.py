"""Ordinary users: what modes, sticky directories, set-id bits and access lists allow them. Run by root only."""

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.calls import NOBODY, as_user, fails, mode_of, touch

OTHER = 12345
READ = os.O_RDONLY
WRITE = os.O_WRONLY
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
USER_OBJ, USER, GROUP_OBJ, MASK, OTHERS = 1, 2, 4, 16, 32
NONE = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def plain(user: int, group: int, others: int) -> tuple[tuple[int, int, int], ...]:
    return (USER_OBJ, user, NONE), (GROUP_OBJ, group, NONE), (OTHERS, others, NONE)


@pytest.fixture
def opened(folder: Path) -> Path:
    """A folder that everybody may write in."""
    folder.chmod(0o777)
    return folder


def opens(name: str, flags: int = READ) -> Callable[[], None]:
    return lambda: os.close(os.open(name, flags))


def test_modes_are_for_owner_group_and_others(opened: Path) -> None:
    path = touch(opened / "f", b"x", 0o640)
    os.chown(path, OTHER, NOBODY)
    as_user(opened, opens("f"))
    with fails(errno.EACCES):
        as_user(opened, opens("f", WRITE))
    as_user(opened, opens("f", WRITE), user=OTHER, group=1)
    with fails(errno.EACCES):
        as_user(opened, opens("f"), user=1, group=1)
    as_user(opened, opens("f"), user=1, group=1, also=[NOBODY])


def test_the_owner_is_refused_what_only_others_may(opened: Path) -> None:
    path = touch(opened / "f", b"x", 0o044)
    os.chown(path, NOBODY, NOBODY)
    with fails(errno.EACCES):
        as_user(opened, opens("f"))


def test_a_directory_without_search_permission_hides_what_is_in_it(opened: Path) -> None:
    (opened / "d").mkdir()
    touch(opened / "d" / "f")
    (opened / "d").chmod(0o744)
    assert as_user(opened, lambda: os.listdir("d")) == ["f"]
    for call in (lambda: os.stat("d/f"), opens("d/f"), lambda: os.stat("d/no")):
        with fails(errno.EACCES):
            as_user(opened, call)
    (opened / "d").chmod(0o711)
    as_user(opened, lambda: os.stat("d/f"))
    with fails(errno.EACCES):
        as_user(opened, lambda: os.listdir("d"))


def test_a_directory_without_write_permission_keeps_its_names(opened: Path) -> None:
    touch(opened / "f", mode=0o666)
    (opened / "d").mkdir()
    opened.chmod(0o755)
    calls: list[Callable[[], object]] = [
        lambda: os.unlink("f"),
        lambda: os.rmdir("d"),
        lambda: os.rename("f", "g"),
        lambda: os.mkdir("new"),
        lambda: os.symlink("x", "new"),
        lambda: os.mkfifo("new"),
        opens("new", os.O_CREAT | WRITE),
    ]
    for call in calls:
        with fails(errno.EACCES):
            as_user(opened, call)
    as_user(opened, opens("f", WRITE))


def test_attributes_belong_to_the_owner(opened: Path) -> None:
    touch(opened / "f", mode=0o666)
    calls: list[tuple[int, Callable[[], object]]] = [
        (errno.EPERM, lambda: os.chmod("f", 0o600)),
        (errno.EPERM, lambda: os.chown("f", NOBODY, NOBODY)),
        (errno.EPERM, lambda: os.utime("f", ns=(1, 2))),
        (errno.EPERM, lambda: os.setxattr("f", ACCESS, acl(*plain(7, 7, 7)))),
    ]
    for number, call in calls:
        with fails(number):
            as_user(opened, call)
    as_user(opened, lambda: os.utime("f"))
    as_user(opened, lambda: os.setxattr("f", "user.x", b"x"))
    (opened / "f").chmod(0o644)
    for call in (lambda: os.utime("f"), lambda: os.setxattr("f", "user.x", b"x")):
        with fails(errno.EACCES):
            as_user(opened, call)


def test_an_owner_gives_a_file_to_a_group_of_his_only(opened: Path) -> None:
    os.chown(touch(opened / "f"), NOBODY, NOBODY)
    as_user(opened, lambda: os.chown("f", -1, OTHER), also=[OTHER])
    assert (opened / "f").stat().st_gid == OTHER
    with fails(errno.EPERM):
        as_user(opened, lambda: os.chown("f", -1, 1))
    with fails(errno.EPERM):
        as_user(opened, lambda: os.chown("f", OTHER, -1))


def test_in_a_sticky_directory_each_removes_and_moves_his_own_only(opened: Path) -> None:
    opened.chmod(0o1777)
    touch(opened / "roots", mode=0o666)
    os.chown(touch(opened / "his"), NOBODY, NOBODY)
    for call in (lambda: os.unlink("roots"), lambda: os.rename("roots", "x"), lambda: os.rename("his", "roots")):
        with fails(errno.EPERM):
            as_user(opened, call)
    as_user(opened, lambda: os.rename("his", "still his"))
    as_user(opened, lambda: os.unlink("still his"))


def test_a_new_file_belongs_to_who_made_it(opened: Path) -> None:
    as_user(opened, opens("f", os.O_CREAT | WRITE), user=OTHER, group=NOBODY)
    as_user(opened, lambda: os.mkdir("d"), user=OTHER, group=NOBODY)
    for name in ("f", "d"):
        assert ((opened / name).stat().st_uid, (opened / name).stat().st_gid) == (OTHER, NOBODY)


def test_in_a_setgid_directory_the_group_is_inherited_and_the_bit_by_directories(opened: Path) -> None:
    os.chown(opened, 0, OTHER)
    opened.chmod(0o2777)
    as_user(opened, opens("f", os.O_CREAT | WRITE))
    as_user(opened, lambda: os.mkdir("d", 0o755))
    assert ((opened / "f").stat().st_gid, mode_of(opened / "f") & stat.S_ISGID) == (OTHER, 0)
    assert ((opened / "d").stat().st_gid, mode_of(opened / "d")) == (OTHER, 0o2755)


def test_a_stranger_makes_no_setgid_program_in_a_setgid_directory(opened: Path) -> None:
    os.chown(opened, 0, OTHER)
    opened.chmod(0o2777)
    as_user(opened, lambda: os.close(os.open("f", os.O_CREAT | WRITE, 0o2755)))
    assert mode_of(opened / "f") == 0o755


LOSES: dict[str, Callable[[], object]] = {
    "write": lambda: os.pwrite(os.open("f", WRITE), b"y", 0),
    "append": lambda: os.write(os.open("f", WRITE | os.O_APPEND), b"y"),
    "truncate": lambda: os.truncate("f", 1),
    "O_TRUNC": lambda: os.close(os.open("f", WRITE | os.O_TRUNC)),
}


@pytest.mark.parametrize("how", LOSES)
def test_a_strangers_change_takes_the_set_id_bits_away(opened: Path, how: str) -> None:
    path = touch(opened / "f", b"xxx", 0o6777)
    as_user(opened, LOSES[how])
    assert mode_of(path) == 0o777


@pytest.mark.parametrize("how", LOSES)
def test_a_setgid_bit_without_group_execution_stays_when_one_of_the_group_writes(opened: Path, how: str) -> None:
    path = touch(opened / "f", b"xxx", 0o2766)
    as_user(opened, LOSES[how], also=[0])
    assert mode_of(path) == 0o2766


@pytest.mark.parametrize(("how", "left"), [("write", 0o2766), ("truncate", 0o2766), ("O_TRUNC", 0o766)])
def test_in_the_mount_it_stays_also_when_a_stranger_does_but_for_o_trunc(
    mount_folder: Path, how: str, left: int
) -> None:
    path = touch(mount_folder / "f", b"xxx", 0o2766)
    as_user(mount_folder, LOSES[how])
    assert mode_of(path) == left


def test_roots_write_leaves_the_set_id_bits(opened: Path) -> None:
    path = touch(opened / "f", b"xxx", 0o6777)
    with path.open("r+b") as file:
        file.write(b"y")
    assert mode_of(path) == 0o6777


def test_a_change_of_owner_takes_the_set_id_bits_of_files_away(opened: Path) -> None:
    path = touch(opened / "f", b"xxx", 0o6777)
    os.chown(path, NOBODY, NOBODY)
    assert mode_of(path) == 0o777
    path.chmod(0o6777)
    as_user(opened, lambda: os.chown("f", -1, OTHER), also=[OTHER])
    assert mode_of(path) == 0o777
    (opened / "d").mkdir()
    (opened / "d").chmod(0o6777)
    os.chown(opened / "d", NOBODY, NOBODY)
    assert mode_of(opened / "d") == 0o6777


def test_an_owner_outside_the_group_can_not_set_the_setgid_bit(opened: Path) -> None:
    os.chown(touch(opened / "f"), NOBODY, OTHER)
    as_user(opened, lambda: os.chmod("f", 0o2755))
    assert mode_of(opened / "f") == 0o755
    as_user(opened, lambda: os.chmod("f", 0o2755), also=[OTHER])
    assert mode_of(opened / "f") == 0o2755


def test_access_asks_for_the_real_user(opened: Path) -> None:
    touch(opened / "f", mode=0o600)
    assert as_user(opened, lambda: (os.access("f", os.F_OK), os.access("f", os.R_OK))) == (True, False)


def test_a_program_needs_its_execution_bit_even_for_root(opened: Path) -> None:
    touch(opened / "f", b"#!/bin/sh\n", 0o644)
    with fails(errno.EACCES):
        os.execv(opened / "f", ["f"])


# access lists


def test_an_access_list_allows_one_user_more(opened: Path) -> None:
    path = touch(opened / "f", b"x", 0o600)
    os.setxattr(
        path,
        ACCESS,
        acl((USER_OBJ, 6, NONE), (USER, 4, NOBODY), (GROUP_OBJ, 0, NONE), (MASK, 4, NONE), (OTHERS, 0, NONE)),
    )
    as_user(opened, opens("f"))
    with fails(errno.EACCES):
        as_user(opened, opens("f", WRITE))
    with fails(errno.EACCES):
        as_user(opened, opens("f"), user=OTHER, group=OTHER)
    assert mode_of(path) == 0o640
    path.chmod(0o600)  # the mask
    with fails(errno.EACCES):
        as_user(opened, opens("f"))


def test_a_list_that_says_what_the_mode_says_is_the_mode(opened: Path) -> None:
    path = touch(opened / "f", mode=0o600)
    os.setxattr(path, ACCESS, acl(*plain(7, 5, 4)))
    assert mode_of(path) == 0o754 and os.listxattr(path) == []
    with fails(errno.ENODATA):
        os.getxattr(path, ACCESS)


def test_a_default_list_is_inherited_and_the_umask_is_not_asked(opened: Path) -> None:
    default = acl((USER_OBJ, 7, NONE), (USER, 6, NOBODY), (GROUP_OBJ, 6, NONE), (MASK, 7, NONE), (OTHERS, 6, NONE))
    os.setxattr(opened, DEFAULT, default)
    os.umask(0o077)
    os.close(os.open(opened / "f", os.O_CREAT | WRITE, 0o666))
    (opened / "d").mkdir()
    assert mode_of(opened / "f") == 0o666 and mode_of(opened / "d") == 0o776
    assert os.getxattr(opened / "d", DEFAULT) == default
    as_user(opened, opens("f", os.O_RDWR))
    with fails(errno.ENODATA):
        os.getxattr(opened / "f", DEFAULT)


def test_a_default_list_is_for_directories_and_a_broken_one_is_einval(opened: Path) -> None:
    path = touch(opened / "f")
    with fails(errno.EACCES):
        os.setxattr(path, DEFAULT, acl(*plain(7, 7, 7)))
    for broken in (b"\2\0\0\0\1", acl((USER_OBJ, 7, NONE)), acl(*plain(7, 7, 7), (USER, 7, 5))):
        with fails(errno.EINVAL):
            os.setxattr(path, ACCESS, broken)


def test_a_list_that_is_not_there_can_be_removed(opened: Path) -> None:
    os.removexattr(opened, DEFAULT)
    os.removexattr(opened, ACCESS)


def test_an_owner_outside_the_group_loses_the_setgid_bit_by_an_access_list(opened: Path) -> None:
    path = touch(opened / "f")
    os.chown(path, NOBODY, OTHER)
    path.chmod(0o2755)
    as_user(opened, lambda: os.setxattr("f", ACCESS, acl(*plain(7, 5, 5))))
    assert mode_of(path) == 0o755
    path.chmod(0o2755)
    as_user(opened, lambda: os.setxattr("f", ACCESS, acl(*plain(7, 5, 5))), also=[OTHER])
    assert mode_of(path) == 0o2755


def test_capabilities_of_a_file_are_gone_once_it_is_written(opened: Path) -> None:
    path = touch(opened / "f", b"x", 0o777)
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    changes: list[Callable[[], object]] = [
        lambda: path.write_bytes(b"y"),
        lambda: os.truncate(path, 0),
        lambda: os.chown(path, NOBODY, NOBODY),
    ]
    for change in changes:
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        change()
        with fails(errno.ENODATA):
            os.getxattr(path, "security.capability")
