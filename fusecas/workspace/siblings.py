"""The workspaces of a repository that are open in this process, as they know of each other.

A fork stands on what its source has frozen until that is stored: by the source, for both. So their rows and what they
have in memory move together, while `turn` is held.
"""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fusecas.workspace.workspace import Workspace


class Siblings:
    """`turn` comes before the store's write transaction, and after the lock with which one workspace seals."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self._open: dict[bytes, Workspace] = {}

    def add(self, workspace: "Workspace") -> None:
        with self.turn:
            self._open[workspace.id] = workspace

    def remove(self, workspace: "Workspace") -> None:
        with self.turn:
            self._open.pop(workspace.id, None)

    def all(self) -> "list[Workspace]":
        with self.turn:
            return list(self._open.values())

    def named(self, name: str) -> "Workspace | None":
        return next((each for each in self.all() if each.name == name), None)

    def find(self, workspace_id: bytes) -> "Workspace | None":
        with self.turn:
            return self._open.get(workspace_id)

    def forks_of(self, source: "Workspace") -> "list[Workspace]":
        """Those that stand on what it has frozen."""
        return [each for each in self.all() if each.source is source]
