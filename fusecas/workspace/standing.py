"""What a workspace stands on: a state with its side trees, as its overlay and its live row are told of it."""

from collections.abc import Sequence

from fusecas import _native
from fusecas.store import heads, prolly, trees
from fusecas.store.ids import InodesId, Kind, ObjectId, StateId, TimesId
from fusecas.store.rows import Live
from fusecas.store.snapshot import Snapshot
from fusecas.store.transaction import Transaction
from fusecas.workspace.ranges import Ranges
from fusecas.workspace.sides import DirIds

RootIds = tuple[bytes | None, bytes | None, bytes | None, int]
Standing = tuple[RootIds, int, bytes | None, bytes | None, tuple[int, int, int]]
"""A state as an overlay is told of it: the root's ids, its mode and extensions, hard links, times."""


def standing_of(snapshot: Snapshot, name: str, state: StateId, ids: DirIds) -> Standing:
    """`name`: of the workspace. `ids`: the side trees of the root; its tree is the state's."""
    core = trees.read_state(snapshot, state)
    fallback = fallback_time(snapshot, name)
    times = times_of(ids)
    mtime = None if times is None else trees.Times(snapshot, times).of(b"").mtime
    ext = None if not core.ext else _native.cbor_encode(dict(core.ext))
    mtime = fallback if mtime is None else mtime
    own = prolly.find(Kind.INODES, ids.inodes, b"", lambda node, kind: snapshot.read_node(node, kind))
    time = (fallback, mtime, mtime if own is None else own[2])
    return (core.tree, ids.times, ids.inodes, ids.first), core.mode, ext, core.links, time


def fallback_time(snapshot: Snapshot, name: str) -> int:
    """The time of what has none: when something was last done in this workspace."""
    operation = next(snapshot.ref_operations_back(heads.NAMESPACE + name), None)
    return 0 if operation is None else int(operation.time)


def times_of(ids: DirIds) -> TimesId | None:
    return None if ids.times is None else TimesId(ObjectId(ids.times))


def row_over(
    transaction: Transaction,
    overlay: "_native.Overlay",
    live: Live,
    state: StateId,
    ids: DirIds,
    ranges: Ranges,
    leaving: Sequence[int] = (),
) -> Live:
    """A live row over another state, with what of the journal stands on that. What is open without a name is kept, and
    what of the inodes that are `leaving` will be."""
    held = overlay.contents_held(leaving)
    return live._replace(
        state=state,
        times=times_of(ids),
        inodes=None if ids.inodes is None else InodesId(ObjectId(ids.inodes)),
        first_inode=ids.first,
        next_inode=overlay.next_inode,
        ranges=ranges,
        needs=tuple(ObjectId(each) for each in held if transaction.has(each)),
    )
