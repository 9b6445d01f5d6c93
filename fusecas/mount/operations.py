"""The file system's handlers: each translates one request to an overlay, and its answer or errno back.

Every handler is guarded: an exception other than FUSEError would end the whole mount. The kernel's number of an inode
says which workspace or view it is in (nodes.py).
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
from fusecas.mount import set_ids
from fusecas.mount.nodes import LINKS, MOUNTED, ROOT, SPECIAL, Special, node_of, special_of, split
from fusecas.mount.places import Place, Places
from fusecas.mount.special import NAME, Found, SpecialFolders

FOREVER = 86400.0 * 365
DOTS = 2
AT_A_TIME = 64
NO_DEVICE = (0, 0)

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


class Listing:
    """An open directory: the names that were read so far, in order. A position is an index into . and .. and these:
    so it stays valid whatever comes and goes, and what stays is listed once. It grows with the reading."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.begin_again()

    def begin_again(self) -> None:
        self.names: list[bytes] = []
        self.after: bytes | None = None
        self.is_whole = False


class Operations(pyfuse3.Operations):
    """All workspaces and views of one repository; place MOUNTED is the root of the mount."""

    enable_writeback_cache = False
    enable_acl = True
    supports_dot_lookup = False

    def __init__(self, places: Places, special: SpecialFolders, disk: int) -> None:
        super().__init__()
        self._places = places
        self._special = special
        self._disk = disk
        self._listings: dict[int, Listing] = {}
        self._next_listing = 1

    async def until_open(self) -> None:
        """Another state is being put in place somewhere: until that is done."""
        for place in self._places.all():
            await trio.to_thread.run_sync(place.overlay.wait_for_gate)

    def _place(self, node: int) -> tuple[Place, int]:
        """Where an inode is, for what reads its content or changes it."""
        number, ino = split(node)
        if number in (SPECIAL, LINKS):
            raise FUSEError(errno.EPERM)
        return self._places[number], ino

    def _both(self, one: int, other: int) -> tuple[Place, int, int]:
        """For what joins two inodes."""
        (place, ino), (second, second_ino) = self._place(one), self._place(other)
        if place is not second:
            raise FUSEError(errno.EXDEV)
        return place, ino, second_ino

    @staticmethod
    def _refuse_reserved(place: Place, parent: int, name: bytes) -> None:
        if parent == ROOT and name == NAME and place.workspace is not None:
            raise FUSEError(errno.EPERM)

    @staticmethod
    def _seen(place: Place, ctx: Any, ino: int, name: bytes = b"") -> None:
        """Before something is changed: a command may be running there, which wants to know of others that do."""
        for witness in place.witnesses:
            witness.changes(ctx.pid, ino, name)

    def _looked(self, place: Place, ctx: Any) -> None:
        """Something is opened: a command may be running elsewhere, whose own look into this place is to be known."""
        if self._places.is_watched:
            self._places.opened(place, ctx.pid)

    def _entry(self, place: Place, found: "_native.Attributes") -> EntryAttributes:
        return attributes_of(place.first | found[0], found, FOREVER)

    # looking

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
        number, ino = split(parent_inode)
        if number == SPECIAL:
            return entry_of(await self._special.lookup(ino, name))
        place = self._places[number]
        if ino == ROOT and name == NAME and place.workspace is not None:
            return entry_of(self._special.found(special_of(place.number, Special.FOLDER)))
        found = place.overlay.lookup(ino, name)
        return absent(FOREVER) if found is None else self._entry(place, found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for node, count in inode_list:
            try:
                self._forget(node, count)
            except Exception:  # there is no answer, and the mount must not end with it
                log.exception("forget of %d failed", node)

    def _forget(self, node: int, count: int) -> None:
        number, ino = split(node)
        if number == LINKS:
            self._special.forget_link(ino)
        elif number != SPECIAL and (number, ino) != (MOUNTED, ROOT):
            place = self._places[number]  # it stays for as long as the kernel refers to anything in it
            if ino == ROOT:
                place.lookups -= count
            else:
                place.overlay.forget(ino, count)
            self._places.drop_if_free(place)

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        number, ino = split(inode)
        if number == SPECIAL:
            return attributes_of(inode, self._special.attributes(ino), FOREVER)
        if number == LINKS:
            return attributes_of(inode, self._special.link_attributes(ino), FOREVER)
        place = self._places[number]
        return self._entry(place, place.overlay.getattr(ino))

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        number, ino = split(inode)
        if number == SPECIAL:
            return self._special.target(ino)
        if number == LINKS:
            return self._special.link_target(ino)
        return self._places[number].overlay.readlink(ino)

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
        handle, self._next_listing = self._next_listing, self._next_listing + 1
        number, ino = split(inode)
        if number != SPECIAL:
            self._looked(self._places[number], ctx)
            self._places[number].overlay.opened(ino)
        self._listings[handle] = Listing(inode)
        return handle

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        if start_id == 0:
            listing.begin_again()
        for at in range(start_id, DOTS):
            shown_as = self._dot(listing.node) if at == 0 else self._above(listing.node)
            if not pyfuse3.readdir_reply(token, b"." * (at + 1), shown_as, at + 1):
                return
        at = max(start_id - DOTS, 0)
        if split(listing.node)[0] == SPECIAL:
            await self._list_special(listing, at, token)
        else:
            self._list_names(listing, at, token)

    async def _list_special(self, listing: Listing, at: int, token: pyfuse3.ReaddirToken) -> None:
        _, ino = split(listing.node)
        if not listing.is_whole:
            listing.names, listing.is_whole = await self._special.names(ino), True
        for name in listing.names[at:]:
            at += 1
            found = await self._special.lookup(ino, name)
            if found is None:
                continue  # gone since the listing began
            if not pyfuse3.readdir_reply(token, name, entry_of(found), at + DOTS):
                self._forget(found[0], 1)
                return

    def _list_names(self, listing: Listing, at: int, token: pyfuse3.ReaddirToken) -> None:
        """Some names at a time, with what they are: each is held from then on, until the kernel forgets it, or at once
        if there was no room for it."""
        number, ino = split(listing.node)
        place = self._places[number]
        entry = empty_entry(FOREVER)
        while names := self._names_from(listing, place, ino, at):
            found = place.overlay.lookup_each(ino, names)
            for taken, each in enumerate(found):
                if each is None:
                    continue  # gone since the listing began
                fill(entry, place.first | each[0], each)
                if not pyfuse3.readdir_reply(token, names[taken], entry, at + taken + 1 + DOTS):
                    place.overlay.forget_each([left[0] for left in found[taken:] if left is not None])
                    return
            at += len(names)

    @staticmethod
    def _names_from(listing: Listing, place: Place, ino: int, at: int) -> list[bytes]:
        """Some names from a position on; none at the end. Reads on until there are some."""
        while at >= len(listing.names) and not listing.is_whole:
            some, listing.after = place.overlay.names(ino, listing.after)
            listing.names += [name for name, _ in some]
            listing.is_whole = listing.after is None
        return listing.names[at : at + AT_A_TIME]

    def _dot(self, node: int) -> EntryAttributes:
        number, ino = split(node)
        if number == SPECIAL:
            return attributes_of(node, self._special.attributes(ino), FOREVER)
        place = self._places[number]
        return self._entry(place, place.overlay.getattr(ino))

    def _above(self, node: int) -> EntryAttributes:
        """The kernel knows better where it came from: only the type counts."""
        number, ino = split(node)
        return self._dot(node if number == SPECIAL else node_of(number, self._places[number].overlay.parent(ino)))

    @guarded
    async def releasedir(self, fh: int) -> None:
        number, ino = split(self._listings.pop(fh).node)
        if number != SPECIAL:
            self._places[number].overlay.closed(ino)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        number, _ = split(self._listings[fh].node)
        if number != SPECIAL:
            await trio.to_thread.run_sync(self._places[number].overlay.sync)

    # making, moving, removing

    def _made(self, parent: int, name: bytes, mode: int, ctx: Any, **more: Any) -> tuple[Place, "_native.Attributes"]:
        place, ino = self._place(parent)
        self._refuse_reserved(place, ino, name)
        self._seen(place, ctx, ino, name)
        return place, place.overlay.make(ino, name, mode, ctx.umask, ctx.uid, ctx.gid, **more)

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> EntryAttributes:
        device = (os.major(rdev), os.minor(rdev)) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else (0, 0)
        return self._entry(*self._made(parent_inode, name, mode, ctx, device=device))

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        return self._entry(*self._made(parent_inode, name, stat.S_IFDIR | stat.S_IMODE(mode), ctx))

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> EntryAttributes:
        return self._entry(*self._made(parent_inode, name, stat.S_IFLNK | 0o777, ctx, target=bytes(target)))

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> EntryAttributes:
        place, ino, parent = self._both(inode, new_parent_inode)
        self._refuse_reserved(place, parent, new_name)
        self._seen(place, ctx, parent, new_name)
        return self._entry(place, place.overlay.link(ino, parent, new_name))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        place, parent = self._place(parent_inode)
        self._refuse_reserved(place, parent, name)
        self._seen(place, ctx, parent, name)
        place.overlay.unlink(parent, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        place, parent = self._place(parent_inode)
        self._refuse_reserved(place, parent, name)
        self._seen(place, ctx, parent, name)
        place.overlay.rmdir(parent, name)

    @guarded
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        if flags & ~(pyfuse3.RENAME_EXCHANGE | pyfuse3.RENAME_NOREPLACE):
            raise FUSEError(errno.EINVAL)
        place, old, new = self._both(parent_inode_old, parent_inode_new)
        self._refuse_reserved(place, old, name_old)
        self._refuse_reserved(place, new, name_new)
        self._seen(place, ctx, old, name_old)
        exchange, replace = bool(flags & pyfuse3.RENAME_EXCHANGE), not flags & pyfuse3.RENAME_NOREPLACE
        place.overlay.rename(old, name_old, new, name_new, exchange, replace)

    # attributes

    @guarded
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> EntryAttributes:
        place, ino = self._place(inode)
        self._seen(place, ctx, ino)
        found = place.overlay.setattr(
            ino,
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime=attr.st_atime_ns if fields.update_atime else None,
            mtime=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(place, found)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        number, ino = split(inode)
        if number in (SPECIAL, LINKS):
            raise FUSEError(errno.ENODATA)
        return self._places[number].overlay.getxattr(ino, name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        place, ino = self._place(inode)
        self._seen(place, ctx, ino)
        set_ids.set_xattr(place.overlay, ino, name, bytes(value), ctx)

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        number, ino = split(inode)
        return [] if number in (SPECIAL, LINKS) else self._places[number].overlay.listxattr(ino)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        place, ino = self._place(inode)
        self._seen(place, ctx, ino)
        place.overlay.removexattr(ino, name)

    # contents

    def _opened(self, place: Place, ino: int, flags: int) -> FileInfo:
        place.overlay.opened(ino)
        may_map = flags & os.O_ACCMODE == os.O_RDWR
        may_write = flags & os.O_ACCMODE != os.O_RDONLY
        if may_map:
            place.writable[ino] += 1
        if may_write:
            place.writers[ino] += 1
        return FileInfo(fh=node_of(place.number, ino) << 2 | may_write << 1 | may_map, keep_cache=True)

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        place, ino = self._place(inode)
        if place.workspace is None and flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        self._looked(place, ctx)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._seen(place, ctx, ino)
        if flags & os.O_TRUNC:
            set_ids.cut(place.overlay, ino, ctx)
        return self._opened(place, ino, flags)

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[FileInfo, EntryAttributes]:
        place, found = self._made(parent_inode, name, stat.S_IFREG | stat.S_IMODE(mode), ctx)
        return self._opened(place, found[0], flags), self._entry(place, found)

    def _file(self, fh: int) -> tuple[Place, int]:
        """Of a handle: the inode's number, and two bits: opened for writing, and for reading as well."""
        number, ino = split(fh >> 2)
        return self._places[number], ino

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        place, ino = self._file(fh)
        return place.overlay.read(ino, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        place, ino = self._file(fh)
        for witness in place.witnesses:
            witness.writes(ino)
        return place.overlay.write(ino, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """Nothing is held back: each write was done when it was answered."""

    @guarded
    async def release(self, fh: int) -> None:
        place, ino = self._file(fh)
        for is_counted, counts in ((fh & 1, place.writable), (fh & 2, place.writers)):
            if is_counted:
                counts[ino] -= 1
                if not counts[ino]:
                    del counts[ino]
        place.overlay.closed(ino)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        place, _ = self._file(fh)
        await trio.to_thread.run_sync(place.overlay.sync)


def attributes_of(number: int, found: "_native.Attributes", timeout: float) -> EntryAttributes:
    """`number`: what stat shows, by which the kernel also names it; the root it knows by a name of its own, too."""
    entry = empty_entry(timeout)
    fill(entry, number, found)
    return entry


def empty_entry(timeout: float) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_blksize = 4096
    entry.entry_timeout = timeout
    entry.attr_timeout = timeout
    return entry


def fill(entry: EntryAttributes, number: int, found: "_native.Attributes") -> None:
    """All that differs from inode to inode."""
    _, mode, links, uid, gid, device, size, blocks, atime, mtime, ctime = found
    entry.st_ino = number
    entry.st_mode = mode
    entry.st_nlink = links
    entry.st_uid = uid
    entry.st_gid = gid
    entry.st_rdev = 0 if device == NO_DEVICE else os.makedev(*device)
    entry.st_size = size
    entry.st_blocks = blocks
    entry.st_atime_ns = atime
    entry.st_mtime_ns = mtime
    entry.st_ctime_ns = ctime


def entry_of(found: Found | None) -> EntryAttributes:
    """What was found in a special folder; that it is not there holds for no time: it may come at any moment."""
    return absent(0) if found is None else attributes_of(*found)


def absent(timeout: float) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = timeout
    return entry
