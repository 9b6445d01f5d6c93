"""What the store asks of whatever keeps its tables: snapshots, serial write transactions, sorted keys.

`lmdb_environment` is the real one; `memory_environment` is for tests and throw-away stores. The store above cannot tell
them apart, and its tests run on both.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from fusecas.store.tables import Table

Value = bytes | memoryview


class KV(Protocol):
    """One transaction over all tables.

    A value is valid until the transaction ends, in a write transaction only until its next write: decode it at once or
    copy it.
    """

    def id(self) -> int:
        """The number of the snapshot; in a write transaction, one more than that of the snapshot it stands on."""

    def get(self, table: Table, key: bytes) -> Value | None: ...

    def put(self, table: Table, key: bytes, value: Value) -> None:
        """Set a value, whether or not the key is there."""

    def insert(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        """Add keys that are not there; ascending order is fastest. A key that is there is a bug of the caller."""

    def append(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        """Add keys, ascending and all beyond the last one. Anything else is a bug of the caller."""

    def delete(self, table: Table, key: bytes) -> bool:
        """Whether the key was there."""

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        """Ascending, from `start` to before `stop`. Don't write to the table meanwhile."""

    def scan_back(self, table: Table, start: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        """Descending, from the last key that is below `start`."""

    def count(self, table: Table) -> int: ...


class Environment(Protocol):
    def read(self) -> AbstractContextManager[KV]:
        """A consistent snapshot. Never blocks, never blocks a writer; while it is open, freed space is not reused."""

    def write(self) -> AbstractContextManager[KV]:
        """The one writer. Leaving it normally commits durably; an exception leaves nothing of it."""

    def reader_check(self) -> int:
        """Free the slots of readers that were killed: they keep freed space from being reused. How many."""

    def close(self) -> None: ...
