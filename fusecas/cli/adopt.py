"""A folder becomes a workspace, and a workspace a folder again: adopt, release."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import live_in
from fusecas.cli.common import FOLDER_PATH, check_message, verb
from fusecas.cli.progress import files, progress
from fusecas.cli.where import repository_at
from fusecas.errors import FusecasError, UsageError

if TYPE_CHECKING:
    from fusecas.adopt.giving import Released
    from fusecas.adopt.taking import Wishes
    from fusecas.cli.call import Call
    from fusecas.store.adopted import Places
    from fusecas.workspace.importing import ImportedLayer


@verb("adopt")
@click.argument("folder", type=FOLDER_PATH, metavar="DIR")
@click.option("-m", "--message", help="What to remember of its first layer.")
@click.option("--lossy", is_flag=True, help="Even if something in it can't be kept: that is left out, and named.")
@click.option("--force", is_flag=True, help="Even if others are in it, or write to it.")
def adopt(folder: Path, message: str | None, lossy: bool, force: bool, call: "Call", repo: Path | None) -> Any:
    """Take the folder DIR over: its files become a layer, and the workspace is mounted in its place.

    The repository is made beside it, as DIR.fusecas. The folder as it was stays, as DIR.before-fusecas; remove it when
    you like. What can't be kept is refused before anything is moved. fusecas release DIR gives a plain folder back.

    Example: fusecas adopt .
    """
    from fusecas.adopt.checks import places_to_adopt
    from fusecas.adopt.taking import Wishes
    from fusecas.adopt.taking import adopt as take
    from fusecas.workspace.mover import Deed

    if repo is not None:
        raise UsageError("adopt makes a repository of its own, DIR.fusecas", hint="fusecas adopt DIR, without --repo")
    if message is not None:
        check_message(message)
    stands_in_it = Path.cwd().is_relative_to(os.path.realpath(folder))
    argv, actor = call.deed()
    with progress("adopting", files) as tell:
        wishes = Wishes(lossy, force, message, Deed(argv, actor), output.note, _end_daemon, tell)
        places = places_to_adopt(folder)
        found = None if _go_on(places, wishes) else take(places, wishes)
    _mount(places)
    if not call.as_json:
        _say(places, found)
    if stands_in_it:
        output.note("this shell is still in the folder as it was: cd . goes into the workspace")
    return _as_json(places, found)


def _go_on(places: "Places", wishes: "Wishes") -> bool:
    """Whether an adopt that was interrupted is done now, but for the mount. If it went back, all begins again."""
    from fusecas.adopt.settling import settle
    from fusecas.store.adopted import is_pointer_folder, is_repository

    done = False
    for repository in (places.within, places.repository):
        came = settle(repository, wishes) if is_repository(repository) else None
        if came is not None:
            output.note(came.said)
            done = done or came.is_adopted
    if not done and os.path.isdir(places.folder) and is_pointer_folder(places.folder, places.repository):
        output.note(f"{places.folder} is adopted already, and was not mounted")
        done = True
    return done


def _mount(places: "Places") -> None:
    from fusecas import starting

    try:
        starting.mount_at(places.repository, places.folder)
    except FusecasError:
        output.note(f"{places.folder} is adopted, and could not be mounted")
        output.note(f"fusecas mount {places.folder}, when that is mended; or fusecas release {places.folder}")
        raise


def _end_daemon(repository: Path) -> None:
    from fusecas import starting
    from fusecas.client import NoDaemon

    with suppress(NoDaemon):
        starting.end(repository)


def _say(places: "Places", found: "ImportedLayer | None") -> None:
    if found is not None and found.layer is not None:
        print(f"layer {output.paint(output.short(found.layer), 'yellow')}")
    if found is not None:
        print(f"{output.count(found.imported.files, 'file')}, {output.size_text(found.imported.size)}")
    print(f"{output.printable(str(places.folder))} is a workspace; its repository is {_name(places.repository)}")
    print(f"as it was: {_name(places.before)}, to be removed when you like")


def _name(path: Path) -> str:
    return output.printable(str(path))


def _as_json(places: "Places", found: "ImportedLayer | None") -> dict[str, Any]:
    return {
        **_place_fields(places),
        "layer": None if found is None else output.hex_or_none(found.layer),
        "files": None if found is None else found.imported.files,
        "directories": None if found is None else found.imported.directories,
        "size": None if found is None else found.imported.size,
    }


@verb("release")
@click.argument("folder", type=FOLDER_PATH, metavar="[DIR]", required=False)
@click.option("--lossy", is_flag=True, help="Even if something can't be set here: that is left out, and named.")
def release(folder: Path | None, lossy: bool, call: "Call", repo: Path | None) -> Any:
    """Give the adopted folder DIR (default: the one around here) back as a plain folder, with all that is in it now.

    Nobody may be in it: cd .. first. What is uncommitted becomes a layer. The repository stays beside it, as
    DIR.fusecas: fusecas adopt goes on with it. The folder as it was before, DIR.before-fusecas, is left alone.

    Example: fusecas release project
    """
    from fusecas.store.adopted import Note, Places

    repository = repository_at(folder, repo)
    note = Note.read(repository)
    came = None
    if note is None or not _is_released_now(repository):
        came = _give(repository, lossy, call)
        places = came.places
    else:
        places = Places.of(repository, note)
    has_before = os.path.lexists(places.before)
    if not call.as_json:
        if came is not None:
            print(f"{output.count(came.exported.files, 'file')}, {output.size_text(came.exported.size)}")
        print(f"{_name(places.folder)} is a plain folder; its repository stays: {_name(places.repository)}")
        if has_before:
            print(f"as it was before it was adopted: {_name(places.before)}")
        if came is not None and came.others:
            print(f"other workspaces stay in the repository: {output.printable(', '.join(came.others))}")
    return {
        **_place_fields(places),
        **({} if has_before else {"before": None}),
        "layer": None if came is None else output.hex_or_none(came.layer),
        "files": None if came is None else came.exported.files,
        "directories": None if came is None else came.exported.directories,
        "size": None if came is None else came.exported.size,
        "workspaces": None if came is None else came.others,
    }


def _is_released_now(repository: Path) -> bool:
    """Whether a release that was interrupted was at its end; any other one is settled, and begins again."""
    from fusecas.adopt.settling import settle

    came = settle(repository)
    if came is not None:
        output.note(came.said)
    return came is not None and not came.is_adopted


def _give(repository: Path, lossy: bool, call: "Call") -> "Released":
    from fusecas.adopt.giving import Terms, release
    from fusecas.workspace.mover import Deed

    def commit() -> None:
        done = live_in(repository, call, None).commit(None)
        if done["layer"] is not None:
            output.note(f"what was uncommitted is layer {output.short(bytes.fromhex(done['layer']))}")

    argv, actor = call.deed()
    with progress("releasing", files) as tell:
        came = release(repository, Terms(commit, lambda: _end_daemon(repository), lossy, Deed(argv, actor), tell))
    for path, what, why in came.exported.unset:
        output.note(f"could not set {what} of {output.path_text(path) or '/'}: {why}")
    return came


def _place_fields(places: "Places") -> dict[str, Any]:
    return {
        **output.path_fields(os.fsencode(places.folder), "folder"),
        **output.path_fields(os.fsencode(places.repository), "repository"),
        **output.path_fields(os.fsencode(places.before), "before"),
    }


COMMANDS = {"adopt": adopt, "release": release}
