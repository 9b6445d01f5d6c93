"""flock and fcntl locks between processes."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from tests.posix.calls import Waiting, fails, in_child, touch

NOW = fcntl.LOCK_NB
F_OFD_SETLK = 37


def lock_ofd(descriptor: int, kind: int) -> None:
    fcntl.fcntl(descriptor, F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))


def held(file: Path, lock: object, kind: int) -> Waiting:
    """A process that holds a lock."""

    def take() -> int:
        descriptor = os.open(file, os.O_RDWR)
        lock(descriptor, kind)  # type: ignore[operator]
        return descriptor

    return Waiting(take)


@pytest.fixture
def file(folder: Path) -> Path:
    return touch(folder / "f", b"x" * 100)


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "fcntl"])
def test_an_exclusive_lock_shuts_others_out_until_it_is_given_back(file: Path, lock: object) -> None:
    holder = held(file, lock, fcntl.LOCK_EX)
    with file.open("r+b") as opened:
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
            with fails(errno.EAGAIN):
                lock(opened, kind | NOW)  # type: ignore[operator]
        holder.end()
        lock(opened, fcntl.LOCK_EX | NOW)  # type: ignore[operator]


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "fcntl"])
def test_shared_locks_go_together(file: Path, lock: object) -> None:
    holder = held(file, lock, fcntl.LOCK_SH)
    with file.open("r+b") as opened:
        lock(opened, fcntl.LOCK_SH | NOW)  # type: ignore[operator]
        with fails(errno.EAGAIN):
            lock(opened, fcntl.LOCK_EX | NOW)  # type: ignore[operator]
    holder.end()


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf], ids=["flock", "fcntl"])
def test_a_lock_goes_with_the_process_that_held_it(file: Path, lock: object) -> None:
    holder = held(file, lock, fcntl.LOCK_EX)
    holder.kill()
    with file.open("r+b") as opened:
        lock(opened, fcntl.LOCK_EX | NOW)  # type: ignore[operator]


def test_locks_of_ranges_shut_out_what_they_touch_only(file: Path) -> None:
    holder = held(file, lambda descriptor, kind: fcntl.lockf(descriptor, kind, 10, 20), fcntl.LOCK_EX)
    with file.open("r+b") as opened:
        fcntl.lockf(opened, fcntl.LOCK_EX | NOW, 20, 0)
        fcntl.lockf(opened, fcntl.LOCK_EX | NOW, 0, 30)
        with fails(errno.EAGAIN):
            fcntl.lockf(opened, fcntl.LOCK_EX | NOW, 1, 29)
    holder.end()


def test_flock_and_fcntl_do_not_see_each_other(file: Path) -> None:
    holder = held(file, fcntl.flock, fcntl.LOCK_EX)
    with file.open("r+b") as opened:
        fcntl.lockf(opened, fcntl.LOCK_EX | NOW)
    holder.end()


def test_closing_any_descriptor_gives_fcntl_locks_back_but_not_those_of_open_files(file: Path) -> None:
    def taken() -> bool:
        descriptor = os.open(file, os.O_RDWR)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | NOW)
        except BlockingIOError:
            return True
        return False

    with file.open("r+b") as opened:
        fcntl.lockf(opened, fcntl.LOCK_EX)
        assert in_child(taken)
        os.close(os.open(file, os.O_RDONLY))
        assert not in_child(taken)
        lock_ofd(opened.fileno(), fcntl.F_WRLCK)
        os.close(os.open(file, os.O_RDONLY))
        assert in_child(taken)


def test_a_lock_follows_its_file_through_a_rename(file: Path) -> None:
    holder = held(file, fcntl.flock, fcntl.LOCK_EX)
    moved = file.rename(file.with_name("moved"))
    touch(file)
    with moved.open() as opened, file.open() as other:
        with fails(errno.EAGAIN):
            fcntl.flock(opened, fcntl.LOCK_EX | NOW)
        fcntl.flock(other, fcntl.LOCK_EX | NOW)
    holder.end()


def test_a_lock_is_got_by_who_waits_for_it(file: Path) -> None:
    holder = held(file, fcntl.flock, fcntl.LOCK_EX)
    waits, says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            descriptor = os.open(file, os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(says, b"got it")
        finally:
            os._exit(0)
    os.close(says)
    holder.end()
    assert os.read(waits, 10) == b"got it"
    os.close(waits)
    os.waitpid(child, 0)


def test_a_lock_for_writing_needs_a_descriptor_for_writing(file: Path) -> None:
    with file.open("rb") as opened, fails(errno.EBADF):
        fcntl.lockf(opened, fcntl.LOCK_EX)
