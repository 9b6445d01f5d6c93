"""The workspace as a live directory: mount, umount."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import FOLDER_PATH, verb
from fusecas.cli.where import (
    WORKSPACE_VARIABLE,
    chosen_workspace,
    named_folder,
    repository_at,
    repository_folder,
    ws_option,
)
from fusecas.client import Client, NoDaemon
from fusecas.wire import path_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call

WORK = "work"
MOUNTPOINT_VARIABLES = ("FUSECAS_WORK", "STATEKIT_WORK")


@verb("mount")
@click.argument("folder", type=FOLDER_PATH, required=False, metavar="[DIR]")
@ws_option
@click.option("--allow-other", is_flag=True, help="Other users may enter, as far as modes allow.")
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
def mount(
    folder: Path | None, ws: str | None, allow_other: bool, foreground: bool, call: "Call", repo: Path | None
) -> Any:
    """Mount the workspace at DIR (default: the folder that was adopted, or $FUSECAS_WORK, or .fusecas/work), which
    must be empty.

    If the repository is mounted already, DIR with --ws shows that workspace there as well: bound, or by a link if
    binding is not permitted.

    What is done there survives the death of the daemon; `fusecas commit` makes a layer of it.

    Example: fusecas mount && cd .fusecas/work
    """
    from fusecas import starting
    from fusecas.store.heads import DEFAULT

    repository = _repository_to_mount(folder, repo)
    starting.settle(repository, output.note)
    # As the table of mounts will have it; what a daemon that was killed has left can't be looked at, which is no harm.
    place = Path(os.path.realpath(mountpoint(folder, repository)))
    name = ws or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT
    words = starting.daemon(repository, name, place, allow_other=allow_other)
    if ws is not None and folder is not None and (source := _place_of(repository, ws)) is not None:
        return _show_at(source, place, call)
    if foreground:
        os.execve(sys.executable, [*words, "-1"], starting.variables())
    starting.start(words, repository)
    if not call.as_json:
        print(f"mounted at {output.printable(str(place))}")
    return output.path_fields(os.fsencode(place), "mountpoint")


def _repository_to_mount(folder: Path | None, repo: Path | None) -> Path:
    """An adopted folder says by itself whose workspace it stands for."""
    from fusecas.store.adopted import repository_of

    if folder is not None and named_folder(repo) is None:
        found = repository_of(Path(os.path.realpath(folder)))
        if found is not None:
            return found
    return repository_folder(repo).absolute()


def serving(repository: Path) -> Client:
    """The daemon of a repository; if there is none, one is started where it was mounted last, or by default."""
    from fusecas import starting
    from fusecas.cli.where import come_back

    here = os.getcwd()
    client = starting.serving(repository, mountpoint(None, repository), output.note)
    come_back(here)
    return client


def _place_of(repository: Path, name: str) -> bytes | None:
    """Where a workspace lives in the mount, if the repository is mounted."""
    try:
        with Client(repository) as client:
            return path_of(client.call("status", ws=name), "mountpoint")
    except NoDaemon:
        return None


def _show_at(source: bytes, place: Path, call: "Call") -> dict[str, Any]:
    """One mount serves the whole repository: another place is bound to a workspace in it, or leads there."""
    from fusecas.mount.mountpoint import bind

    is_bound = bind(source, place)
    if not call.as_json:
        how = "is bound to" if is_bound else "is a link to"
        print(f"{output.printable(str(place))} {how} {output.path_text(source)}; the repository is mounted already")
    return {**output.path_fields(os.fsencode(place), "mountpoint"), "bound": is_bound}


def mountpoint(folder: Path | None, repository: Path) -> Path:
    from fusecas.store.adopted import adopted_folder

    if folder is not None:
        return folder.absolute()
    for variable in MOUNTPOINT_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value).absolute()
    return adopted_folder(repository) or repository / WORK


@verb("umount")
@click.argument("folder", type=FOLDER_PATH, required=False, metavar="[DIR]")
@click.option("--lazy", is_flag=True, help="Even if somebody is in it: it goes when they leave.")
def umount(folder: Path | None, lazy: bool, call: "Call", repo: Path | None) -> Any:
    """Unmount the workspace (that at DIR, or the one around here). What is uncommitted stays, for the next mount.

    Example: fusecas umount
    """
    from fusecas import starting

    if not starting.end(repository_at(folder, repo), lazy=lazy):
        output.note("somebody is in it: its daemon ends when they leave")
    return {}


@verb("path")
@ws_option
def path(ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Where the workspace is, and nothing else: cd "$(fusecas path)". It is mounted, where it was last, if it is not.

    Example: fusecas path --ws attempt-2
    """
    with serving(repository_folder(repo)) as client:
        found = client.call("place", ws=chosen_workspace(ws))
    place = path_of(found, "place")
    if not call.as_json:
        output.write_bytes(place + b"\n")
    return {"workspace": found["workspace"], **output.path_fields(place)}


COMMANDS = {"mount": mount, "umount": umount, "path": path}
