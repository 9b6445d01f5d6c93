"""rename: what it replaces, what it refuses, and the flags of renameat2."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import EXCHANGE, NOREPLACE, fails, renameat2, touch


def test_a_rename_replaces_what_is_there(folder: Path) -> None:
    touch(folder / "a", b"new")
    touch(folder / "b", b"old")
    ino = (folder / "a").stat().st_ino
    os.rename(folder / "a", folder / "b")
    assert os.listdir(folder) == ["b"] and (folder / "b").read_bytes() == b"new" and (folder / "b").stat().st_ino == ino


def test_what_a_rename_replaced_can_still_be_read_by_who_has_it_open(folder: Path) -> None:
    touch(folder / "a", b"new")
    with touch(folder / "b", b"old").open("rb") as file:
        os.rename(folder / "a", folder / "b")
        assert file.read() == b"old" and os.fstat(file.fileno()).st_nlink == 0


def test_a_rename_moves_a_directory_with_all_that_is_in_it(folder: Path) -> None:
    (folder / "a" / "deep").mkdir(parents=True)
    touch(folder / "a" / "deep" / "file", b"x")
    (folder / "to").mkdir()
    os.rename(folder / "a", folder / "to" / "b")
    assert (folder / "to" / "b" / "deep" / "file").read_bytes() == b"x" and os.listdir(folder) == ["to"]


def test_a_directory_replaces_an_empty_one_only(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b" / "full").mkdir(parents=True)
    with fails(errno.ENOTEMPTY):
        os.rename(folder / "a", folder / "b")
    (folder / "b" / "full").rmdir()
    os.rename(folder / "a", folder / "b")
    assert os.listdir(folder) == ["b"]


def test_a_file_does_not_replace_a_directory_nor_a_directory_a_file(folder: Path) -> None:
    (folder / "dir").mkdir()
    touch(folder / "file")
    with fails(errno.EISDIR):
        os.rename(folder / "file", folder / "dir")
    with fails(errno.ENOTDIR):
        os.rename(folder / "dir", folder / "file")


def test_a_directory_is_not_moved_into_itself(folder: Path) -> None:
    (folder / "a" / "b" / "c").mkdir(parents=True)
    for into in (folder / "a" / "x", folder / "a" / "b" / "c" / "x"):
        with fails(errno.EINVAL):
            os.rename(folder / "a", into)
    with fails(errno.ENOTEMPTY):
        os.rename(folder / "a" / "b", folder / "a")


def test_two_names_of_a_file_are_both_there_after_a_rename_of_one_to_the_other(folder: Path) -> None:
    os.link(touch(folder / "a"), folder / "b")
    os.rename(folder / "a", folder / "b")
    assert sorted(os.listdir(folder)) == ["a", "b"]
    os.rename(folder / "a", folder / "a")


def test_dot_and_dot_dot_can_not_be_renamed(folder: Path) -> None:
    (folder / "d").mkdir()
    for name in (".", ".."):
        with fails(errno.EBUSY):
            os.rename(os.fspath(folder / "d") + f"/{name}", folder / "x")


def test_a_rename_to_another_file_system_is_exdev(mount_folder: Path, tmp_path: Path) -> None:
    touch(mount_folder / "a")
    touch(tmp_path / "b")
    for call in (os.rename, os.link):
        with fails(errno.EXDEV):
            call(mount_folder / "a", tmp_path / "x")
        with fails(errno.EXDEV):
            call(tmp_path / "b", mount_folder / "x")


def test_noreplace_replaces_nothing(folder: Path) -> None:
    touch(folder / "a", b"a")
    touch(folder / "b", b"b")
    with fails(errno.EEXIST):
        renameat2(folder / "a", folder / "b", NOREPLACE)
    assert (folder / "b").read_bytes() == b"b"
    renameat2(folder / "a", folder / "c", NOREPLACE)
    assert sorted(os.listdir(folder)) == ["b", "c"]


def test_exchange_swaps_two_of_any_kind(folder: Path) -> None:
    touch(folder / "file", b"file")
    (folder / "sub" / "dir").mkdir(parents=True)
    touch(folder / "sub" / "dir" / "below")
    renameat2(folder / "file", folder / "sub" / "dir", EXCHANGE)
    assert (folder / "sub" / "dir").read_bytes() == b"file" and os.listdir(folder / "file") == ["below"]
    assert os.stat(folder / "file" / "..").st_ino == folder.stat().st_ino


def test_exchange_needs_both(folder: Path) -> None:
    touch(folder / "a")
    with fails(errno.ENOENT):
        renameat2(folder / "a", folder / "b", EXCHANGE)
    (folder / "d" / "e").mkdir(parents=True)
    for pair in ((folder / "d", folder / "d" / "e"), (folder / "d" / "e", folder / "d")):
        with fails(errno.EINVAL):
            renameat2(*pair, EXCHANGE)


def test_flags_that_contradict_each_other_or_are_unknown_are_einval(folder: Path) -> None:
    touch(folder / "a")
    touch(folder / "b")
    for flags in (NOREPLACE | EXCHANGE, 1 << 10):
        with fails(errno.EINVAL):
            renameat2(folder / "a", folder / "b", flags)


@pytest.mark.parametrize("how", ["rename", "exchange"])
def test_a_rename_moves_the_ctime_of_what_it_moves_and_both_directories_mtimes(folder: Path, how: str) -> None:
    (folder / "x").mkdir()
    (folder / "y").mkdir()
    touch(folder / "x" / "a")
    touch(folder / "y" / "b")
    before = {path: path.stat() for path in (folder / "x", folder / "y")}
    moved = (folder / "x" / "a").stat()
    renameat2(folder / "x" / "a", folder / "y" / "b", EXCHANGE if how == "exchange" else 0)
    assert (folder / "y" / "b").stat().st_ctime_ns > moved.st_ctime_ns
    assert (folder / "y" / "b").stat().st_mtime_ns == moved.st_mtime_ns
    for path, old in before.items():
        assert path.stat().st_mtime_ns > old.st_mtime_ns and path.stat().st_ctime_ns > old.st_ctime_ns
