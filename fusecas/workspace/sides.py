"""What lies beside a directory's tree: the times of what is in it, and the numbers of its inodes."""

from typing import NamedTuple

from fusecas.store import prolly
from fusecas.store.ids import Kind
from fusecas.store.kinds import EntryKind
from fusecas.store.prolly import LeafEntry, Loader, Saver

ROOT = 0
OLDEST, NEWEST = -(1 << 63), (1 << 64) - 1


class DirIds(NamedTuple):
    """A directory in the store: its tree and the side trees beside it; `first`: its numbers, where `inodes` is None."""

    tree: bytes | None
    times: bytes | None
    inodes: bytes | None
    first: int


def clamped(time: int) -> int:
    return min(max(time, OLDEST), NEWEST)


def written_times(base: DirIds, fallback: int, load: Loader, save: Saver) -> bytes | None:
    """The times of a directory; written down now, if it had none."""
    if base.times is not None:
        return base.times
    return prolly.build(
        Kind.TIMES, ((entry[0], fallback, None) for entry in prolly.entries(Kind.TREE, base.tree, load)), save
    )


def written_inodes(base: DirIds, fallback: int, load: Loader, save: Saver) -> bytes | None:
    """The numbers of a directory. If they were not written down, they go in the order of a walk, and what they name
    was changed when it was last modified."""
    if base.inodes is not None:
        return base.inodes
    mtimes = {name: mtime for name, mtime, _ in prolly.entries(Kind.TIMES, base.times, load)}
    made: list[LeafEntry] = []
    number, directory = base.first, int(EntryKind.DIRECTORY)
    for name, kind, _, _, _, count, _ in prolly.entries(Kind.TREE, base.tree, load):  # often thousands: no Entry each
        made.append((name, number, mtimes.get(name, fallback), None))
        number += 1 + (count if kind == directory else 0)
    return prolly.build(Kind.INODES, made, save)
