"""The mount against a plain folder: the same random operations on both must give the same answers, the same errors,
the same attributes and the same bytes; with commits, checkouts, new mounts and kills in between.

FUSECAS_TEST_EFFORT=20 makes the search twenty times as long.
"""

import ctypes
import itertools
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fusecas.client import Client
from tests.mount.conftest import Mounted, end

EFFORT = int(os.environ.get("FUSECAS_TEST_EFFORT", "1"))
EXAMPLES, STEPS = 15 * EFFORT, 50
MOST_OPEN = 6
NOREPLACE, EXCHANGE = 1, 2
LONG_AGO = 1_000_000_000 * 10**9
"""Times before this one were set by a test; later ones are the clock's, and differ between the two sides."""
CLOCK = 1_500_000_000 * 10**9

libc = ctypes.CDLL(None, use_errno=True)


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_IN_PARTICULAR = 0xFFFFFFFF
MINIMAL = acl(*((tag, 5, NOBODY_IN_PARTICULAR) for tag in (0x01, 0x04, 0x20)))
NAMED = acl(
    (0x01, 7, NOBODY_IN_PARTICULAR),
    (0x02, 6, 1000),
    (0x04, 4, NOBODY_IN_PARTICULAR),
    (0x10, 6, NOBODY_IN_PARTICULAR),
    (0x20, 1, NOBODY_IN_PARTICULAR),
)

