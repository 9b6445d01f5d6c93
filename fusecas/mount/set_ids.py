"""Set-user-id and set-group-id bits where the kernel leaves it to the file system to take them away: a file cut by
O_TRUNC, and an access list that is set."""

import stat
from typing import Any

import pyfuse3

from fusecas import _native

ACCESS_LIST = b"system.posix_acl_access"


def is_in_group(group: int, ctx: Any) -> bool:
    """Whether who asks is in a group, or is root and need not be."""
    if ctx.uid == 0 or group == ctx.gid:
        return True
    try:
        return group in pyfuse3.get_sup_groups(ctx.pid)
    except OSError:
        return False  # it has gone, or is in another namespace of processes: then it can't be known


def cut(overlay: "_native.Overlay", ino: int, ctx: Any) -> None:
    """Empty a file, as O_TRUNC asks for."""
    mode, group = _mode_and_group(overlay, ino)
    kept = mode
    if ctx.uid != 0:
        drops_group = mode & stat.S_IXGRP or not is_in_group(group, ctx)
        kept = mode & ~stat.S_ISUID & ~(stat.S_ISGID if drops_group else 0)
    overlay.setattr(ino, size=0, mode=kept if kept != mode else None)


def set_xattr(overlay: "_native.Overlay", ino: int, name: bytes, value: bytes, ctx: Any) -> None:
    overlay.setxattr(ino, name, value)
    mode, group = _mode_and_group(overlay, ino)
    if name == ACCESS_LIST and mode & stat.S_ISGID and not is_in_group(group, ctx):
        overlay.setattr(ino, mode=mode & ~stat.S_ISGID)


def _mode_and_group(overlay: "_native.Overlay", ino: int) -> tuple[int, int]:
    _, mode, _, _, group, *_ = overlay.getattr(ino)
    return stat.S_IMODE(mode), group
