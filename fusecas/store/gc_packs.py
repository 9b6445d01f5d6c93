"""Packs that hold mostly nothing: found, and rewritten (docs/dev/gc.md).

An object's bytes move to the end of the data stream, its row follows in the same transaction and keeps its number.
"""

import time
from collections import deque
from collections.abc import Mapping

from fusecas.store import packs, slices
from fusecas.store.environment import KV
from fusecas.store.ids import ObjectId
from fusecas.store.rows import Row, decode_count
from fusecas.store.snapshot import Snapshot
from fusecas.store.store import Store
from fusecas.store.tables import Table, to_u64, u64

LIVE_SHARE = 0.6
MOVED_BYTES = 512 * 1024
MOVED_OBJECTS = 512
PAUSE = 0.0005
PLACES_AT_ONCE = 100_000
PLACE_BYTES = 12  # before the id: pack and offset


def sparse_packs(store: Store, released: Mapping[int, int]) -> set[int]:
    """Packs under 60% live, were `released` (bytes by pack) gone too; but not those that would be empty."""
    found: set[int] = set()
    start: bytes | None = b""
    while start is not None:
        deadline = time.monotonic() + slices.READ_TIME
        with store.environment.read() as kv:
            scanned, start = kv.scan(Table.PACKS, start), None
            for key, value in scanned:
                pack = to_u64(key)
                live = decode_count(value) - released.get(pack, 0)
                data = kv.get(Table.DATA, key)
                if data is not None and 0 < live < LIVE_SHARE * len(data):
                    found.add(pack)
                if time.monotonic() >= deadline:
                    start = key + b"\0"
                    break
    return found


def rewrite_sparse(store: Store) -> int:
    """Move what is left in sparse packs to new ones; how many packs were given back so."""
    sparse = sparse_packs(store, {})
    while sparse:
        places = _places(store, sparse)
        last = len(places) < PLACES_AT_ONCE
        while places:
            _move(store, places)
            time.sleep(PAUSE)
        if last:
            break
    return len(sparse)


def _places(store: Store, sparse: set[int]) -> deque[bytes]:
    """Objects in these packs, in the order of the stream: the first PLACES_AT_ONCE of them.

    Each as pack ‖ offset ‖ id: it sorts like the stream, and takes less than a tuple.
    """
    found: list[bytes] = []

    def look(snapshot: Snapshot, object_id: ObjectId, row: Row) -> None:
        if _touches(snapshot.kv, row, sparse):
            found.append(u64(row.pack) + row.offset.to_bytes(PLACE_BYTES - 8, "big") + object_id)

    for _ in slices.in_snapshots(store, look):
        found.sort()
        del found[PLACES_AT_ONCE:]
    return deque(found)


def _touches(kv: KV, row: Row, sparse: set[int]) -> bool:
    if row.pack in sparse:
        return True
    if row.offset + row.stored <= packs.SMALL_PACK:
        return False
    most = 1 + (row.offset + row.stored) // packs.SMALL_PACK
    return not sparse.isdisjoint(range(row.pack, row.pack + most + 1)) and any(
        span.pack in sparse for span in packs.spans(kv, row)
    )


def _move(store: Store, places: deque[bytes]) -> None:
    """Move the first of these objects, as many as one transaction should, from where their rows say now."""
    with store.environment.write() as kv:
        moving: list[tuple[ObjectId, Row]] = []
        size = 0
        while places and size < MOVED_BYTES and len(moving) < MOVED_OBJECTS:
            object_id = ObjectId(places.popleft()[PLACE_BYTES:])
            row = packs.find_row(kv, object_id)
            if row is not None:
                moving.append((object_id, row))
                size += row.stored
        packs.move_objects(kv, moving)
