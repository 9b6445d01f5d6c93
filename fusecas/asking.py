"""Asking live workspaces: the daemon if one runs, else they are opened here for as long as the call takes.

The API and the command line ask by the same Live: each brings its own way to reach whoever answers.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecas.client import Client, NoDaemon
from fusecas.errors import StillRunning
from fusecas.wire import RUN_VARIABLE

if TYPE_CHECKING:
    from fusecas.store.repository import Repository

Hold = Callable[["Repository"], None]
"""What a program does with a repository before it writes to it; a library does nothing."""


Ask = Callable[..., dict[str, Any]]
"""(method of fusecas.workspace.calls, **parameters): the answer."""
Deed = Callable[[], Mapping[str, Any]]
"""What an operation records of who does it, as parameters of a call."""


Tell = Callable[[StillRunning], None]


class Live:
    """What can be asked of a workspace, and of those beside it. `ws`: None if whoever answers is to choose. `waits`: is
    told why, and what moves the workspace waits while a command is running there; without it, StillRunning."""

    def __init__(self, ask: Ask, ws: str | None, deed: Deed, waits: Tell | None = None) -> None:
        self._ask = ask
        self._ws = ws
        self._deed = deed
        self._waits = waits

    def waiting(self, tell: Tell) -> "Live":
        return Live(self._ask, self._ws, self._deed, tell)

    def status(self) -> dict[str, Any]:
        return self._ask("status", ws=self._ws)

    def seal(self) -> dict[str, Any]:
        """What is uncommitted becomes a state, which `@live` then is."""
        return self._ask("seal", ws=self._ws)

    def commit(self, message: str | None) -> dict[str, Any]:
        return self._do("commit", message=message)

    def checkout(self, ref: str, paths: Sequence[str] | None = None, *, touch: bool = False) -> dict[str, Any]:
        """`paths`: from the workspace's root; None: all of it, and it is at that layer then."""
        return self._do("checkout", ref=ref, paths=None if paths is None else list(paths), touch=touch)

    def undo(self, steps: int) -> dict[str, Any]:
        return self._do("undo", steps=steps)

    def redo(self, steps: int) -> dict[str, Any]:
        return self._do("redo", steps=steps)

    def put_layer(self, **layer: Any) -> dict[str, Any]:
        """A state that is stored becomes a layer on the head: verb, state, times, owner, message."""
        return self._do("put_layer", **layer)

    def fork(self, name: str) -> dict[str, Any]:
        return self._ask("fork", ws=self._ws, name=name, **self._deed())

    def create(self, name: str) -> dict[str, Any]:
        return self._ask("ws.create", name=name, **self._deed())

    def remove(self, name: str, *, force: bool = False) -> dict[str, Any]:
        return self._ask("ws.rm", name=name, force=force, **self._deed())

    def revert(self, operation: int) -> dict[str, Any]:
        return self._ask("op.revert", operation=operation, **self._deed())

    def _do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """It moves the workspace."""
        ask = partial(self._ask, method, ws=self._ws, **parameters, **self._deed())
        try:
            return ask()
        except StillRunning as error:
            if self._waits is None or self._is_part_of_a_run():
                raise
            self._waits(error)
        return ask(wait=True)

    def _is_part_of_a_run(self) -> bool:
        """Of the one that is on there: who waited for that would wait for himself."""
        found = self._ask("place", ws=self._ws, pid=os.getpid(), run=os.environ.get(RUN_VARIABLE))
        return found["run"] is not None


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
