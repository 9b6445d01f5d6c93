"""Which rows a published gc has condemned: n < N and unmarked (docs/dev/gc.md). They are absent for everybody."""

from typing import NamedTuple

from fusecas.errors import DamagedEnvironment
from fusecas.store.environment import KV
from fusecas.store.rows import GcState
from fusecas.store.tables import Table

MARKS_PIECE = 32768
MARKS_KEY = b"marks"


class Marks(NamedTuple):
    """What the gc number `k` published: N, the first number it did not judge, and a bit for each row it reached.

    `undoable_since`: operations from that time on have kept all that they name.
    """

    k: int
    next_n: int
    bitmap: bytes
    undoable_since: int = 0

    def condemned(self, n: int) -> bool:
        return n < self.next_n and not self.bitmap[n >> 3] >> (n & 7) & 1


NO_MARKS = Marks(0, 0, b"")


def read_marks(kv: KV, known: Marks) -> Marks:
    """The marks that hold in this transaction; `known` again if no gc has published since it was read."""
    value = kv.get(Table.GC, b"state")
    if value is None:
        return NO_MARKS
    k, next_n, undoable_since = GcState.decode(value)
    if k == known.k:
        return known
    bitmap = b"".join(piece for _, piece in kv.scan(Table.GC, MARKS_KEY, MARKS_KEY + b"\xff" * 5))
    if len(bitmap) != (next_n >> 3) + 1:
        raise DamagedEnvironment(f"the marks of gc {k} are {len(bitmap)} bytes for {next_n} rows")
    return Marks(k, next_n, bitmap, undoable_since)


def write_marks(kv: KV, marks: Marks) -> None:
    """Publish: part of T2, and of nothing else."""
    for start in range(0, len(marks.bitmap), MARKS_PIECE):
        key = MARKS_KEY + (start // MARKS_PIECE).to_bytes(4, "big")
        kv.put(Table.GC, key, marks.bitmap[start : start + MARKS_PIECE])
    kv.put(Table.GC, b"state", GcState(marks.k, marks.next_n, marks.undoable_since).encode())
