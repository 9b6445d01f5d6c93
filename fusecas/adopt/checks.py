"""What can't be adopted, or not yet: found out before anything is made or moved."""

import errno
import os
import stat
import tempfile
from pathlib import Path

from fusecas.adopt.looking import Look
from fusecas.errors import AlreadyExists, InUse, PathNotFound, PermissionProblem, Refused
from fusecas.mount.device import ask_kernel, mount_at, mount_lines
from fusecas.store.adopted import BEFORE, Note, Places, is_repository, repository_of
from fusecas.store.trees import shown

LONGEST_NAME = 255
MOST_NAMED = 10


def places_to_adopt(folder: Path) -> Places:
    """Where all will be. Refused, if there is no folder that can be adopted."""
    place = Path(os.path.realpath(folder))
    try:
        found = os.stat(place)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise Refused(f"{place} is a mount whose daemon is gone", hint=f"cd {place} && fusecas mount") from error
        if error.errno != errno.ENOENT:
            raise
        raise PathNotFound(f"{place}: no such folder") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{place} is no folder", hint="adopt the folder that it is in")
    if place == place.parent:
        raise Refused("the root of the file system can't be adopted", hint="adopt a folder below it")
    if (place / "store" / "data.mdb").exists():
        raise Refused(f"{place} is a repository itself", hint="adopt the folder that you work in")
    if len(os.fsencode(place.name)) + len(BEFORE) > LONGEST_NAME:
        raise Refused(f"{place.name}: its name is too long for those that lie beside it", hint="rename it first")
    return Places.beside(place)


def check_surroundings(places: Places) -> None:
    _refuse_if_adopted(places)
    check_mounts(places.folder, but=places.within)
    _check_beside(places)


def check_mounts(folder: Path, *, but: Path | None = None) -> None:
    """`but`: where the workspace of a repository in the folder may still be mounted."""
    if mount_at(folder) is None and os.stat(folder).st_dev != os.stat(folder.parent).st_dev:
        raise Refused(f"{folder} is on another file system than {folder.parent}", hint="adopt a folder below it")
    for place, kind, _ in mount_lines():
        at = Path(os.fsdecode(place))
        if at.is_relative_to(folder) and (but is None or not at.is_relative_to(but)):
            raise InUse(f"{at} is a mount", hint="umount it first, or adopt a folder below it")
        if kind == "fuse.fusecas" and folder.is_relative_to(at):
            raise Refused(f"{folder} is in a workspace already, that of {at}", hint="fusecas run and commit work in it")


def _check_beside(places: Places) -> None:
    if not os.access(places.folder.parent, os.W_OK | os.X_OK):
        raise PermissionProblem(
            f"{places.folder.parent} can't be written to, and the folder has to be renamed in it",
            hint="adopt a folder in a folder of your own",
        )
    if os.path.lexists(places.before):
        raise AlreadyExists(f"{places.before} is there already", hint="it would get that name: rename or remove it")
    if os.path.lexists(places.new):
        raise AlreadyExists(f"{places.new} is there already", hint="that name is needed for a moment: rename it")


def _refuse_if_adopted(places: Places) -> None:
    repository = repository_of(places.folder)
    if repository is not None:
        raise AlreadyExists(
            f"{places.folder} is adopted already; its repository is {repository}",
            hint=f"fusecas mount {places.folder}",
        )


def repository_to_use(places: Places) -> Path | None:
    """One that is there already: in the folder, or beside it since it was released."""
    within, beside = is_repository(places.within), is_repository(places.repository)
    if within and os.path.lexists(places.repository):
        raise AlreadyExists(
            f"{places.within} and {places.repository} are both there", hint="move the one that is not meant elsewhere"
        )
    if not beside and os.path.lexists(places.repository):
        raise AlreadyExists(f"{places.repository} is there, and no repository", hint="rename or remove it")
    if beside and (note := Note.read(places.repository)) is not None:
        raise AlreadyExists(
            f"{places.repository} is the repository of an adopted folder already: {note.name}",
            hint="move it to where that folder is, or rename this one",
        )
    return places.within if within else places.repository if beside else None


def try_a_mount() -> None:
    """Before the folder is moved, lest nobody can get at it."""
    with tempfile.TemporaryDirectory(prefix="fusecas-adopt-") as place:
        ask_kernel(Path(place))


def refuse_what_is_not_kept(places: Places, look: Look, *, lossy: bool) -> None:
    folder = places.folder
    if look.repositories:
        raise Refused(
            f"{shown(look.repositories[0])} in {folder} is a repository of its own",
            hint="move it elsewhere: it would be kept as it is in this moment",
        )
    unkept = list(look.unkept)
    if os.path.lexists(places.within) and not is_repository(places.within):
        unkept.append((os.fsencode(places.within.name), "a name that fusecas keeps for itself"))
    if unkept and not lossy:
        raise not_kept(folder, unkept)


def not_kept(folder: Path, found: list[tuple[bytes, str]]) -> Refused:
    named = "; ".join(f"{shown(path)}: {why}" for path, why in found[:MOST_NAMED])
    rest = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return Refused(
        f"not all of {folder} can be kept: {named}{rest}",
        hint="move it elsewhere, or --lossy goes on without it",
        details={"not_kept": [{"path": shown(path), "why": why} for path, why in found]},
    )
