"""A plain folder becomes a layer: read into the store first, then put in place like a checkout."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fusecas.store import heads
from fusecas.store.ids import LayerId
from fusecas.store.importer import Imported, Progress, import_tree
from fusecas.store.repository import Repository, own_files
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import Workspace


class Placed(NamedTuple):
    """The layer that was made, if the head had not this state already; and `aside`, as `Moved` has it."""

    layer: LayerId | None
    aside: bool


Place = Callable[[Imported], Placed]


@dataclass(frozen=True)
class ImportedLayer:
    """What an import came to. `layer` is None if the head has this state already. `aside`: as `Moved` has it."""

    layer: LayerId | None
    imported: Imported
    new_objects: int
    new_bytes: int
    stored_bytes: int
    aside: bool = False


def import_layer(
    repository: Repository,
    source: Path,
    *,
    place: Place | None = None,
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

    With `move_head` the workspace moves to it, by `place` if somebody else has it open; without, the layer is there for
    gc's min-age, for somebody to name it.
    """
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
        session.flush()  # from here on it is held until this session ends, and others see it
        figures = (session.new_objects, session.new_bytes, session.stored_bytes)
        if not move_head:
            with repository.store.write() as transaction:
                parent = heads.read_head(transaction, name).workspace.layer
                program = {"verb": "import"}
                layer = heads.add_layer(
                    transaction, parent, imported.state, imported.times, program=program, message=message
                )
            session.keep()
            return ImportedLayer(layer, imported, *figures)
        placed = (place or _here(repository, name, message, deed))(imported)
        return ImportedLayer(placed.layer, imported, *figures, aside=placed.aside)


def _here(repository: Repository, name: str, message: str | None, deed: Deed) -> Place:
    def place(imported: Imported) -> Placed:
        with repository.held_briefly():
            workspace = Workspace(repository, name)
            moved = workspace.put_layer("import", imported.state, imported.times, imported.owner, message, deed)
            return Placed(moved.layer if moved.made else None, moved.aside)

    return place
