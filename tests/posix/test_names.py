"""Names: how long, of which bytes, and what a path that leads nowhere answers."""

import errno
import os
from pathlib import Path

import pytest

from tests.posix.calls import fails, touch


def test_a_name_of_255_bytes_is_taken_and_one_of_256_is_refused(folder: Path) -> None:
    touch(folder / ("n" * 255))
    assert os.listdir(folder) == ["n" * 255]
    makers = [
        lambda: touch(folder / ("n" * 256)),
        lambda: os.mkdir(folder / ("n" * 256)),
        lambda: os.mkfifo(folder / ("n" * 256)),
        lambda: os.symlink("x", folder / ("n" * 256)),
        lambda: os.link(folder / ("n" * 255), folder / ("n" * 256)),
        lambda: os.rename(folder / ("n" * 255), folder / ("n" * 256)),
        lambda: os.stat(folder / ("n" * 256)),
        lambda: os.unlink(folder / ("n" * 256)),
        lambda: os.rmdir(folder / ("n" * 256)),
    ]
    for make in makers:
        with fails(errno.ENAMETOOLONG):
            make()


def test_the_longest_name_counts_bytes_not_letters(folder: Path) -> None:
    touch(folder / ("é" * 127))
    with fails(errno.ENAMETOOLONG):
        touch(folder / ("é" * 128))


def test_a_path_of_4096_bytes_is_too_long(folder: Path) -> None:
    with fails(errno.ENAMETOOLONG):
        os.stat(os.fsencode(folder) + b"/." * 2048)


def test_names_are_any_bytes_but_the_slash(folder: Path) -> None:
    names = [b"caf\xe9", b"\xff\xfe", b"new\nline", b"back\\slash", b" ", b"...", bytes(range(1, 47)), b"-rf", b"*"]
    for name in names:
        os.close(os.open(os.fsencode(folder) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir(os.fsencode(folder))) == sorted(names)


def test_names_that_differ_in_case_or_unicode_form_are_different(folder: Path) -> None:
    for name in ("a", "A", "\u00e9", "e\u0301"):
        touch(folder / name)
    assert len(os.listdir(folder)) == 4


def test_what_is_not_there_is_enoent(folder: Path) -> None:
    calls = [
        lambda: os.stat(folder / "no"),
        lambda: os.open(folder / "no", os.O_RDONLY),
        lambda: os.unlink(folder / "no"),
        lambda: os.rmdir(folder / "no"),
        lambda: os.rename(folder / "no", folder / "yes"),
        lambda: os.link(folder / "no", folder / "yes"),
        lambda: os.chmod(folder / "no", 0),
        lambda: os.utime(folder / "no"),
        lambda: os.truncate(folder / "no", 0),
        lambda: os.readlink(folder / "no"),
        lambda: os.listdir(folder / "no"),
        lambda: os.mkdir(folder / "no" / "below"),
        lambda: os.getxattr(folder / "no", "user.x"),
        lambda: os.stat(""),
    ]
    for call in calls:
        with fails(errno.ENOENT):
            call()


def test_a_file_in_the_middle_of_a_path_is_enotdir(folder: Path) -> None:
    file = touch(folder / "file")
    calls = [
        lambda: os.stat(file / "x"),
        lambda: os.open(file / "x", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(file / "x"),
        lambda: os.unlink(file / "x"),
        lambda: os.rename(file / "x", folder / "y"),
        lambda: os.rename(file, file / "x"),
        lambda: os.link(file, file / "x"),
        lambda: os.symlink("t", file / "x"),
        lambda: os.rmdir(file),
        lambda: os.listdir(file),
        lambda: os.chdir(file),
        lambda: os.stat(os.fspath(file) + "/"),
    ]
    for call in calls:
        with fails(errno.ENOTDIR):
            call()


def test_making_what_is_there_is_eexist(folder: Path) -> None:
    for there in (touch(folder / "file"), folder / "dir", folder / "link", folder / "fifo"):
        if there.name == "dir":
            there.mkdir()
        elif there.name == "link":
            there.symlink_to("nowhere")
        elif there.name == "fifo":
            os.mkfifo(there)
        calls = [
            lambda there=there: os.mkdir(there),
            lambda there=there: os.mkfifo(there),
            lambda there=there: os.symlink("x", there),
            lambda there=there: os.link(folder / "file", there),
            lambda there=there: os.open(there, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
            lambda there=there: os.mknod(there),
        ]
        for call in calls:
            with fails(errno.EEXIST):
                call()


def test_a_loop_of_links_is_eloop(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    for call in (
        os.stat,
        os.listdir,
        lambda path: os.open(path, os.O_CREAT | os.O_WRONLY),
        lambda path: os.stat(path / "x"),
    ):
        with fails(errno.ELOOP):
            call(folder / "a")


def test_41_links_in_a_row_are_eloop_and_40_are_not(folder: Path) -> None:
    touch(folder / "0")
    for number in range(1, 42):
        (folder / f"{number}").symlink_to(f"{number - 1}")
    os.stat(folder / "40")
    with fails(errno.ELOOP):
        os.stat(folder / "41")


def test_a_trailing_slash_makes_directories_only(folder: Path) -> None:
    os.mkdir(os.fspath(folder / "made") + "/")
    with fails(errno.EISDIR):
        os.open(os.fspath(folder / "file") + "/", os.O_CREAT | os.O_WRONLY)
    with fails(errno.ENOENT):
        os.symlink("x", os.fspath(folder / "link") + "/")


@pytest.mark.parametrize("length", [1, 59, 60, 4095])
def test_the_target_of_a_link_comes_back_whatever_its_length(folder: Path, length: int) -> None:
    os.symlink("t" * length, folder / "link")
    assert os.readlink(folder / "link") == "t" * length
    assert os.lstat(folder / "link").st_size == length


def test_the_target_of_a_link_is_neither_empty_nor_4096_bytes(folder: Path) -> None:
    with fails(errno.ENOENT):
        os.symlink("", folder / "link")
    with fails(errno.ENAMETOOLONG):
        os.symlink("t" * 4096, folder / "link")


def test_readlink_of_what_is_no_link_is_einval(folder: Path) -> None:
    with fails(errno.EINVAL):
        os.readlink(touch(folder / "file"))
    with fails(errno.EINVAL):
        os.readlink(folder)
