"""What a call is about: which repository, which workspace, which paths of it."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusecas.cli import output
from fusecas.errors import RepositoryNotFound, UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call

WORKSPACE_VARIABLE = "FUSECAS_WS"
FOLDER = ".fusecas"
REPOSITORY_VARIABLES = ("FUSECAS_DIR", "STATEKIT_DIR", "E3_REPO")

ws_option = click.option(
    "--ws", metavar="NAME", help="Which workspace (default: $FUSECAS_WS, the one we are in, the mounted one, main)."
)


def come_back(place: str | None = None) -> None:
    """A shell that stands in a mount whose daemon has died stays there, also when it is mounted anew at the same place:
    then it has no current folder any more. So neither had we."""
    try:
        os.getcwd()
    except OSError as error:
        named = place or os.environ.get("PWD", "")
        if error.errno != errno.ENOTCONN or not (os.path.isabs(named) and os.path.isdir(named)):
            return
        os.chdir(named)
        output.note("this shell is in the mount that has gone: cd . goes into the new one")


# ---- the repository


def repository_folder(repo: Path | None) -> Path:
    """--repo, else the environment, else the nearest `.fusecas` upward."""
    from fusecas.store.finding import find

    named = named_folder(repo)
    if named is None:
        return find(Path.cwd())
    folder, by = named
    if not (folder / "store").is_dir():
        inside = folder / FOLDER
        found = (inside / "store").is_dir()
        hint = f"{by} names the {FOLDER} folder itself: {inside}" if found else "fusecas init makes one"
        raise RepositoryNotFound(f"{by}: {folder} is not a repository", hint=hint)
    return folder


def repository_at(folder: Path | None, repo: Path | None) -> Path:
    """The one of a folder that is given, which is a workspace's; else as `repository_folder`."""
    from fusecas.store.finding import find

    if folder is None:
        return repository_folder(repo).absolute()
    if repo is not None:
        raise UsageError("DIR and --repo both name what is meant", hint="give one of them")
    return find(Path(os.path.realpath(folder)))


def named_folder(repo: Path | None) -> tuple[Path, str] | None:
    """The repository's folder and what named it, if anything does."""
    if repo is not None:
        return repo, "--repo"
    for variable in REPOSITORY_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value), variable
    return None


# ---- the workspace


def chosen_workspace(ws: str | None) -> str | None:
    """Its name; None if whoever answers is to choose."""
    name = ws or os.environ.get(WORKSPACE_VARIABLE)
    if not name and (root := around(Path.cwd())) is not None:
        name = root.name
    return name or None


def current_workspace(call: "Call", folder: Path) -> str:
    """The name of the workspace that a call is about if it does not say; the daemon knows which one is mounted."""
    if call.workspace is None:
        call.workspace = chosen_workspace(None) or _mounted(folder)
    return call.workspace


def _mounted(folder: Path) -> str:
    from fusecas.store.heads import DEFAULT

    if not (folder / "run" / "socket").exists():
        return DEFAULT
    from fusecas import asking
    from fusecas.client import NoDaemon

    try:
        return str(asking.ask_daemon(folder, "place", {})["workspace"])
    except NoDaemon:
        return DEFAULT


def around(place: Path) -> Path | None:
    """The root `.fusecas/ws/NAME` of a workspace, if that is above in a mount."""
    for folder in (place, *place.parents):
        above = folder.parent
        if (above.name, above.parent.name) == ("ws", ".fusecas") and os.path.islink(above.parent / "repo"):
            return folder
    return None


def paths_of(folder: Path, words: Sequence[str]) -> list[str]:
    """Paths from the workspace's root, of what a person wrote: from where we are if that is in a workspace of this
    repository, else from its root."""
    return [_path_of(folder, word) for word in words]


def _path_of(folder: Path, word: str) -> str:
    if not word:  # not the root: a variable that was not set is no wish for everything
        raise UsageError("a path is empty", hint=". is everything here")
    place = Path(os.path.normpath(Path.cwd() / word))
    root = _root_around(folder, place if word.startswith("/") else Path.cwd())
    path = os.path.normpath(word) if root is None else os.path.relpath(place, root)
    first = path.split("/")[0]
    if first in ("", ".."):
        raise UsageError(f"{word!r} is outside of the workspace")
    if first == FOLDER:
        raise UsageError(f"{word!r} is inside of {FOLDER}, which is no part of a workspace")
    return "" if path == "." else path


def _root_around(folder: Path, place: Path) -> Path | None:
    """The root of the workspace that we are in, if it is one of this repository."""
    for above in (place, *place.parents):
        link = above / FOLDER / "repo"
        if os.path.islink(link) and os.path.samefile(link, folder):
            return above
    return None
