"""What has another time than the baseline has; touched files are as in the baseline but for that (docs/glossary.md)."""

from collections.abc import Iterator
from typing import NamedTuple

from fusecas.store import prolly, trees
from fusecas.store.ids import Kind
from fusecas.store.kinds import EntryKind
from fusecas.store.prolly import Loader
from fusecas.store.rows import Live
from fusecas.store.snapshot import Snapshot

KINDS = (EntryKind.FILE, EntryKind.SYMLINK)


class Retimed(NamedTuple):
    """A path whose time is not that of the baseline."""

    path: bytes
    time: int


def touched(snapshot: Snapshot, live: Live) -> list[bytes]:
    """The files that are as in the baseline, but for their times."""
    if live.baseline is None:
        return []
    known = retimed(snapshot.read_node, live, new=False)
    return [each.path for each in known if is_as_before(snapshot, live, each.path)]


def is_as_before(snapshot: Snapshot, live: Live, path: bytes) -> bool:
    assert live.baseline is not None, "it was compared with the baseline"
    old = trees.lookup(snapshot, live.baseline.state, path)
    if old is None or old.kind not in KINDS:
        return False
    new = old if live.baseline.state == live.state else trees.lookup(snapshot, live.state, path)
    return new is not None and (old.kind, old.mode, old.target) == (new.kind, new.mode, new.target)


def retimed(load: Loader, live: Live, *, new: bool = True) -> Iterator[Retimed]:
    """With those that are `new`, or without them, and at no cost for what is in new directories. A directory is none of
    them, unless it is empty: its time says only that something in it came or went."""
    assert live.baseline is not None, "there is something to compare with"
    stack: list[tuple[bytes, bytes | None, bytes | None]] = [(b"", live.baseline.times, live.times)]
    while stack:
        above, a, b = stack.pop()
        if a is None and not new:
            continue
        for name, old, now in prolly.diff(Kind.TIMES, a, b, load):
            if now is None or not name or (old is None and not new):
                continue
            path = trees.join(above, name)
            if now[2] is None and (old is None or old[1] != now[1]):
                yield Retimed(path, now[1])
            before = None if old is None else old[2]
            if before != now[2]:
                stack.append((path, before, now[2]))
