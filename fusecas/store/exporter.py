"""A state as a plain folder: everything that the file system and the user's rights allow, exactly.

Made below one directory descriptor, step by step, never through a symbolic link; nothing is replaced that was there
before, unless told. Directories get their modes and times last, so that filling them does not need or change those.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusecas import _native
from fusecas.errors import AlreadyExists, CorruptObject, DiskFull, PathNotFound
from fusecas.store import packs, trees
from fusecas.store.ids import Kind, LinksId, StateId, TimesId
from fusecas.store.importer import OPEN_DIRECTORY, Progress, problem
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.prolly import find as prolly_find
from fusecas.store.snapshot import Snapshot
from fusecas.store.store import Store
from fusecas.store.trees import Timed, shown

GROUP_BYTES = 16 << 20
GROUP_FILES = 512
CORRUPTED = -1
PRIVATE = 0o700
DEFAULT_ACL = b"system.posix_acl_default"
ACCESS_ACL = b"system.posix_acl_access"


@dataclass(frozen=True)
class Exported:
    """What an export made. `unset`: (path, what, why) of attributes that this user or file system can't have."""

    files: int
    directories: int
    size: int
    unset: tuple[tuple[bytes, str, str], ...]


class Made(NamedTuple):
    """A directory that was made and waits for its attributes."""

    path: bytes
    entry: Entry
    mtime: int | None


