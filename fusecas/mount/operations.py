"""The file system's handlers: each translates one request to the overlay, and its answer or errno back.

Every handler is guarded: an exception other than FUSEError would end the whole mount. Inode numbers of the kernel are
the overlay's above a workspace's number; 1 is the root.
"""

import errno
import functools
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from fusecas import _native

BITS = 36
WORKSPACE = 1
ROOT_NODE = pyfuse3.ROOT_INODE
FOREVER = 86400.0 * 365
ACL_BLOCK = 4096
DOTS = 2

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def guarded(handler: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """OSErrors are answers; anything else is written down, and answered with EIO."""

    @functools.wraps(handler)
    async def answer(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            while True:
                try:
                    return await handler(*arguments, **options)
                except BlockingIOError:  # another state is being put in place: nothing has happened yet
                    await arguments[0].until_open()  # type: ignore[attr-defined]
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from error
        except Exception:
            log.exception("%s%r failed", getattr(handler, "__name__", handler), arguments[1:])
            raise FUSEError(errno.EIO) from None

    return answer


class Operations(pyfuse3.Operations):
    """One workspace as the root of a mount."""

    enable_writeback_cache = False
    enable_acl = True
    supports_dot_lookup = False

    def __init__(self, overlay: "_native.Overlay", disk: int) -> None:
        super().__init__()
        self._overlay = overlay
        self._disk = disk
        self._listings: dict[int, tuple[int, list[tuple[bytes, int]]]] = {}
        self._next_listing = 1
        self._writable: dict[int, int] = {}

    async def until_open(self) -> None:
        await trio.to_thread.run_sync(self._overlay.wait_for_gate)

    def writable_nodes(self) -> list[int]:
        """The kernel's numbers of files that are open for reading and writing: they may be mapped."""
        return [self.node_of(ino) for ino in list(self._writable)]

    @staticmethod
    def _ino(node: int) -> int:
        return 0 if node == ROOT_NODE else node & ((1 << BITS) - 1)

    @staticmethod
    def node_of(ino: int) -> int:
        return ROOT_NODE if ino == 0 else WORKSPACE << BITS | ino

    def _attributes(self, found: "_native.Attributes") -> EntryAttributes:
        ino, mode, links, uid, gid, device, size, blocks, atime, mtime, ctime = found
        entry = EntryAttributes()
        entry.st_ino = WORKSPACE << BITS | ino
        entry.st_mode = mode
        entry.st_nlink = links
        entry.st_uid = uid
        entry.st_gid = gid
        entry.st_rdev = os.makedev(*device)
        entry.st_size = size
        entry.st_blksize = 4096
        entry.st_blocks = blocks
        entry.st_atime_ns = atime
        entry.st_mtime_ns = mtime
        entry.st_ctime_ns = ctime
        entry.entry_timeout = FOREVER
        entry.attr_timeout = FOREVER
        return entry

    # looking

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
        found = self._overlay.lookup(self._ino(parent_inode), name)
        if found is None:
            absent = EntryAttributes()
            absent.st_ino = 0
            absent.entry_timeout = FOREVER
            return absent
        return self._attributes(found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for node, count in inode_list:
            if node != ROOT_NODE:
                self._overlay.forget(self._ino(node), count)

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        return self._attributes(self._overlay.getattr(self._ino(inode)))

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return self._overlay.readlink(self._ino(inode))

    @guarded
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        disk = os.fstatvfs(self._disk)
        answer = pyfuse3.StatvfsData()
        for field in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"):
            setattr(answer, field, getattr(disk, field))
        answer.f_namemax = 255
        return answer

    # listings

    @guarded
    async def opendir(self, inode: int, ctx: Any) -> int:
        number, self._next_listing = self._next_listing, self._next_listing + 1
        ino = self._ino(inode)
        self._overlay.opened(ino)
        self._listings[number] = (ino, [])
        return number

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        ino, names = self._listings[fh]
        if start_id == 0:
            names = self._overlay.names(ino)
            self._listings[fh] = (ino, names)
        for at in range(start_id, len(names) + DOTS):
            if not self._list_one(ino, names, at, token):
                return

    def _list_one(self, ino: int, names: list[tuple[bytes, int]], at: int, token: pyfuse3.ReaddirToken) -> bool:
        """Whether there is room for more."""
        if at < DOTS:
            shown = self._overlay.getattr(ino if at == 0 else self._overlay.parent(ino))
            return bool(pyfuse3.readdir_reply(token, b"." * (at + 1), self._attributes(shown), at + 1))
        name, _ = names[at - DOTS]
        found = self._overlay.lookup(ino, name)
        if found is None:
            return True  # gone since the listing began
        if pyfuse3.readdir_reply(token, name, self._attributes(found), at + 1):
            return True
        self._overlay.forget(found[0], 1)
        return False

    @guarded
    async def releasedir(self, fh: int) -> None:
        ino, _ = self._listings.pop(fh)
        self._overlay.closed(ino)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await trio.to_thread.run_sync(self._overlay.sync)

    # making, moving, removing

    def _made(self, parent: int, name: bytes, mode: int, ctx: Any, **more: Any) -> "_native.Attributes":
        return self._overlay.make(self._ino(parent), name, mode, ctx.umask, ctx.uid, ctx.gid, **more)

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> EntryAttributes:
        device = (os.major(rdev), os.minor(rdev)) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else (0, 0)
        return self._attributes(self._made(parent_inode, name, mode, ctx, device=device))

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        return self._attributes(self._made(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode), ctx))

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> EntryAttributes:
        return self._attributes(self._made(parent_inode, name, stat.S_IFLNK | 0o777, ctx, target=bytes(target)))

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> EntryAttributes:
        return self._attributes(self._overlay.link(self._ino(inode), self._ino(new_parent_inode), new_name))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        self._overlay.unlink(self._ino(parent_inode), name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        self._overlay.rmdir(self._ino(parent_inode), name)

    @guarded
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        if flags & ~(pyfuse3.RENAME_EXCHANGE | pyfuse3.RENAME_NOREPLACE):
            raise FUSEError(errno.EINVAL)
        self._overlay.rename(
            self._ino(parent_inode_old),
            name_old,
            self._ino(parent_inode_new),
            name_new,
            bool(flags & pyfuse3.RENAME_EXCHANGE),
            not flags & pyfuse3.RENAME_NOREPLACE,
        )

    # attributes

    @guarded
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> EntryAttributes:
        found = self._overlay.setattr(
            self._ino(inode),
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime=attr.st_atime_ns if fields.update_atime else None,
            mtime=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._attributes(found)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        return self._overlay.getxattr(self._ino(inode), name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        self._overlay.setxattr(self._ino(inode), name, bytes(value))

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        return self._overlay.listxattr(self._ino(inode))

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        self._overlay.removexattr(self._ino(inode), name)

    # contents

    def _opened(self, ino: int, flags: int) -> FileInfo:
        self._overlay.opened(ino)
        if flags & os.O_ACCMODE == os.O_RDWR:
            self._writable[ino] = self._writable.get(ino, 0) + 1
        return FileInfo(fh=self._handle(ino, flags), keep_cache=True)

    @staticmethod
    def _handle(ino: int, flags: int) -> int:
        """The inode's number; one bit tells release whether it was open for reading and writing."""
        return ino << 1 | (flags & os.O_ACCMODE == os.O_RDWR)

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        ino = self._ino(inode)
        if flags & os.O_TRUNC:
            self._overlay.setattr(ino, size=0)
        return self._opened(ino, flags)

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[FileInfo, EntryAttributes]:
        found = self._made(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)
        return self._opened(found[0], flags), self._attributes(found)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._overlay.read(fh >> 1, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return self._overlay.write(fh >> 1, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """Nothing is held back: each write was done when it was answered."""

    @guarded
    async def release(self, fh: int) -> None:
        ino = fh >> 1
        if fh & 1:
            left = self._writable[ino] - 1
            if left:
                self._writable[ino] = left
            else:
                del self._writable[ino]
        self._overlay.closed(ino)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        await trio.to_thread.run_sync(self._overlay.sync)
