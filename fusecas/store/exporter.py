"""A state as a plain folder: everything that the file system and the user's rights allow, exactly (docs/dev/import.md).

Made below one directory descriptor, step by step, never through a symbolic link; nothing is replaced that was there
before, unless told. Directories get their modes and times last, so that filling them does not need or change those.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusecas import _native
from fusecas.errors import (
    AlreadyExists,
    CorruptObject,
    Damaged,
    DiskFull,
    FusecasError,
    InvalidObject,
    PathNotFound,
    Refused,
)
from fusecas.store import packs, trees
from fusecas.store.contents import Pieces
from fusecas.store.descent import OPEN_DIRECTORY, Belongs, Descent, is_within
from fusecas.store.ids import Kind, LinksId, StateId, TimesId
from fusecas.store.importer import RESERVED, Progress, problem
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.snapshot import Piece, Snapshot
from fusecas.store.store import Store
from fusecas.store.trees import shown

GROUP_BYTES = 16 << 20
GROUP_ENTRIES = 512
ONE_CHUNK = 64 << 10
CORRUPTED = -1
PRIVATE = 0o700
SPECIAL_BITS = 0o6000
OUR_XATTRS = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl_")
DEFAULT_ACL = "system.posix_acl_default"
ACCESS_ACL = "system.posix_acl_access"
NOT_FOR_US = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EINVAL,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EMLINK,
        errno.EXDEV,
        errno.E2BIG,
        errno.ERANGE,
    }
)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NODE_TYPES = {
    EntryKind.FIFO: stat.S_IFIFO,
    EntryKind.SOCKET: stat.S_IFSOCK,
    EntryKind.CHARACTER: stat.S_IFCHR,
    EntryKind.BLOCK: stat.S_IFBLK,
}


@dataclass(frozen=True)
class Exported:
    """What an export made. `unset`: (path, what, why) of what this user or file system can't have."""

    files: int
    directories: int
    size: int
    unset: tuple[tuple[bytes, str, str], ...]


class Directory(NamedTuple):
    """A directory that is to be filled, from the name `start` on."""

    path: bytes
    tree: bytes | None
    times: TimesId | None
    start: bytes = b""


class Made(NamedTuple):
    """A directory that was made and waits for its attributes."""

    path: bytes
    entry: Entry
    mtime: int | None


class ToMake(NamedTuple):
    """An entry that is to be made in a directory."""

    entry: Entry
    mtime: int | None


class Linked(NamedTuple):
    """The first name of a group that was made: the others become links to it."""

    path: bytes
    entry: Entry


@dataclass
class Group:
    """As much of a directory as is made at once."""

    directory: int
    path: bytes
    small: list[ToMake]
    large: list[ToMake]
    links: list[tuple[ToMake, Linked]]
    below: list[Directory]


