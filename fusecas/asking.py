"""Asking live workspaces: the daemon if one runs, else they are opened here for as long as the call takes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecas.client import Client, NoDaemon

if TYPE_CHECKING:
    from fusecas.store.repository import Repository

Hold = Callable[["Repository"], None]
"""What a program does with a repository before it writes to it; a library does nothing."""


def nothing(_repository: "Repository") -> None:
    pass


def ask(folder: Path, method: str, parameters: dict[str, Any], hold: Hold = nothing) -> dict[str, Any]:
    """The answer to a call of fusecas.workspace.calls, by whoever has the workspaces open."""
    try:
        return ask_daemon(folder, method, parameters)
    except NoDaemon:
        from fusecas.store.repository import Repository

        with Repository.open(folder) as repository:
            return ask_here(repository, method, parameters, hold)


def ask_of(repository: "Repository", method: str, parameters: dict[str, Any], hold: Hold = nothing) -> dict[str, Any]:
    """The same for one that this process has open already."""
    try:
        return ask_daemon(repository.folder, method, parameters)
    except NoDaemon:
        return ask_here(repository, method, parameters, hold)


def ask_daemon(folder: Path, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """NoDaemon if there is none."""
    with Client(folder) as client:
        answer: dict[str, Any] = client.call(method, **parameters)
        return answer


def ask_here(repository: "Repository", method: str, parameters: dict[str, Any], hold: Hold = nothing) -> dict[str, Any]:
    """Without a daemon. It waits for others who do the same."""
    from fusecas.workspace.calls import CALLS
    from fusecas.workspace.workspaces import Workspaces

    with repository.held_briefly():
        hold(repository)
        workspaces = Workspaces(repository)
        answer = CALLS[method](workspaces, parameters)
        workspaces.close()
        return answer
