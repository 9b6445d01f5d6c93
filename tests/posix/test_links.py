"""Hard links."""

import errno
import os
from pathlib import Path

from tests.posix.calls import fails, link_of_open, touch


def test_two_names_are_one_file(folder: Path) -> None:
    os.link(touch(folder / "a", b"before"), folder / "b")
    (folder / "b").write_bytes(b"after")
    a, b = (folder / "a").stat(), (folder / "b").stat()
    assert (folder / "a").read_bytes() == b"after" and a == b and a.st_nlink == 2
    (folder / "a").unlink()
    assert (folder / "b").stat().st_nlink == 1 and (folder / "b").read_bytes() == b"after"


def test_a_link_moves_the_ctime_of_its_file_and_so_does_its_end(folder: Path) -> None:
    first = touch(folder / "a").stat()
    os.link(folder / "a", folder / "b")
    second = (folder / "a").stat()
    os.unlink(folder / "b")
    third = (folder / "a").stat()
    assert first.st_ctime_ns < second.st_ctime_ns < third.st_ctime_ns and first.st_mtime_ns == third.st_mtime_ns


def test_links_cross_directories_and_survive_them(folder: Path) -> None:
    (folder / "x" / "y").mkdir(parents=True)
    os.link(touch(folder / "x" / "y" / "a", b"kept"), folder / "b")
    (folder / "x" / "y" / "a").unlink()
    (folder / "x" / "y").rmdir()
    assert (folder / "b").read_bytes() == b"kept"


def test_a_directory_can_not_be_linked(folder: Path) -> None:
    (folder / "d").mkdir()
    with fails(errno.EPERM):
        os.link(folder / "d", folder / "e")


def test_links_of_symbolic_links_and_fifos_are_links_of_them(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    for name in ("link", "fifo"):
        os.link(folder / name, folder / f"{name}2", follow_symlinks=False)
        assert os.lstat(folder / f"{name}2").st_ino == os.lstat(folder / name).st_ino
        assert os.lstat(folder / name).st_nlink == 2


def test_a_file_without_a_name_can_not_be_given_one(folder: Path) -> None:
    with touch(folder / "a").open("rb") as file:
        (folder / "a").unlink()
        with fails(errno.ENOENT):
            link_of_open(file.fileno(), folder / "b")


def test_an_open_file_gets_a_second_name_through_its_descriptor(folder: Path) -> None:
    with touch(folder / "a", b"x").open("rb") as file:
        link_of_open(file.fileno(), folder / "b")
    assert (folder / "b").stat().st_nlink == 2
