"""What a call of the program asks live workspaces: of which, and by whom (fusecas/asking.py does the asking)."""

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


def chosen_workspace(ws: str | None) -> dict[str, Any]:
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
    from fusecas import asking
    from fusecas.cli.common import hold_back_stop

    return asking.ask(folder, method, parameters, hold_back_stop)


def ask_of(repository: "Repository", method: str, **parameters: Any) -> dict[str, Any]:
    """The same for one that this process has open already."""
    from fusecas import asking
    from fusecas.cli.common import hold_back_stop

    return asking.ask_of(repository, method, parameters, hold_back_stop)


def deed_of(call: "Call") -> dict[str, Any]:
    """What an operation records, as parameters of a call."""
    argv, actor = call.deed()
    return {"argv": [os.fsdecode(each) for each in argv], "actor": actor}
