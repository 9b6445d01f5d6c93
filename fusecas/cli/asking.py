"""What a call of the program asks live workspaces, and by whom it is asked (fusecas/asking.py does the asking)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecas.cli.common import hold_back_stop
from fusecas.cli.where import chosen_workspace, repository_folder

if TYPE_CHECKING:
    from fusecas.asking import Live
    from fusecas.cli.call import Call
    from fusecas.store.repository import Repository


def live(call: "Call", repo: Path | None, ws: str | None = None) -> "Live":
    """The workspace that is meant, for what can be asked of it."""
    return live_in(repository_folder(repo), call, chosen_workspace(ws))


def live_in(folder: Path, call: "Call", name: str | None) -> "Live":
    """The same of a repository and a name that are known already; None: the one that is mounted, else main."""
    from fusecas.asking import Live, ask

    return Live(lambda method, **given: ask(folder, method, given, hold_back_stop), name, lambda: deed_of(call))


def live_of(repository: "Repository", call: "Call", name: str | None) -> "Live":
    """The same of a repository that this process has open already."""
    from fusecas.asking import Live, ask_of

    return Live(lambda method, **given: ask_of(repository, method, given, hold_back_stop), name, lambda: deed_of(call))


def deed_of(call: "Call") -> dict[str, Any]:
    """What an operation records, as parameters of a call."""
    argv, actor = call.deed()
    return {"argv": [os.fsdecode(each) for each in argv], "actor": actor}


def seal_live(call: "Call", repo: Path | None, *refs: str) -> None:
    """Before a snapshot is taken in which `@live` is to be found: what is uncommitted becomes a state."""
    from fusecas.store.revisions import is_live

    if any(map(is_live, refs)):
        call.workspace = live(call, repo).seal()["workspace"]
