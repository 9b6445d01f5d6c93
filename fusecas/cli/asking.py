"""Asking live workspaces: the daemon if one runs, else they are opened here for as long as the call takes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.repository import Repository

WORKSPACE_VARIABLE = "FUSECAS_WS"

ws_option = click.option(
    "--ws", metavar="NAME", help="Which workspace (default: $FUSECAS_WS, the one we are in, the mounted one, main)."
)


def chosen_workspace(ws: str | None) -> dict[str, str]:
    """As a parameter of a call; none if whoever answers is to choose."""
    name = ws or os.environ.get(WORKSPACE_VARIABLE)
    if not name and (root := around(Path.cwd())) is not None:
        name = root.name
    return {"ws": name} if name else {}


def around(place: Path) -> Path | None:
    """The root `.fusecas/ws/NAME` of a workspace, if that is above in a mount."""
    for folder in (place, *place.parents):
        above = folder.parent
        if (above.name, above.parent.name) == ("ws", ".fusecas") and os.path.islink(above.parent / "repo"):
            return folder
    return None


def ask(folder: Path, method: str, **parameters: Any) -> dict[str, Any]:
    """The answer to a call of fusecas.workspace.calls, by whoever has the workspaces open."""
    from fusecas.client import NoDaemon

    try:
        return _ask_daemon(folder, method, parameters)
    except NoDaemon:
        from fusecas.store.repository import Repository

        with Repository.open(folder) as repository:
            return _ask_here(repository, method, parameters)


def ask_of(repository: "Repository", method: str, **parameters: Any) -> dict[str, Any]:
    """The same for one that this process has open already."""
    from fusecas.client import NoDaemon

    try:
        return _ask_daemon(repository.folder, method, parameters)
    except NoDaemon:
        return _ask_here(repository, method, parameters)


def _ask_daemon(folder: Path, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    from fusecas.client import Client

    with Client(folder) as client:
        answer: dict[str, Any] = client.call(method, **parameters)
        return answer


def _ask_here(repository: "Repository", method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    from fusecas.cli.common import hold_back_stop
    from fusecas.workspace.calls import CALLS
    from fusecas.workspace.workspaces import Workspaces

    with repository.held_briefly():
        hold_back_stop(repository)
        workspaces = Workspaces(repository)
        answer = CALLS[method](workspaces, parameters)
        workspaces.close()
        return answer


def deed_of(call: "Call") -> dict[str, Any]:
    """What an operation records, as parameters of a call."""
    argv, actor = call.deed()
    return {"argv": [os.fsdecode(each) for each in argv], "actor": actor}
