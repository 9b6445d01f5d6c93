"""What the daemon does by itself: little is to be lost to a power cut even of what nobody has synced, and a start is
never to take long."""

import logging
from collections.abc import Callable

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
        self._storing: set[bytes] = set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(MARK_EVERY)
                for workspace in self._workspaces.opened():
                    if workspace.id not in self._given_up:
                        await self._keep(workspace, nursery)

    async def _keep(self, workspace: Workspace, nursery: trio.Nursery) -> None:
        overlay = workspace.overlay
        if overlay.failed:
            self._give_up(workspace, None)
            return
        now = overlay.event
        if now != self._marked.get(workspace.id):
            self._marked[workspace.id] = now
            try:
                await trio.to_thread.run_sync(overlay.sync)
            except OSError as error:
                self._give_up(workspace, error)
                return
        store = self._what_to_store(workspace)
        if store is not None and workspace.id not in self._storing:
            self._storing.add(workspace.id)
            nursery.start_soon(self._store, workspace, store)  # others are not to wait for their marks meanwhile

    def _give_up(self, workspace: Workspace, error: OSError | None) -> None:
        self._given_up.add(workspace.id)
        log.error("%s: it is read-only until it is mounted again", said(workspace, error))

    def _what_to_store(self, workspace: Workspace) -> Callable[[], object] | None:
        length = workspace.overlay.log_bytes
        if length < self._seal_at.get(workspace.id, 0):
            return None
        if workspace.is_long():
            return workspace.seal
        return workspace.settle if workspace.is_shared else None

    async def _store(self, workspace: Workspace, store: Callable[[], object]) -> None:
        try:
            await trio.to_thread.run_sync(store)
            self._seal_at[workspace.id] = 0
        except (FusecasError, OSError) as error:
            # Nothing is lost, only a start takes longer: so the next attempt comes when there is a reason for it.
            self._seal_at[workspace.id] = workspace.overlay.log_bytes + LONG
            log.warning("workspace %s: its journal could not be made shorter: %s", workspace.name, error)
        finally:
            self._storing.discard(workspace.id)


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
