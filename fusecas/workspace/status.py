"""What is uncommitted: the paths that differ between a workspace's layer and what is there now.

Asked of the overlay and of the two states, never of the tree: it costs what changed. A file that was written to counts
as modified, even if it was written with what it had; a commit looks closer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fusecas import _native
from fusecas.store import heads, trees
from fusecas.store.diff import diff_states
from fusecas.store.ids import Kind, StateId
from fusecas.store.kinds import Entry, Layer
from fusecas.store.snapshot import Snapshot
from fusecas.wire import path_fields
from fusecas.workspace.sealing import Changed
from fusecas.workspace.workspace import Workspace

Nodes = Mapping[int, Sequence[Changed]]
"""What the generations have of an inode: the frozen one first, if it has any."""
TYPE_BITS = {0o100: 1, 0o040: 2, 0o120: 3, 0o010: 4, 0o140: 5, 0o020: 6, 0o060: 7}


class Difference(NamedTuple):
    """A: added, D: removed, M: modified, T: of another kind, m: only its attributes."""

    letter: str
    path: bytes
    is_directory: bool


def status(workspace: Workspace) -> list[Difference]:
    """In the order of paths. What is in a directory that is new or gone is not listed again if it came with it."""
    overlay = workspace.overlay
    nodes: defaultdict[int, list[Changed]] = defaultdict(list)
    for node in map(Changed._make, overlay.nodes()):
        nodes[node.ino].append(node)
    with workspace.store.read() as snapshot:
        head = heads.read_head(snapshot, workspace.name)
        before = _state_of_layer(snapshot, head)
        paths = _candidates(overlay, (node for each in nodes.values() for node in each))
        if before != head.live.state:
            paths |= {change.path for change in diff_states(snapshot, before, head.live.state, renames=False)}
        found = [_compare(snapshot, before, head.live.state, overlay, nodes, path) for path in sorted(paths)]
    return [each for each in found if each is not None]


def as_json(workspace: str, found: Sequence[Difference]) -> dict[str, Any]:
    changes = [{"letter": each.letter, **path_fields(each.path), "directory": each.is_directory} for each in found]
    return {"workspace": workspace, "changes": changes}


def _state_of_layer(snapshot: Snapshot, head: heads.Head) -> StateId:
    if head.workspace.layer is None:
        return StateId(_native.node_id(Kind.STATE, heads.EMPTY_STATE.encode()))  # type: ignore[arg-type]
    return Layer.decode(snapshot.read_node(head.workspace.layer, Kind.LAYER)).state


def _candidates(overlay: "_native.Overlay", nodes: Iterable[Changed]) -> set[bytes]:
    """Every path at which something may have changed."""
    paths: set[bytes] = set()
    for node in nodes:
        own = overlay.path(node.ino)
        if own is not None:
            paths.add(own)
        for parent, name in node.places:
            above = overlay.path(parent)
            if above is not None:
                paths.add(trees.join(above, name))
        if node.is_directory and own is not None:
            paths |= {trees.join(own, name) for name in node.names}
    return paths


def _compare(
    snapshot: Snapshot, before: StateId, base: StateId, overlay: "_native.Overlay", nodes: Nodes, path: bytes
) -> Difference | None:
    """`base`: what the overlay stands on, where what no generation has is as it was."""
    old = trees.lookup(snapshot, before, path)
    now = _now(overlay, path)
    if old is None or now is None:
        if old is None and now is None:
            return None
        is_directory = old.is_directory if old is not None else now is not None and _kind(now) == 2
        return Difference("A" if old is None else "D", path, is_directory)
    kind = _kind(now)
    if kind != old.kind:
        return Difference("T", path, kind == 2)
    changed = nodes.get(now[0], ())
    below = None if changed else trees.lookup(snapshot, base, path)
    if kind == 1 and (now[6] != old.size or _content_differs(old, changed, below)):
        return Difference("M", path, False)
    if kind == 3 and overlay.readlink(now[0]) != old.target:
        return Difference("M", path, False)
    if _attributes_differ(old, now, changed, below):
        return Difference("m", path, kind == 2)
    return None


def _content_differs(old: Entry, changed: Sequence[Changed], below: Entry | None) -> bool:
    """Of a file that is as long as it was."""
    if any(node.what[2] for node in changed):
        return True
    stored = changed[-1].what[0] if changed else below and below.target
    return stored is not None and stored != old.target


def _attributes_differ(old: Entry, now: "_native.Attributes", changed: Sequence[Changed], below: Entry | None) -> bool:
    if old.kind != 3 and old.mode != now[1] & 0o7777:
        return True
    has_xattrs = changed[-1] if changed else below
    return has_xattrs is not None and dict(old.xattrs) != dict(has_xattrs.xattrs)


def _kind(found: "_native.Attributes") -> int:
    return TYPE_BITS[found[1] >> 9 & 0o170]


def _now(overlay: "_native.Overlay", path: bytes) -> "_native.Attributes | None":
    """What is at a path; nothing stays held."""
    ino, found = 0, overlay.getattr(0)
    for name in path.split(b"/") if path else ():
        if _kind(found) != 2:
            return None
        child = overlay.lookup(ino, name)
        if child is None:
            return None
        overlay.forget(child[0], 1)
        ino, found = child[0], child
    return found
