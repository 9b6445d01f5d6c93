"""What a frozen generation holds, on its way to the store."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fusecas import _native
from fusecas.store.bound import Holders, holds, inherited
from fusecas.store.ids import ContentId, Kind, ObjectId
from fusecas.store.kinds import EntryKind, State
from fusecas.store.prolly import Loader
from fusecas.store.session import Session
from fusecas.workspace.sealing import INLINE_XATTR, Changed, Sealed, Sealer

MOST_NODES, MOST_BYTES = 1000, 1 << 20

Nodes = dict[int, Changed]


class Contents(NamedTuple):
    """Of the changed files, by their numbers: the ids, and those that hold a path."""

    ids: dict[int, bytes]
    holders: set[int]


class Puts(Protocol):
    """A session, or a transaction."""

    def put_node(self, kind: Kind, data: bytes) -> ObjectId: ...

    def put_content(self, data: bytes) -> ContentId: ...


class Saved:
    """Nodes put into a session or a transaction, readable at once: the store may not have them yet."""

    def __init__(self, puts: Puts, load: Loader) -> None:
        self._puts = puts
        self._load = load
        self._fresh: dict[bytes, bytes] = {}

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        node = self._puts.put_node(kind, data)
        self._fresh[node] = data
        return node

    def load(self, node: bytes, kind: Kind) -> bytes:
        return self._fresh[node] if node in self._fresh else self._load(ObjectId(node), kind)


def frozen_nodes(overlay: "_native.Overlay") -> Nodes:
    return {node.ino: node for node in (Changed._make(each) for each in overlay.nodes(frozen_only=True))}


def is_small(nodes: Nodes) -> bool:
    """Whether one transaction can hold it, and need not hold up others for long. A session costs two more."""
    if len(nodes) > MOST_NODES:
        return False
    return sum(node.size for node in nodes.values() if is_changed_file(node)) <= MOST_BYTES


def cut_contents(overlay: "_native.Overlay", nodes: Nodes, path: bytes) -> "tuple[Contents, _native.Batch]":
    """The changed contents of a small generation, for `Transaction.take`. `path`: what is looked for in them."""
    batch = _native.Batch()
    return _put(overlay, nodes, path, batch, lambda batch: batch), batch


def put_contents(overlay: "_native.Overlay", nodes: Nodes, path: bytes, session: Session) -> Contents:
    def flush(_batch: "_native.Batch") -> "_native.Batch":
        session.pass_on()
        return session.batch

    found = _put(overlay, nodes, path, session.batch, flush)
    session.pass_on()
    return found


def _put(
    overlay: "_native.Overlay",
    nodes: Nodes,
    path: bytes,
    batch: "_native.Batch",
    flush: "Callable[[_native.Batch], _native.Batch]",
) -> Contents:
    found = Contents({}, {ino for ino, node in nodes.items() if path and _says(node, path)})
    for ino, node in nodes.items():
        if is_changed_file(node):
            found.ids[ino], _, holds_it = overlay.put_content(ino, batch, flush, path)
            batch = flush(batch)
            if holds_it:
                found.holders.add(ino)
    return found


def _says(node: Changed, path: bytes) -> bool:
    """Whether a link's target or an attribute holds a path."""
    said = [value for _, value in node.xattrs if isinstance(value, bytes)]
    if node.kind == EntryKind.SYMLINK:
        said.append(node.what)
    return any(holds(each, path) for each in said)


def store_frozen(
    nodes: Nodes,
    contents: Contents,
    puts: Puts,
    core: State,
    owner: tuple[int, int],
    time: int,
    holders: Holders,
    load: Loader,
) -> Sealed:
    """The trees of a generation whose contents are put already. `holders`: what of `core` holds the path."""
    kept = {
        ino: node._replace(xattrs=[(name, _xattr(puts, value)) for name, value in node.xattrs])
        for ino, node in nodes.items()
    }
    saved = Saved(puts, load)
    sealer = Sealer(core, kept, contents.ids, owner, time, saved.load, saved.save)
    sealed = sealer.run()
    found = inherited(holders, core.tree, sealed.root.tree, sealer.paths_of(contents.holders), saved.load)
    return sealed._replace(holders=found)


def is_changed_file(node: Changed) -> bool:
    return node.kind == EntryKind.FILE and bool(node.what[2])


def _xattr(puts: Puts, value: "bytes | _native.Ref") -> "bytes | _native.Ref":
    if isinstance(value, bytes) and len(value) > INLINE_XATTR:
        return _native.Ref(puts.put_content(value))
    return value