names = st.sampled_from(["a", "b", "c", "d"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([0o777, 0o755, 0o644, 0o600, 0o444, 0o4755, 0o2755, 0o1777, 0o2644])
umasks = st.sampled_from([0o022, 0o077, 0])
times = st.one_of(st.integers(0, 10**9 * 10**9), st.just(LONG_AGO), st.just(1))
offsets = st.one_of(st.integers(0, 20_000), st.sampled_from([0, 1, 4095, 4096, 4097, 8192, 65_536, 140_000]))
lengths = st.sampled_from([1, 10, 511, 4096, 5000, 12_288, 70_000])
letters = st.integers(1, 255)
owners = st.sampled_from([-1, 0, 1000])
xattrs = st.sampled_from(["user.a", "user.b", "system.posix_acl_access", "system.posix_acl_default"])
values = st.sampled_from([b"", b"value", b"x" * 300, MINIMAL, NAMED, b"\2\0\0\0"])
access = st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
more_flags = st.sets(st.sampled_from([os.O_TRUNC, os.O_APPEND, os.O_EXCL, os.O_NOFOLLOW, os.O_DIRECTORY]), max_size=2)


class Failed(NamedTuple):
    error: str


class Seen(NamedTuple):
    """What of an inode must be the same on both sides."""

    mode: int
    owner: tuple[int, int]
    links: int
    size: int
    mtime: int | None
    xattrs: dict[str, bytes]
    content: bytes | str | list[str] | None


class Side:
    """A folder, and what is open in it; each operation may fail with an OSError."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self.open_files: dict[int, int] = {}

    def __truediv__(self, path: str) -> str:
        return f"{self.root}/{path}"

    def open(self, number: int, path: str, flags: int, mode: int, umask: int) -> None:
        before = os.umask(umask)
        try:
            self.open_files[number] = os.open(self / path, flags, mode)
        finally:
            os.umask(before)

    def close(self, number: int) -> None:
        os.close(self.open_files.pop(number))

    def close_all(self) -> None:
        for number in list(self.open_files):
            self.close(number)

    def make(self, make: Callable[[str], None], path: str, umask: int) -> None:
        before = os.umask(umask)
        try:
            make(self / path)
        finally:
            os.umask(before)

    def rename(self, old: str, new: str, flags: int) -> None:
        if libc.renameat2(-100, os.fsencode(self / old), -100, os.fsencode(self / new), flags) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    def look(self, where: str | int) -> Seen:
        """By path (links are not followed) or by descriptor. Bytes come from the file system, not from its cache."""
        is_path = isinstance(where, str)
        found = os.stat(where, follow_symlinks=not is_path)
        is_dir = stat.S_ISDIR(found.st_mode)
        follow = {"follow_symlinks": False} if is_path else {}
        return Seen(
            found.st_mode,
            (found.st_uid, found.st_gid),
            -1 if is_dir else found.st_nlink,
            -1 if is_dir else found.st_size,
            found.st_mtime_ns if found.st_mtime_ns < CLOCK else None,
            {name: os.getxattr(where, name, **follow) for name in sorted(os.listxattr(where, **follow))},
            content(where, found.st_mode),
        )

    def tree(self) -> dict[str, os.stat_result]:
        found = {}
        for above, directories, files in os.walk(self.root):
            for name in (*directories, *files):
                path = os.path.join(above, name)
                found[os.path.relpath(path, self.root)] = os.lstat(path)
        return found


def content(where: str | int, mode: int) -> bytes | str | list[str] | None:
    if stat.S_ISLNK(mode):
        return os.readlink(where)
    if stat.S_ISDIR(mode):
        return sorted(os.listdir(where))
    if not stat.S_ISREG(mode):
        return None
    path = where if isinstance(where, str) else f"/proc/self/fd/{where}"
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return read_all(descriptor)
    finally:
        os.close(descriptor)


def read_all(descriptor: int) -> bytes:
    found = b""
    while part := os.pread(descriptor, 1 << 20, len(found)):
        found += part
    return found


class Grounds:
    """One mount for all examples; after one that failed, when anything may be wrong with it, another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self.mounted = Mounted(self._folder / f"{self._number}")
        self.mounted.folder.mkdir()
        self.mounted.ok("init")
        self.mounted.mount()

    def renew(self) -> None:
        self.end()
        self._number += 1
        self._begin()

    def end(self) -> None:
        end(self.mounted)


class AgainstExt4(RuleBasedStateMachine):
    def __init__(self, grounds: Grounds) -> None:
        super().__init__()
        self.grounds = grounds
        self.mounted = grounds.mounted
        self.side = Side(self.mounted.work / "here")
        self.plain = Side(self.mounted.folder / "plain")
        self.next = 0
        self.interrupted = 0
        self.xattrs_set = False
        self.before: dict[int, tuple[os.stat_result, os.stat_result]] = {}

    def teardown(self) -> None:
        self.side.close_all()
        self.plain.close_all()
        if sys.exc_info()[0] is not None:
            self.grounds.renew()
            return
        self.both(lambda side: shutil.rmtree(side.root))

    def both(self, step: Callable[[Side], Any]) -> Any:
        ours, theirs = attempt(step, self.side), attempt(step, self.plain)
        assert ours == theirs, f"{ours} here, {theirs} on ext4"
        return ours

    def call(self, method: str, **parameters: Any) -> Any:
        with Client(self.mounted.repository) as client:
            return client.call(method, **parameters)

    @initialize()
    def begin(self) -> None:
        self.both(lambda side: os.mkdir(side.root))
        for name in ("a", "b"):
            self.both(lambda side, name=name: os.mkdir(side / name))
        self.both(lambda side: side.open(0, "c", os.O_RDWR | os.O_CREAT, 0o644, 0o022))
        self.next = 1

    # names

    @rule(path=paths, access=access, create=st.booleans(), more=more_flags, mode=modes, umask=umasks)
    def open(self, path: str, access: int, create: bool, more: set[int], mode: int, umask: int) -> None:
        if (create and os.O_DIRECTORY in more) or (os.O_EXCL in more and not create):
            return  # what these mean is not defined
        if len(self.plain.open_files) == MOST_OPEN:
            self.both(lambda side: side.close(min(side.open_files)))
        flags = access | sum(more) | (os.O_CREAT if create else 0) | os.O_NONBLOCK  # a FIFO must not make it wait
        number, self.next = self.next, self.next + 1
        self.both(lambda side: side.open(number, path, flags, mode, umask))

    @rule(path=paths, umask=umasks, mode=modes)
    def mkdir(self, path: str, umask: int, mode: int) -> None:
        self.both(lambda side: side.make(lambda place: os.mkdir(place, mode), path, umask))

    @rule(path=paths, umask=umasks, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG]))
    def mknod(self, path: str, umask: int, kind: int) -> None:
        self.both(lambda side: side.make(lambda place: os.mknod(place, kind | 0o666), path, umask))

    @rule(path=paths, text=st.sampled_from(["a", "b/c", ".", "nowhere", "x" * 4095]))
    def symlink(self, path: str, text: str) -> None:
        self.both(lambda side: os.symlink(text, side / path))

    @rule(old=paths, new=paths, follow=st.booleans())
    def link(self, old: str, new: str, follow: bool) -> None:
        self.both(lambda side: os.link(side / old, side / new, follow_symlinks=follow))

    @rule(old=paths, new=paths, flags=st.sampled_from([0, 0, NOREPLACE, EXCHANGE]))
    def rename(self, old: str, new: str, flags: int) -> None:
        self.both(lambda side: side.rename(old, new, flags))

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.both(lambda side: os.unlink(side / path))

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.both(lambda side: os.rmdir(side / path))

    # attributes

    @rule(path=paths, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda side: os.chmod(side / path, mode))

    @rule(path=paths, uid=owners, gid=owners)
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both(lambda side: os.lchown(side / path, uid, gid))

    @rule(path=paths, mtime=times)
    def utime(self, path: str, mtime: int) -> None:
        self.both(lambda side: os.utime(side / path, ns=(mtime, mtime), follow_symlinks=False))

    @rule(path=paths, name=xattrs, value=values)
    def setxattr(self, path: str, name: str, value: bytes) -> None:
        self.xattrs_set = True
        self.both(lambda side: os.setxattr(side / path, name, value))

    @rule(path=paths, name=xattrs)
    def removexattr(self, path: str, name: str) -> None:
        self.xattrs_set = True
        self.both(lambda side: os.removexattr(side / path, name))

    @rule(path=paths, name=xattrs)
    def getxattr(self, path: str, name: str) -> None:
        self.both(lambda side: os.getxattr(side / path, name))

    @rule(path=paths, size=offsets)
    def truncate(self, path: str, size: int) -> None:
        self.both(lambda side: os.truncate(side / path, size))

    # descriptors, whether their files still have a name or not

    def with_file(self, data: st.DataObject, step: Callable[[Side, int], Any]) -> None:
        number = data.draw(st.sampled_from(sorted(self.plain.open_files)))
        self.both(lambda side: step(side, side.open_files[number]))

    any_open = precondition(lambda self: self.plain.open_files)

    @any_open
    @rule(data=st.data(), offset=offsets, length=lengths, letter=letters)
    def pwrite(self, data: st.DataObject, offset: int, length: int, letter: int) -> None:
        self.with_file(data, lambda _, file: os.pwrite(file, bytes([letter]) * length, offset))

    @any_open
    @rule(data=st.data(), length=lengths, letter=letters)
    def write(self, data: st.DataObject, length: int, letter: int) -> None:
        self.with_file(data, lambda _, file: (os.write(file, bytes([letter]) * length), os.lseek(file, 0, 1)))

    @any_open
    @rule(data=st.data(), offset=offsets, length=lengths)
    def pread(self, data: st.DataObject, offset: int, length: int) -> None:
        self.with_file(data, lambda _, file: os.pread(file, length, offset))

    @any_open
    @rule(data=st.data(), offset=st.integers(-10, 10), whence=st.sampled_from([os.SEEK_SET, os.SEEK_END]))
    def seek_and_read(self, data: st.DataObject, offset: int, whence: int) -> None:
        def step(_: Side, file: int) -> Any:
            if not stat.S_ISDIR(os.fstat(file).st_mode):  # where a position in a directory leads is nobody's business
                return os.lseek(file, offset, whence), os.read(file, 100)

        self.with_file(data, step)

    @any_open
    @rule(data=st.data(), size=offsets)
    def ftruncate(self, data: st.DataObject, size: int) -> None:
        self.with_file(data, lambda _, file: os.ftruncate(file, size))

    @any_open
    @rule(data=st.data(), mode=modes, mtime=times)
    def set_by_descriptor(self, data: st.DataObject, mode: int, mtime: int) -> None:
        self.with_file(data, lambda _, file: (os.fchmod(file, mode), os.utime(file, ns=(mtime, mtime))))

    @any_open
    @rule(data=st.data(), name=xattrs, value=values)
    def setxattr_by_descriptor(self, data: st.DataObject, name: str, value: bytes) -> None:
        self.xattrs_set = True
        self.with_file(data, lambda _, file: os.setxattr(file, name, value))

    @any_open
    @rule(data=st.data())
    def fsync(self, data: st.DataObject) -> None:
        self.with_file(data, lambda _, file: os.fsync(file))

    @any_open
    @rule(data=st.data(), name=names)
    def make_in_an_open_directory(self, data: st.DataObject, name: str) -> None:
        """Which may have been removed."""
        self.with_file(data, lambda _, file: os.mkdir(name, dir_fd=file))

    @any_open
    @rule(data=st.data(), path=paths)
    def link_by_descriptor(self, data: st.DataObject, path: str) -> None:
        """Which must fail if no name is left."""
        self.with_file(data, lambda side, file: os.link(f"/proc/self/fd/{file}", side / path, follow_symlinks=True))

    @any_open
    @rule(data=st.data(), offset=offsets, length=lengths, to=offsets)
    def copy_file_range(self, data: st.DataObject, offset: int, length: int, to: int) -> None:
        other = data.draw(st.sampled_from(sorted(self.plain.open_files)))
        self.with_file(data, lambda side, file: os.copy_file_range(file, side.open_files[other], length, offset, to))

    @any_open
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.plain.open_files)))
        self.both(lambda side: side.close(number))

    # what must change nothing

    @rule()
    def commit(self) -> None:
        self.call("commit")

    @rule()
    def seal_and_come_back(self) -> None:
        """A checkout takes everything away; undo brings it back, uncommitted. What is open would lose its name."""
        self.side.close_all()
        self.plain.close_all()
        if self.call("checkout", ref="@empty")["moved"]:
            assert os.listdir(self.mounted.work) == []
            self.call("undo")
        self.before.clear()

    @precondition(lambda self: self.interrupted < 1)
    @rule(killed=st.booleans())
    def mount_again(self, killed: bool) -> None:
        self.interrupted += 1
        self.side.close_all()
        self.plain.close_all()
        if killed:
            self.mounted.kill()
        else:
            self.mounted.umount()
        self.mounted.mount()

    # the comparison

    @invariant()
    def they_look_the_same(self) -> None:
        ours, theirs = self.side.tree(), self.plain.tree()
        assert sorted(ours) == sorted(theirs)
        for path in ours:
            our, their = self.side.look(self.side / path), self.plain.look(self.plain / path)
            assert our == their, f"{path}: {short(our)} here, {short(their)} on ext4"
        for number, file in self.side.open_files.items():
            our, their = self.side.look(file), self.plain.look(self.plain.open_files[number])
            assert our == their, f"descriptor {number}: {short(our)} here, {short(their)} on ext4"
        self.the_same_times_moved(ours, theirs)

    def the_same_times_moved(self, ours: dict[str, os.stat_result], theirs: dict[str, os.stat_result]) -> None:
        seen = [(ours[path], theirs[path], path) for path in ours]
        seen += [
            (os.fstat(file), os.fstat(self.plain.open_files[number]), f"{number}")
            for number, file in self.side.open_files.items()
        ]
        after = {}
        for our, their, where in seen:
            after[our.st_ino] = (our, their)
            if our.st_ino in self.before:
                our_before, their_before = self.before[our.st_ino]
                ours_moved, theirs_moved = moved(our_before, our), moved(their_before, their)
                # ext4 leaves the ctime if an xattr is set to what it is.
                assert ours_moved == theirs_moved or (self.xattrs_set and ours_moved == (True, False)), (
                    f"{where}: have ctime and mtime moved? {ours_moved} here, {theirs_moved} on ext4"
                )
        self.before, self.xattrs_set = after, False


def short(seen: Seen) -> str:
    """Bytes as runs: (letter, how many)."""
    if not isinstance(seen.content, bytes):
        return repr(seen)
    runs = [(letter, len(list(group))) for letter, group in itertools.groupby(seen.content)]
    return repr(seen._replace(content=str(runs)))


def attempt(step: Callable[[Side], Any], side: Side) -> Any:
    try:
        return step(side)
    except OSError as error:
        return Failed(errno_name(error))


def errno_name(error: OSError) -> str:
    import errno

    return errno.errorcode[error.errno or 0]


def moved(before: os.stat_result, after: os.stat_result) -> tuple[bool, bool]:
    return before.st_ctime_ns != after.st_ctime_ns, before.st_mtime_ns != after.st_mtime_ns


def test_the_mount_does_what_ext4_does(tmp_path: Path) -> None:
    grounds = Grounds(tmp_path)
    try:
        run_state_machine_as_test(
            lambda: AgainstExt4(grounds),
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        grounds.mounted.ok("verify")
    finally:
        grounds.end()
