"""One workspace of a repository, open for changing: its overlay over the state that its live row names.

Thread-safe: the overlay locks itself; sealing and moving happen one at a time. What a call promises after a crash
stands with it.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from fusecas import _native
from fusecas.errors import Conflict, Damaged, DamagedEnvironment, StorageProblem
from fusecas.store import heads, prolly, trees
from fusecas.store.heads import Head
from fusecas.store.ids import InodesId, Kind, LayerId, ObjectId, StateId, TimesId
from fusecas.store.repository import Repository, sync_folder
from fusecas.store.rows import Live, LivePair, Operation
from fusecas.store.session import Session
from fusecas.store.snapshot import Snapshot
from fusecas.store.transaction import Transaction
from fusecas.workspace.moving import Plan, Planner, Side
from fusecas.workspace.sealing import Sealed
from fusecas.workspace.sides import ROOT, DirIds
from fusecas.workspace.storing import Saved, store_frozen
from fusecas.workspace.target import Target
from fusecas.workspace.undoing import Past

OVERLAYS = "overlays"
ID_BYTES = 16
LONG, TOO_LONG = 16 << 20, 64 << 20
NODE_BYTES = 256
"""What a changed inode takes in a journal without its past, about."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Committed:
    """What a commit came to; `layer` is None if nothing had changed."""

    layer: LayerId | None
    state: StateId
    operation: Operation | None
    new_objects: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True)
class Moved:
    """What a checkout, an undo or the like came to. `operation` is None if the workspace stood there already.

    The counts are of names; `aside`: whether there were uncommitted changes, which undo brings back; `uncommitted`:
    whether there are some now; `made`: whether the layer is a new one.
    """

    layer: LayerId | None
    state: StateId
    operation: Operation | None
    added: int = 0
    removed: int = 0
    changed: int = 0
    aside: bool = False
    uncommitted: bool = False
    made: bool = False


class Deed(NamedTuple):
    """What an operation records of its caller."""

    argv: Sequence[bytes] = ()
    actor: str = ""


class Stale(NamedTuple):
    """What a kernel may have in its caches and must drop: names of directories; inodes, with all that is in them or
    their attributes only."""

    names: list[tuple[int, bytes]]
    inodes: list[tuple[int, bool]]


class Caches(Protocol):
    """What the kernel has of a workspace that is mounted."""

    def flush(self) -> None:
        """Bring stores through shared mappings to the overlay."""

    def drop(self, stale: Stale) -> None: ...


class NoCaches:
    """Of a workspace that nobody has mounted."""

    def flush(self) -> None:
        pass

    def drop(self, stale: Stale) -> None:
        pass


Standing = tuple[
    tuple[bytes | None, bytes | None, bytes | None, int], int, bytes | None, bytes | None, tuple[int, int, int]
]
"""A state as an overlay is told of it: the root's ids, its mode and extensions, hard links, times."""


class Step(NamedTuple):
    """Where a workspace goes from here, worked out."""

    head: Head
    target: Target
    plan: Plan


def boot_id() -> bytes:
    return BOOT_ID.read_bytes().strip()


