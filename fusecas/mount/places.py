"""What the one superblock holds: workspaces and views of layers, each under a number of its own.

Used by the mount's own thread only, but for what `Caches` does.
"""

import errno
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fusecas import _native
from fusecas.mount.device import Device
from fusecas.mount.nodes import BITS, LINKS, MOUNTED, node_of
from fusecas.workspace.mover import Stale
from fusecas.workspace.workspace import Workspace

ATTRIBUTES_ONLY = -1


class Witness(Protocol):
    """Who wants to know of changes while they are made; from the mount's own thread, and quickly."""

    def changes(self, pid: int, ino: int, name: bytes) -> None:
        """A thread is about to change an inode, or a name in it. 0: of another pid namespace."""

    def writes(self, ino: int) -> None: ...

    def looks(self, pid: int, place: str) -> None:
        """A thread opens something in another place than the one that is watched."""

    def descends(self, pid: int) -> bool:
        """Whether a process is one of those for whom it watches."""


class Place:
    """A workspace, or a layer that is looked at from one.

    `lookups` are those of its root. `writable`, `writers`: handles by inode, for reading and writing, for writing.
    """

    def __init__(self, number: int, overlay: "_native.Overlay", workspace: Workspace | None) -> None:
        self.number = number
        self.first = number << BITS
        self.overlay = overlay
        self.workspace = workspace
        self.lookups = 0
        self.ended = False
        self.writable: Counter[int] = Counter()
        self.writers: Counter[int] = Counter()
        self.witnesses: tuple[Witness, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether nobody needs it any more: its number can be given to another one."""
        is_living = self.workspace is not None and not self.ended
        return not (is_living or self.lookups or self.overlay.is_held)


class ViewKey(NamedTuple):
    """A layer or a state, seen from a workspace: each has inodes of its own."""

    seen_from: int
    target: bytes


class Places:
    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._workspaces: dict[str, Place] = {}
        self._views: dict[ViewKey, Place] = {}
        self._witnesses: dict[str, tuple[Witness, ...]] = {}

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def all(self) -> list[Place]:
        return list(self._places.values())

    def add_workspace(self, workspace: Workspace) -> Place:
        place = Place(self._free_number(), workspace.overlay, workspace)
        place.witnesses = self._witnesses.get(workspace.name, ())
        self._places[place.number] = self._workspaces[workspace.name] = place
        return place

    def living(self, number: int) -> Workspace | None:
        """The workspace of a place, unless it was removed."""
        place = self._places.get(number)
        return None if place is None or place.ended else place.workspace

    def workspace(self, name: str) -> Place | None:
        return self._workspaces.get(name)

    def watch(self, name: str, witness: Witness) -> None:
        """Of a workspace, also if nobody has looked at it yet."""
        self._set_witnesses(name, (*self._witnesses.get(name, ()), witness))

    def unwatch(self, name: str, witness: Witness) -> None:
        self._set_witnesses(name, tuple(each for each in self._witnesses.get(name, ()) if each is not witness))

    @property
    def is_watched(self) -> bool:
        return bool(self._witnesses)

    def opened(self, place: Place, pid: int) -> None:
        """Something is opened, to be read: whoever watches another place is told, if the reader is theirs."""
        name = None if place.workspace is None else place.workspace.name
        others = [each for other, some in self._witnesses.items() if other != name for each in some]
        if others and not any(each.descends(pid) for each in place.witnesses):
            where = "a layer under .fusecas/at" if name is None else f"workspace {name}"
            for each in others:
                each.looks(pid, where)

    def _set_witnesses(self, name: str, witnesses: tuple[Witness, ...]) -> None:
        self._witnesses[name] = witnesses
        if not witnesses:
            del self._witnesses[name]
        if (place := self._workspaces.get(name)) is not None:
            place.witnesses = witnesses

    def end_workspace(self, name: str) -> None:
        """It was removed: what is still open in it stays until it is forgotten."""
        place = self._workspaces.pop(name, None)
        if place is not None:
            place.ended = True
            self.drop_if_free(place)

    def view(self, key: ViewKey, make: "Callable[[], _native.Overlay]") -> Place:
        found = self._views.get(key)
        if found is None:
            found = self._views[key] = Place(self._free_number(), make(), None)
            self._places[found.number] = found
        return found

    def drop_if_free(self, place: Place) -> None:
        if place.is_free and self._places.get(place.number) is place:
            del self._places[place.number]
            self._views = {key: each for key, each in self._views.items() if each is not place}

    def _free_number(self) -> int:
        number = MOUNTED
        while number in self._places:
            number += 1
        if number >= LINKS:
            raise OSError(errno.ENFILE, "too many workspaces and views at once")
        return number


class Caches:
    """What the kernel has of a place that is mounted. From worker threads, while requests are served."""

    def __init__(self, place: Place, device: Device) -> None:
        self._number, self._writable = place.number, place.writable  # not the place: it holds the workspace that has us
        self._device = device

    def flush(self) -> None:
        """The kernel writes stores through mappings back before it answers."""
        for ino in list(self._writable):
            self._device.notify_inode(node_of(self._number, ino))

    def drop(self, stale: Stale) -> None:
        for parent, name in stale.names:
            self._device.notify_entry(node_of(self._number, parent), name)
        for ino, all_of_it in stale.inodes:
            self._device.notify_inode(node_of(self._number, ino), 0 if all_of_it else ATTRIBUTES_ONLY)
