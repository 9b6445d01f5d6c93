"""What a frozen generation holds, on its way to the store."""

from fusecas import _native
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.kinds import EntryKind, State
from fusecas.store.prolly import Loader
from fusecas.store.session import Session
from fusecas.workspace.sealing import INLINE_XATTR, Changed, Sealed, Sealer


class Saved:
    """Nodes put into a session, readable at once: the store may not have them yet."""

    def __init__(self, session: Session, load: Loader) -> None:
        self._session = session
        self._load = load
        self._fresh: dict[bytes, bytes] = {}

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        node = self._session.put_node(kind, data)
        self._fresh[node] = data
        return node

    def load(self, node: bytes, kind: Kind) -> bytes:
        return self._fresh[node] if node in self._fresh else self._load(ObjectId(node), kind)


def store_frozen(
    overlay: "_native.Overlay", session: Session, core: State, owner: tuple[int, int], time: int, load: Loader
) -> Sealed:
    """Contents first, then the trees that name them."""
    nodes = {node.ino: node for node in (Changed._make(each) for each in overlay.nodes(frozen_only=True))}
    contents = {ino: _content(overlay, session, ino) for ino, node in nodes.items() if is_changed_file(node)}
    for ino, node in nodes.items():
        nodes[ino] = node._replace(xattrs=[(name, _xattr(session, value)) for name, value in node.xattrs])
    saved = Saved(session, load)
    return Sealer(core, nodes, contents, owner, time, saved.load, saved.save).run()


def is_changed_file(node: Changed) -> bool:
    return node.kind == EntryKind.FILE and bool(node.what[2])


def _content(overlay: "_native.Overlay", session: Session, ino: int) -> bytes:
    def flush(_batch: "_native.Batch") -> "_native.Batch":
        session.pass_on()
        return session.batch

    content, _ = overlay.put_content(ino, session.batch, flush)
    session.pass_on()
    return content


def _xattr(session: Session, value: "bytes | _native.Ref") -> "bytes | _native.Ref":
    if isinstance(value, bytes) and len(value) > INLINE_XATTR:
        return _native.Ref(session.put_content(value))
    return value
