"""What a checkout leaves behind: layers that no name leads to any more."""

from collections.abc import Iterator
from itertools import takewhile

from fusecas.store import heads, tags
from fusecas.store.ids import Kind, LayerId
from fusecas.store.kinds import Layer
from fusecas.store.snapshot import Snapshot

MOST = 1000


def unnamed_behind(snapshot: Snapshot, name: str) -> tuple[int, LayerId | None]:
    """(how many, the newest) of the layers from where the last operation has come from back to what a head or a tag
    names; as far as MOST. Reads what it counts."""
    head = heads.read_head(snapshot, name)
    last = next(snapshot.ref_operations_back(head.ref), None)
    move = None if last is None else last.move_of(head.ref)
    if move is None or move.old_live is None:
        return 0, None
    named = {row.target for _, row in snapshot.list_refs(tags.NAMESPACE)}
    named.update(each.workspace.layer for each in heads.all_heads(snapshot) if each.workspace.layer is not None)
    named.update(_line(snapshot, head.workspace.layer))
    newest = move.old_live.layer
    count = sum(1 for _ in takewhile(lambda layer: layer not in named, _line(snapshot, newest)))
    return (count, newest) if count else (0, None)


def _line(snapshot: Snapshot, layer: LayerId | None) -> Iterator[LayerId]:
    """A layer and those before it, along first parents."""
    for _ in range(MOST):
        if layer is None:
            return
        yield layer
        parents = Layer.decode(snapshot.read_node(layer, Kind.LAYER)).parents
        layer = parents[0] if parents else None