def export_tree(
    store: Store,
    state: StateId,
    target: Path,
    *,
    times: TimesId | None = None,
    owner: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Make `target` hold a state. It must not be there, or be empty, unless `overwrite` says to fill what is there.

    `owner` is the reference owner, by default the current user. With `overwrite`, what is in the way of an entry is
    replaced (a directory only if it is empty); other things in the folder stay.
    """
    return _Export(store, owner, overwrite, progress).run(state, target, times)


class _Export:
    def __init__(
        self,
        store: Store,
        owner: tuple[int, int] | None,
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._store = store
        self._owner = owner or (os.geteuid(), os.getegid())
        self._overwrite = overwrite
        self._progress = progress
        self._files = self._bytes = 0
        self._made: list[Made] = []
        self._unset: list[tuple[bytes, str, str]] = []
        self._links: LinksId | None = None
        self._first: dict[bytes, bytes] = {}
        self._later: list[tuple[bytes, bytes]] = []
        self._root = -1

    def run(self, state: StateId, target: Path, times: TimesId | None) -> Exported:
        with self._store.read() as reader:
            core = trees.read_state(reader, state)
            entry = trees.root_entry(reader, state)
            self._links = core.links
            own = trees.times_of_directory(reader, times).get(b"")
        try:
            self._root = self._open_target(target)
            try:
                self._fill(b"", entry, times, None if own is None else own.mtime)
                self._link_later()
                for made in reversed(self._made):
                    self._finish_directory(made)
            finally:
                os.close(self._root)
        except OSError as error:
            raise write_problem(os.fsencode(error.filename or target), error.errno) from error
        return Exported(self._files, len(self._made), self._bytes, tuple(self._unset))

    def _open_target(self, target: Path) -> int:
        try:
            target.mkdir(mode=PRIVATE)
        except FileExistsError as error:
            if not target.is_dir() or target.is_symlink():
                raise AlreadyExists(f"{target} is there already, and not a folder") from error
            if not self._overwrite and any(target.iterdir()):
                raise AlreadyExists(f"{target} is there already and not empty", hint="--overwrite") from error
        except FileNotFoundError as error:
            raise PathNotFound(f"{target.parent}: no such folder") from error
        descriptor = os.open(target, OPEN_DIRECTORY)
        self._shed_inheritance(descriptor)
        return descriptor

    def _shed_inheritance(self, descriptor: int) -> None:
        """A folder above with a set-gid bit or default ACLs would hand them on to all that is made below."""
        for name in os.listxattr(descriptor):
            if os.fsencode(name) in (DEFAULT_ACL, ACCESS_ACL):
                os.removexattr(descriptor, name)
        if os.fstat(descriptor).st_mode & stat.S_ISGID:
            os.fchmod(descriptor, PRIVATE)

    # directories

    @contextmanager
    def _opened(self, path: bytes) -> Iterator[int]:
        """The directory at a path, no link on the way."""
        descriptor = os.dup(self._root)
        try:
            for name in path.split(b"/") if path else ():
                below = os.open(name, OPEN_DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _fill(self, path: bytes, entry: Entry, times: TimesId | None, mtime: int | None) -> None:
        waiting = [(path, entry, times, mtime)]
        while waiting:
            path, entry, times, mtime = waiting.pop()
            self._made.append(Made(path, entry, mtime))
            with self._opened(path) as directory:
                for below, child_times, child_mtime in self._fill_directory(directory, path, entry, times):
                    self._make_directory(directory, path, below.name)
                    waiting.append((trees.join(path, below.name), below, child_times, child_mtime))

    def _fill_directory(
        self, directory: int, path: bytes, entry: Entry, times: TimesId | None
    ) -> list[tuple[Entry, TimesId | None, int | None]]:
        """Make all that is in a directory but its directories, which are returned."""
        with self._store.read() as reader:
            listing = list(trees.entries(reader, entry.target))
            timed = trees.times_of_directory(reader, times)
        below, group, size = [], [], 0
        for each in listing:
            when = timed.get(each.name, Timed(None, None))
            if each.is_directory:
                below.append((each, when.child, when.mtime))
            elif each.linked and self._is_later_name(trees.join(path, each.name)):
                continue
            elif each.is_file:
                group.append((each, when.mtime))
                size += each.size
                if size >= GROUP_BYTES or len(group) >= GROUP_FILES:
                    self._write_files(directory, path, group)
                    group, size = [], 0
            else:
                self._make_special(directory, path, each, when.mtime)
        if group:
            self._write_files(directory, path, group)
        return below

    def _make_directory(self, directory: int, path: bytes, name: bytes) -> None:
        try:
            os.mkdir(name, PRIVATE, dir_fd=directory)
        except FileExistsError:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode) and self._overwrite:
                return
            self._clear(directory, path, name)
            os.mkdir(name, PRIVATE, dir_fd=directory)

    def _finish_directory(self, made: Made) -> None:
        with self._opened(made.path) as directory:
            self._set_attributes(directory, b".", made.path, made.entry)
            os.fchmod(directory, made.entry.mode)
            if made.mtime is not None:
                os.utime(directory, ns=(made.mtime, made.mtime))

    # files

    def _write_files(self, directory: int, path: bytes, group: Sequence[tuple[Entry, int | None]]) -> None:
        small = [each for each in group if each[0].size <= GROUP_BYTES]
        with self._store.read() as reader:
            files = [
                (entry.name, entry.mode, self._pieces(reader, path, entry), entry.size, mtime) for entry, mtime in small
            ]
            results = _native.write_files(directory, files)
            again = [i for i, result in enumerate(results) if result == errno.EEXIST]
            if again:
                for i in again:
                    self._clear(directory, path, files[i][0])
                retried = _native.write_files(directory, [files[i] for i in again])
                for i, result in zip(again, retried, strict=True):
                    results[i] = result
        for (entry, _), result in zip(small, results, strict=True):
            check_written(trees.join(path, entry.name), result)
        for entry, mtime in group:
            if entry.size > GROUP_BYTES:
                self._write_large(directory, path, entry)
            self._finish_file(directory, path, entry, mtime, rewrite_times=entry.size > GROUP_BYTES)

    def _pieces(self, reader: Snapshot, path: bytes, entry: Entry) -> "list[_native.Piece]":
        if entry.target is None:
            return []
        found = []
        for offset, chunk, _ in reader.content_pieces(entry.target):
            if chunk is not None:
                found.append(stored_piece(reader, offset, chunk))
        return found

    def _write_large(self, directory: int, path: bytes, entry: Entry) -> None:
        """A file of which only a part fits into one snapshot's time."""
        place = trees.join(path, entry.name)
        descriptor = self._create(directory, path, entry.name)
        try:
            assert entry.target is not None
            with self._store.read() as reader:
                plan = [each for each in reader.content_pieces(entry.target) if each.chunk is not None]
            start = 0
            while start < len(plan):
                stop, size = start, 0
                while stop < len(plan) and size < GROUP_BYTES:
                    size += plan[stop].length
                    stop += 1
                with self._store.read() as reader:
                    pieces = [stored_piece(reader, offset, chunk) for offset, chunk, _ in plan[start:stop] if chunk]
                    check_written(place, _native.write_pieces(descriptor, pieces))
                start = stop
            os.ftruncate(descriptor, entry.size)
            os.fchmod(descriptor, entry.mode)
        finally:
            os.close(descriptor)

    def _create(self, directory: int, path: bytes, name: bytes) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=directory)
        except FileExistsError:
            self._clear(directory, path, name)
            return os.open(name, flags, 0o600, dir_fd=directory)

    def _finish_file(self, directory: int, path: bytes, entry: Entry, mtime: int | None, rewrite_times: bool) -> None:
        place = trees.join(path, entry.name)
        self._count(entry.size)
        if self._set_attributes(directory, entry.name, place, entry):
            if entry.kind != EntryKind.SYMLINK:
                os.chmod(entry.name, entry.mode, dir_fd=directory)
            rewrite_times = True
        if rewrite_times and mtime is not None:
            os.utime(entry.name, ns=(mtime, mtime), dir_fd=directory, follow_symlinks=False)

    def _count(self, size: int) -> None:
        self._files += 1
        self._bytes += size
        if self._progress is not None:
            self._progress(Progress(self._files, len(self._made), self._bytes))

    def _clear(self, directory: int, path: bytes, name: bytes) -> None:
        """Remove what is in the way, if that was asked for."""
        place = trees.join(path, name)
        if not self._overwrite:
            raise AlreadyExists(f"{shown(place)} is there already", hint="--overwrite")
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError as error:
                raise AlreadyExists(f"{shown(place)} is a folder that is not empty, in the way of a file") from error

    # the rest

    def _make_special(self, directory: int, path: bytes, entry: Entry, mtime: int | None) -> None:
        place = trees.join(path, entry.name)
        try:
            try:
                self._make_node(directory, entry)
            except FileExistsError:
                self._clear(directory, path, entry.name)
                self._make_node(directory, entry)
        except PermissionError as error:
            self._unset.append((place, EntryKind(entry.kind).name.lower() + " device", error.strerror or ""))
            return
        self._finish_file(directory, path, entry, mtime, rewrite_times=True)

    def _make_node(self, directory: int, entry: Entry) -> None:
        if entry.kind == EntryKind.SYMLINK:
            assert entry.target is not None
            os.symlink(entry.target, entry.name, dir_fd=directory)
            return
        kinds = {
            EntryKind.FIFO: stat.S_IFIFO,
            EntryKind.SOCKET: stat.S_IFSOCK,
            EntryKind.CHARACTER: stat.S_IFCHR,
            EntryKind.BLOCK: stat.S_IFBLK,
        }
        is_device = entry.kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
        device = os.makedev(entry.size, entry.count) if is_device else 0
        os.mknod(entry.name, kinds[EntryKind(entry.kind)] | 0o600, device, dir_fd=directory)
        os.chmod(entry.name, entry.mode, dir_fd=directory)

    def _set_attributes(self, directory: int, name: bytes, place: bytes, entry: Entry) -> bool:
        """Owner and extended attributes; whether anything was set, so that mode and times must be set again."""
        wanted = tuple(theirs if own is None else own for own, theirs in zip(entry.owner, self._owner, strict=True))
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        changed = False
        if (there.st_uid, there.st_gid) != wanted:
            try:
                os.chown(name, *wanted, dir_fd=directory, follow_symlinks=False)
                changed = True
            except PermissionError as error:
                self._unset.append((place, f"owner {wanted[0]}:{wanted[1]}", error.strerror or ""))
        for key, value in self._xattrs(entry):
            changed = True
            through = b"/proc/self/fd/%d/%s" % (directory, name)
            try:
                os.setxattr(through, key, value, follow_symlinks=False)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._unset.append((place, "xattr " + shown(key), error.strerror or ""))
        return changed

    def _xattrs(self, entry: Entry) -> list[tuple[bytes, bytes]]:
        found = []
        for key, value in entry.xattrs:
            if isinstance(value, _native.Ref):
                with self._store.read() as reader:
                    found.append((key, reader.read_content(value.id)))
            else:
                found.append((key, value))
        return found

    # hard links

    def _is_later_name(self, place: bytes) -> bool:
        """Whether another name of this file has been made; if so, this one is linked to it in the end."""
        with self._store.read() as reader:
            found = prolly_find(Kind.LINKS, self._links, place, reader.read_node)
        if found is None:
            return False
        first = self._first.setdefault(found[1], place)
        if first == place:
            return False
        self._later.append((place, first))
        return True

    def _link_later(self) -> None:
        for place, first in self._later:
            directory, _, name = place.rpartition(b"/")
            first_directory, _, first_name = first.rpartition(b"/")
            with self._opened(first_directory) as source, self._opened(directory) as target:
                link = (first_name, name)
                try:
                    os.link(*link, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                except FileExistsError:
                    self._clear(target, directory, name)
                    os.link(*link, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            self._count(0)


def stored_piece(reader: Snapshot, offset: int, chunk: bytes) -> "_native.Piece":
    row, pieces = reader.stored(chunk)
    return offset, row.codec, row.size, packs.joined(pieces), chunk


def check_written(place: bytes, result: int) -> None:
    if result == CORRUPTED:
        raise CorruptObject(f"{shown(place)}: its stored content is corrupt", hint="fusecas verify")
    if result != 0:
        raise write_problem(place, result)


def write_problem(place: bytes, number: int | None) -> Exception:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{shown(place)}: no space left", hint="free some space, and export into an empty folder")
    if number == errno.EEXIST:
        return AlreadyExists(f"{shown(place)} is there already")
    return problem(place, number)