def export_tree(
    store: Store,
    state: StateId,
    target: Path,
    *,
    times: TimesId | None = None,
    owner: tuple[int, int] | None = None,
    overwrite: bool = False,
    skip: Belongs = lambda device, inode: False,
    progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Make `target` hold a state. It must not be there, or be empty, unless `overwrite` says to fill what is there.

    `owner` is the reference owner, by default the current user. With `overwrite`, what is in the way of an entry is
    replaced (a directory only if it is empty); other things in the folder stay. What `skip(device, inode)` claims is
    never entered or replaced. After an error, what was made so far stays, with directories that only their owner can
    enter.
    """
    return _Export(store, owner, overwrite, skip, progress).run(state, target, times)


class _Export:
    def __init__(
        self,
        store: Store,
        owner: tuple[int, int] | None,
        overwrite: bool,
        skip: Belongs,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._store = store
        self._me = os.geteuid(), os.getegid()
        self._owner = owner or self._me
        self._overwrite = overwrite
        self._skip = skip
        self._progress = progress
        self._files = self._bytes = 0
        self._made: list[Made] = []
        self._unset: list[tuple[bytes, str, str]] = []
        self._links: LinksId | None = None
        self._first: dict[bytes, Linked] = {}
        self._inherits = False

    def run(self, state: StateId, target: Path, times: TimesId | None) -> Exported:
        with self._store.read() as reader:
            core = trees.read_state(reader, state)
            entry = core.root(0, 0)
            self._links = core.links
            own = trees.Times(reader, times).of(b"")
        try:
            root = self._open_target(target)
            self._places, self._sources = Descent(root), Descent(root)
            try:
                self._fill(Directory(b"", entry.target, times), entry, own.mtime)
                for made in reversed(self._made):
                    self._finish_directory(made)
            finally:
                self._places.close()
                self._sources.close()
                os.close(root)
        except OSError as error:
            raise write_problem(os.fsencode(error.filename or target), error.errno) from error
        self._report()
        return Exported(self._files, len(self._made), self._bytes, tuple(self._unset))

    def _open_target(self, target: Path) -> int:
        made = True
        try:
            target.mkdir(mode=PRIVATE)
        except FileExistsError:
            made = False
        except FileNotFoundError as error:
            raise PathNotFound(f"{target.parent}: no such folder") from error
        if made:
            change_mode(None, os.fsencode(target), PRIVATE)
        try:
            descriptor = os.open(target, OPEN_DIRECTORY)
        except (NotADirectoryError, OSError) as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise AlreadyExists(f"{target} is there already, and not a folder") from error
            raise
        try:
            if is_within(descriptor, self._skip):
                raise Refused(f"{target} belongs to a repository itself")
            if not made and not self._overwrite and os.listdir(descriptor):
                raise AlreadyExists(f"{target} is there already and not empty", hint="--overwrite")
            shed_attributes(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(Progress(self._files, len(self._made), self._bytes))

    # directories

    def _fill(self, root: Directory, entry: Entry, mtime: int | None) -> None:
        """Depth first; of a huge directory only one group at a time is in memory."""
        self._made.append(Made(b"", entry, mtime))
        waiting = [root]
        while waiting:
            directory = waiting.pop()
            descriptor = goes_to(self._places, directory.path)
            self._inherits = os.fstat(descriptor).st_gid != self._me[1]
            group = Group(descriptor, directory.path, [], [], [], [])
            rest = self._fill_some(group, directory)
            if rest is not None:
                waiting.append(rest)
            waiting += reversed(group.below)
            self._report()

    def _fill_some(self, group: Group, directory: Directory) -> Directory | None:
        """Make the next entries of a directory; what is left of it is returned."""
        with naming(directory.path), self._store.read() as reader:
            rest = self._collect(reader, group, directory)
            self._write_small(reader, group)
        for each in group.small:
            self._finish_file(group, each)
        for each in group.large:
            self._write_large(group, each)
            self._finish_file(group, each)
        for each, first in group.links:
            self._link(group, each, first)
        return rest

    def _collect(self, reader: Snapshot, group: Group, directory: Directory) -> Directory | None:
        times = trees.Times(reader, directory.times, directory.start)
        size = 0
        for count, entry in enumerate(trees.entries(reader, directory.tree, directory.start)):
            if count >= GROUP_ENTRIES or size >= GROUP_BYTES:
                return directory._replace(start=entry.name)
            place = trees.join(directory.path, entry.name)
            if place == RESERVED:
                self._unset.append((place, "a name that fusecas keeps for itself", "left out"))
                continue
            mtime, child = times.of(entry.name)
            first = self._linked_to(reader, place, entry) if entry.linked else None
            if first is not None:
                group.links.append((ToMake(entry, mtime), first))
            elif entry.is_directory:
                self._make_directory(group, entry.name)
                self._made.append(Made(place, entry, mtime))
                group.below.append(Directory(place, entry.target, child))
            elif not entry.is_file:
                self._make_special(group, ToMake(entry, mtime))
            elif entry.size > GROUP_BYTES:
                group.large.append(ToMake(entry, mtime))
            else:
                group.small.append(ToMake(entry, mtime))
                size += entry.size
        return None

    def _make_directory(self, group: Group, name: bytes) -> None:
        try:
            os.mkdir(name, PRIVATE, dir_fd=group.directory)
        except FileExistsError:
            there = os.stat(name, dir_fd=group.directory, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode) and self._overwrite:
                self._use_directory(group, name, there)
                return
            self._clear(group, name)
            os.mkdir(name, PRIVATE, dir_fd=group.directory)
        change_mode(group.directory, name, PRIVATE)

    def _use_directory(self, group: Group, name: bytes, there: os.stat_result) -> None:
        place = trees.join(group.path, name)
        if self._skip(there.st_dev, there.st_ino):
            raise Refused(f"{shown(place)} belongs to a repository itself")
        with suppress(PermissionError):  # of somebody else: its attributes are noted in the end
            change_mode(group.directory, name, PRIVATE)
        descriptor = os.open(name, OPEN_DIRECTORY, dir_fd=group.directory)
        try:
            shed_attributes(descriptor)
        finally:
            os.close(descriptor)

    def _finish_directory(self, made: Made) -> None:
        directory = goes_to(self._places, made.path)
        self._set_attributes(directory, b".", made.path, made.entry)
        if made.mtime is not None:
            with self._if_allowed(made.path, "time"):
                os.utime(directory, ns=(made.mtime, made.mtime))

    # files

    def _is_plain(self, entry: Entry) -> bool:
        """Whether a new file is as it should be without more calls than writing it takes."""
        return entry.ext is None and self._owner == self._me and not self._inherits

    def _write_small(self, reader: Snapshot, group: Group) -> None:
        files = []
        for entry, mtime in group.small:
            mode = entry.mode if self._is_plain(entry) else 0o600
            with naming(trees.join(group.path, entry.name)):
                files.append((entry.name, mode, stored_pieces(reader, entry), entry.size, mtime))
        results = _native.write_files(group.directory, files)
        again = [i for i, result in enumerate(results) if result == errno.EEXIST]
        if again:
            for i in again:
                self._clear(group, files[i][0])
            retried = _native.write_files(group.directory, [files[i] for i in again])
            for i, result in zip(again, retried, strict=True):
                results[i] = result
        for file, result in zip(files, results, strict=True):
            if result != 0:
                check_written(trees.join(group.path, file[0]), result)

    def _write_large(self, group: Group, wanted: ToMake) -> None:
        """A file of which only a part fits into one snapshot's time. What is half written does not stay."""
        entry = wanted.entry
        place = trees.join(group.path, entry.name)
        descriptor = self._create(group, entry.name)
        try:
            with naming(place):
                self._write_parts(descriptor, place, entry)
            os.ftruncate(descriptor, entry.size)
            if wanted.mtime is not None:
                os.utime(descriptor, ns=(wanted.mtime, wanted.mtime))
        except (OSError, FusecasError):
            os.unlink(entry.name, dir_fd=group.directory)
            raise
        finally:
            os.close(descriptor)

    def _write_parts(self, descriptor: int, place: bytes, entry: Entry) -> None:
        with self._store.read() as reader:
            pieces = Pieces(checked_pieces(reader, entry))
        for group in pieces.groups(GROUP_BYTES):
            with self._store.read() as reader:
                stored = [stored_piece(reader, offset, chunk) for offset, chunk, _ in group if chunk is not None]
                check_written(place, _native.write_pieces(descriptor, stored))
            self._report()

    def _create(self, group: Group, name: bytes) -> int:
        try:
            return os.open(name, NEW_FILE, 0o600, dir_fd=group.directory)
        except FileExistsError:
            self._clear(group, name)
            return os.open(name, NEW_FILE, 0o600, dir_fd=group.directory)

    def _finish_file(self, group: Group, wanted: ToMake) -> None:
        entry = wanted.entry
        self._files += 1
        self._bytes += entry.size if entry.is_file else 0
        if entry.size > GROUP_BYTES or entry.linked or not entry.is_file or not self._is_plain(entry):
            self._set_attributes(group.directory, entry.name, trees.join(group.path, entry.name), entry)

    def _clear(self, group: Group, name: bytes) -> None:
        """Remove what is in the way, if that was asked for."""
        place = trees.join(group.path, name)
        if not self._overwrite:
            raise AlreadyExists(f"{shown(place)} is there already", hint="--overwrite")
        there = os.stat(name, dir_fd=group.directory, follow_symlinks=False)
        if self._skip(there.st_dev, there.st_ino):
            raise Refused(f"{shown(place)} belongs to a repository itself")
        try:
            os.unlink(name, dir_fd=group.directory)
        except IsADirectoryError:
            try:
                os.rmdir(name, dir_fd=group.directory)
            except OSError as error:
                raise AlreadyExists(f"{shown(place)} is a folder that is not empty, in the way of a file") from error

    # special files

    def _make_special(self, group: Group, wanted: ToMake) -> None:
        entry = wanted.entry
        place = trees.join(group.path, entry.name)
        try:
            try:
                make_special(group.directory, entry)
            except FileExistsError:
                self._clear(group, entry.name)
                make_special(group.directory, entry)
        except OSError as error:
            self._note(place, kind_name(entry), error)
            return
        self._finish_file(group, wanted)
        if wanted.mtime is not None:
            times = (wanted.mtime, wanted.mtime)
            os.utime(entry.name, ns=times, dir_fd=group.directory, follow_symlinks=False)

    # attributes

    def _note(self, place: bytes, what: str, error: OSError) -> None:
        """What this user or file system can't have is noted; other errors are errors."""
        if error.errno not in NOT_FOR_US:
            raise error
        self._unset.append((place, what, error.strerror or ""))

    @contextmanager
    def _if_allowed(self, place: bytes, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._note(place, what, error)

    def _set_attributes(self, directory: int, name: bytes, place: bytes, entry: Entry) -> None:
        """Owner, extended attributes, mode, in this order: a change of owner clears bits and capabilities."""
        uid, gid = (theirs if own is None else own for own, theirs in zip(entry.owner, self._owner, strict=True))
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if (there.st_uid, there.st_gid) != (uid, gid):
            with self._if_allowed(place, f"owner {uid}:{gid}"):
                os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
                there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        through = b"/proc/self/fd/%d/%s" % (directory, name)
        for key, value in self._xattrs(entry, place):
            with self._if_allowed(place, "xattr " + shown(key)):
                set_xattr(through, key, value)
        if entry.kind != EntryKind.SYMLINK:
            self._set_mode(directory, name, place, entry, (there.st_uid, there.st_gid) == (uid, gid))

    def _set_mode(self, directory: int, name: bytes, place: bytes, entry: Entry, has_owner: bool) -> None:
        mode = entry.mode
        if mode & SPECIAL_BITS and not has_owner and not entry.is_directory:
            # A program that was to run as somebody else must not run as this user instead.
            mode &= ~SPECIAL_BITS
            self._unset.append((place, f"mode {entry.mode:04o}", "set-id bits without the owner"))
        with self._if_allowed(place, f"mode {entry.mode:04o}"):
            change_mode(directory, name, mode)

    def _xattrs(self, entry: Entry, place: bytes) -> list[tuple[bytes, bytes]]:
        found = []
        for key, value in entry.xattrs:
            if not key.startswith(OUR_XATTRS):
                self._unset.append((place, "xattr " + shown(key), "not one that fusecas keeps"))
            elif isinstance(value, _native.Ref):
                with naming(place), self._store.read() as reader:
                    found.append((key, reader.read_content(value.id)))
            else:
                found.append((key, value))
        return found

    # hard links

    def _linked_to(self, reader: Snapshot, place: bytes, entry: Entry) -> Linked | None:
        """The name of this file that was made before; None if this is the first."""
        name = trees.group_of(reader, self._links, place)
        if name is None:
            return None
        first = self._first.setdefault(name, Linked(place, entry))
        if first.path == place:
            return None
        if first.entry._replace(name=b"") != entry._replace(name=b""):
            raise InvalidObject(f"{shown(place)} and {shown(first.path)} should be one file, and differ")
        return first

    def _link(self, group: Group, wanted: ToMake, first: Linked) -> None:
        entry = wanted.entry
        place = trees.join(group.path, entry.name)
        directory, _, name = first.path.rpartition(b"/")
        try:
            source = self._sources.to(directory)
            try:
                link(source, name, group.directory, entry.name)
            except FileExistsError:
                self._clear(group, entry.name)
                link(source, name, group.directory, entry.name)
            self._files += 1
        except OSError as error:
            if error.errno == errno.ENOENT and not entry.is_file:  # its first name could not be made either
                error = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            self._note(place, f"hard link to {shown(first.path)}", error)
            self._make_alone(group, wanted)

    def _make_alone(self, group: Group, wanted: ToMake) -> None:
        """A file that can't be a link to the one that it should be: a file of its own."""
        if not wanted.entry.is_file:
            self._make_special(group, wanted)
            return
        alone = Group(group.directory, group.path, [], [wanted], [], [])
        self._write_large(alone, wanted)
        self._finish_file(alone, wanted)


def goes_to(places: Descent, path: bytes) -> int:
    """The descriptor of a directory that was made; errors name its whole path."""
    try:
        return places.to(path)
    except OSError as error:
        raise write_problem(path, error.errno) from error


def link(source: int, name: bytes, target: int, new_name: bytes) -> None:
    os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)


def kind_name(entry: Entry) -> str:
    is_device = entry.kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    return EntryKind(entry.kind).name.lower() + (" device" if is_device else "")


def make_special(directory: int, entry: Entry) -> None:
    if entry.kind == EntryKind.SYMLINK:
        assert entry.target is not None
        os.symlink(entry.target, entry.name, dir_fd=directory)
        return
    is_device = entry.kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    device = os.makedev(entry.size, entry.count) if is_device else 0
    os.mknod(entry.name, NODE_TYPES[EntryKind(entry.kind)] | 0o600, device, dir_fd=directory)


def change_mode(directory: int | None, name: bytes, mode: int) -> None:
    """chmod that does not follow a link, whatever the umask was when the file was made."""
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    except OSError as error:
        error.filename = name  # not the descriptor's
        raise
    finally:
        os.close(descriptor)


def shed_attributes(descriptor: int) -> None:
    """A folder that was there: its own attributes go, lest a set-gid bit or a default ACL be handed on below."""
    with suppress(PermissionError):
        for name in xattr_names(descriptor):
            if name.startswith("user.") or name in (DEFAULT_ACL, ACCESS_ACL):
                os.removexattr(descriptor, name)
        os.fchmod(descriptor, PRIVATE)


def xattr_names(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise


def set_xattr(path: bytes, key: bytes, value: bytes) -> None:
    try:
        os.setxattr(path, key, value, follow_symlinks=False)
    except OSError as error:
        # ext4 says «no space» also of values that it has no place for beside the inode.
        if error.errno == errno.ENOSPC and os.statvfs(b"/".join(path.split(b"/")[:5])).f_bavail > 0:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG)) from error
        raise


