"""The workspace as a live directory: mount, umount, status, commit."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import FOLDER_PATH, repository_folder, verb
from fusecas.client import Client, NoDaemon, to_exception
from fusecas.errors import EnvironmentProblem

if TYPE_CHECKING:
    from fusecas.cli.call import Call

WORK = "work"
PATIENCE = 60.0
MOUNTPOINT_VARIABLES = ("FUSECAS_WORK", "STATEKIT_WORK")


@verb("mount")
@click.argument("folder", type=FOLDER_PATH, required=False, metavar="[DIR]")
@click.option("--allow-other", is_flag=True, help="Other users may enter, as far as modes allow.")
@click.option("--foreground", is_flag=True, help="Stay, and log to stderr.")
def mount(folder: Path | None, allow_other: bool, foreground: bool, call: "Call", repo: Path | None) -> Any:
    """Mount the workspace at DIR (default: .fusecas/work, or $FUSECAS_WORK), an empty folder.

    What is done there survives the death of the daemon; `fusecas commit` makes a layer of it.

    Example: fusecas mount && cd .fusecas/work
    """
    repository = repository_folder(repo).absolute()
    place = mountpoint(folder, repository)
    if not _is_dead(place):  # that of a daemon that was killed can't even be looked at; the next one takes it away
        place.mkdir(parents=True, exist_ok=True)
        place = place.resolve()
    words = [sys.executable, "-m", "fusecas.daemon.serve", str(repository), str(place), str(int(allow_other))]
    if foreground:
        os.execv(sys.executable, [*words, "-1"])
    _start(words, repository)
    if not call.as_json:
        print(f"mounted at {output.printable(str(place))}")
    return output.path_fields(os.fsencode(place), "mountpoint")


def mountpoint(folder: Path | None, repository: Path) -> Path:
    if folder is not None:
        return folder.absolute()
    for variable in MOUNTPOINT_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value).absolute()
    return repository / WORK


def _is_dead(place: Path) -> bool:
    """Whether a mount is there that nobody serves any more."""
    try:
        os.statvfs(place)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _start(words: list[str], repository: Path) -> None:
    """Start the daemon, and wait until its mount answers or it has said why not."""
    run = repository / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    answer, say = os.pipe()
    with (run / "log").open("ab") as log:
        subprocess.Popen(
            [*words, str(say)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(say,),
            start_new_session=True,
            cwd="/",
        )
    os.close(say)
    with os.fdopen(answer, "rb") as answers:
        said = answers.read()
    if not said:
        raise EnvironmentProblem("the daemon died before its mount answered", hint=f"see {run / 'log'}")
    problem = json.loads(said)
    if problem:
        raise to_exception(problem)


@verb("umount")
@click.option("--lazy", is_flag=True, help="Even if somebody is in it: it goes when they leave.")
def umount(lazy: bool, call: "Call", repo: Path | None) -> Any:
    """Unmount the workspace. What is uncommitted stays, for the next mount.

    Example: fusecas umount
    """
    folder = repository_folder(repo)
    with Client(folder) as client:
        daemon = os.pidfd_open(client.call("hello")["pid"])
        try:
            client.call("umount", lazy=lazy)
            # It ends once all is durable.
            if not select.select([daemon], [], [], PATIENCE)[0]:
                raise EnvironmentProblem("the daemon does not end", hint=f"see {folder / 'run' / 'log'}")
        finally:
            os.close(daemon)
    return {}


@verb("status")
def status(call: "Call", repo: Path | None) -> Any:
    """What has changed since the last layer, and where the workspace is mounted.

    Letters: A added, D removed, M modified, T another kind of file, m only modes or attributes.

    Example: fusecas status --json
    """
    folder = repository_folder(repo)
    try:
        with Client(folder) as client:
            found = client.call("status")
    except NoDaemon:
        found = _status_here(folder)
    changes = [(letter, os.fsencode(path), is_directory) for letter, path, is_directory in found["changes"]]
    if not call.as_json:
        place = found["mountpoint"]
        print(f"mounted at {output.printable(place)}" if place else "not mounted")
        if found["failed"]:
            print(output.paint("read-only: the disk has failed to store what was written", "red"))
        for letter, path, is_directory in changes:
            colour = {"A": "green", "D": "red"}.get(letter, "yellow")
            print(f"{output.paint(letter, colour)} {output.path_text(path) or '.'}{'/' if is_directory else ''}")
        if not changes:
            print("nothing uncommitted")
    return {
        "mountpoint": found["mountpoint"],
        "workspace": found["workspace"],
        "failed": found["failed"],
        "changes": [
            {"letter": letter, **output.path_fields(path), "directory": is_directory}
            for letter, path, is_directory in changes
        ],
    }


def _status_here(folder: Path) -> dict[str, Any]:
    from fusecas.store.repository import Repository
    from fusecas.workspace.status import status as status_of
    from fusecas.workspace.workspace import Workspace

    with Repository.open(folder) as repository, repository.held_briefly():
        workspace = Workspace(repository)
        found = status_of(workspace)
        return {
            "mountpoint": None,
            "workspace": workspace.name,
            "failed": False,
            "changes": [[each.letter, os.fsdecode(each.path), each.is_directory] for each in found],
        }


@verb("commit")
@click.option("-m", "--message", help="What to remember of it.")
def commit(message: str | None, call: "Call", repo: Path | None) -> Any:
    """Make a layer of what has changed. Mounted or not; when it returns, it survives power loss.

    Example: fusecas commit -m "before the upgrade"
    """
    from fusecas.cli.layers import check_message

    if message is not None:
        check_message(message)
    folder = repository_folder(repo)
    argv, actor = call.deed()
    try:
        with Client(folder) as client:
            words = [os.fsdecode(each) for each in argv]
            done = client.call("commit", message=message, argv=words, actor=actor)
    except NoDaemon:
        done = _commit_here(folder, message, argv, actor)
    if not call.as_json:
        if done["layer"] is None:
            print("nothing changed")
        else:
            print(f"layer {output.paint(output.short(bytes.fromhex(done['layer'])), 'yellow')}")
    return {**done, "changed": done["layer"] is not None}


def _commit_here(folder: Path, message: str | None, argv: tuple[bytes, ...], actor: str) -> dict[str, Any]:
    from fusecas.store.repository import Repository
    from fusecas.workspace.workspace import Workspace

    with Repository.open(folder) as repository, repository.held_briefly():
        done = Workspace(repository).commit(message, argv=argv, actor=actor)
        return {
            "layer": output.hex_or_none(done.layer),
            "state": done.state.hex(),
            "new_objects": done.new_objects,
            "stored_bytes": done.stored_bytes,
        }


COMMANDS = {"mount": mount, "umount": umount, "status": status, "commit": commit}
