"""A folder with all that folders can have, and all that can be seen of one."""

import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

IS_ROOT = os.geteuid() == 0
NAMES = [b"caf\xe9", b"a\nb", b"-rf", b" ", b"@x", b"\\", "ä".encode(), b"x" * 255, b"constructor", b".gitignore"]
LARGE = 20 << 20
OLD = 1_000_000_000_123_456_789
ACCESS_LIST = struct.pack(
    "<I" + "HHI" * 5, 2, *(1, 6, 0xFFFFFFFF, 2, 4, 1234, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF)
)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)

Seen = dict[bytes, tuple[Any, ...]]


def make(folder: Path) -> None:
    """Times are set last: making one changes that of its directory."""
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name * 3)
    (folder / "empty").touch()
    (folder / "large").write_bytes(os.urandom(3 << 20))
    with (folder / "sparse").open("wb") as file:
        file.truncate(LARGE)
        file.seek(LARGE // 2)
        file.write(b"in the middle")
    deep = folder / "d"
    for at in range(30):
        deep = deep / f"deep{at}"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep\n")
    (folder / "nothing").mkdir()
    for name in ("d/linked", "nothing/linked", "z"):
        (folder / "one").touch()
        os.link(folder / "one", folder / name)
    (folder / "one").write_text("one file, four names\n")
    os.symlink("one", folder / "link")
    os.symlink(b"nowhere/caf\xe9", os.fsencode(folder / "dangling"))
    os.link(folder / "link", folder / "d" / "link", follow_symlinks=False)
    os.mkfifo(folder / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(folder / "socket"))
    for mode in (0o000, 0o444, 0o755, 0o4755, 0o2755, 0o6711):
        (folder / f"mode{mode:o}").write_text("x")
        (folder / f"mode{mode:o}").chmod(mode)
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o3777)
    (folder / "closed").mkdir()
    (folder / "closed" / "file").write_text("x")
    os.setxattr(folder / "one", "user.short", b"value")
    os.setxattr(folder / "d", "user.empty", b"")
    os.setxattr(folder / "large", "user.long", b"l" * 2000)
    os.setxattr(folder / "z", "system.posix_acl_access", ACCESS_LIST)
    os.setxattr(folder / "d", "system.posix_acl_default", ACCESS_LIST)
    if IS_ROOT:
        _make_as_root(folder)
    for at, (path, _, _, _) in enumerate(os.fwalk(folder, topdown=False)):
        for name in os.listdir(path):
            os.utime(os.path.join(path, name), ns=(OLD, OLD + at), follow_symlinks=False)
    (folder / "closed").chmod(0o500)
    os.utime(folder, ns=(OLD, OLD - 1))
    folder.chmod(0o751)


def _make_as_root(folder: Path) -> None:
    for at, name in enumerate(("theirs", "group", "both")):
        (folder / name).write_text("x")
        os.chown(folder / name, *((1234, -1), (-1, 1235), (1236, 1237))[at])
    os.lchown(folder / "dangling", 1238, 1239)
    os.chown(folder / "sticky", 1240, 1241)
    (folder / "sticky").chmod(0o3777)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(259, 77))
    (folder / "capable").write_text("x")
    os.setxattr(folder / "capable", "security.capability", CAPABILITY)
    os.setxattr(folder / "one", "trusted.secret", b"for root")


def look(folder: Path, *, is_mounted: bool = False) -> Seen:
    """All that can be seen, but for access times and ctimes. `is_mounted`: without what a mount does not show."""
    names = [b"", *(each for each in _all_below(os.fsencode(folder)))]
    names.sort()
    groups: dict[int, bytes] = {}
    return {name: _seen(os.fsencode(folder), name, groups, is_mounted) for name in names}


def _all_below(folder: bytes) -> list[bytes]:
    return [
        os.path.relpath(os.path.join(path, name), folder)
        for path, directories, files in os.walk(folder)
        for name in (*directories, *files)
    ]


def _seen(folder: bytes, name: bytes, groups: dict[int, bytes], is_mounted: bool) -> tuple[Any, ...]:
    path = os.path.join(folder, name) if name else folder
    own = os.lstat(path)
    first = groups.setdefault(own.st_ino, name)
    content: bytes | None = None
    if stat.S_ISREG(own.st_mode):
        with open(path, "rb") as file:
            content = file.read()
    elif stat.S_ISLNK(own.st_mode):
        content = os.readlink(path)
    xattrs = sorted(os.listxattr(path, follow_symlinks=False))
    if is_mounted:
        xattrs = [each for each in xattrs if not each.startswith("trusted.")]
    values = [(each, os.getxattr(path, each, follow_symlinks=False)) for each in xattrs]
    if not stat.S_ISDIR(own.st_mode):
        values += [("links", b"%d" % own.st_nlink), ("size", b"%d" % own.st_size), ("first", first)]
    return own.st_mode, own.st_uid, own.st_gid, own.st_rdev, own.st_mtime_ns, content, values
