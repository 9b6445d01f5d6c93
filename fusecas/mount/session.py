"""A mount from its beginning to its end: the device, pyfuse3's loop on it, and how both go."""

from contextlib import suppress
from pathlib import Path

import pyfuse3

from fusecas.mount.device import Device
from fusecas.mount.operations import Operations
from fusecas.mount.places import Caches, Places, Witness
from fusecas.mount.special import SpecialFolders
from fusecas.workspace.workspaces import Workspaces

MOST_TASKS = 16


class MountSession:
    """One a process: pyfuse3 holds one mount. Made mounted, with workspace `name` as its root; `serve` answers requests
    until it is unmounted. `disk`: a descriptor on the file system that has the repository."""

    def __init__(self, workspaces: Workspaces, name: str, mountpoint: Path, disk: int, *, allow_other: bool) -> None:
        workspace = workspaces.get(name)
        self._places = Places()
        root = self._places.add_workspace(workspace)
        self.device = Device(mountpoint, allow_other=allow_other)
        workspace.caches = Caches(root, self.device)
        self._special = SpecialFolders(workspaces, self._places, self.device)
        pyfuse3.init(Operations(self._places, self._special, disk), self.device.path, {"fsname=fusecas"})
        self.device.start()

    async def serve(self) -> None:
        await pyfuse3.main(min_tasks=1, max_tasks=MOST_TASKS)

    def writers(self, name: str) -> frozenset[int]:
        """The inodes of a workspace that are open for writing. In the mount's own thread."""
        place = self._places.workspace(name)
        return frozenset() if place is None else frozenset(place.writers)

    def watch(self, name: str, witness: Witness) -> None:
        """Tell of what is changed in a workspace, until `unwatch`. In the mount's own thread."""
        self._places.watch(name, witness)

    def unwatch(self, name: str, witness: Witness) -> None:
        self._places.unwatch(name, witness)

    def end_workspace(self, name: str) -> None:
        """It was removed. Call it in the mount's own thread; then `forget_name` in another one."""
        self._places.end_workspace(name)

    def forget_name(self, name: str) -> None:
        self._special.ended(name)

    def unmount(self, *, lazy: bool) -> None:
        """`serve` then returns. OSError while somebody is in it, unless `lazy`."""
        self.device.unmount(lazy=lazy)

    def close(self) -> None:
        pyfuse3.close(unmount=False)
        with suppress(OSError):
            self.device.unmount(lazy=True)
        self.device.close()
        self._special.close()
