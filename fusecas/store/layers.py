"""Making layers without a mount: a folder's state as a new layer on a workspace's head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusecas.errors import Refused
from fusecas.store import heads, trees
from fusecas.store.ids import Kind, LayerId
from fusecas.store.importer import Imported, Progress, import_tree
from fusecas.store.kinds import Layer
from fusecas.store.repository import Repository, own_files
from fusecas.store.session import Session
from fusecas.store.transaction import Transaction


@dataclass(frozen=True)
class ImportedLayer:
    """What an import came to. `layer` is None if the head has this state already."""

    layer: LayerId | None
    imported: Imported
    new_objects: int
    new_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Deed:
    """What an operation records of its caller."""

    argv: Sequence[bytes] = ()
    actor: str = ""


def import_layer(
    repository: Repository,
    source: Path,
    *,
    name: str = heads.DEFAULT,
    message: str | None = None,
    owner: tuple[int, int] | None = None,
    trusted_xattrs: bool = False,
    skip_changed: bool = False,
    move_head: bool = True,
    deed: Deed = Deed(),
    progress: Callable[[Progress], None] | None = None,
) -> ImportedLayer:
    """A layer with a folder's state on the workspace's head. No ref moves unless the whole folder was read.

    With `move_head` the head moves to it; without, the layer is there for gc's min-age, for somebody to name it.
    """
    if move_head:
        repository.refuse_while_served()
    with repository.store.session() as session:
        imported = import_tree(
            session,
            source,
            owner=owner,
            trusted_xattrs=trusted_xattrs,
            skip=own_files(repository.folder),
            skip_changed=skip_changed,
            progress=progress,
        )
        if move_head:
            layer = session.publish(lambda transaction: _on_head(transaction, name, imported, message, deed))
        else:
            layer = _beside_head(repository, session, name, imported, message)
        return ImportedLayer(layer, imported, session.new_objects, session.new_bytes, session.stored_bytes)


def _on_head(
    transaction: Transaction, name: str, imported: Imported, message: str | None, deed: Deed
) -> LayerId | None:
    head = heads.read_head(transaction, name)
    if head.live.ranges:
        raise Refused(f"workspace {name} has uncommitted changes", hint="fusecas mount, then fusecas commit")
    parent = head.workspace.layer
    if parent is not None and Layer.decode(transaction.read_node(parent, Kind.LAYER)).state == imported.state:
        return None
    layer = LayerId(transaction.put_node(Kind.LAYER, _core(parent, imported, message).encode()))
    if imported.times is not None:
        transaction.set_layer_times(layer, imported.times)
    live = head.live._replace(
        layer=layer,
        state=imported.state,
        times=imported.times,
        inodes=None,
        baseline=imported.times,
        owner=imported.owner,
        first_inode=head.live.next_inode,
        next_inode=head.live.next_inode + trees.root_entry(transaction, imported.state).count,
    )
    heads.advance(transaction, head, layer, live, "import", deed.argv, deed.actor)
    return layer


def _beside_head(
    repository: Repository, session: Session, name: str, imported: Imported, message: str | None
) -> LayerId:
    with repository.store.read() as snapshot:
        parent = heads.read_head(snapshot, name).workspace.layer
    layer = LayerId(session.put_node(Kind.LAYER, _core(parent, imported, message).encode()))
    session.flush()
    if imported.times is not None:
        with repository.store.write() as transaction:
            transaction.set_layer_times(layer, imported.times)
    session.keep()
    return layer


def _core(parent: LayerId | None, imported: Imported, message: str | None) -> Layer:
    parents = () if parent is None else (parent,)
    return Layer(parents=parents, state=imported.state, program={"verb": "import"}, message=message)
