"""Moving a workspace to another state (docs/dev/checkout.md): worked out first, then put in place at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fusecas import _native
from fusecas.store import heads
from fusecas.store.heads import Head
from fusecas.store.ids import Kind, LayerId, ObjectId, StateId
from fusecas.store.kinds import State
from fusecas.store.prolly import Loader
from fusecas.store.rows import Baseline, LivePair, Operation, Range
from fusecas.store.snapshot import Snapshot
from fusecas.store.stat_caches import StatCaches
from fusecas.store.store import Store
from fusecas.store.transaction import Transaction
from fusecas.workspace.moving import Plan, Planner, Side
from fusecas.workspace.sides import DirIds
from fusecas.workspace.standing import fallback_time, row_over, standing_of, times_of
from fusecas.workspace.target import Target

MOST_BYTES = 1 << 20
"""Of new nodes that one transaction takes without a session, which would cost two more."""

Find = Callable[[Snapshot, Head], Target]


@dataclass(frozen=True)
class Moved:
    """What a checkout, an undo or the like came to. `operation` is None if the workspace stood there already.

    The counts are of paths; `aside`: whether there were uncommitted changes, which undo brings back; `uncommitted`:
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


class Step(NamedTuple):
    """Where a workspace goes from here, worked out."""

    head: Head
    target: Target
    plan: Plan
    kept: "Kept"


class Kept:
    """New nodes, in the order in which they were made, until there is a transaction for them."""

    def __init__(self) -> None:
        self._data: dict[bytes, tuple[Kind, bytes]] = {}

    def save(self, kind: Kind, data: bytes) -> ObjectId:
        node = ObjectId(_native.node_id(kind, data))
        self._data[node] = (kind, data)
        return node

    def loader(self, snapshot: Snapshot) -> Loader:
        """Of these, and of what the store has."""
        return lambda node, kind: self._data[node][1] if node in self._data else snapshot.read_node(node, kind)

    def publish(self, store: Store, publisher: "Callable[[Transaction], Published]") -> "Published":
        nodes = list(self._data.values())
        if sum(len(data) for _, data in nodes) <= MOST_BYTES:
            with store.write() as transaction:
                for kind, data in nodes:
                    transaction.put_node(kind, data)
                return publisher(transaction)
        with store.session() as session:
            for kind, data in nodes:
                session.put_node(kind, data)
            return session.publish(publisher)


class Published(NamedTuple):
    layer: LayerId | None
    operation: Operation


class Mover:
    def __init__(self, store: Store, overlay: "_native.Overlay", name: str, stat_caches: StatCaches) -> None:
        self._store = store
        self._overlay = overlay
        self._name = name
        self._stat_caches = stat_caches

    def plan(self, find: Find) -> Step:
        """Nothing is uncommitted, or what is will be sealed and this done again."""
        with self._store.read() as snapshot:
            head = heads.read_head(snapshot, self._name)
            target = find(snapshot, head)
            fallback = fallback_time(snapshot, self._name)
            live = head.live
            kept = Kept()
            load = kept.loader(snapshot)
            if target.work_out is not None:
                state, times = target.work_out(load, kept.save)
                target = target._replace(state=state, times=times)
            before, after = (State.decode(load(ObjectId(each), Kind.STATE)) for each in (head.live.state, target.state))
            planner = Planner(
                Side(before, DirIds(before.tree, live.times, live.inodes, live.first_inode)),
                after,
                target.times,
                now=time.time_ns(),
                fallback=fallback,
                take_numbers=self._overlay.take_numbers,
                load=load,
                save=kept.save,
            )
            return Step(head, target, planner.run(), kept)

    def put_in_place(self, step: Step, verb: str, deed: Deed) -> tuple[Moved, Stale]:
        """The gate is closed. If this fails before the row is written, nothing has changed."""
        head, target, plan, kept = step
        with self._store.read() as snapshot:
            aside = self._is_uncommitted(snapshot, head.live.state, head.workspace.layer)
        makes = target.make_layer is not None
        goes_to = LivePair(target.layer, target.state, times_of(plan.root), head.live.baseline)
        stays = not makes and goes_to == head.live.pair
        owner = target.owner or head.live.owner
        if stays and owner == head.live.owner:
            return Moved(target.layer, target.state, None), Stale([], [])

        def publish(transaction: Transaction) -> Published:
            layer = target.layer if target.make_layer is None else target.make_layer(transaction, head, target)
            ranges = (Range(self._overlay.stream, self._overlay.position),)
            row = row_over(transaction, self._overlay, head.live, target.state, plan.root, ranges, plan.leaving)
            baseline = transaction.still(target.baseline) or Baseline(target.times, target.state, time.time_ns())
            row = row._replace(layer=layer, baseline=baseline, owner=owner)
            return Published(layer, heads.advance(transaction, head, row, verb, *deed, cursor=target.cursor))

        layer, operation = kept.publish(self._store, publish)
        try:
            with self._store.read() as snapshot:
                standing = standing_of(snapshot, self._name, target.state, plan.root)
                uncommitted = self._is_uncommitted(snapshot, target.state, layer)
            dirs = [(ino, tuple(ids)) for ino, ids in plan.dirs.items()]
            stale = Stale(*self._overlay.rebase(*standing, owner, dirs, plan.changes, plan.lost))
        except BaseException:
            self._overlay.fail()  # the row says otherwise: it must be opened again
            raise
        counts = plan.counts
        moved = Moved(
            layer,
            target.state,
            operation,
            counts.added,
            counts.removed,
            counts.changed,
            aside,
            uncommitted,
            makes,
        )
        return moved, stale

    def _is_uncommitted(self, snapshot: Snapshot, state: StateId, layer: LayerId | None) -> bool:
        return not self._stat_caches.alike(snapshot, state, heads.state_of(snapshot, layer))
