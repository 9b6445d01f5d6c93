"""What a call of the program asks live workspaces, and by whom it is asked (fusecas/asking.py does the asking)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import hold_back_stop
from fusecas.cli.where import chosen_workspace, repository_folder
from fusecas.errors import StillRunning

if TYPE_CHECKING:
    from fusecas.asking import Live
    from fusecas.cli.call import Call
    from fusecas.store.repository import Repository


wait_option = click.option("--wait", is_flag=True, help="Wait while a command runs in the workspace.")


def live(call: "Call", repo: Path | None, ws: str | None = None, *, wait: bool = False) -> "Live":
    """The workspace that is meant, for what can be asked of it. `wait`: see wait_option."""
    return live_in(repository_folder(repo), call, chosen_workspace(ws), wait=wait)


def live_in(folder: Path, call: "Call", name: str | None, *, wait: bool = False) -> "Live":
    """The same of a repository and a name that are known already; None: the one that is mounted, else main."""
    from fusecas.asking import Live, ask

    found = Live(lambda method, **given: ask(folder, method, given, hold_back_stop), name, lambda: deed_of(call))
    return found.waiting(say_that_it_waits) if wait else found


def say_that_it_waits(error: StillRunning) -> None:
    output.note(f"{error.message}: waiting for it")


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
