"""What a call of the program asks live workspaces: of which, and by whom (fusecas/asking.py does the asking)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.errors import UsageError

if TYPE_CHECKING:
    from fusecas.asking import Live
    from fusecas.cli.call import Call
    from fusecas.store.repository import Repository

WORKSPACE_VARIABLE = "FUSECAS_WS"
FOLDER = ".fusecas"

ws_option = click.option(
    "--ws", metavar="NAME", help="Which workspace (default: $FUSECAS_WS, the one we are in, the mounted one, main)."
)


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


def seal_live(call: "Call", repo: Path | None, *refs: str) -> None:
    """Before a snapshot is taken in which `@live` is to be found: what is uncommitted becomes a state."""
    from fusecas.store.revisions import is_live

    if any(map(is_live, refs)):
        call.workspace = live(call, repo).seal()["workspace"]


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


def live(call: "Call", repo: Path | None, ws: str | None = None) -> "Live":
    """The workspace that is meant, for what can be asked of it."""
    from fusecas.cli.common import repository_folder

    return live_in(repository_folder(repo), call, chosen_workspace(ws))


def live_in(folder: Path, call: "Call", name: str | None) -> "Live":
    """The same of a repository and a name that are known already; None: the one that is mounted, else main."""
    from fusecas.asking import Live, ask
    from fusecas.cli.common import hold_back_stop

    return Live(lambda method, **given: ask(folder, method, given, hold_back_stop), name, lambda: deed_of(call))


def live_of(repository: "Repository", call: "Call", name: str | None) -> "Live":
    """The same of a repository that this process has open already."""
    from fusecas.asking import Live, ask_of
    from fusecas.cli.common import hold_back_stop

    return Live(lambda method, **given: ask_of(repository, method, given, hold_back_stop), name, lambda: deed_of(call))


def deed_of(call: "Call") -> dict[str, Any]:
    """What an operation records, as parameters of a call."""
    argv, actor = call.deed()
    return {"argv": [os.fsdecode(each) for each in argv], "actor": actor}
