"""Tables in memory: the same promises as LMDB's, but for durability. For tests and throw-away stores."""

import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from fusecas.store.environment import Value
from fusecas.store.tables import Table


@dataclass
class Rows:
    """One table: its keys in order, and its values."""

    keys: list[bytes] = field(default_factory=list)
    values: dict[bytes, bytes] = field(default_factory=dict)

    def copy(self) -> Self:
        return type(self)(self.keys.copy(), self.values.copy())


class MemoryKV:
    """A transaction: shares the tables of its snapshot, and copies one before its first write to it."""

    def __init__(self, number: int, tables: dict[Table, Rows], writable: bool) -> None:
        self.number = number
        self.tables = dict(tables)
        self.writable = writable
        self.owned: set[Table] = set()

    def id(self) -> int:
        return self.number

    def _own(self, table: Table) -> Rows:
        if not self.writable:
            raise RuntimeError("a snapshot can't be written to")
        if table not in self.owned:
            self.tables[table] = self.tables[table].copy()
            self.owned.add(table)
        return self.tables[table]

    def get(self, table: Table, key: bytes) -> Value | None:
        return self.tables[table].values.get(key)

    def put(self, table: Table, key: bytes, value: Value) -> None:
        rows = self._own(table)
        if key not in rows.values:
            insort(rows.keys, key)
        rows.values[key] = bytes(value)

    def insert(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        for key, value in items:
            if key in self.tables[table].values:
                raise RuntimeError(f"{table}: the key is there already: {key.hex()}")
            self.put(table, key, value)

    def append(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        rows = self._own(table)
        for key, value in items:
            if rows.keys and key <= rows.keys[-1]:
                raise RuntimeError(f"{table}: out of order: {key.hex()}")
            rows.keys.append(key)
            rows.values[key] = bytes(value)

    def delete(self, table: Table, key: bytes) -> bool:
        rows = self._own(table)
        if key not in rows.values:
            return False
        del rows.keys[bisect_left(rows.keys, key)]
        del rows.values[key]
        return True

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        rows = self.tables[table]
        end = len(rows.keys) if stop is None else bisect_left(rows.keys, stop)
        for key in rows.keys[bisect_left(rows.keys, start) : end]:
            yield key, rows.values[key]

    def scan_back(self, table: Table, start: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        rows = self.tables[table]
        end = len(rows.keys) if start is None else bisect_left(rows.keys, start)
        for key in reversed(rows.keys[:end]):
            yield key, rows.values[key]

    def count(self, table: Table) -> int:
        return len(self.tables[table].keys)


class MemoryEnvironment:
    def __init__(self) -> None:
        self._tables = {table: Rows() for table in Table}
        self._number = 0
        self._writing = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[MemoryKV]:
        yield MemoryKV(self._number, self._tables, writable=False)

    @contextmanager
    def write(self) -> Iterator[MemoryKV]:
        with self._writing:
            kv = MemoryKV(self._number + 1, self._tables, writable=True)
            yield kv
            self._tables, self._number = kv.tables, kv.number

    def reader_check(self) -> int:
        return 0

    def close(self) -> None:
        pass
