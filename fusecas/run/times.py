"""Times of files around a run: which were touched before it, and what a hit makes of those that it recorded."""

from collections.abc import Iterator
from typing import NamedTuple

from fusecas.store import prolly, trees
from fusecas.store.ids import Kind, ObjectId, StateId, TimesId
from fusecas.store.kinds import EntryKind
from fusecas.store.prolly import LeafEntry, Loader, Saver
from fusecas.store.rows import Live
from fusecas.store.run_rows import Window
from fusecas.store.snapshot import Snapshot


class Retimed(NamedTuple):
    """A path whose time is not what it was."""

    path: bytes
    before: int
    now: int


def touched(snapshot: Snapshot, live: Live) -> tuple[bytes, ...]:
    """The files that are as in the baseline, but for their times: in the order of those, what was set back first.

    A directory is none of them: its time says only that something in it came or went.
    """
    if live.baseline is None or live.baseline_state is None or live.baseline == live.times:
        return ()
    changes = _retimed(snapshot.read_node, live.baseline, live.times)
    kept = [each for each in changes if _is_as_before(snapshot, live.baseline_state, live.state, each.path)]
    kept.sort(key=lambda each: (each.now >= each.before, each.now, each.path))
    return tuple(each.path for each in kept)


def _is_as_before(snapshot: Snapshot, before: StateId, now: StateId, path: bytes) -> bool:
    old = trees.lookup(snapshot, before, path)
    if old is None or old.kind not in (EntryKind.FILE, EntryKind.SYMLINK):
        return False
    new = old if before == now else trees.lookup(snapshot, now, path)
    return new is not None and (old.kind, old.mode, old.target) == (new.kind, new.mode, new.target)


def _retimed(load: Loader, before: bytes | None, now: bytes | None) -> Iterator[Retimed]:
    """The paths that both sides have, with other times."""
    stack = [(b"", before, now)]
    while stack:
        above, a, b = stack.pop()
        for name, old, new in prolly.diff(Kind.TIMES, a, b, load):
            if old is None or new is None:
                continue
            path = trees.join(above, name)
            if old[1] != new[1] and name:
                yield Retimed(path, old[1], new[1])
            if old[2] != new[2]:
                stack.append((path, old[2], new[2]))


def brought(
    base: TimesId | None,
    result: TimesId | None,
    live: TimesId | None,
    window: Window,
    now: int,
    load: Loader,
    save: Saver,
) -> TimesId | None:
    """The times of a workspace after a hit: where the run has changed one, that is so many ns before now as it was
    before the run's end; what it set itself, outside the time it took, stays as set. All else is left alone."""

    def shifted(time: int) -> int:
        return time + (now - window.end) if window.start <= time <= window.end else time

    merging = [_Merge(None, base, result, live, load)]
    while True:
        at = merging[-1]
        name, old, new = next(at.differences, (None, None, None))
        if name is None:
            done = prolly.edit(Kind.TIMES, at.live, at.edits, load, save) if at.edits else at.live
            merging.pop()
            if at.entry is None:
                return None if done is None else TimesId(ObjectId(done))
            merging[-1].edits[at.entry[0]] = (*at.entry, done)
        elif new is None:
            at.edits[name] = None
        else:
            here = prolly.find(Kind.TIMES, at.live, name, load)
            time = here[1] if here is not None and old is not None and old[1] == new[1] else shifted(new[1])
            before, after, there = (None if each is None else each[2] for each in (old, new, here))
            merging.append(_Merge((name, time), before, after, there, load))


class _Merge:
    """Of one directory, on a stack of our own: a tree may be deeper than Python's. `entry`: its name and time above."""

    def __init__(
        self,
        entry: tuple[bytes, int] | None,
        base: bytes | None,
        result: bytes | None,
        live: bytes | None,
        load: Loader,
    ) -> None:
        self.entry = entry
        self.differences = prolly.diff(Kind.TIMES, base, result, load)
        self.live = live
        self.edits: dict[bytes, LeafEntry | None] = {}
