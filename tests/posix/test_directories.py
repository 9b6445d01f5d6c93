"""Directories: making and removing them, their link counts, and being in one that is no more."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import EXCHANGE, fails, getdents, in_child, renameat2, touch


def links(path: Path) -> int:
    return path.stat().st_nlink


def test_a_directory_with_something_in_it_is_not_removed(folder: Path) -> None:
    (folder / "d").mkdir()
    for number, make in enumerate((touch, os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path))):
        make(folder / "d" / f"{number}")
        with fails(errno.ENOTEMPTY):
            os.rmdir(folder / "d")
        (os.rmdir if number == 1 else os.unlink)(folder / "d" / f"{number}")
    os.rmdir(folder / "d")
    assert os.listdir(folder) == []


def test_rmdir_of_dot_is_einval_and_of_dot_dot_enotempty(folder: Path) -> None:
    (folder / "d" / "e").mkdir(parents=True)
    with fails(errno.EINVAL):
        os.rmdir(os.fspath(folder / "d" / "e") + "/.")
    with fails(errno.ENOTEMPTY):
        os.rmdir(os.fspath(folder / "d" / "e") + "/..")


def test_unlink_of_a_directory_is_eisdir(folder: Path) -> None:
    (folder / "d").mkdir()
    with fails(errno.EISDIR):
        os.unlink(folder / "d")


def test_a_directory_can_not_be_opened_for_writing(folder: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_RDONLY | os.O_TRUNC):
        with fails(errno.EISDIR):
            os.open(folder, flags)
    with fails(errno.EISDIR):
        os.truncate(folder, 0)
    descriptor = os.open(folder, os.O_RDONLY)
    with fails(errno.EISDIR):
        os.read(descriptor, 1)
    os.close(descriptor)


def test_a_directory_has_a_link_from_above_its_own_and_one_from_each_directory_in_it(folder: Path) -> None:
    assert links(folder) == 2
    for number in range(3):
        (folder / f"{number}").mkdir()
        touch(folder / f"file{number}")
        (folder / f"link{number}").symlink_to("0")
        assert (links(folder), links(folder / f"{number}")) == (3 + number, 2)
    (folder / "1").rmdir()
    (folder / "file1").unlink()
    assert links(folder) == 4


def test_link_counts_follow_directories_that_are_moved(folder: Path) -> None:
    a, b = folder / "a", folder / "b"
    (a / "x").mkdir(parents=True)
    b.mkdir()
    assert (links(a), links(b)) == (3, 2)
    (a / "x").rename(b / "x")
    assert (links(a), links(b)) == (2, 3)
    (b / "x").rename(b / "y")
    assert links(b) == 3
    (b / "z").mkdir()
    (b / "z").rename(b / "y")
    assert links(b) == 3, "one was replaced"
    touch(a / "file")
    renameat2(a / "file", b / "y", EXCHANGE)
    assert (links(a), links(b)) == (3, 2)


def test_an_open_directory_that_was_removed_has_no_links_and_nothing_can_be_made_in_it(folder: Path) -> None:
    (folder / "d").mkdir()
    descriptor = os.open(folder / "d", os.O_RDONLY)
    (folder / "d").rmdir()
    assert os.fstat(descriptor).st_nlink == 0
    with fails(errno.ENOENT):
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    with fails(errno.ENOENT):
        os.mkdir("new", dir_fd=descriptor)
    with fails(errno.ENOENT):
        os.rename(touch(folder / "file"), "moved", dst_dir_fd=descriptor)
    with fails(errno.ENOENT):
        getdents(descriptor, 1024)
    os.close(descriptor)


def test_who_stands_in_a_directory_that_was_removed_has_no_cwd(folder: Path) -> None:
    (folder / "d").mkdir()

    def stand() -> list[int]:
        os.chdir(folder / "d")
        os.rmdir(folder / "d")
        numbers = []
        for call in (os.getcwd, lambda: os.stat("../d"), lambda: os.mkdir("x"), lambda: os.open("x", os.O_CREAT)):
            try:
                call()
            except OSError as error:
                numbers.append(error.errno or 0)
        return numbers

    assert in_child(stand) == [errno.ENOENT] * 4


def test_a_cwd_follows_its_directory(folder: Path) -> None:
    (folder / "before").mkdir()

    def stand() -> str:
        os.chdir(folder / "before")
        os.rename(folder / "before", folder / "after")
        touch(Path("here"))
        return os.getcwd()

    assert in_child(stand) == os.fspath(folder / "after")
    assert os.listdir(folder / "after") == ["here"]


def test_dot_dot_follows_a_move(folder: Path) -> None:
    (folder / "a" / "d").mkdir(parents=True)
    (folder / "b").mkdir()
    descriptor = os.open(folder / "a" / "d", os.O_RDONLY)
    os.rename(folder / "a" / "d", folder / "b" / "d")
    assert os.stat("..", dir_fd=descriptor).st_ino == os.stat(folder / "b").st_ino
    os.close(descriptor)


def test_a_directorys_size_is_not_zero_and_whole_blocks(folder: Path) -> None:
    for number in range(100):
        touch(folder / f"{number}")
    assert folder.stat().st_size > 0 and folder.stat().st_size % 512 == 0


def test_a_directory_can_be_fsynced(folder: Path) -> None:
    touch(folder / "file")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.fdatasync(descriptor)
    os.close(descriptor)


def test_directories_may_be_nested_deeper_than_a_path_is_long(folder: Path) -> None:
    name = "d" * 200

    def dig() -> int:
        os.chdir(folder)
        for _ in range(25):
            os.mkdir(name)
            os.chdir(name)
        touch(Path("bottom"))
        for _ in range(25):
            os.chdir("..")
        return os.stat(".").st_ino

    assert in_child(dig) == folder.stat().st_ino
    with fails(errno.ENAMETOOLONG):
        os.stat(folder / "/".join([name] * 25))


@pytest.mark.parametrize("flags", [os.O_DIRECTORY, os.O_DIRECTORY | os.O_NOFOLLOW, os.O_PATH])
def test_o_directory_opens_directories_only(folder: Path, flags: int) -> None:
    (folder / "d").mkdir()
    touch(folder / "file")
    os.close(os.open(folder / "d", flags))
    if flags & os.O_DIRECTORY:
        with fails(errno.ENOTDIR):
            os.open(folder / "file", flags)
