"""One workspace of a repository, open for changing: its overlay over the state that its live row names.

Thread-safe: the overlay locks itself; sealing happens one at a time. What a call promises after a crash stands with it.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusecas import _native
from fusecas.errors import Conflict, Damaged, DamagedEnvironment, StorageProblem
from fusecas.store import heads, trees
from fusecas.store.ids import InodesId, Kind, LayerId, ObjectId, StateId, TimesId
from fusecas.store.kinds import EntryKind, Layer
from fusecas.store.repository import Repository, sync_folder
from fusecas.store.rows import Live, Operation
from fusecas.store.session import Session
from fusecas.store.transaction import Transaction
from fusecas.workspace.sealing import INLINE_XATTR, Changed, Sealed, Sealer

OVERLAYS = "overlays"
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


def boot_id() -> bytes:
    return BOOT_ID.read_bytes().strip()


class Workspace:
    """Owns the overlay of one workspace. Close it, or leave it to a crash: the next one finds all that was done."""

    def __init__(self, repository: Repository, name: str = heads.DEFAULT) -> None:
        self.repository = repository
        self.name = name
        self.store = repository.store
        self._sealing = threading.Lock()
        self._flush: Callable[[], None] = lambda: None
        with self.store.read() as snapshot:
            head = heads.read_head(snapshot, name)
        self.id = head.workspace.id
        try:
            self.overlay = self._open(head.live)
        except _native.FormatError as error:
            raise Damaged(f"workspace {name}: {error}", hint="its layers are whole: fusecas verify") from error

    def flush_mappings_by(self, flush: Callable[[], None]) -> None:
        """What brings stores through shared mappings to the overlay before a seal: only a mount knows."""
        self._flush = flush

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
            core = trees.read_state(snapshot, live.state)
            time = self._time_of(snapshot, live)
            mtime = trees.Times(snapshot, live.times).of(b"").mtime if live.times is not None else None
        overlay = _native.Overlay(
            folder,
            (core.tree, live.times, live.inodes, live.first_inode),
            core.mode,
            None if not core.ext else _native.cbor_encode(dict(core.ext)),
            core.links,
            (time, time if mtime is None else mtime),
            live.owner,
            live.next_inode,
            live.ranges,
            live.boot == boot_id(),
            self._load,
            self._read,
        )
        ranges = (*overlay.ranges, (overlay.stream, 0, None))
        with self.store.write() as transaction:
            now = transaction.get_live(self.id)
            if now is None or now.serial != live.serial:
                raise Conflict(f"workspace {self.name} was moved while it was opened", hint="try again")
            opened = live._replace(ranges=ranges, boot=boot_id(), next_inode=overlay.next_inode)
            transaction.set_live(self.id, opened)
        return overlay

    @staticmethod
    def _time_of(snapshot: Any, live: Live) -> int:
        """The time of what has none: when the state came to this workspace."""
        operation = next(iter(snapshot.operations_back()), None)
        return 0 if operation is None else int(operation.time)

    def _load(self, object_id: bytes, kind: int) -> bytes:
        with self.store.read() as snapshot:
            return snapshot.read_node(object_id, Kind(kind))

    def _read(self, content: bytes, offset: int, length: int | None) -> bytes:
        with self.store.read() as snapshot:
            return b"".join(snapshot.iter_content(content, offset, length))

    # sealing

    def commit(self, message: str | None = None, *, argv: Sequence[bytes] = (), actor: str = "") -> Committed:
        """A layer with what is here now on the head. When it returns, it survives power loss; if it fails, nothing
        has changed, and what is uncommitted still is."""
        with self._sealing:
            self._flush()
            return self._seal(lambda transaction, sealed: self._to_layer(transaction, sealed, message, argv, actor))

    def seal(self) -> StateId:
        """A state with what is here now, which the workspace then stands on; the head stays."""
        with self._sealing:
            self._flush()
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
                sealed = self._store_frozen(session)
                with self.store.read() as snapshot:
                    live = self._live(snapshot)

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

    def _live(self, reader: Any) -> Live:
        live = reader.get_live(self.id)
        if live is None:
            raise DamagedEnvironment(f"workspace {self.name} has no live row")
        found: Live = live
        return found

    def _store_frozen(self, session: Session) -> Sealed:
        nodes = {node.ino: node for node in (Changed._make(each) for each in self.overlay.nodes(frozen_only=True))}
        contents = {ino: self._store_content(session, node) for ino, node in nodes.items() if is_changed_file(node)}
        fresh: dict[bytes, bytes] = {}

        def save(kind: Kind, data: bytes) -> ObjectId:
            node = session.put_node(kind, data)
            fresh[node] = data
            return node

        def load(node: ObjectId, kind: Kind) -> bytes:
            return fresh[node] if node in fresh else self._load(node, kind)

        for ino, node in nodes.items():
            nodes[ino] = node._replace(xattrs=[(name, self._xattr(session, value)) for name, value in node.xattrs])
        with self.store.read() as snapshot:
            live = self._live(snapshot)
            core = trees.read_state(snapshot, live.state)
            time = self._time_of(snapshot, live)
        return Sealer(core, nodes, contents, live.owner, time, load, save).run()

    def _store_content(self, session: Session, node: Changed) -> bytes:
        def flush(_batch: "_native.Batch") -> "_native.Batch":
            session.pass_on()
            return session.batch

        content, _ = self.overlay.put_content(node.ino, session.batch, flush)
        session.pass_on()
        return content

    @staticmethod
    def _xattr(session: Session, value: "bytes | _native.Ref") -> "bytes | _native.Ref":
        if isinstance(value, bytes) and len(value) > INLINE_XATTR:
            return _native.Ref(session.put_content(value))
        return value

    def _moved(self, live: Live, sealed: Sealed) -> Live:
        ids = sealed.root
        return live._replace(
            state=sealed.state,
            times=None if ids.times is None else TimesId(ObjectId(ids.times)),
            inodes=None if ids.inodes is None else InodesId(ObjectId(ids.inodes)),
            first_inode=ids.first,
            next_inode=self.overlay.next_inode,
            ranges=((self.overlay.stream, self._frozen_end, None),),
        )

    def _to_state(self, transaction: Transaction, sealed: Sealed | None) -> Committed:
        live = self._live(transaction)
        if sealed is None:
            return Committed(None, live.state, None)
        transaction.set_live(self.id, self._moved(live, sealed))
        return Committed(None, sealed.state, None)

    def _to_layer(
        self,
        transaction: Transaction,
        sealed: Sealed | None,
        message: str | None,
        argv: Sequence[bytes],
        actor: str,
    ) -> Committed:
        head = heads.read_head(transaction, self.name)
        live = head.live if sealed is None else self._moved(head.live, sealed)
        parent = head.workspace.layer
        before = self._state_of(transaction, parent)
        if live.state == before:
            if sealed is not None:
                transaction.set_live(self.id, live)
            return Committed(None, live.state, None)
        parents = () if parent is None else (parent,)
        layer = LayerId(transaction.put_node(Kind.LAYER, Layer(parents, live.state, message=message).encode()))
        if live.times is not None:
            transaction.set_layer_times(layer, live.times)
        live = live._replace(layer=layer)
        operation = heads.advance(transaction, head, layer, live, "commit", argv, actor)
        return Committed(layer, live.state, operation)

    @staticmethod
    def _state_of(transaction: Transaction, layer: LayerId | None) -> StateId:
        if layer is None:
            return StateId(ObjectId(_native.node_id(Kind.STATE, heads.EMPTY_STATE.encode())))
        return Layer.decode(transaction.read_node(layer, Kind.LAYER)).state


def is_changed_file(node: Changed) -> bool:
    return node.kind == EntryKind.FILE and bool(node.what[2])
