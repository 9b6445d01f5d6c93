"""A plain folder as a state: everything that a command can see in it, and its times beside (docs/dev/import.md).

Directories are entered by descriptors and links are never followed, so that a folder that changes meanwhile can't lead
outside. One thread walks and reads; the session's thread compresses and stores behind it.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.errors import ChangedWhileRead, PathNotFound, PermissionProblem, StorageProblem, TooLarge, UsageError
from fusecas.store import prolly, trees
from fusecas.store.descent import OPEN_DIRECTORY, Belongs, is_within
from fusecas.store.ids import EMPTY_CONTENT, Kind, LinksId, ObjectId, StateId, TimesId, TreeId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.session import Session

INLINE_XATTR = 256
SMALL_FILE = 1 << 20
GROUP_BYTES = 8 << 20
NAMES_AT_ONCE = 1024
STREAM_STEP = 8 << 20
MOST_OPEN = 64
EDITS_AT_ONCE = 20_000
TRIES = 3
RESERVED = b".fusecas"
CHANGED = -1
LARGEST_FILE = 1 << 40
OLDEST, NEWEST = -(1 << 63), (1 << 64) - 1
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NO_LONGER_THE_FILE = frozenset({CHANGED, errno.ESTALE, errno.ELOOP, errno.ENXIO, errno.ENODEV})


class Progress(NamedTuple):
    """How far an import or export is."""

    files: int
    directories: int
    size: int


@dataclass(frozen=True)
class Imported:
    """What an import found. `skipped`: paths that are not in the state, and why."""

    state: StateId
    times: TimesId | None
    owner: tuple[int, int]
    files: int
    directories: int
    size: int
    skipped: tuple[tuple[bytes, str], ...]


class Listed(NamedTuple):
    """An entry of a folder as the file system has it."""

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    nlink: int
    device: int
    inode: int
    size: int
    mtime: int
    ctime: int
    major: int
    minor: int
    target: bytes | None
    xattrs: list[tuple[bytes, bytes]]


class Content(NamedTuple):
    """What was read of a file, and its time when it was read."""

    id: bytes | None
    size: int
    mtime: int


class LinkedFile(NamedTuple):
    """A file with several names: its entry, under the first of them, and those that we have met."""

    entry: Entry
    mtime: int
    paths: list[bytes]


@dataclass
class Folder:
    """A directory on the way: what has been found of it so far. Its descriptor is -1 while it is closed."""

    path: bytes
    descriptor: int
    own: Listed
    names: Iterator[bytes]
    tree: prolly.Builder
    times: prolly.Builder
    listing: Iterator[Listed] = field(default_factory=lambda: iter(()))
    contents: dict[bytes, Content | int] = field(default_factory=dict)
    new_entries: list[prolly.LeafEntry] = field(default_factory=list)
    new_times: list[prolly.LeafEntry] = field(default_factory=list)
    count: int = 0
    size: int = 0

    def add(self, entry: Entry, mtime: int, below: ObjectId | None = None) -> None:
        if not OLDEST <= mtime <= NEWEST:
            mtime = min(max(mtime, OLDEST), NEWEST)
        self.new_entries.append(entry)
        self.new_times.append((entry.name, mtime, below))
        self.count += 1
        if entry.kind == EntryKind.DIRECTORY:
            self.count += entry.count
            self.size += entry.size
        elif entry.kind == EntryKind.FILE:
            self.size += entry.size

    def settle(self) -> None:
        """Hand on what is complete, so that a huge directory does not stay in memory."""
        self.tree.add(self.new_entries)
        self.times.add(self.new_times)
        self.new_entries, self.new_times = [], []


def import_tree(
    session: Session,
    source: Path,
    *,
    owner: tuple[int, int] | None = None,
    trusted_xattrs: bool = False,
    skip: Belongs = lambda device, inode: False,
    skip_changed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Imported:
    """Put a folder's state and times into the session.

    `owner` is the reference owner, by default the folder's own; `skip(device, inode)` leaves files and directories
    out. A file that keeps changing while it is read makes the import fail, or, with `skip_changed`, is left out and
    named.
    """
    return _Import(session, owner, trusted_xattrs, skip, skip_changed, progress).run(source)


class _Import:
    def __init__(
        self,
        session: Session,
        owner: tuple[int, int] | None,
        trusted: bool,
        skip: Belongs,
        skip_changed: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._session = session
        self._owner = owner
        self._trusted = trusted
        self._skip = skip
        self._skip_changed = skip_changed
        self._progress = progress
        self._linked: dict[tuple[int, int], LinkedFile] = {}
        self._skipped: list[tuple[bytes, str]] = []
        self._files = self._directories = self._bytes = 0

    def run(self, source: Path) -> Imported:
        try:
            descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise problem(os.fsencode(source), error.errno) from error
        try:
            if is_within(descriptor, self._skip):
                raise UsageError(f"{source} belongs to a repository itself")
            own = _own_listing(descriptor, self._trusted)
            if self._owner is None:
                self._owner = (own.uid, own.gid)
            root = self._enter(b"", descriptor, own)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise problem(os.fsencode(source), error.errno) from error
            raise
        root.times.add([(b"", min(max(own.mtime, OLDEST), NEWEST), None)])
        self._walk(root)
        self._report()
        tree, times = root.tree.finish(), root.times.finish()
        state = State(None if tree is None else TreeId(tree), own.mode, None, self._extension(own))
        state = self._with_links(state)
        return Imported(
            state=StateId(self._session.put_node(Kind.STATE, state.encode())),
            times=None if times is None else TimesId(times),
            owner=self._owner,
            files=self._files,
            directories=self._directories,
            size=self._bytes,
            skipped=tuple(self._skipped),
        )

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(Progress(self._files, self._directories, self._bytes))

    # the walk

    def _walk(self, root: Folder) -> None:
        stack = [root]
        try:
            while stack:
                folder = stack[-1]
                found = next(folder.listing, None)
                if found is not None:
                    below = self._take(folder, found)
                    if below is not None:
                        stack.append(below)
                        _close_far_above(stack)
                elif not self._look_on(folder):
                    self._leave(stack)
        except OSError as error:
            raise problem(stack[-1].path, error.errno) from error
        finally:
            for folder in stack:
                if folder.descriptor >= 0:
                    os.close(folder.descriptor)

    def _open_below(self, folder: Folder, found: Listed, path: bytes) -> Folder | None:
        """Enter a directory; if it has been replaced since it was listed, take what is there now."""
        for _ in range(TRIES):
            status = errno.ESTALE
            try:
                descriptor = os.open(found.name, OPEN_DIRECTORY, dir_fd=folder.descriptor)
            except OSError as error:
                status = errno.ESTALE if error.errno == errno.ENOTDIR else error.errno or errno.EIO
            else:
                try:
                    here = os.fstat(descriptor)
                    if (here.st_dev, here.st_ino) == (found.device, found.inode):
                        return self._enter(path, descriptor, found)
                except OSError as error:
                    os.close(descriptor)
                    raise problem(path, error.errno) from error
                os.close(descriptor)
            if status not in NO_LONGER_THE_FILE:
                self._unread(path, status)
                return None
            again = self._look_again(folder, found.name)
            if again is None:
                return None
            if again.kind != EntryKind.DIRECTORY:
                return self._take(folder, again)
            found = again
        self._unread(path, CHANGED)
        return None

    def _enter(self, path: bytes, descriptor: int, own: Listed) -> Folder:
        names = iter(_native.list_names(descriptor))
        self._directories += 1
        tree, times = (prolly.Builder(kind, self._session.put_node) for kind in (Kind.TREE, Kind.TIMES))
        return Folder(path, descriptor, own, names, tree, times)

    def _look_on(self, folder: Folder) -> bool:
        """Look at more of a directory, and read its small files, many in one call. False at the end."""
        folder.settle()
        names = list(islice(folder.names, NAMES_AT_ONCE))
        if not names:
            return False
        listing, failed = _native.look_at(folder.descriptor, names, self._trusted)
        for name, number in failed:
            if number != errno.ENOENT:
                raise problem(trees.join(folder.path, name), number)
        found = [Listed._make(each) for each in listing]
        folder.listing = iter(found)
        self._read_small_files(folder, found)
        self._report()
        return True

    def _leave(self, stack: list[Folder]) -> None:
        """A directory is whole: it becomes an entry of the one above."""
        folder = stack[-1]
        if len(stack) > 1:
            parent, own = stack[-2], folder.own
            _open_again(parent, folder)
            tree, times = folder.tree.finish(), folder.times.finish()
            ext = self._extension(own)
            entry = Entry(own.name, EntryKind.DIRECTORY, own.mode, tree, folder.size, folder.count, ext)
            parent.add(entry, own.mtime, times)
        stack.pop()
        os.close(folder.descriptor)

    # entries

    def _take(self, folder: Folder, found: Listed) -> Folder | None:
        """Add an entry to its directory; a directory is returned, to be walked first."""
        path = trees.join(folder.path, found.name)
        if path == RESERVED or found.kind == 0:
            self._skipped.append((path, "belongs to fusecas" if path == RESERVED else "of a kind that is not known"))
        elif self._skip(found.device, found.inode):
            self._skipped.append((path, "belongs to fusecas"))
        elif found.kind == EntryKind.DIRECTORY:
            return self._open_below(folder, found, path)
        elif found.nlink > 1 and (found.device, found.inode) in self._linked:
            linked = self._linked[found.device, found.inode]
            linked.paths.append(path)
            self._add(folder, linked.entry._replace(name=found.name), linked.mtime)
        elif found.kind == EntryKind.FILE:
            return self._take_file(folder, found, path)
        else:
            self._take_special(folder, found, path)
        return None

    def _take_file(self, folder: Folder, found: Listed, path: bytes) -> Folder | None:
        content = folder.contents.pop(found.name, None)
        for _ in range(TRIES):
            if content is None:
                content = self._content(folder, found, path)
            if isinstance(content, Content):
                target = content.id if content.size else None
                ext = self._extension(found)
                entry = Entry(found.name, EntryKind.FILE, found.mode, target, content.size, 0, ext)
                self._take_entry(folder, found, path, entry, content.mtime)
                return None
            if content not in NO_LONGER_THE_FILE:
                self._unread(path, content)
                return None
            again = self._look_again(folder, found.name)
            if again is None:
                return None
            if again.kind != EntryKind.FILE or again.nlink > 1:
                return self._take(folder, again)
            found, content = again, None
        self._unread(path, CHANGED)
        return None

    def _take_special(self, folder: Folder, found: Listed, path: bytes) -> None:
        target, size, count, mode = None, 0, 0, found.mode
        if found.kind == EntryKind.SYMLINK:
            target, mode = found.target, 0o777
        elif found.kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
            size, count = found.major, found.minor
        entry = Entry(found.name, found.kind, mode, target, size, count, self._extension(found))
        self._take_entry(folder, found, path, entry, found.mtime)

    def _take_entry(self, folder: Folder, found: Listed, path: bytes, entry: Entry, mtime: int) -> None:
        if found.nlink > 1:
            entry = entry._replace(ext={"L": True, **(entry.ext or {})})
            self._linked[found.device, found.inode] = LinkedFile(entry, mtime, [path])
        self._add(folder, entry, mtime)

    def _add(self, folder: Folder, entry: Entry, mtime: int) -> None:
        folder.add(entry, mtime)
        self._files += 1
        if entry.kind == EntryKind.FILE:
            self._bytes += entry.size

    def _extension(self, found: Listed) -> dict[str, Any] | None:
        assert self._owner is not None
        if not found.xattrs and (found.uid, found.gid) == self._owner:
            return None
        ext: dict[str, Any] = {}
        if (found.uid, found.gid) != self._owner:
            uid = None if found.uid == self._owner[0] else found.uid
            gid = None if found.gid == self._owner[1] else found.gid
            ext["O"] = [uid, gid]
        if found.xattrs:
            ext["X"] = [[name, self._xattr_value(value)] for name, value in found.xattrs]
        return ext

    def _xattr_value(self, value: bytes) -> "bytes | _native.Ref":
        return value if len(value) <= INLINE_XATTR else _native.Ref(self._session.put_content(value))

    # contents

    def _read_small_files(self, folder: Folder, found: Sequence[Listed]) -> None:
        group: list[Listed] = []
        size = 0
        for each in found:
            if each.kind != EntryKind.FILE or each.size > SMALL_FILE or self._skip(each.device, each.inode):
                continue
            if each.nlink > 1 and (each.device, each.inode) in self._linked:
                continue
            group.append(each)
            size += each.size
            if size >= GROUP_BYTES:
                self._read_group(folder, group)
                group, size = [], 0
        if group:
            self._read_group(folder, group)

    def _read_group(self, folder: Folder, group: Sequence[Listed]) -> None:
        wanted = [(each.name, each.device, each.inode, each.ctime) for each in group]
        results = _native.read_files(self._session.batch, folder.descriptor, wanted)
        for each, (status, content, size, mtime) in zip(group, results, strict=True):
            folder.contents[each.name] = status or Content(content, size, mtime)
        self._session.pass_on()

    def _look_again(self, folder: Folder, name: bytes) -> Listed | None:
        """What a name is now: a file is often replaced by a new one. None if it is gone."""
        listing, failed = _native.look_at(folder.descriptor, [name], self._trusted)
        for _, number in failed:
            if number != errno.ENOENT:
                raise problem(trees.join(folder.path, name), number)
        return Listed._make(listing[0]) if listing else None

    def _unread(self, path: bytes, status: int) -> None:
        """A file that could not be read: gone is gone; the rest is an error, or noted."""
        if status == errno.ENOENT:
            return
        if status not in NO_LONGER_THE_FILE:
            raise problem(path, status)
        if not self._skip_changed:
            raise _changed(path)
        self._skipped.append((path, "kept changing while it was read"))

    def _content(self, folder: Folder, found: Listed, path: bytes) -> Content | int:
        """A file's content, or why there is none: an errno, or CHANGED."""
        try:
            descriptor = os.open(found.name, OPEN_FILE, dir_fd=folder.descriptor)
        except OSError as error:
            return error.errno or errno.EIO
        try:
            return self._stream(descriptor, found)
        except OSError as error:
            raise problem(path, error.errno) from error
        finally:
            os.close(descriptor)

    def _stream(self, descriptor: int, found: Listed) -> Content | int:
        """A file piece by piece, however large it is."""
        before = os.fstat(descriptor)
        listed = (found.device, found.inode, found.ctime)
        if not stat.S_ISREG(before.st_mode) or (before.st_dev, before.st_ino, before.st_ctime_ns) != listed:
            return errno.ESTALE  # its mode and attributes, read before, may not be those that go with the bytes
        if before.st_size > LARGEST_FILE:
            return errno.EFBIG
        writer = _native.ContentWriter()
        while writer.feed_file(self._session.batch, descriptor, STREAM_STEP):
            self._session.pass_on()
            self._report()
            if writer.total > before.st_size:
                return CHANGED
        content, size = writer.finish(self._session.batch)
        self._session.pass_on()
        after = os.fstat(descriptor)
        if _stamp(before) != _stamp(after) or size != after.st_size:
            return CHANGED
        return Content(None if content == EMPTY_CONTENT else content, size, after.st_mtime_ns)

    # hard links

    def _with_links(self, state: State) -> State:
        """Note the groups. A file of which only one name is in the folder loses its mark: it is like any other."""
        groups: list[prolly.LeafEntry] = []
        single: list[bytes] = []
        for linked in self._linked.values():
            if len(linked.paths) == 1:
                single += linked.paths
            else:
                smallest = min(linked.paths)
                groups += ((path, smallest) for path in linked.paths)
        single.sort(key=lambda path: path.rpartition(b"/"))
        for start in range(0, len(single), EDITS_AT_ONCE):
            state = self._unmarked(state, single[start : start + EDITS_AT_ONCE])
        groups.sort()
        links = prolly.build(Kind.LINKS, groups, self._session.put_node)
        return state._replace(links=None if links is None else LinksId(links))

    def _unmarked(self, state: State, paths: Sequence[bytes]) -> State:
        """The state with these files as ordinary ones; `paths` come directory by directory."""
        self._session.flush()
        changes: dict[bytes, Entry | None] = {}
        with self._session.read() as reader:
            directory: bytes | None = None
            listing: Iterator[Entry] = iter(())
            for path in paths:
                above, _, name = path.rpartition(b"/")
                if above != directory:
                    directory = above
                    found = trees.find(reader, state.tree, above) if above else None
                    listing = trees.entries(reader, found.target if found else state.tree, name)
                entry = next(each for each in listing if each.name == name)
                ext = {key: value for key, value in (entry.ext or {}).items() if key != "L"}
                changes[path] = entry._replace(ext=ext or None)
            return trees.edit(state, changes, {}, reader.read_node, self._session.put_node)


