"""One workspace of a repository, open for changing: its overlay over the state that its live row names.

Thread-safe: the overlay locks itself; sealing and moving happen one at a time, and forking beside them (siblings.py).
What a call promises after a crash stands with it.
"""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from fusecas import _native
from fusecas.errors import Conflict, Damaged, DamagedEnvironment, MissingObject, StorageProblem, TooLarge
from fusecas.store import heads, trees
from fusecas.store.durable import sync_folder
from fusecas.store.heads import Head
from fusecas.store.ids import Kind, LayerId, StateId, TimesId
from fusecas.store.repository import Repository
from fusecas.store.rows import Live, Operation, Range
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import StatCaches
from fusecas.store.store import Store
from fusecas.store.transaction import Transaction
from fusecas.workspace import ranges
from fusecas.workspace.mover import Deed, Find, Moved, Mover, Stale
from fusecas.workspace.sealing import Sealed
from fusecas.workspace.siblings import Siblings
from fusecas.workspace.sides import ROOT, DirIds
from fusecas.workspace.standing import fallback_time, row_over, standing_of
from fusecas.workspace.storing import (
    Nodes,
    cut_contents,
    frozen_nodes,
    is_small,
    put_contents,
    store_frozen,
)
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


def boot_id() -> bytes:
    return BOOT_ID.read_bytes().strip()


