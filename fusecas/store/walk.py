"""What hangs from an object: breadth first, each once, over kinds known and unknown (docs/dev/gc.md).

What was seen is a bitmap over row numbers, and only nodes wait to be read: leaves, the many, take one bit each.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from fusecas.errors import DamagedEnvironment
from fusecas.store.ids import EMPTY_CONTENT, Kind, ObjectId
from fusecas.store.snapshot import Snapshot

MOST_NUMBERS = 1 << 36


class Numbers:
    """A set of row numbers: a bit each, laid out like the marks that gc publishes."""

    def __init__(self) -> None:
        self.bits = bytearray()

    def __contains__(self, n: int) -> bool:
        return n >> 3 < len(self.bits) and bool(self.bits[n >> 3] >> (n & 7) & 1)

    def add(self, n: int) -> bool:
        """Whether the number is new."""
        at, bit = n >> 3, 1 << (n & 7)
        if at >= len(self.bits):
            self.reserve(n)
        if self.bits[at] & bit:
            return False
        self.bits[at] |= bit
        return True

    def reserve(self, n: int) -> None:
        """Make room for numbers up to n at least."""
        if n > MOST_NUMBERS:
            raise DamagedEnvironment(f"a row of number {n}: no store has given out so many")
        self.bits.extend(bytes(max(0, (n >> 3) + 1 - len(self.bits))))


def refs(reader: Snapshot, object_id: bytes) -> list[ObjectId]:
    """What an object refers to itself, in the order of its bytes, each once."""
    return reader.refs_of(object_id)


def walk(reader: Snapshot, roots: Iterable[ObjectId]) -> Iterator[tuple[ObjectId, int]]:
    """The roots and all that hangs from them, with their kinds: breadth first, each once.

    MissingObject, CorruptObject or InvalidObject if that can't be read to its end.
    """
    seen, waiting, empty_seen = Numbers(), deque[ObjectId](), False

    def reach(object_id: ObjectId) -> Iterator[tuple[ObjectId, int]]:
        nonlocal empty_seen
        if object_id == EMPTY_CONTENT:
            if not empty_seen:
                empty_seen = True
                yield object_id, Kind.CHUNK
            return
        row = reader.needed_row(object_id)
        if seen.add(row.n):
            if row.kind != Kind.CHUNK:
                waiting.append(object_id)
            yield object_id, row.kind

    for root in roots:
        yield from reach(root)
    while waiting:
        for child in reader.refs_of(waiting.popleft()):
            yield from reach(child)


def closure(reader: Snapshot, roots: Iterable[ObjectId]) -> Iterator[ObjectId]:
    """The ids of the roots and of all that hangs from them, each once."""
    return (object_id for object_id, _ in walk(reader, roots))
