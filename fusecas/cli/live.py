"""The workspace as a live directory: mount, umount."""

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import WORKSPACE_VARIABLE, chosen_workspace, ws_option
from fusecas.cli.common import FOLDER_PATH, repository_folder, verb
from fusecas.client import Client, NoDaemon, to_exception
from fusecas.errors import EnvironmentProblem, InUse
from fusecas.wire import path_of

if TYPE_CHECKING:
    from fusecas.cli.call import Call

WORK = "work"
PATIENCE = 60.0
PATIENCE_IF_LAZY = 1.0
MOUNTPOINT_VARIABLES = ("FUSECAS_WORK", "STATEKIT_WORK")


@verb("mount")
@click.argument("folder", type=FOLDER_PATH, required=False, metavar="[DIR]")
@ws_option
@click.option("--allow-other", is_flag=True, help="Other users may enter, as far as modes allow.")
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
def mount(
    folder: Path | None, ws: str | None, allow_other: bool, foreground: bool, call: "Call", repo: Path | None
) -> Any:
    """Mount the workspace at DIR (default: .fusecas/work, or $FUSECAS_WORK), an empty folder.

    If the repository is mounted already, DIR with --ws shows that workspace there as well: bound, or by a link if
    binding is not permitted.

    What is done there survives the death of the daemon; `fusecas commit` makes a layer of it.

    Example: fusecas mount && cd .fusecas/work
    """
    from fusecas.store.heads import DEFAULT

    repository = repository_folder(repo).absolute()
    # As the table of mounts will have it; what a daemon that was killed has left can't be looked at, which is no harm.
    place = Path(os.path.realpath(mountpoint(folder, repository)))
    words = _daemon(repository, ws or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT, place, allow_other=allow_other)
    if ws is not None and folder is not None and (source := _place_of(repository, ws)) is not None:
        return _show_at(source, place, call)
    if foreground:
        os.execve(sys.executable, [*words, "-1"], _variables())
    _start(words, repository)
    if not call.as_json:
        print(f"mounted at {output.printable(str(place))}")
    return output.path_fields(os.fsencode(place), "mountpoint")


def _daemon(repository: Path, name: str, place: Path, *, allow_other: bool = False) -> list[str]:
    return [sys.executable, "-m", "fusecas.daemon.serve", str(repository), name, str(place), str(int(allow_other))]


def serving(repository: Path) -> Client:
    """The daemon of a repository; if there is none, one is started where it was mounted last, or by default."""
    try:
        return Client(repository)
    except NoDaemon:
        from fusecas.mount.mountpoint import recorded
        from fusecas.store.heads import DEFAULT

    place = recorded(repository) or Path(os.path.realpath(mountpoint(None, repository)))
    with suppress(InUse):  # somebody else was faster
        _start(_daemon(repository, DEFAULT, place), repository)
    return Client(repository)


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
    if folder is not None:
        return folder.absolute()
    for variable in MOUNTPOINT_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value).absolute()
    return repository / WORK


def _start(words: list[str], repository: Path) -> None:
    """Start the daemon, and wait until its mount answers or it has said why not."""
    run = repository / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    answer, say = os.pipe()
    with (run / "log").open("ab") as log:
        starting = subprocess.Popen(
            [*words, str(say), "detached"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(say,),
            start_new_session=True,
            cwd="/",
            env=_variables(),
        )
    os.close(say)
    starting.wait()
    with os.fdopen(answer, "rb") as answers:
        said = answers.read()
    if not said:
        raise EnvironmentProblem("the daemon died before its mount answered", hint=f"see {run / 'log'}")
    problem = json.loads(said)
    if problem:
        raise to_exception(problem)


def _variables() -> dict[str, str]:
    """Of a daemon: it is part of no run, though one may have started it, since it serves whoever comes."""
    from fusecas.runner import RUN_VARIABLE

    return {name: value for name, value in os.environ.items() if not name.startswith(RUN_VARIABLE)}


@verb("umount")
@click.option("--lazy", is_flag=True, help="Even if somebody is in it: it goes when they leave.")
def umount(lazy: bool, call: "Call", repo: Path | None) -> Any:
    """Unmount the workspace. What is uncommitted stays, for the next mount.

    Example: fusecas umount
    """
    end_daemon(repository_folder(repo), lazy=lazy)
    return {}


def end_daemon(folder: Path, *, lazy: bool) -> None:
    """When this returns, it has unmounted the workspace, and all is durable."""
    try:
        client = Client(folder)
    except NoDaemon:
        from fusecas.mount.mountpoint import clear_away

        if clear_away(folder):  # what a daemon that was killed has left
            return
        raise
    with client:
        daemon = os.pidfd_open(client.call("hello")["pid"])
        try:
            client.call("umount", lazy=lazy)
            # It ends once all is durable.
            has_ended = select.select([daemon], [], [], PATIENCE_IF_LAZY if lazy else PATIENCE)[0]
            if lazy and not has_ended:
                output.note("somebody is in it: its daemon ends when they leave")
            elif not has_ended:
                raise EnvironmentProblem("the daemon does not end", hint=f"see {folder / 'run' / 'log'}")
        finally:
            os.close(daemon)


@verb("path")
@ws_option
def path(ws: str | None, call: "Call", repo: Path | None) -> Any:
    """Where the workspace is, and nothing else: cd "$(fusecas path)". It is mounted, where it was last, if it is not.

    Example: fusecas path --ws attempt-2
    """
    with serving(repository_folder(repo)) as client:
        found = client.call("place", **chosen_workspace(ws))
    place = path_of(found, "place")
    if not call.as_json:
        output.write_bytes(place + b"\n")
    return {"workspace": found["workspace"], **output.path_fields(place)}


COMMANDS = {"mount": mount, "umount": umount, "path": path}
