"""Times of files around a run: what of them is in its key, and what a hit makes of those that it recorded.

What compares times (make, cargo) compares them in pairs. All that is as the baseline had it is older than the moment of
the baseline, and so are equal files of equal states; what has another time since then is in the key: in the order of
the times, if they are later than that moment, else with the time itself.
"""

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

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
MOST_REMEMBERED = 64
ORDER, TOUCHED, EXACT, IGNORE = "order", "touched", "exact", "ignore"
MODES = (ORDER, TOUCHED, EXACT, IGNORE)


class InKeys:
    """What keys say of times; the newest answers are remembered, since a tree that was never run in is new as a whole.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Any, ...], Touched] = {}

    def of(self, snapshot: Snapshot, live: Live, mode: str, left_out: tuple[bytes, ...], now: int) -> Touched:
        """`mode`: ORDER; TOUCHED, of what has kept its content only; EXACT, all with their times; IGNORE. `left_out`:
        paths that count as never touched; `now`: what is later than that is from the future."""
        if live.baseline is None or mode == IGNORE:
            return ()
        asked = (live.baseline, live.times, live.state, mode, left_out)
        with self._lock:
            known = self._known.get(asked)
        if known is not None:
            return known
        found, newest = _in_key(snapshot, live, mode, left_out, now)
        with self._lock:
            if newest <= now:
                while len(self._known) >= MOST_REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[asked] = found
        return found


def _in_key(snapshot: Snapshot, live: Live, mode: str, left_out: Container[bytes], now: int) -> tuple[Touched, int]:
    """And the newest time."""
    assert live.baseline is not None, "there is something to compare with"
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
    newest = changes[-1].time if changes else 0
    if len(found) <= MOST_NAMED:
        return tuple(found), newest
    return ((b"", blake3(_native.cbor_encode([list(each) for each in found])).digest()),), newest


def paths_of(touched: Sequence[tuple[bytes, How]]) -> list[bytes]:
    return [path for path, _ in touched if path]


def brought(
    base: TimesId | None,
    result: TimesId | None,
    live: TimesId | None,
    window: Window,
    to: Window,
    load: Loader,
    save: Saver,
) -> TimesId | None:
    """The times of a workspace after a hit: what the run has changed gets times between those of `to`, in their order;
    what it set itself, outside the time it took, stays as set. All else is left alone. `to` begins after all that is
    there: what was made of something is newer than that, however long it took."""
    length, room = window.end - window.start, to.end - to.start

    def shifted(time: int) -> int:
        if not window.start <= time <= window.end:
            return time
        if length <= room:
            return time + to.end - window.end
        return to.start + (time - window.start) * room // length

    def take(directory: bytes) -> tuple[bytes | None, list[LeafEntry]]:
        root, directories = _native.shift_times(
            directory,
            window,
            to,
            lambda node, kind: load(ObjectId(node), Kind(kind)),
            lambda kind, data: save(Kind(kind), data),
        )
        return root, list(directories)

    merging = [_Merge(None, base, result, live, load, take)]
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
            here = None if at.is_new else prolly.find(Kind.TIMES, at.live, name, load)
            is_kept = here is not None and old is not None and old[1] == new[1]
            time = here[1] if is_kept and here is not None else new[1] if at.is_new else shifted(new[1])
            before, after, there = (None if each is None else each[2] for each in (old, new, here))
            merging.append(_Merge((name, time), before, after, there, load, take))


class _Merge:
    """Of one directory, on a stack of our own: a tree may be deeper than Python's. `entry`: its name and time above.
    A new one is taken as a whole, but for directories in it: there may be many files."""

    def __init__(
        self,
        entry: tuple[bytes, int] | None,
        base: bytes | None,
        result: bytes | None,
        live: bytes | None,
        load: Loader,
        take: Callable[[bytes], tuple[bytes | None, list[LeafEntry]]],
    ) -> None:
        self.entry = entry
        self.live = live
        self.edits: dict[bytes, LeafEntry | None] = {}
        self.is_new = base is None and live is None and result is not None
        self.differences: Iterator[prolly.Difference]
        if self.is_new and result is not None:
            self.live, directories = take(result)
            self.differences = iter([(each[0], None, each) for each in directories])
        else:
            self.differences = prolly.diff(Kind.TIMES, base, result, load)
