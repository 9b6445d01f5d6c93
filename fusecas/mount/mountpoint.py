"""Where a workspace is to be mounted: what may be there, what a daemon that was killed has left, where that was."""

import errno
import os
from pathlib import Path

from fusecas.errors import InUse, PermissionProblem, Refused, UsageError, of_system
from fusecas.mount.device import bind_mount, detach, is_mounted, is_stale
from fusecas.store.repository import MOUNTPOINT

WORK = "work"


def prepare(repository: Path, mountpoint: Path) -> None:
    """For who holds the repository's lock: an empty folder is there, or it is refused and nothing was made."""
    clear_away(repository)
    if is_stale(mountpoint):
        detach(mountpoint)
    if mountpoint.is_relative_to(repository.resolve()) and mountpoint != repository.resolve() / WORK:
        raise Refused(f"{mountpoint} is inside of the repository", hint=f"{WORK} in it, or a folder elsewhere")
    if is_mounted(mountpoint):
        raise InUse(f"{mountpoint} is a mount already", hint="mount on an empty folder")
    try:
        mountpoint.mkdir(parents=True, exist_ok=True)
        is_empty = not any(os.scandir(mountpoint))
    except OSError as error:
        raise _refusal(mountpoint, error) from error
    if not is_empty:
        raise Refused(f"{mountpoint} is not empty", hint="mount on an empty folder")


def bind(source: bytes, place: Path) -> bool:
    """Show a folder of a mount at another place: bound there, or by a link to it (False) if that is not permitted."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        if any(os.scandir(place)):
            raise Refused(f"{place} is not empty", hint="bind to an empty folder")
        if bind_mount(source, place):
            return True
        place.rmdir()
        place.symlink_to(os.fsdecode(source))
    except OSError as error:
        raise _refusal(place, error) from error
    return False


def _refusal(mountpoint: Path, error: OSError) -> Exception:
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return Refused(f"{mountpoint} is no folder", hint="mount on an empty folder")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError("the path of the mountpoint is too long", hint="a name has at most 255 bytes, a path 4095")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionProblem(f"{mountpoint}: {error.strerror}", hint="mount on a folder of your own")
    return of_system(error)


def record(repository: Path, mountpoint: Path) -> None:
    """So that the next daemon, and doctor, know where this one was, however it ends."""
    place = repository / MOUNTPOINT
    place.parent.mkdir(mode=0o700, exist_ok=True)
    new = place.with_suffix(".new")
    new.write_bytes(os.fsencode(mountpoint))
    new.rename(place)


def recorded(repository: Path) -> Path | None:
    """Where the repository was mounted last."""
    try:
        return Path(os.fsdecode((repository / MOUNTPOINT).read_bytes()))
    except FileNotFoundError:
        return None


def clear_away(repository: Path) -> bool:
    """Take away the mount that a daemon of this repository has left, if it has."""
    place = recorded(repository)
    if place is None or not is_stale(place):
        return False
    detach(place)
    return True