class Workspace:
    """Owns the overlay of one workspace. Close it, or leave it to a crash: the next one finds all that was done."""

    def __init__(self, repository: Repository, name: str = heads.DEFAULT) -> None:
        self.repository = repository
        self.name = name
        self.store = repository.store
        self.caches: Caches = NoCaches()
        self._sealing = threading.Lock()
        with self.store.read() as snapshot:
            head = heads.read_head(snapshot, name)
        self.id = head.workspace.id
        try:
            self.overlay = self._open(head.live)
        except _native.FormatError as error:
            raise Damaged(f"workspace {name}: {error}", hint="its layers are whole: fusecas verify") from error

    def close(self) -> None:
        """Make everything durable; what is uncommitted stays so."""
        self.overlay.sync()

    # opening

    def _open(self, live: Live) -> "_native.Overlay":
        folder = self.repository.folder / OVERLAYS / self.id.hex()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for above in (folder.parent, self.repository.folder):
            sync_folder(above)  # a power cut must not take away the folder that marks were written in
        with self.store.read() as snapshot:
            standing = self._standing(snapshot, live.state, DirIds(None, live.times, live.inodes, live.first_inode))
        overlay = _native.Overlay(
            folder, *standing, live.owner, live.next_inode, live.ranges, live.boot == boot_id(), self._load, self._read
        )
        ranges = (*overlay.ranges, (overlay.stream, 0, None))
        with self.store.write() as transaction:
            now = transaction.get_live(self.id)
            if now is None or now.serial != live.serial:
                raise Conflict(f"workspace {self.name} was moved while it was opened", hint="try again")
            opened = live._replace(ranges=ranges, boot=boot_id(), next_inode=overlay.next_inode)
            transaction.set_live(self.id, opened)
        return overlay

    def _standing(self, snapshot: Snapshot, state: StateId, ids: DirIds) -> Standing:
        """A state as an overlay is told of it."""
        core = trees.read_state(snapshot, state)
        fallback = self._time_of(snapshot)
        times = None if ids.times is None else TimesId(ObjectId(ids.times))
        mtime = None if times is None else trees.Times(snapshot, times).of(b"").mtime
        ext = None if not core.ext else _native.cbor_encode(dict(core.ext))
        mtime = fallback if mtime is None else mtime
        own = prolly.find(Kind.INODES, ids.inodes, b"", self._load)
        time = (fallback, mtime, mtime if own is None else own[2])
        return (core.tree, ids.times, ids.inodes, ids.first), core.mode, ext, core.links, time

    def _time_of(self, snapshot: Snapshot) -> int:
        """The time of what has none: when the state came to this workspace."""
        operation = next(snapshot.ref_operations_back(heads.NAMESPACE + self.name), None)
        return 0 if operation is None else int(operation.time)

    def view(self, target: Target) -> "_native.Overlay":
        """A layer or a state to be looked at, as it would be here."""
        with self.store.read() as snapshot:
            standing = self._standing(snapshot, target.state, DirIds(None, target.times, None, ROOT + 1))
            owner = self._live(snapshot).owner
        return _native.Overlay.view(*standing, owner, self._load, self._read)

    def _load(self, object_id: bytes, kind: int) -> bytes:
        with self.store.read() as snapshot:
            return snapshot.read_node(object_id, Kind(kind))

    def _read(self, content: bytes, offset: int, length: int | None) -> bytes:
        with self.store.read() as snapshot:
            return b"".join(snapshot.iter_content(content, offset, length))

    # sealing

    def commit(self, message: str | None = None, deed: Deed = Deed()) -> Committed:
        """A layer with what is here now on the head. When it returns, it survives power loss; if it fails, nothing
        has changed, and what is uncommitted still is."""
        with self._sealing:
            self.caches.flush()
            return self._seal(lambda transaction, sealed: self._to_layer(transaction, sealed, message, deed))

    def seal(self) -> StateId:
        """A state with what is here now, which the workspace then stands on; the head stays."""
        with self._sealing:
            self.caches.flush()
            return self._seal(self._to_state).state

    def is_long(self) -> bool:
        """Whether the journal has become so long that a start would take its time: `seal` makes it short."""
        length = self.overlay.log_bytes
        _, changed, _, _ = self.overlay.figures()
        return length > TOO_LONG or length > max(LONG, 4 * NODE_BYTES * changed)

    def _seal(self, publish: "Callable[[Transaction, Sealed | None], Committed]") -> Committed:
        if self.overlay.failed:
            raise StorageProblem(
                f"workspace {self.name} is read-only: the disk has failed to store what was written to it",
                hint="see to the disk, then unmount and mount again",
            )
        end = self.overlay.freeze()
        if end is None:
            with self.store.write() as transaction:
                return publish(transaction, None)
        try:
            with self.store.session() as session:
                with self.store.read() as snapshot:
                    live = self._live(snapshot)
                    core = trees.read_state(snapshot, live.state)
                    fallback = self._time_of(snapshot)
                sealed = store_frozen(self.overlay, session, core, live.owner, fallback, self._load)

                def finish(transaction: Transaction) -> Committed:
                    now = self._live(transaction)
                    if now.serial != live.serial:
                        raise Conflict(f"workspace {self.name} was moved meanwhile", hint="try again")
                    return publish(transaction, sealed)

                self._frozen_end = end
                done = session.publish(finish)
                done = Committed(done.layer, done.state, done.operation, session.new_objects, session.stored_bytes)
        except BaseException:
            self.overlay.thaw()
            raise
        dirs = [(ino, tuple(ids)) for ino, ids in sealed.dirs]
        self.overlay.retire(sealed.files, dirs, sealed.links)
        return done

    def _live(self, reader: Snapshot) -> Live:
        live = reader.get_live(self.id)
        if live is None:
            raise DamagedEnvironment(f"workspace {self.name} has no live row")
        return live

    def _sealed_row(self, transaction: Transaction, live: Live, sealed: Sealed | None) -> Live:
        if sealed is None:
            return live
        return self._stood_on(transaction, live, sealed.state, sealed.root, self._frozen_end)

    def _stood_on(
        self,
        transaction: Transaction,
        live: Live,
        state: StateId,
        ids: DirIds,
        position: int,
        leaving: Sequence[int] = (),
    ) -> Live:
        """A live row over another state, from a position of the journal on. What is open without a name is kept."""
        held = self.overlay.contents_held(leaving)
        return live._replace(
            state=state,
            times=None if ids.times is None else TimesId(ObjectId(ids.times)),
            inodes=None if ids.inodes is None else InodesId(ObjectId(ids.inodes)),
            first_inode=ids.first,
            next_inode=self.overlay.next_inode,
            ranges=((self.overlay.stream, position, None),),
            needs=tuple(ObjectId(each) for each in held if transaction.has(each)),
        )

    def _to_state(self, transaction: Transaction, sealed: Sealed | None) -> Committed:
        live = self._sealed_row(transaction, self._live(transaction), sealed)
        if sealed is not None:
            transaction.set_live(self.id, live)
        return Committed(None, live.state, None)

    def _to_layer(self, transaction: Transaction, sealed: Sealed | None, message: str | None, deed: Deed) -> Committed:
        head = heads.read_head(transaction, self.name)
        live = self._sealed_row(transaction, head.live, sealed)
        if live.state == heads.state_of(transaction, head.workspace.layer):
            if sealed is not None:
                transaction.set_live(self.id, live)
            return Committed(None, live.state, None)
        layer = heads.add_layer(transaction, head.workspace.layer, live.state, live.times, message=message)
        # Where it came from is what is here, not yet a layer: so undo takes back the commit before it takes the edits.
        came_from = head._replace(live=live)
        operation = heads.advance(transaction, came_from, live._replace(layer=layer), "commit", *deed)
        return Committed(layer, live.state, operation)

    # forks

    def fork(self, name: str, deed: Deed = Deed()) -> None:
        """Another workspace that stands where this one does now. When it returns, both survive power loss."""

        def publish(transaction: Transaction, sealed: Sealed | None) -> Committed:
            done = self._to_state(transaction, sealed)
            source = heads.read_head(transaction, self.name)
            source = source._replace(live=source.live._replace(next_inode=self.overlay.next_inode))
            heads.fork_head(transaction, source, name, os.urandom(ID_BYTES), *deed)
            return done

        with self._sealing:
            self.caches.flush()
            self._seal(publish)

    def remove(self, deed: Deed = Deed()) -> None:
        """The workspace is no more; what is open in it can still be read, and nothing can be made any more."""

        def publish(transaction: Transaction, sealed: Sealed | None) -> Committed:
            done = self._to_state(transaction, sealed)
            heads.remove_head(transaction, heads.read_head(transaction, self.name), *deed)
            return done

        with self._sealing:
            self.caches.flush()
            self._seal(self._to_state)
            self.overlay.end()
            try:
                self._seal(publish)
            except BaseException:
                self.overlay.go_on()
                raise

    # moving

    def checkout(self, find: Callable[[Snapshot], Target], deed: Deed = Deed()) -> Moved:
        """Put the state that `find` names in place. What was uncommitted is kept by the operation: undo brings it
        back. When it returns, it survives power loss, and nothing of the old state is seen any more."""
        return self._move("checkout", deed, lambda snapshot, head: find(snapshot))

    def undo(self, steps: int = 1, deed: Deed = Deed()) -> Moved:
        """Back to where the workspace stood before, step by step (undoing.py). As durable as a checkout."""
        return self._move("undo", deed, lambda snapshot, head: Past(snapshot, head).back(steps))

    def redo(self, steps: int = 1, deed: Deed = Deed()) -> Moved:
        return self._move("redo", deed, lambda snapshot, head: Past(snapshot, head).forward(steps))

    def put_layer(
        self, verb: str, state: StateId, times: TimesId | None, owner: tuple[int, int], message: str | None, deed: Deed
    ) -> Moved:
        """A new layer with a whole state from elsewhere on the head, and the workspace at it."""

        def layer_on(transaction: Transaction, head: Head) -> LayerId:
            program = {"verb": verb}
            return heads.add_layer(transaction, head.workspace.layer, state, times, program=program, message=message)

        def find(snapshot: Snapshot, head: Head) -> Target:
            layer = head.workspace.layer
            is_there = layer is not None and heads.state_of(snapshot, layer) == state
            return Target(layer, state, times, owner=owner, make_layer=None if is_there else layer_on)

        return self._move(verb, deed, find)

    def _move(self, verb: str, deed: Deed, find: Callable[[Snapshot, Head], Target]) -> Moved:
        with self._sealing:
            self.caches.flush()
            self._seal(self._to_state)  # the long part, while the mount serves on
            with self.store.session() as session:
                step = self._plan(session, find)
                self.overlay.close_gate()
                try:
                    if not self.overlay.is_clean:  # somebody has written meanwhile
                        self._seal(self._to_state)
                        step = self._plan(session, find)
                    moved, stale = self._put_in_place(session, step, verb, deed)
                finally:
                    self.overlay.open_gate()
            # Only now: the kernel waits for requests that wait for the gate.
            self.caches.drop(stale)
            return moved

    def _plan(self, session: Session, find: Callable[[Snapshot, Head], Target]) -> Step:
        with self.store.read() as snapshot:
            head = heads.read_head(snapshot, self.name)
            target = find(snapshot, head)
            before, after = (trees.read_state(snapshot, each) for each in (head.live.state, target.state))
            fallback = self._time_of(snapshot)
        live = head.live
        saved = Saved(session, self._load)
        planner = Planner(
            Side(before, DirIds(before.tree, live.times, live.inodes, live.first_inode)),
            after,
            target.times,
            now=time.time_ns(),
            fallback=fallback,
            take_numbers=self.overlay.take_numbers,
            load=saved.load,
            save=saved.save,
        )
        return Step(head, target, planner.run())

    def _put_in_place(self, session: Session, step: Step, verb: str, deed: Deed) -> tuple[Moved, Stale]:
        head, target, plan = step
        aside = head.live.state != self._state_of(head.workspace.layer)
        stays = target.make_layer is None and LivePair(target.layer, target.state, plan_times(plan)) == head.live.pair
        if stays and target.owner in (None, head.live.owner):
            return Moved(target.layer, target.state, None), Stale([], [])

        def publish(transaction: Transaction) -> tuple[LayerId | None, Operation]:
            layer = target.layer if target.make_layer is None else target.make_layer(transaction, head)
            row = self._stood_on(
                transaction, head.live, target.state, plan.root, self.overlay.position, plan.leaving
            )._replace(layer=layer, baseline=target.times, owner=target.owner or head.live.owner)
            return layer, heads.advance(transaction, head, row, verb, *deed, cursor=target.cursor)

        layer, operation = session.publish(publish)
        try:
            stale = self._rebase(target, plan, target.owner or head.live.owner)
            uncommitted = target.state != self._state_of(layer)
        except BaseException:
            self.overlay.fail()  # the row says otherwise: it must be opened again
            raise
        return Moved(
            layer, target.state, operation, *plan.counts(), aside, uncommitted, target.make_layer is not None
        ), stale

    def _state_of(self, layer: LayerId | None) -> StateId:
        with self.store.read() as snapshot:
            return heads.state_of(snapshot, layer)

    def _rebase(self, target: Target, plan: Plan, owner: tuple[int, int]) -> Stale:
        with self.store.read() as snapshot:
            standing = self._standing(snapshot, target.state, plan.root)
        dirs = [(ino, tuple(ids)) for ino, ids in plan.dirs.items()]
        return Stale(*self.overlay.rebase(*standing, owner, dirs, plan.changes, plan.lost))


def plan_times(plan: Plan) -> TimesId | None:
    return None if plan.root.times is None else TimesId(ObjectId(plan.root.times))
