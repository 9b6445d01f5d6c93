"""Times of files around a run: what of them is in its key, and what a hit makes of those that it recorded.

What compares times (make, cargo) compares them in pairs. All that is as the baseline had it is older than the moment of
the baseline, and so are equal files of equal states; what has another time since then is in the key: in the order of
the times, if they are later than that moment, else with the time itself.
"""

from collections.abc import Container, Sequence

from blake3 import blake3

from fusecas import _native
from fusecas.store import prolly
from fusecas.store.ids import Kind, ObjectId, TimesId
from fusecas.store.kinds import How, Touched
from fusecas.store.prolly import LeafEntry, Loader, Saver
from fusecas.store.rows import Live
from fusecas.store.run_rows import Window
from fusecas.store.snapshot import Snapshot
from fusecas.store.touched import is_as_before, retimed

MOST_NAMED = 256
"""Of touched files in a key; more are in it as one digest."""
ORDER, TOUCHED, EXACT, IGNORE = "order", "touched", "exact", "ignore"
MODES = (ORDER, TOUCHED, EXACT, IGNORE)


def in_key(snapshot: Snapshot, live: Live, mode: str, left_out: Container[bytes], now: int) -> Touched:
    """What a key says of times. `mode`: ORDER; TOUCHED, of what has kept its content only; EXACT, all with their times;
    IGNORE. `left_out`: paths that count as never touched; `now`: what is later than that is from the future."""
    if live.baseline is None or mode == IGNORE:
        return ()
    since = live.baseline.at
    changes = [each for each in retimed(snapshot.read_node, live) if each.path not in left_out]
    if mode == TOUCHED:
        changes = [each for each in changes if is_as_before(snapshot, live, each.path)]
    changes.sort(key=lambda each: (each.time, each.path))
    found: list[tuple[bytes, How]] = []
    last: int | None = None
    for path, time in changes:
        is_later = since < time <= now and mode != EXACT
        found.append((path, (True if time == last else None) if is_later else time))
        last = time
    if len(found) <= MOST_NAMED:
        return tuple(found)
    return ((b"", blake3(_native.cbor_encode([list(each) for each in found])).digest()),)


def paths_of(touched: Sequence[tuple[bytes, How]]) -> list[bytes]:
    return [path for path, _ in touched if path]


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