# ---- stored content


def checked_pieces(reader: Snapshot, entry: Entry) -> Iterator[Piece]:
    """The chunks of a content, its holes left out, if it is as long as the entry says."""
    end = 0
    for offset, chunk, length in reader.content_pieces(entry.target) if entry.target is not None else ():
        end = offset + length
        if end > entry.size:
            break
        if chunk is not None:
            yield Piece(offset, chunk, length)
    if end != entry.size:
        raise InvalidObject(f"its content is not {entry.size} bytes long")


def stored_pieces(reader: Snapshot, entry: Entry) -> "list[_native.Piece]":
    if entry.target is not None and entry.size <= ONE_CHUNK:
        piece = stored_piece(reader, 0, entry.target)
        if piece[2] == entry.size:
            return [piece]
    pieces = checked_pieces(reader, entry)
    return [stored_piece(reader, offset, chunk) for offset, chunk, _ in pieces if chunk is not None]


def stored_piece(reader: Snapshot, offset: int, chunk: bytes) -> "_native.Piece":
    row, pieces = reader.stored(chunk)
    if row.kind != Kind.CHUNK:
        raise InvalidObject(f"object {chunk.hex()} is of kind {row.kind}, not a chunk")
    return offset, row.codec, row.size, packs.joined(pieces), chunk


@contextmanager
def naming(place: bytes) -> Iterator[None]:
    """Damage names the path that can't be made."""
    try:
        yield
    except Damaged as error:
        if "path" in error.details:
            raise
        path = shown(place)
        raise type(error)(f"{path}: {error.message}", hint=error.hint, details={"path": path}) from error


def check_written(place: bytes, result: int) -> None:
    if result == CORRUPTED:
        path = shown(place)
        raise CorruptObject(f"{path}: its stored content is corrupt", hint="fusecas verify", details={"path": path})
    if result != 0:
        raise write_problem(place, result)


def write_problem(place: bytes, number: int | None) -> Exception:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"{shown(place)}: no space left; what was exported so far is incomplete",
            hint="free some space, and export into an empty folder",
        )
    if number == errno.EEXIST:
        return AlreadyExists(f"{shown(place)} is there already")
    return problem(place, number)
