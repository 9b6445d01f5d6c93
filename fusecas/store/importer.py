"""A plain folder as a state: everything that a command can see in it, and its times beside (docs/dev/import.md).

Directories are entered by descriptors and links are never followed, so that a folder that changes meanwhile can't lead
outside. One thread walks and reads; the session's thread compresses and stores behind it.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.errors import ChangedWhileRead, PathNotFound, PermissionProblem, StorageProblem
from fusecas.store import prolly, trees
from fusecas.store.ids import EMPTY_CONTENT, Kind, LinksId, ObjectId, StateId, TimesId, TreeId
from fusecas.store.kinds import Entry, EntryKind, State
from fusecas.store.session import Session

INLINE_XATTR = 256
SMALL_FILE = 1 << 20
GROUP_BYTES = 8 << 20
GROUP_FILES = 1024
STREAM_STEP = 8 << 20
TRIES = 3
RESERVED = b".fusecas"
CHANGED = -1
LARGEST_FILE = 1 << 40
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


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
    id: bytes | None
    size: int
    mtime: int


class LinkedFile(NamedTuple):
    """A file with several names: what it holds and those of its names that we have met."""

    content: Content
    paths: list[bytes]


@dataclass
class Folder:
    """A directory on the way: what has been found of it so far."""

    path: bytes
    descriptor: int
    listing: Iterator[Listed]
    own: Listed
    entries: list[prolly.LeafEntry] = field(default_factory=list)
    times: list[prolly.LeafEntry] = field(default_factory=list)
    contents: dict[bytes, Content | None] = field(default_factory=dict)
    count: int = 0
    size: int = 0


def import_tree(
    session: Session,
    source: Path,
    *,
    owner: tuple[int, int] | None = None,
    trusted_xattrs: bool = False,
    skip: Callable[[int, int], bool] = lambda device, inode: False,
    skip_changed: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Imported:
    """Put a folder's state and times into the session.

    `owner` is the reference owner, by default the folder's own; `skip(device, inode)` leaves directories out. A file
    that keeps changing while it is read makes the import fail, or, with `skip_changed`, is left out and named.
    """
    return _Import(session, owner, trusted_xattrs, skip, skip_changed, progress).run(source)


class _Import:
    def __init__(
        self,
        session: Session,
        owner: tuple[int, int] | None,
        trusted: bool,
        skip: Callable[[int, int], bool],
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
        own = _own_listing(descriptor, self._trusted)
        if self._owner is None:
            self._owner = (own.uid, own.gid)
        root = self._walk(self._enter(b"", descriptor, own))
        self._add_time(root, b"", own.mtime, None, front=True)
        tree = prolly.build(Kind.TREE, root.entries, self._session.put_node)
        times = prolly.build(Kind.TIMES, root.times, self._session.put_node)
        state = State(None if tree is None else TreeId(tree), own.mode, None, self._extension(own, linked=False))
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

    # the walk

    def _walk(self, root: Folder) -> Folder:
        stack = [root]
        try:
            while True:
                folder = stack[-1]
                found = next(folder.listing, None)
                if found is None:
                    stack.pop()
                    os.close(folder.descriptor)
                    if not stack:
                        return folder
                    self._leave(stack[-1], folder)
                elif found.kind == EntryKind.DIRECTORY:
                    below = self._open_below(folder, found)
                    if below is not None:
                        stack.append(below)
                else:
                    self._take(folder, found)
        except BaseException:
            for folder in stack:
                os.close(folder.descriptor)
            raise

    def _open_below(self, folder: Folder, found: Listed) -> Folder | None:
        path = trees.join(folder.path, found.name)
        if self._skip(found.device, found.inode) or path == RESERVED:
            self._skipped.append((path, "belongs to fusecas"))
            return None
        try:
            descriptor = os.open(found.name, OPEN_DIRECTORY, dir_fd=folder.descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise _changed(path) from error
            raise problem(path, error.errno) from error
        return self._enter(path, descriptor, found)

    def _enter(self, path: bytes, descriptor: int, own: Listed) -> Folder:
        try:
            listing, failed = _native.list_dir(descriptor, self._trusted)
            for name, number in failed:
                if number != errno.ENOENT:
                    raise problem(trees.join(path, name), number)
            found = [Listed._make(each) for each in listing]
            folder = Folder(path, descriptor, iter(found), own)
            if self._session.batch.bytes > STREAM_STEP:
                self._session.pass_on()
            self._read_small_files(folder, found)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise problem(path, error.errno) from error
            raise
        self._directories += 1
        return folder

    def _leave(self, parent: Folder, folder: Folder) -> None:
        """A directory is whole: it becomes an entry of the one above."""
        own = folder.own
        tree = prolly.build(Kind.TREE, folder.entries, self._session.put_node)
        times = prolly.build(Kind.TIMES, folder.times, self._session.put_node)
        self._add(
            parent,
            Entry(
                own.name,
                EntryKind.DIRECTORY,
                own.mode,
                tree,
                folder.size,
                folder.count,
                self._extension(own, linked=False),
            ),
            own.mtime,
            times,
        )

    def _add(self, folder: Folder, entry: Entry, mtime: int, below: ObjectId | None = None) -> None:
        folder.entries.append(tuple(entry))
        count, size = prolly.weight(Kind.TREE, tuple(entry))
        folder.count += count
        folder.size += size
        self._add_time(folder, entry.name, mtime, below)

    def _add_time(self, folder: Folder, name: bytes, mtime: int, below: ObjectId | None, front: bool = False) -> None:
        folder.times.insert(0 if front else len(folder.times), (name, mtime, below))

    # entries

    def _take(self, folder: Folder, found: Listed) -> None:
        path = trees.join(folder.path, found.name)
        if found.kind == 0:
            self._skipped.append((path, "of a kind that is not known"))
            return
        linked = found.nlink > 1
        content: Content | None = Content(None, 0, found.mtime)
        known = self._linked.get((found.device, found.inode)) if linked else None
        if known is not None:
            content = known.content
            known.paths.append(path)
        elif found.kind == EntryKind.FILE:
            content = self._content(folder, found, path)
            if content is None:
                return
        assert content is not None
        if linked and known is None:
            self._linked[found.device, found.inode] = LinkedFile(content, [path])
        self._add(folder, self._entry(found, content, linked), content.mtime)
        self._files += 1
        self._bytes += content.size
        if self._progress is not None:
            self._progress(Progress(self._files, self._directories, self._bytes))

    def _entry(self, found: Listed, content: Content, linked: bool) -> Entry:
        target, size, count, mode = content.id, content.size, 0, found.mode
        if found.kind == EntryKind.SYMLINK:
            target, mode = found.target, 0o777
        elif found.kind in (EntryKind.CHARACTER, EntryKind.BLOCK):
            size, count = found.major, found.minor
        return Entry(found.name, found.kind, mode, target, size, count, self._extension(found, linked))

    def _extension(self, found: Listed, linked: bool) -> dict[str, Any] | None:
        assert self._owner is not None
        ext: dict[str, Any] = {}
        if linked:
            ext["L"] = True
        if (found.uid, found.gid) != self._owner:
            uid = None if found.uid == self._owner[0] else found.uid
            gid = None if found.gid == self._owner[1] else found.gid
            ext["O"] = [uid, gid]
        if found.xattrs:
            ext["X"] = [[name, self._xattr_value(value)] for name, value in found.xattrs]
        return ext or None

    def _xattr_value(self, value: bytes) -> "bytes | _native.Ref":
        return value if len(value) <= INLINE_XATTR else _native.Ref(self._session.put_content(value))

    # contents

    def _read_small_files(self, folder: Folder, found: Sequence[Listed]) -> None:
        """Read the directory's small files, many in one call."""
        group: list[Listed] = []
        size = 0
        for each in found:
            if each.kind != EntryKind.FILE or each.size > SMALL_FILE:
                continue
            if each.nlink > 1 and (each.device, each.inode) in self._linked:
                continue
            group.append(each)
            size += each.size
            if size >= GROUP_BYTES or len(group) >= GROUP_FILES:
                self._read_group(folder, group)
                group, size = [], 0
        if group:
            self._read_group(folder, group)

    def _read_group(self, folder: Folder, group: Sequence[Listed]) -> None:
        wanted = [(each.name, each.device, each.inode) for each in group]
        results = _native.read_files(self._session.batch, folder.descriptor, wanted)
        for each, (status, content, size, mtime) in zip(group, results, strict=True):
            if status == 0:
                folder.contents[each.name] = Content(None if size == 0 else content, size, mtime)
            else:
                folder.contents[each.name] = None
                self._unread(trees.join(folder.path, each.name), status)
        self._session.pass_on()

    def _unread(self, path: bytes, status: int) -> None:
        """A file that could not be read: gone is gone; the rest is an error, or noted."""
        if status == errno.ENOENT:
            return
        if status in (CHANGED, errno.ESTALE, errno.ELOOP):
            if not self._skip_changed:
                raise _changed(path)
            self._skipped.append((path, "kept changing while it was read"))
            return
        raise problem(path, status)

    def _content(self, folder: Folder, found: Listed, path: bytes) -> Content | None:
        if found.name in folder.contents:
            return folder.contents.pop(found.name)
        for _ in range(TRIES):
            try:
                descriptor = os.open(found.name, OPEN_FILE, dir_fd=folder.descriptor)
            except OSError as error:
                self._unread(path, error.errno or errno.EIO)
                return None
            try:
                content = self._stream(descriptor, found, path)
            finally:
                os.close(descriptor)
            if content is not None:
                return content
        self._unread(path, CHANGED)
        return None

    def _stream(self, descriptor: int, found: Listed, path: bytes) -> Content | None:
        """A large file, piece by piece; None if it changed meanwhile."""
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or (before.st_dev, before.st_ino) != (found.device, found.inode):
            raise _changed(path)
        if before.st_size > LARGEST_FILE:
            raise problem(path, errno.EFBIG)
        writer = _native.ContentWriter()
        try:
            while writer.feed_file(self._session.batch, descriptor, STREAM_STEP):
                self._session.pass_on()
        except OSError as error:
            raise problem(path, error.errno) from error
        content, size = writer.finish(self._session.batch)
        self._session.pass_on()
        after = os.fstat(descriptor)
        if _stamp(before) != _stamp(after) or size != after.st_size:
            return None
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
                groups += ((path, min(linked.paths)) for path in linked.paths)
        if single:
            state = self._unmarked(state, single)
        links = prolly.build(Kind.LINKS, sorted(groups), self._session.put_node)
        return replace(state, links=None if links is None else LinksId(links))

    def _unmarked(self, state: State, paths: Sequence[bytes]) -> State:
        self._session.flush()
        with self._session.read() as reader:
            changes: dict[bytes, Entry | None] = {}
            for path in paths:
                entry = trees.find(reader, state.tree, path)
                assert entry is not None and entry.ext is not None
                ext = {key: value for key, value in entry.ext.items() if key != "L"}
                changes[path] = entry._replace(ext=ext or None)
            return trees.edit(state, changes, {}, reader.read_node, self._session.put_node)


def _own_listing(descriptor: int, trusted: bool) -> Listed:
    own = os.fstat(descriptor)
    xattrs = _native.read_xattrs(descriptor, b".", trusted)
    return Listed(
        b"",
        EntryKind.DIRECTORY,
        stat.S_IMODE(own.st_mode),
        own.st_uid,
        own.st_gid,
        own.st_nlink,
        own.st_dev,
        own.st_ino,
        own.st_size,
        own.st_mtime_ns,
        own.st_ctime_ns,
        0,
        0,
        None,
        xattrs,
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
    if number in (errno.ENOENT, errno.ENOTDIR):
        return PathNotFound(message)
    if number in (errno.EACCES, errno.EPERM):
        return PermissionProblem(message)
    return StorageProblem(message)
