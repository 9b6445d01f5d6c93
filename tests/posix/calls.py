"""System calls that Python does not have, and ways to say what a call answers."""

import ctypes
import errno
import os
import pickle
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

T = TypeVar("T")

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW = 0x100, 0x400
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
NOBODY = 65534
SYS_GETDENTS64 = 217 if os.uname().machine == "x86_64" else 61
SYS_FCHMODAT2 = 452

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


@contextmanager
def fails(number: int) -> Iterator[None]:
    """What is done within must be refused with this errno."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno is not None
    assert errno.errorcode[caught.value.errno] == errno.errorcode[number]


def checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def renameat2(old: Path, new: Path, flags: int) -> None:
    checked(libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int]) -> None:
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    checked(libc.utimensat(AT_FDCWD, os.fsencode(path), times, 0))


class Listed(NamedTuple):
    name: bytes
    number: int
    """Where the listing goes on after it: what `seekdir` takes."""
    ino: int
    kind: int


def getdents(descriptor: int, room: int) -> list[Listed]:
    """The next entries of an open directory, as many as have room in so many bytes; none at the end."""
    buffer = ctypes.create_string_buffer(room)
    length = checked(libc.syscall(SYS_GETDENTS64, descriptor, buffer, room))
    found, at = [], 0
    while at < length:
        ino, number, size, kind = struct.unpack_from("<QqHB", buffer, at)
        name = buffer.raw[at + 19 : at + size].split(b"\0", 1)[0]
        found.append(Listed(name, number, ino, kind))
        at += size
    return found


def list_all(descriptor: int, room: int = 4096) -> list[Listed]:
    """The rest of an open directory, without . and .."""
    found: list[Listed] = []
    while some := getdents(descriptor, room):
        found += [each for each in some if each.name not in (b".", b"..")]
    return found


def link_of_open(descriptor: int, path: Path) -> None:
    source = f"/proc/self/fd/{descriptor}".encode()
    checked(libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(path), AT_SYMLINK_FOLLOW))


def fchmod_of_link(path: Path, mode: int) -> None:
    checked(libc.syscall(SYS_FCHMODAT2, AT_FDCWD, os.fsencode(path), mode, AT_SYMLINK_NOFOLLOW))


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    checked(libc.fallocate(descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def statx_mask(path: Path) -> int:
    """Which fields statx knows."""
    buffer = ctypes.create_string_buffer(256)
    checked(libc.statx(AT_FDCWD, os.fsencode(path), 0, 0xFFF, buffer))
    return int(struct.unpack_from("<I", buffer)[0])


def in_child(call: Callable[[], T]) -> T:
    """Do something in a process of its own, which has nothing but this one's descriptors; its OSError is ours."""
    answer, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(answer)
            os.write(say, pickle.dumps(_outcome(call)))
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(answer, "rb") as answers:
        said = answers.read()
    os.waitpid(child, 0)
    result, problem = pickle.loads(said)
    if problem is not None:
        raise problem
    return result  # type: ignore[no-any-return]


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except OSError as error:
        return None, OSError(error.errno, error.strerror)
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        return None, AssertionError(f"{type(error).__name__}: {error}")


def as_user(
    folder: Path, call: Callable[[], T], *, user: int = NOBODY, group: int = NOBODY, also: Sequence[int] = ()
) -> T:
    """Do something as an ordinary user, in a folder that is entered before: what lies above it is not looked at."""

    def done() -> T:
        os.chdir(folder)
        os.setgroups(list(also))
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        return call()

    return in_child(done)


class Waiting:
    """A process that has done something, and stays until it is told to end."""

    def __init__(self, call: Callable[[], Any]) -> None:
        ready, say = os.pipe()
        stop, self._stop = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._stop)
                os.close(ready)
                kept = call()
                os.write(say, b"done")
                os.read(stop, 1)
                del kept
            finally:
                os._exit(0)
        os.close(say)
        os.close(stop)
        assert os.read(ready, 4) == b"done"
        os.close(ready)

    def end(self) -> None:
        os.write(self._stop, b"!")
        self._wait()

    def kill(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        self._wait()

    def _wait(self) -> None:
        os.close(self._stop)
        os.waitpid(self._child, 0)


def touch(path: Path, content: bytes = b"", mode: int = 0o644) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return os.lstat(path).st_mode & 0o7777
