"""A mount from its beginning to its end: the device, pyfuse3's loop on it, and how both go."""

from contextlib import suppress
from pathlib import Path

import pyfuse3

from fusecas.mount.device import Device
from fusecas.mount.operations import Operations
from fusecas.workspace.workspace import Stale

MOST_TASKS = 16
ATTRIBUTES_ONLY = -1


class MountSession:
    """One a process: pyfuse3 holds one mount. Made mounted; `serve` answers requests until it is unmounted."""

    def __init__(self, operations: Operations, mountpoint: Path, *, allow_other: bool) -> None:
        self._operations = operations
        self.device = Device(mountpoint, allow_other=allow_other)
        pyfuse3.init(operations, self.device.path, {"fsname=fusecas"})
        self.device.start()

    async def serve(self) -> None:
        await pyfuse3.main(min_tasks=1, max_tasks=MOST_TASKS)

    # what the kernel has of the workspace; from a worker thread, while `serve` goes on

    def flush(self) -> None:
        """Stores through shared mappings reach the overlay: the kernel writes them back before it answers."""
        for node in self._operations.writable_nodes():
            self.device.notify_inode(node)

    def drop(self, stale: Stale) -> None:
        for parent, name in stale.names:
            self.device.notify_entry(self._operations.node_of(parent), name)
        for ino, all_of_it in stale.inodes:
            self.device.notify_inode(self._operations.node_of(ino), 0 if all_of_it else ATTRIBUTES_ONLY)

    def unmount(self, *, lazy: bool) -> None:
        """`serve` then returns. OSError while somebody is in it, unless `lazy`."""
        self.device.unmount(lazy=lazy)

    def close(self) -> None:
        pyfuse3.close(unmount=False)
        with suppress(OSError):
            self.device.unmount(lazy=True)
        self.device.close()
