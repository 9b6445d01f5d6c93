"""The folder `.fusecas` at the root of each workspace: found by name, never listed, never changed.

socket, repo   links to the control socket and the repository
ws/NAME        the other workspaces, alive; the mounted one is a link to the root
at/REF         a link to at/HASH: a layer (or a state), to be looked at
"""

import errno
import os
import stat
import time
from typing import NamedTuple

import trio

from fusecas import _native
from fusecas.errors import AmbiguousPrefix, NotFound, UsageError
from fusecas.mount.device import Device
from fusecas.mount.holding import Holding
from fusecas.mount.nodes import LINKS, MOUNTED, Special, node_of, special_of, split_special
from fusecas.mount.places import Caches, Place, Places, ViewKey
from fusecas.store import revisions, tags
from fusecas.store.ids import Kind, LayerId, ObjectId, StateId
from fusecas.store.snapshot import HEX_DIGITS, Snapshot
from fusecas.workspace.target import Target
from fusecas.workspace.workspaces import Workspaces

NAME = b".fusecas"
HASH_DIGITS = 64
FOREVER = 86400.0 * 365
LINKS_OF = {Special.SOCKET: "run/socket", Special.REPOSITORY: ""}
FOLDER_NAMES = {
    b"at": Special.AT,
    b"repo": Special.REPOSITORY,
    b"socket": Special.SOCKET,
    b"ws": Special.WORKSPACES,
}
FOLDERS = (Special.FOLDER, Special.WORKSPACES, Special.AT)


class Found(NamedTuple):
    """What is at a name: the kernel's number, its attributes, how long both hold."""

    node: int
    attributes: "_native.Attributes"
    timeout: float


