"""reset: other names of checkout, for those who look for it; and the end of a repository."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.asking import wait_option
from fusecas.cli.common import MOST_NUMBER, verb
from fusecas.cli.where import current_workspace, repository_folder, ws_option
from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call

OTHER_WAYS = (
    "fusecas checkout --discard throws away what is uncommitted, undo takes back the last step, reset --to REF goes to "
    "a layer, reset --all --yes puts the repository away"
)


@verb("reset")
@click.option("--to", metavar="REF", help="As checkout REF.")
@click.option("--at", metavar="TIME", help="Where the workspace was then: 2026-11-24T10:00, yesterday, 10m, 2h, 3d.")
@click.option("--version", type=click.IntRange(1, MOST_NUMBER), metavar="N", help="Where it was after operation N.")
@click.option("--match", metavar="NAME", help="Where the workspace NAME is.")
@wait_option
@click.option("--all", "everything", is_flag=True, help="Unmount, and put the whole repository out of the way.")
@click.option("--yes", is_flag=True, help="With --all: yes, all of it.")
@click.option("--purge", is_flag=True, help="With --all: delete it, for ever.")
@ws_option
def reset(
    to: str | None,
    at: str | None,
    version: int | None,
    match: str | None,
    wait: bool,
    everything: bool,
    yes: bool,
    purge: bool,
    ws: str | None,
    call: "Call",
    repo: Path | None,
) -> Any:
    """Put a layer in place; checkout, undo and op log say the same in other words.

    What is uncommitted is kept, as by a checkout; undo brings it back. --all unmounts the repository and renames its
    folder to .fusecas.removed-TIME: renamed back, it is a repository again. With --purge nothing of it is left.

    Example: fusecas reset --at 2h
    """
    places = {"--to": to, "--at": at, "--version": version, "--match": match, "--all": everything or None}
    chosen = [option for option, value in places.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)}: one of them")
    if (yes or purge) and not everything:
        raise UsageError("--yes and --purge go with --all")
    if not chosen:
        raise UsageError("reset alone does nothing", hint=OTHER_WAYS)
    folder = repository_folder(repo)
    if everything:
        return _remove(folder, yes, purge, call)
    from fusecas.cli.work import go_to

    name = ws or current_workspace(call, folder)
    return go_to(_past(name, at, version) or to or f"ws:{match}", ws, call, repo, wait=wait)


def _past(name: str, at: str | None, version: int | None) -> str | None:
    if version is not None:
        return f"{name}@op:{version}"
    if at is None:
        return None
    if at.strip().isdecimal() or "}" in at:
        raise UsageError(f"{at!r} is not a time", hint="2026-11-24T10:00, yesterday, 10m, 2h, 3d")
    return f"{name}@{{{at}}}"


# ---- the end of a repository


def _remove(folder: Path, yes: bool, purge: bool, call: "Call") -> dict[str, Any]:
    if not yes:
        what = "deletes" if purge else "puts away"
        raise UsageError(f"reset --all {what} {folder}: all layers and what is uncommitted", hint="add --yes if so")
    from fusecas.clearing import set_aside

    aside = set_aside(folder.resolve(), purge=purge)
    if not call.as_json:
        print(
            f"deleted {_text(folder)}" if aside is None else f"{_text(folder)} is {_text(aside)} now; mv brings it back"
        )
    fields = {} if aside is None else output.path_fields(os.fsencode(aside), "removed_to")
    return {**output.path_fields(os.fsencode(folder), "repository"), "purged": purge, **fields}


def _text(folder: Path) -> str:
    return output.path_text(os.fsencode(folder))


COMMANDS = {"reset": reset}