class Workspace:
    """Owns the overlay of one workspace. Close it, or leave it to a crash: the next one finds all that was done.

    `source`: the workspace whose frozen generation this fork stands on, until that is stored.
    """

    def __init__(self, repository: Repository, name: str = heads.DEFAULT, siblings: Siblings | None = None) -> None:
        self.repository = repository
        self.name = name
        self.store = repository.store
        self.caches: Caches = NoCaches()
        self.is_removed = False
        self.siblings = siblings or Siblings()
        self.source: Workspace | None = None
        self.stat_caches = StatCaches()
        self._sealing = threading.Lock()
        self._has_forks = False  # that stand on what is frozen here, or are about to
        with self.store.read() as snapshot:
            head = heads.read_head(snapshot, name)
        self.id = head.workspace.id
        try:
            with self.siblings.turn:
                self.overlay = self._open()
                self.siblings.add(self)
        except _native.FormatError as error:
            raise Damaged(f"workspace {name}: {error}", hint="its layers are whole: fusecas verify") from error

    def close(self) -> None:
        """Make everything durable; what is uncommitted stays so."""
        self.overlay.sync()

    # opening

    def _open(self) -> "_native.Overlay":
        folder = self.repository.folder / OVERLAYS / self.id.hex()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for above in (folder.parent, self.repository.folder):
            sync_folder(above)  # a power cut must not take away the folder that marks were written in
        with self.store.read() as snapshot:
            live = self._live(snapshot)
            ids = DirIds(None, live.times, live.inodes, live.first_inode)
            standing = standing_of(snapshot, self.name, live.state, ids)
            freeze_at = next((ranges.end_of_shared(fork.live.ranges) for fork in self._forks(snapshot)), None)
        shared = ranges.shared(live.ranges)
        self.source = self._sibling(shared[0]) if shared else None
        self._has_forks = freeze_at is not None
        overlay = _native.Overlay(
            folder,
            *standing,
            live.owner,
            live.next_inode,
            [each[:3] for each in ranges.own(live.ranges)],
            live.boot == boot_id(),
            partial(_load, self.store),
            partial(_read, self.store),
            source=None if self.source is None else self.source.overlay,
            freeze_at=freeze_at,
        )
        done = [Range(*each) for each in overlay.ranges]
        with self.store.write() as transaction:
            now = transaction.get_live(self.id)
            if now is None or now.serial != live.serial:
                raise Conflict(f"workspace {self.name} was moved while it was opened", hint="try again")
            opened = (*shared, *done, Range(overlay.stream, 0))
            transaction.set_live(self.id, live._replace(ranges=opened, boot=boot_id(), next_inode=overlay.next_inode))
        return overlay

    def _sibling(self, shared: Range) -> "Workspace":
        assert shared.source is not None
        found = self.siblings.find(shared.source)
        if found is None:
            with self.store.read() as snapshot:
                names = [each.name for each in heads.all_heads(snapshot) if each.workspace.id == shared.source]
            if not names:
                raise Damaged(f"workspace {self.name} stands on the journal of one that is gone")
            found = Workspace(self.repository, names[0], self.siblings)
        return found

    def view(self, target: Target) -> "_native.Overlay":
        """A layer or a state to be looked at, as it would be here."""
        with self.store.read() as snapshot:
            standing = standing_of(snapshot, self.name, target.state, DirIds(None, target.times, None, ROOT + 1))
            owner = self._live(snapshot).owner
        return _native.Overlay.view(*standing, owner, partial(_load, self.store), partial(_read, self.store))

    # sealing

    def commit(self, message: str | None = None, deed: Deed = Deed()) -> Committed:
        """A layer with what is here now on the head. When it returns, it survives power loss; if it fails, nothing
        has changed, and what is uncommitted still is."""
        with self._sealing:
            self.caches.flush()
            return self._seal(lambda transaction, sealed: self._to_layer(transaction, sealed, message, deed))

    def seal_into(self, publish: Callable[[Transaction, Head], Committed]) -> Committed:
        """What is here now becomes a state, and `publish`, in the same transaction, says what becomes of it: the head
        that it is given stands on it already. As durable as a commit."""

        def sealed_into(transaction: Transaction, sealed: Sealed | None) -> Committed:
            head = heads.read_head(transaction, self.name)
            return publish(transaction, head._replace(live=self._sealed_row(transaction, head.live, sealed)))

        with self._sealing:
            self.caches.flush()
            return self._seal(sealed_into)

    def bring(self, verb: str, find: Find, deed: Deed) -> Moved:
        """As `checkout`, for what comes to the head from elsewhere."""
        return self._move(verb, deed, find)

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

    @property
    def is_shared(self) -> bool:
        """Whether forks stand on what is frozen here, and not in the store."""
        return self._has_forks

    def settle(self) -> None:
        """What was frozen for forks becomes the state that they and this workspace stand on: a later seal of any of
        them then costs its own changes."""
        if self.source is not None:
            self.source.settle()
            return
        with self._sealing:
            self._refuse_failed()
            if self.overlay.frozen_end is not None:
                self._store(self._to_state)

    def _seal(self, publish: "Callable[[Transaction, Sealed | None], Committed]") -> Committed:
        self._refuse_failed()
        if self.source is not None:
            self.source.settle()
        while True:
            try:
                end = self.overlay.share()
                break
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                self._store(self._to_state)  # a fork stands on it, and there is more since
        if end is not None:
            return self._store(publish)
        with self.store.write() as transaction:
            return publish(transaction, None)

    def _refuse_failed(self) -> None:
        if self.overlay.failed:
            raise StorageProblem(
                f"workspace {self.name} is read-only: the disk has failed to store what was written to it",
                hint="see to the disk, then unmount and mount again",
            )

    def _store(self, publish: "Callable[[Transaction, Sealed | None], Committed]") -> Committed:
        """The frozen generation goes to the store."""
        try:
            nodes = frozen_nodes(self.overlay)
            at_once = self._store_at_once(nodes, publish) if is_small(nodes) else None
            return at_once or self._store_by_session(nodes, publish)
        except BaseException:
            with self.siblings.turn:
                if not self._has_forks:
                    self.overlay.thaw()
            raise

    def _store_at_once(
        self, nodes: Nodes, publish: "Callable[[Transaction, Sealed | None], Committed]"
    ) -> Committed | None:
        """In one transaction; None if it does not fit, and nothing has happened."""
        contents, batch = cut_contents(self.overlay, nodes, self.repository.mountpoint)
        with self.siblings.turn:
            try:
                with self.store.write() as transaction:
                    transaction.take(batch)
                    live = self._live(transaction)
                    core = trees.read_state(transaction, live.state)
                    fallback = fallback_time(transaction, self.name)
                    load = transaction.read_node
                    known = transaction.bound(live.state)
                    sealed = store_frozen(nodes, contents, transaction, core, live.owner, fallback, known, load)
                    done = publish(transaction, sealed)
            except TooLarge:
                return None
            self._retire(sealed)
        return replace(done, new_objects=transaction.new_objects, stored_bytes=transaction.stored_bytes)

    def _store_by_session(
        self, nodes: Nodes, publish: "Callable[[Transaction, Sealed | None], Committed]"
    ) -> Committed:
        with self.store.session() as session:
            contents = put_contents(self.overlay, nodes, self.repository.mountpoint, session)
            with self.store.read() as snapshot:
                live = self._live(snapshot)
                core = trees.read_state(snapshot, live.state)
                fallback = fallback_time(snapshot, self.name)
                known = snapshot.bound(live.state)
            load = partial(_load, self.store)
            sealed = store_frozen(nodes, contents, session, core, live.owner, fallback, known, load)

            def finish(transaction: Transaction) -> Committed:
                if self._live(transaction).serial != live.serial:
                    raise Conflict(f"workspace {self.name} was moved meanwhile", hint="try again")
                return publish(transaction, sealed)

            session.flush()  # the long part, before others have to wait for their turn
            with self.siblings.turn:
                done = session.publish(finish)
                self._retire(sealed)
        return replace(done, new_objects=session.new_objects, stored_bytes=session.stored_bytes)

    def _retire(self, sealed: Sealed) -> None:
        """The rows say that the frozen generation is in the store: whoever stands on it forgets it."""
        dirs = [(ino, tuple(ids)) for ino, ids in sealed.dirs]
        standing = [self, *self.siblings.forks_of(self)]
        try:
            for each in standing:
                each.overlay.retire(sealed.files, dirs, sealed.links)
                each.source = None
        except BaseException:
            for each in standing:
                each.overlay.fail()
            raise
        self._has_forks = False

    def _live(self, reader: Snapshot) -> Live:
        live = reader.get_live(self.id)
        if live is None:
            raise DamagedEnvironment(f"workspace {self.name} has no live row")
        return live

    def _sealed_row(self, transaction: Transaction, live: Live, sealed: Sealed | None) -> Live:
        """Where the workspace stands now; its forks, too, as far as they shared what was frozen."""
        end = self.overlay.frozen_end
        if sealed is None or end is None:
            return live
        left = ranges.after(live.ranges, end)
        row = row_over(transaction, self.overlay, live, sealed.state, sealed.root, left)
        transaction.set_bound(row.state, sealed.holders)
        for fork in self._forks(transaction) if self._has_forks else ():
            moved = fork.live._replace(state=row.state, times=row.times, inodes=row.inodes, needs=())
            moved = moved._replace(first_inode=row.first_inode, ranges=ranges.own(fork.live.ranges))
            heads.settle_fork(transaction, fork, moved)
        return row

    def _forks(self, reader: Snapshot) -> list[Head]:
        """Those that share what of the journal is not in the store."""
        return [head for head in heads.all_heads(reader) if any(each.source == self.id for each in head.live.ranges)]

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
        layer = heads.add_layer(
            transaction, head.workspace.layer, live.state, live.times, live.baseline, message=message
        )
        # Where it came from is what is here, not yet a layer: so undo takes back the commit before it takes the edits.
        came_from = head._replace(live=live)
        operation = heads.advance(transaction, came_from, live._replace(layer=layer), "commit", *deed)
        return Committed(layer, live.state, operation)

    # forks

    def fork(self, name: str, deed: Deed = Deed()) -> bytes:
        """Another workspace that stands where this one does now, what is uncommitted included: its id. When it returns,
        both survive power loss. Nothing is stored for it yet: the fork shares what is frozen here, until `settle`, or
        the next seal of one of them, has stored that."""
        made = os.urandom(ID_BYTES)
        self.caches.flush()
        if not self._fork_at_once(name, made, deed):
            with self._sealing:  # what a former fork stands on is stored first; nobody else can do so meanwhile
                self._seal(self._to_state)
                # Once more only if others have forked in between, and there were changes after that.
                while not self._fork_at_once(name, made, deed):
                    self._seal(self._to_state)
        return made

    def _fork_at_once(self, name: str, made: bytes, deed: Deed) -> bool:
        """False if what would be shared stands on something frozen, or has been stored meanwhile."""
        self._refuse_failed()
        with self.siblings.turn:
            try:
                end = self.overlay.share()
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return False
                raise
            if end is None:
                self._write_fork(name, made, (), deed)
                return True
            self._has_forks = self._has_forks or self.source is None
        self.overlay.sync()  # what a row names must outlive a power cut
        with self.siblings.turn:
            if self.overlay.frozen_end != end:
                return False
            with self.store.read() as snapshot:
                names = self._live(snapshot).ranges
            self._write_fork(name, made, ranges.shared(names) or ranges.up_to(names, end, self.id), deed)
        return True

    def _write_fork(self, name: str, made: bytes, shares: ranges.Ranges, deed: Deed) -> None:
        with self.store.write() as transaction:
            source = heads.read_head(transaction, self.name)
            source = source._replace(live=source.live._replace(next_inode=self.overlay.next_inode))
            heads.fork_head(transaction, source, name, made, shares, *deed)

    def remove(self, deed: Deed = Deed(), verb: str = "ws rm") -> None:
        """The workspace is no more; what is open in it can still be read, and nothing can be made any more."""

        def publish(transaction: Transaction, sealed: Sealed | None) -> Committed:
            done = self._to_state(transaction, sealed)
            heads.remove_head(transaction, heads.read_head(transaction, self.name), *deed, verb=verb)
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
            self.is_removed = True
            self.siblings.remove(self)

    # moving

    def checkout(self, find: Find, deed: Deed = Deed()) -> Moved:
        """Put the state that `find` names in place. What was uncommitted is kept by the operation: undo brings it
        back. When it returns, it survives power loss, and nothing of the old state is seen any more."""
        return self._move("checkout", deed, find)

    def undo(self, steps: int = 1, deed: Deed = Deed()) -> Moved:
        """Back to where the workspace stood before, step by step (undoing.py). As durable as a checkout."""
        return self._move("undo", deed, lambda snapshot, head: Past(snapshot, head, self.stat_caches).back(steps))

    def redo(self, steps: int = 1, deed: Deed = Deed()) -> Moved:
        return self._move("redo", deed, lambda snapshot, head: Past(snapshot, head, self.stat_caches).forward(steps))

    def put_layer(
        self, verb: str, state: StateId, times: TimesId | None, owner: tuple[int, int], message: str | None, deed: Deed
    ) -> Moved:
        """A new layer with a whole state from elsewhere on the head, and the workspace at it."""

        def layer_on(transaction: Transaction, head: Head, target: Target) -> LayerId:
            program = {"verb": verb}
            parent = head.workspace.layer
            return heads.add_layer(transaction, parent, state, target.times, program=program, message=message)

        def find(snapshot: Snapshot, head: Head) -> Target:
            layer = head.workspace.layer
            is_there = layer is not None and heads.state_of(snapshot, layer) == state
            return Target(layer, state, times, owner=owner, make_layer=None if is_there else layer_on)

        return self.bring(verb, find, deed)

    def _move(self, verb: str, deed: Deed, find: Find) -> Moved:
        mover = Mover(self.store, self.overlay, self.name, self.stat_caches)
        with self._sealing:
            self.caches.flush()
            self._seal(self._to_state)  # the long part, while the mount serves on
            step = mover.plan(find)
            self.overlay.close_gate()
            try:
                if not self.overlay.is_clean:  # somebody has written meanwhile
                    self._seal(self._to_state)
                    step = mover.plan(find)
                with self.siblings.turn:
                    moved, stale = mover.put_in_place(step, verb, deed)
            except MissingObject:
                mover.plan(find)  # says so, if gc has taken it since it was planned
                raise
            finally:
                self.overlay.open_gate()
            # Only now: the kernel waits for requests that wait for the gate.
            self.caches.drop(stale)
            return moved


# Of the store, not of a workspace: an overlay that held its workspace would keep the files of one that is gone.


def _load(store: Store, object_id: bytes, kind: int) -> bytes:
    with store.read() as snapshot:
        return snapshot.read_node(object_id, Kind(kind))


def _read(store: Store, content: bytes, offset: int, length: int | None) -> bytes:
    with store.read() as snapshot:
        return b"".join(snapshot.iter_content(content, offset, length))
