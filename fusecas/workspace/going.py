"""Where a checkout goes: a whole layer, or some paths of one; with the times of its files, or with present ones."""

import time
from collections.abc import Sequence

from fusecas.store import trees
from fusecas.store.diff import Change, diff_states
from fusecas.store.heads import Head
from fusecas.store.ids import StateId, TimesId
from fusecas.store.prolly import Loader, Saver
from fusecas.store.revisions import Revision
from fusecas.store.snapshot import Snapshot
from fusecas.workspace.restoring import Restoring
from fusecas.workspace.stamping import Stamps
from fusecas.workspace.standing import fallback_time
from fusecas.workspace.target import Target


def whole(snapshot: Snapshot, head: Head, to: Revision, *, touch: bool) -> Target:
    """`touch`: what changes on the way there gets present times."""
    target = Target(to.layer, to.state, to.times, to.baseline)
    if not touch:
        return target
    changes = list(diff_states(snapshot, head.live.state, to.state, renames=False))
    stamps = _stamps(snapshot, changes, to)
    tree, fallback = trees.read_state(snapshot, to.state).tree, fallback_time(snapshot, head.name)
    return target._replace(work_out=lambda load, save: (to.state, stamps.over(tree, to.times, fallback, load, save)))


def parts(snapshot: Snapshot, head: Head, of: Revision, paths: Sequence[bytes]) -> Target:
    """They become uncommitted changes, with present times: never does an old time come into a live tree. The baseline
    stays: what was touched is so still."""
    live = head.live
    restoring = Restoring(snapshot, live.state, of.state, paths)
    stamps = _stamps(snapshot, restoring.changes, of)
    tree, fallback = trees.read_state(snapshot, live.state).tree, fallback_time(snapshot, head.name)

    def work_out(load: Loader, save: Saver) -> tuple[StateId, TimesId | None]:
        return restoring.state(load, save), stamps.over(tree, live.times, fallback, load, save)

    return Target(live.layer, live.state, live.times, live.baseline, work_out=work_out)


def _stamps(snapshot: Snapshot, changes: Sequence[Change], source: Revision) -> Stamps:
    recorded = {each.path: trees.time_at(snapshot, source.times, each.path) for each in changes if each.new is not None}
    return Stamps(changes, recorded, time.time_ns())
