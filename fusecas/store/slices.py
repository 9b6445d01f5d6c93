"""Going through all rows in short snapshots: while one is open, space that is freed can't be used again."""

import time
from collections.abc import Callable, Iterator

from fusecas.store import packs
from fusecas.store.ids import ObjectId
from fusecas.store.rows import Row
from fusecas.store.snapshot import Snapshot
from fusecas.store.store import Store

READ_TIME = 0.05


def in_snapshots(store: Store, examine: Callable[[Snapshot, ObjectId, Row], None]) -> Iterator[None]:
    """Examine every row in the order of ids, condemned or not; between the snapshots, yield."""
    start = b""
    done = False
    while not done:
        deadline = time.monotonic() + READ_TIME
        with store.read() as snapshot:
            done = True
            for object_id, row in packs.rows(snapshot.kv, start):
                examine(snapshot, object_id, row)
                if time.monotonic() >= deadline:
                    start, done = object_id + b"\0", False
                    break
        yield


def every_row(store: Store, examine: Callable[[Snapshot, ObjectId, Row], None]) -> None:
    for _ in in_snapshots(store, examine):
        pass