class SpecialFolders:
    def __init__(self, workspaces: Workspaces, places: Places, device: Device) -> None:
        self._workspaces = workspaces
        self._places = places
        self._device = device
        self._owner = (os.geteuid(), os.getegid())
        self._began = time.time_ns()
        self._holding = Holding(workspaces.repository.store)
        self._links: dict[int, bytes] = {}
        self._next_link = 1

    def close(self) -> None:
        self._holding.close()

    # looking

    async def lookup(self, ino: int, name: bytes) -> Found | None:
        place, what = split_special(ino)
        if what == Special.FOLDER:
            inner = FOLDER_NAMES.get(name)
            return None if inner is None else self.found(special_of(place, inner))
        if what == Special.WORKSPACES:
            return await self._workspace(place, name)
        if what == Special.AT:
            return await self._at(place, name)
        raise NotADirectoryError(errno.ENOTDIR, "not a directory")

    def found(self, node: int) -> Found:
        return Found(node, self.attributes(node), FOREVER)

    def attributes(self, ino: int) -> "_native.Attributes":
        _, what = split_special(ino)
        if what in FOLDERS:
            return self._attributes(ino, stat.S_IFDIR | 0o555, 2, 0)
        return self._attributes(ino, stat.S_IFLNK | 0o777, 1, len(self.target(ino)))

    def link_attributes(self, ino: int) -> "_native.Attributes":
        return self._attributes(ino, stat.S_IFLNK | 0o777, 1, len(self._links[ino]))

    def _attributes(self, ino: int, mode: int, links: int, size: int) -> "_native.Attributes":
        times = (self._began, self._began, self._began)
        return (ino, mode, links, *self._owner, (0, 0), size, 0, *times)

    def target(self, ino: int) -> bytes:
        """Of a fixed link."""
        _, what = split_special(ino)
        if what == Special.ITSELF:
            return b"../.."
        if what not in LINKS_OF:
            raise OSError(errno.EINVAL, "not a link")
        return os.fsencode(self._workspaces.repository.folder / LINKS_OF[what])

    def link_target(self, ino: int) -> bytes:
        return self._links[ino]

    def forget_link(self, ino: int) -> None:
        """Each has a number of its own and is looked up once."""
        self._links.pop(ino, None)

    async def names(self, ino: int) -> list[bytes]:
        place, what = split_special(ino)
        if what == Special.FOLDER:
            return sorted(FOLDER_NAMES)
        if what == Special.WORKSPACES:
            return sorted(os.fsencode(each) for each in self._workspaces.names()) if place == MOUNTED else []
        return await trio.to_thread.run_sync(self._tags)

    def _tags(self) -> list[bytes]:
        with self._workspaces.repository.store.read() as snapshot:
            names = [ref.removeprefix(tags.NAMESPACE) for ref, _ in snapshot.list_refs(tags.NAMESPACE)]
        return sorted(os.fsencode(name) for name in names if "/" not in name)

    # workspaces

    async def _workspace(self, place: int, name: bytes) -> Found | None:
        """Opened when it is looked up for the first time; only the mounted one lists the others."""
        text = os.fsdecode(name)
        mounted = self._places[MOUNTED].workspace
        if place != MOUNTED or mounted is None:
            return None
        if text == mounted.name:
            return self.found(special_of(place, Special.ITSELF))
        there = self._places.workspace(text)
        if there is None:
            if not self._workspaces.has(text):
                return None
            workspace = await trio.to_thread.run_sync(self._workspaces.get, text)
            there = self._places.workspace(text)  # another request may have been faster
            if there is None:
                there = self._places.add_workspace(workspace)
                workspace.caches = Caches(there, self._device)
        return self._root_of(there, FOREVER)

    @staticmethod
    def _root_of(place: Place, timeout: float) -> Found:
        place.lookups += 1
        return Found(node_of(place.number, 0), place.overlay.getattr(0), timeout)

    def ended(self, name: str) -> None:
        """A workspace was removed: its name goes. From a worker thread."""
        self._device.notify_entry(special_of(MOUNTED, Special.WORKSPACES), os.fsencode(name))

    # layers

    async def _at(self, place: int, name: bytes) -> Found | None:
        text = os.fsdecode(name)
        if len(text) == HASH_DIGITS and set(text) <= HEX_DIGITS:
            return await self._view(place, bytes.fromhex(text))
        workspace = self._places.living(place)
        if workspace is None:
            return None
        target = await trio.to_thread.run_sync(self._resolve, text, workspace.name)
        if target is None:
            return None
        # A new number for each: the kernel would serve the target that it has cached.
        ino, self._next_link = self._next_link, self._next_link + 1
        self._links[ino] = target.hex().encode()
        return Found(node_of(LINKS, ino), self.link_attributes(ino), 0)

    def _resolve(self, text: str, workspace: str) -> bytes | None:
        try:
            with self._workspaces.repository.store.read() as snapshot:
                found = revisions.resolve(snapshot, text, workspace)
        except (NotFound, AmbiguousPrefix, UsageError):
            return None  # no such name, an ambiguous one, one that can't be: nothing is there
        return found.state if found.layer is None else found.layer

    async def _view(self, place: int, target: bytes) -> Found | None:
        standing = await trio.to_thread.run_sync(self._held, target)
        workspace = self._places.living(place)
        if standing is None or workspace is None:
            return None
        view = self._places.view(ViewKey(place, target), lambda: workspace.view(standing))
        return self._root_of(view, FOREVER)

    def _held(self, target: bytes) -> Target | None:
        with self._workspaces.repository.store.read() as snapshot:
            standing = target_of(snapshot, target)
        if standing is not None:
            self._holding.hold(standing)
        return standing


def target_of(snapshot: Snapshot, target: bytes) -> Target | None:
    """A layer or a state by its id; None if it is neither."""
    row = snapshot.row(target)
    if row is not None and row.kind == Kind.STATE:
        return Target(None, StateId(ObjectId(target)), None)
    if row is None or row.kind != Kind.LAYER:
        return None
    found = revisions.of_layer(snapshot, LayerId(ObjectId(target)), "")
    return Target(found.layer, found.state, found.times)