def _close_far_above(stack: Sequence[Folder]) -> None:
    """A tree may be deeper than the number of files that a process may have open."""
    if len(stack) > MOST_OPEN and (folder := stack[-MOST_OPEN]).descriptor >= 0:
        os.close(folder.descriptor)
        folder.descriptor = -1


def _open_again(parent: Folder, folder: Folder) -> None:
    """Back to a directory that was closed, if it is still the one above."""
    if parent.descriptor >= 0:
        return
    parent.descriptor = os.open("..", OPEN_DIRECTORY, dir_fd=folder.descriptor)
    here = os.fstat(parent.descriptor)
    if (here.st_dev, here.st_ino) != (parent.own.device, parent.own.inode):
        raise _changed(folder.path)


def _own_listing(descriptor: int, trusted: bool) -> Listed:
    own = os.fstat(descriptor)
    return Listed(
        name=b"",
        kind=EntryKind.DIRECTORY,
        mode=stat.S_IMODE(own.st_mode),
        uid=own.st_uid,
        gid=own.st_gid,
        nlink=own.st_nlink,
        device=own.st_dev,
        inode=own.st_ino,
        size=own.st_size,
        mtime=own.st_mtime_ns,
        ctime=own.st_ctime_ns,
        major=0,
        minor=0,
        target=None,
        xattrs=_native.read_xattrs(descriptor, b".", trusted),
    )


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _changed(path: bytes) -> ChangedWhileRead:
    return ChangedWhileRead(
        f"{trees.shown(path)} kept changing while it was read",
        hint="run it again when it is quiet",
        details={"path": trees.shown(path)},
    )


def problem(path: bytes, number: int | None) -> Exception:
    """The error for a path and an errno."""
    reason = os.strerror(number or errno.EIO)
    message = f"{trees.shown(path)}: {reason}"
    details: dict[str, object] = {"path": trees.shown(path)}
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return PathNotFound(message, details=details)
    if number in (errno.EACCES, errno.EPERM):
        return PermissionProblem(message, details=details)
    if number == errno.EFBIG:
        return TooLarge(f"{trees.shown(path)}: over 1 TiB, the largest file that is kept", details=details)
    return StorageProblem(message, details=details)
