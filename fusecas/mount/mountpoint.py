"""Where a workspace is to be mounted: what may be there, what a daemon that was killed has left, where that was."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fusecas.errors import InUse, PermissionProblem, Refused, UsageError, of_system
from fusecas.mount.device import bind_mount, detach, is_mounted, is_stale
from fusecas.store import adopted
from fusecas.store.repository import MOUNTPOINT

WORK = "work"


def prepare(repository: Path, mountpoint: Path) -> None:
    """For who holds the repository's lock: an empty folder, or the pointer to this repository, is there, or it is
    refused and nothing was made."""
    clear_away(repository)
    if is_stale(mountpoint):
        detach(mountpoint)
    if mountpoint.is_relative_to(repository.resolve()) and mountpoint != repository.resolve() / WORK:
        raise Refused(f"{mountpoint} is inside of the repository", hint=f"{WORK} in it, or a folder elsewhere")
    if is_mounted(mountpoint):
        raise InUse(f"{mountpoint} is a mount already", hint="mount on an empty folder")
    if mountpoint == adopted.adopted_folder(repository) and not os.path.lexists(mountpoint):
        raise Refused(f"{mountpoint}, which was adopted, is not there", hint="fusecas mount DIR, where it is now")
    try:
        mountpoint.mkdir(parents=True, exist_ok=True)
        may_be = not any(os.scandir(mountpoint)) or adopted.is_pointer_folder(mountpoint, repository)
    except OSError as error:
        raise _refusal(mountpoint, error) from error
    if not may_be:
        raise _occupied(repository, mountpoint)
    _note_new_name(repository, mountpoint)


def _note_new_name(repository: Path, mountpoint: Path) -> None:
    """An adopted folder may have been renamed while it was not mounted."""
    note = adopted.Note.read(repository)
    if note is not None and note.name != mountpoint.name and adopted.pointed_at(mountpoint) is not None:
        note._replace(name=mountpoint.name).write(repository)


def _occupied(repository: Path, mountpoint: Path) -> Refused:
    pointed_at = adopted.pointed_at(mountpoint)
    if pointed_at is None or pointed_at != repository:
        why = "is not empty" if pointed_at is None else f"stands for the workspace of {pointed_at}"
        return Refused(f"{mountpoint} {why}", hint="mount on an empty folder")
    return Refused(
        f"{mountpoint} holds more than the pointer to this repository",
        hint="move what else is in it to a place outside, then fusecas mount again",
    )


@contextmanager
def lent(repository: Path, mountpoint: Path) -> Iterator[None]:
    """fusermount3 mounts only where its user may write, and nobody is to write into a pointer folder: it is writable
    for this moment."""
    if os.access(mountpoint, os.W_OK) or not adopted.is_pointer_folder(mountpoint, repository):
        yield
        return
    below = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the mount will hide it
    try:
        mode = os.fstat(below).st_mode & 0o7777
        os.fchmod(below, mode | 0o200)
        try:
            yield
        finally:
            os.fchmod(below, mode)
    finally:
        os.close(below)


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


def forget(repository: Path) -> None:
    """The next daemon is not to mount there again."""
    (repository / MOUNTPOINT).unlink(missing_ok=True)


def clear_away(repository: Path) -> bool:
    """Take away the mount that a daemon of this repository has left, if it has."""
    place = recorded(repository)
    if place is None or not is_stale(place):
        return False
    detach(place)
    return True
