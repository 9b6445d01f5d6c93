"""python -m tests.bench.noop_mount MOUNTPOINT: the least that a file system on pyfuse3 can cost.

Everything is in dicts, entries are made once and handed out again, nothing is checked, logged or kept. What it shares
with the real mount is what the kernel sees: the device, its flags, timeouts and the answers about extended attributes.
It says `ready` once it is mounted, and ends when it is unmounted.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError

from fusecas.mount.device import Device
from fusecas.mount.operations import FOREVER
from fusecas.mount.session import MOST_TASKS


class Inode:
    def __init__(self, number: int, mode: int, uid: int, gid: int) -> None:
        self.entry = entry = EntryAttributes()
        entry.st_ino = number
        entry.st_mode = mode
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = uid, gid
        entry.st_blksize = 4096
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = time.time_ns()
        entry.entry_timeout = entry.attr_timeout = FOREVER
        self.data = bytearray()
        self.names: dict[bytes, Inode] = {}
        self.target = b""


class Nothing(pyfuse3.Operations):
    enable_writeback_cache = False
    enable_acl = True
    supports_dot_lookup = False

    def __init__(self) -> None:
        super().__init__()
        self._next = pyfuse3.ROOT_INODE + 1
        self._inodes = {pyfuse3.ROOT_INODE: Inode(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755, 0, 0)}
        self._absent = EntryAttributes()
        self._absent.st_ino = 0
        self._absent.entry_timeout = FOREVER

    def _make(self, parent: int, name: bytes, mode: int, ctx: Any) -> Inode:
        number, self._next = self._next, self._next + 1
        made = self._inodes[number] = Inode(number, mode & ~ctx.umask, ctx.uid, ctx.gid)
        self._inodes[parent].names[name] = made
        return made

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
        found = self._inodes[parent_inode].names.get(name)
        return self._absent if found is None else found.entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        return self._inodes[inode].entry

    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> EntryAttributes:
        found = self._inodes[inode]
        if fields.update_mode:
            found.entry.st_mode = attr.st_mode
        if fields.update_mtime:
            found.entry.st_mtime_ns = attr.st_mtime_ns
        if fields.update_size:
            found.entry.st_size = attr.st_size
            del found.data[attr.st_size :]
            found.data.extend(bytes(attr.st_size - len(found.data)))
        return found.entry

    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return self._inodes[inode].target

    async def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        names = [*self._inodes[fh].names.items()]
        for at in range(start_id, len(names)):
            name, found = names[at]
            if not pyfuse3.readdir_reply(token, name, found.entry, at + 1):
                return

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        return self._make(parent_inode, name, stat.S_IFDIR | mode, ctx).entry

    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> EntryAttributes:
        made = self._make(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        made.target = bytes(target)
        return made.entry

    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> EntryAttributes:
        return self._make(parent_inode, name, mode, ctx).entry

    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> EntryAttributes:
        found = self._inodes[new_parent_inode].names[new_name] = self._inodes[inode]
        return found.entry

    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        del self._inodes[parent_inode].names[name]

    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        names = self._inodes[parent_inode].names
        if names[name].names:
            raise FUSEError(errno.ENOTEMPTY)
        del names[name]

    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        self._inodes[parent_inode_new].names[name_new] = self._inodes[parent_inode_old].names.pop(name_old)

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        raise FUSEError(errno.ENODATA)

    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        return []

    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        if flags & os.O_TRUNC:
            found = self._inodes[inode]
            found.data.clear()
            found.entry.st_size = 0
        return FileInfo(fh=inode, keep_cache=True)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[FileInfo, EntryAttributes]:
        made = self._make(parent_inode, name, stat.S_IFREG | mode, ctx)
        return FileInfo(fh=made.entry.st_ino, keep_cache=True), made.entry

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(memoryview(self._inodes[fh].data)[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        found = self._inodes[fh]
        found.data[off : off + len(buf)] = buf
        found.entry.st_size = len(found.data)
        return len(buf)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass

    async def releasedir(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        pass


async def serve(device: Device) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main, 1, MOST_TASKS)
        await trio.to_thread.run_sync(os.stat, device.mountpoint)
        print("ready", flush=True)


def main() -> None:
    device = Device(Path(sys.argv[1]), allow_other=False)
    pyfuse3.init(Nothing(), device.path, {"fsname=noop"})
    device.start()
    try:
        trio.run(serve, device)
    finally:
        pyfuse3.close(unmount=False)
        device.close()


if __name__ == "__main__":
    main()
