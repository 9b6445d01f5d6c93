"""What the daemon does by itself: little is to be lost to a power cut even of what nobody has synced, and a start is
never to take long."""

import logging

import trio

from fusecas.errors import FusecasError
from fusecas.workspace.workspace import LONG, Workspace
from fusecas.workspace.workspaces import Workspaces

MARK_EVERY = 5.0

log = logging.getLogger(__name__)


class Keeper:
    def __init__(self, workspaces: Workspaces) -> None:
        self._workspaces = workspaces
        self._marked: dict[bytes, int] = {}
        self._seal_at: dict[bytes, int] = {}
        self._given_up: set[bytes] = set()

    async def run(self) -> None:
        while True:
            await trio.sleep(MARK_EVERY)
            for workspace in self._workspaces.opened():
                if workspace.id not in self._given_up:
                    await self._keep(workspace)

    async def _keep(self, workspace: Workspace) -> None:
        overlay = workspace.overlay
        if overlay.failed:
            self._give_up(workspace, None)
            return
        now = overlay.event
        if now == self._marked.get(workspace.id):
            return
        self._marked[workspace.id] = now
        try:
            await trio.to_thread.run_sync(overlay.sync)
        except OSError as error:
            self._give_up(workspace, error)
            return
        await self._seal_if_long(workspace)

    def _give_up(self, workspace: Workspace, error: OSError | None) -> None:
        self._given_up.add(workspace.id)
        log.error("%s: it is read-only until it is mounted again", said(workspace, error))

    async def _seal_if_long(self, workspace: Workspace) -> None:
        if workspace.overlay.log_bytes < self._seal_at.get(workspace.id, 0) or not workspace.is_long():
            return
        try:
            await trio.to_thread.run_sync(workspace.seal)
            self._seal_at[workspace.id] = 0
        except FusecasError as error:
            # Nothing is lost, only a start takes longer: so the next attempt comes when there is a reason for it.
            self._seal_at[workspace.id] = workspace.overlay.log_bytes + LONG
            log.warning("the journal is long, and could not be made shorter: %s", error.message)


def said(workspace: Workspace, error: OSError | None) -> str:
    why = "" if error is None else f" ({error.strerror})"
    return f"workspace {workspace.name}: the disk has failed to store what was written{why}"


def close_all(workspaces: Workspaces) -> None:
    """Each is made durable; one that can't be does not keep the others from it."""
    for workspace in workspaces.opened():
        try:
            workspace.close()
        except OSError as error:
            log.error("%s; what was not synced before is there as long as this machine runs", said(workspace, error))
