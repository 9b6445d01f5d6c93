"""Rebuild: what a workspace stands on is read again and checked, and what is only beside its layers is made anew.

Layers and states are content: if one of them is damaged, nothing here can say what it was. But times, numbers of inodes
and the journal belong to this workspace alone: a damaged one is left behind, and the live tree comes from the store.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from fusecas.errors import Damaged, InUse
from fusecas.store import heads, history, trees
from fusecas.store.durable import sync_folder
from fusecas.store.heads import Head
from fusecas.store.ids import ObjectId, TimesId
from fusecas.store.repository import Repository
from fusecas.store.rows import Baseline, Live, Operation
from fusecas.store.snapshot import Snapshot
from fusecas.store.verify import Progress, VerifyReport, verify
from fusecas.workspace import ranges
from fusecas.workspace.mover import Deed
from fusecas.workspace.workspace import OVERLAYS

Seal = Callable[[], object]


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild came to. `repaired`: what was made anew (journal, times, inodes), with an operation; `aside`:
    where the journal is that could not be used."""

    workspace: str
    layers: int
    objects: int
    repaired: tuple[str, ...] = ()
    operation: Operation | None = None
    aside: str | None = None


class _Bad(NamedTuple):
    """What is damaged of what belongs to a workspace alone."""

    journal: bool = False
    times: bool = False
    inodes: bool = False

    @property
    def drops_journal(self) -> bool:
        """Its records name inodes by their numbers: without those nothing can be made of it."""
        return self.journal or self.inodes


def rebuild(repository: Repository, name: str, seal: Seal, deed: Deed, progress: Progress | None = None) -> Rebuilt:
    """`seal` makes a state of what is uncommitted, through whoever has the workspace open. Damaged, and nothing has
    changed, if what is damaged can't be made anew."""
    with repository.store.read() as snapshot:
        head = heads.read_head(snapshot, name)
        layers = sum(1 for _ in history.entries(snapshot, head.workspace.layer))
    report = verify(repository.store, _roots(head), progress)
    found = Rebuilt(name, layers, report.ok)
    if not report.clean:
        return _repaired(repository, head, deed, found, _damaged_sides(repository, head, report))
    try:
        seal()
    except Damaged:  # all that it stands on is whole
        with repository.store.read() as snapshot:
            head = heads.read_head(snapshot, name)
        return _repaired(repository, head, deed, found, _Bad(journal=True))
    return found


def _shares_its_journal(reader: Snapshot, head: Head) -> bool:
    """With its source, or with forks."""
    own = head.workspace.id
    has_forks = any(part.source == own for each in heads.all_heads(reader) for part in each.live.ranges)
    return has_forks or bool(ranges.shared(head.live.ranges))


def _roots(head: Head) -> list[ObjectId]:
    live = head.live
    named = (head.workspace.layer, live.state, live.times, live.inodes, *_baseline(live))
    return [each for each in named if each is not None]


def _baseline(live: Live) -> list[ObjectId]:
    return [] if live.baseline is None else live.baseline.roots()


def _damaged_sides(repository: Repository, head: Head, report: VerifyReport) -> _Bad:
    """Damaged if it is more than those."""

    def is_damaged(*roots: ObjectId | None) -> bool:
        named = [each for each in roots if each is not None]
        return bool(named) and not verify(repository.store, named).clean

    hint = "fusecas verify names all that is damaged"
    if is_damaged(head.workspace.layer):
        raise Damaged(f"the layers of workspace {head.name} are damaged", hint=hint, details=_details(report))
    if is_damaged(head.live.state):
        hint = "fusecas checkout @ goes back to the last layer, which is whole"
        raise Damaged(f"what is uncommitted in {head.name} is damaged", hint=hint, details=_details(report))
    return _Bad(False, is_damaged(head.live.times, *_baseline(head.live)), is_damaged(head.live.inodes))


def _details(report: VerifyReport) -> dict[str, object]:
    found = {"corrupted": report.corrupted, "invalid": report.invalid, "missing": report.missing}
    return {**{name: [each.hex() for each in ids] for name, ids in found.items()}, "problems": list(report.problems)}


# ---- repairs


def _repaired(repository: Repository, head: Head, deed: Deed, found: Rebuilt, bad: _Bad) -> Rebuilt:
    """Nobody has the workspace open meanwhile; Conflict if somebody had since `head` was read."""
    try:
        with repository.held_briefly():
            with repository.store.read() as snapshot:
                if bad.drops_journal and _shares_its_journal(snapshot, head):
                    raise Damaged(f"the journal that {head.name} shares with its fork or its source can't be used")
            aside = _put_aside(repository, head) if bad.drops_journal else None
            times = _other_times(repository, head) if bad.times else head.live.times
            with repository.store.write() as transaction:
                row = _sound_row(transaction, head.live, times, bad)
                operation = heads.advance(transaction, head, row, "rebuild", *deed)
    except InUse as error:
        hint = "fusecas umount, and again"
        raise InUse(f"workspace {head.name} must be repaired, and is in use", hint=hint) from error
    repaired = tuple(part for part, is_bad in bad._asdict().items() if is_bad)
    return replace(found, repaired=repaired, operation=operation, aside=aside)


def _sound_row(reader: Snapshot, live: Live, times: TimesId | None, bad: _Bad) -> Live:
    row = live._replace(times=times)
    if bad.times:
        row = row._replace(baseline=Baseline(times, live.state, time.time_ns()))
    if bad.inodes:
        first, count = live.next_inode, trees.root_entry(reader, live.state).count
        row = row._replace(inodes=None, first_inode=first, next_inode=first + count)
    return row._replace(ranges=(), needs=()) if bad.drops_journal else row


def _put_aside(repository: Repository, head: Head) -> str | None:
    """Its folder gets another name before the row forgets the journal: after a crash in between, the next rebuild goes
    on. Nothing of it is deleted."""
    folder = repository.folder / OVERLAYS / head.workspace.id.hex()
    if not folder.exists():
        return None
    aside = folder.with_name(f"{folder.name}.damaged-{time.time_ns()}")
    os.rename(folder, aside)
    sync_folder(folder.parent)
    return str(aside)


def _other_times(repository: Repository, head: Head) -> TimesId | None:
    """Those of the layer, if it is at one, and they are whole; else none: then all files have the time of now."""
    layer = head.workspace.layer
    with repository.store.read() as snapshot:
        if layer is None or heads.state_of(snapshot, layer) != head.live.state:
            return None
        times = snapshot.layer_times(layer)
    return times if times is not None and verify(repository.store, [times]).clean else None
