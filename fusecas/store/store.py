"""A store: one environment, and the three ways to it: read, write, session.

Everything above (trees, import, diff, gc, verify) stands on these three and on nothing else.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from fusecas import _native
from fusecas.errors import UnknownFormat
from fusecas.store import packs
from fusecas.store.condemned import NO_MARKS, Marks, read_marks
from fusecas.store.environment import KV, Environment
from fusecas.store.liveness import FileLiveness, Liveness, MemoryLiveness
from fusecas.store.memory_environment import MemoryEnvironment
from fusecas.store.snapshot import Snapshot
from fusecas.store.tables import Table, to_u64, u64
from fusecas.store.transaction import Transaction

if TYPE_CHECKING:
    from fusecas.store.session import Session

FORMAT = 1


class Store:
    """Thread-safe. In one process, one Store a folder; any number of processes."""

    def __init__(self, environment: Environment, liveness: Liveness) -> None:
        self.environment = environment
        self.liveness = liveness
        self._marks = NO_MARKS
        self._sessions: WeakSet[Session] = WeakSet()

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make the store's tables in an existing folder that has none."""
        from fusecas.store.lmdb_environment import LmdbEnvironment

        store = cls(LmdbEnvironment(folder / "store", create=True), FileLiveness(folder / "sessions.lock"))
        store._initialise()
        return store

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the store of a repository's folder, after the checks that keep a damaged file from being mapped."""
        from fusecas.store.lmdb_environment import LmdbEnvironment

        environment = LmdbEnvironment(folder / "store", create=False)
        try:
            store = cls(environment, FileLiveness(folder / "sessions.lock"))
            store._check_format()
        except BaseException:
            environment.close()
            raise
        return store

    @classmethod
    def in_memory(cls) -> Self:
        store = cls(MemoryEnvironment(), MemoryLiveness())
        store._initialise()
        return store

    def _initialise(self) -> None:
        with self.environment.write() as kv:
            kv.put(Table.META, b"format", u64(FORMAT))
            kv.put(Table.META, b"repository", os.urandom(16))
            kv.put(Table.META, b"domain", _native.cbor_encode([os.urandom(16), os.urandom(32)]))
            kv.put(Table.META, b"created", u64(time.time_ns()))
            for counter in ("next_n", "next_serial"):
                packs.set_meta(kv, counter, 1)
            packs.set_meta(kv, "young", 0)

    def _check_format(self) -> None:
        with self.environment.read() as kv:
            value = kv.get(Table.META, b"format")
            if value is None:
                raise UnknownFormat("the store has no format version: it was not made whole")
            if (version := to_u64(value)) != FORMAT:
                raise UnknownFormat(
                    f"the store has format {version}; this fusecas knows format {FORMAT}",
                    hint="use a newer fusecas",
                )

    def marks(self, kv: KV) -> Marks:
        """What is condemned in this transaction."""
        self._marks = found = read_marks(kv, self._marks)
        return found

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """A consistent snapshot. Keep it short: space that is freed meanwhile can't be used again until it ends."""
        with self.environment.read() as kv:
            yield Snapshot(kv, self.marks(kv))

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """The one write transaction: durable when it ends normally, nothing of it after an exception."""
        with self.environment.write() as kv:
            transaction = Transaction(kv, self.marks(kv))
            yield transaction
            transaction.finish()

    def session(self) -> "Session":
        """For writing more than a transaction holds: use it in a `with`, and end it by publish or keep."""
        from fusecas.store.session import Session

        session = Session(self)
        self._sessions.add(session)
        return session

    def close(self) -> None:
        for session in list(self._sessions):
            session.abandon()
        self.environment.close()
        self.liveness.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
