"""Sizes and counts of a store."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fusecas.store import slices
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.lmdb_environment import LmdbEnvironment
from fusecas.store.rows import Row
from fusecas.store.snapshot import Snapshot
from fusecas.store.store import Store
from fusecas.store.tables import Table


@dataclass(frozen=True)
class Amount:
    objects: int = 0
    size: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Stats:
    """`free`: bytes of the file that hold nothing now and will be used again."""

    kinds: dict[str, Amount]
    layers: int
    refs: int
    operations: int
    file_size: int
    free: int

    @property
    def total(self) -> Amount:
        amounts = self.kinds.values()
        return Amount(
            sum(each.objects for each in amounts),
            sum(each.size for each in amounts),
            sum(each.stored for each in amounts),
        )


def measure(store: Store, folder: Path) -> Stats:
    objects: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    stored: Counter[int] = Counter()

    def count(snapshot: Snapshot, _: ObjectId, row: Row) -> None:
        if not snapshot.marks.condemned(row.n):
            objects[row.kind] += 1
            sizes[row.kind] += row.size
            stored[row.kind] += row.stored

    slices.every_row(store, count)
    with store.read() as snapshot:
        counts = {table: snapshot.kv.count(table) for table in (Table.LAYERS, Table.REFS, Table.OPS)}
    names = {kind: Kind(kind).name.lower() if kind in set(Kind) else f"kind {kind}" for kind in sorted(objects)}
    path = folder / "store" / "data.mdb"
    environment = store.environment
    used = environment.used_bytes() if isinstance(environment, LmdbEnvironment) else 0
    size = path.stat().st_size
    return Stats(
        kinds={names[kind]: Amount(objects[kind], sizes[kind], stored[kind]) for kind in names},
        layers=counts[Table.LAYERS],
        refs=counts[Table.REFS],
        operations=counts[Table.OPS],
        file_size=size,
        free=max(0, size - used),
    )
