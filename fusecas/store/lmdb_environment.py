"""The tables in LMDB, shared by any number of processes (docs/dev/lmdb.md has the rules and their reasons).

One environment a process and folder. Everything that LMDB raises leaves here as one of our own errors.
"""

import errno
import os
import signal
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Never

import lmdb

from fusecas import errors
from fusecas.store.environment import Value
from fusecas.store.tables import Table

MAP_SIZE = 4 << 40
SMALLEST_MAP = 64 << 30
MAX_READERS = 1024
LOCK_BYTES = MAX_READERS * 64 + 4096
MAX_TABLES = 64
ENGINE = 0  # LMDB 0.9: its files can't be read by 1.x and the other way round
PAGE_HEADER = 16
META = struct.Struct("<IIQQ 48s48s QQ")
META_MAGIC = 0xBEEFC0DE

DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
)


class LmdbKV:
    def __init__(self, txn: Any, tables: dict[Table, Any]) -> None:
        self._txn = txn
        self._tables = tables

    def id(self) -> int:
        return int(self._txn.id())

    def get(self, table: Table, key: bytes) -> Value | None:
        value: Value | None = self._txn.get(key, db=self._tables[table])
        return value

    def put(self, table: Table, key: bytes, value: Value) -> None:
        self._txn.put(key, value, db=self._tables[table])

    def insert(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        self._put_all(table, items, append=False)

    def append(self, table: Table, items: Iterable[tuple[bytes, Value]]) -> None:
        self._put_all(table, items, append=True)

    def _put_all(self, table: Table, items: Iterable[tuple[bytes, Value]], append: bool) -> None:
        # py-lmdb skips a key that is there or out of order without a word, but for these counts.
        with self._txn.cursor(self._tables[table]) as cursor:
            consumed, added = cursor.putmulti(items, overwrite=False, append=append)
        if consumed != added:
            raise errors.DamagedEnvironment(
                f"{table}: {consumed - added} of {consumed} new keys are there already, or not behind the last one",
                hint="fusecas verify",
            )

    def delete(self, table: Table, key: bytes) -> bool:
        return bool(self._txn.delete(key, db=self._tables[table]))

    def scan(self, table: Table, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        with self._txn.cursor(self._tables[table]) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key, value in cursor.iternext():
                at = bytes(key)
                if stop is not None and at >= stop:
                    return
                yield at, value

    def scan_back(self, table: Table, start: bytes | None = None) -> Iterator[tuple[bytes, Value]]:
        with self._txn.cursor(self._tables[table]) as cursor:
            found = cursor.prev() if start is not None and cursor.set_range(start) else cursor.last()
            if found:
                for key, value in cursor.iterprev():
                    yield bytes(key), value

    def count(self, table: Table) -> int:
        return int(self._txn.stat(self._tables[table])["entries"])


class LmdbEnvironment:
    """Thread-safe. Owns the process's only handle on this environment."""

    locks_open_here: ClassVar[set[tuple[int, int]]] = set()
    """Device and inode of each lock file that this process has open: nobody else may open and close it."""

    def __init__(self, folder: Path, *, create: bool) -> None:
        self.folder = folder
        self._writing = threading.Lock()
        self._stop_wanted = False
        if create:
            _make_folder(folder)
        else:
            check_file(folder / "data.mdb")
        self._env = self._open(create)
        try:
            lock = os.stat(folder / "lock.mdb")
            self._lock = lock.st_dev, lock.st_ino
            self.locks_open_here.add(self._lock)
            with self._translated():
                self._env.reader_check()
                self._tables = self._create_tables() if create else self._open_tables()
        except lmdb.NotFoundError as error:
            self._env.close()
            raise errors.UnknownFormat(f"{folder} has no table {error}: not a store of fusecas") from error
        except BaseException:
            self._env.close()
            raise

    def _create_tables(self) -> dict[Table, Any]:
        with self._env.begin(write=True) as txn:
            return {table: self._env.open_db(table.value.encode(), txn=txn) for table in Table}

    def _open_tables(self) -> dict[Table, Any]:
        try:
            return {table: self._env.open_db(table.value.encode(), create=False) for table in Table}
        except lmdb.NotFoundError:
            if not self._has_table(Table.META):
                raise
            return self._create_tables()  # of an earlier version, which had fewer of them

    def _has_table(self, table: Table) -> bool:
        with suppress(lmdb.NotFoundError):
            self._env.open_db(table.value.encode(), create=False)
            return True
        return False

    def _open(self, create: bool) -> Any:
        size = MAP_SIZE
        while True:
            try:
                with self._translated():
                    env = lmdb.open(
                        os.fsencode(self.folder),  # it takes no text that is not UTF-8
                        map_size=size,
                        max_dbs=MAX_TABLES,
                        max_readers=MAX_READERS,
                        max_spare_txns=0,  # a process that is forked from us would give back their slots, at its end
                        mode=0o600,
                        create=create,
                        lib_version=ENGINE,
                    )
            except errors.NoAddressSpace:
                size //= 2
                if size < SMALLEST_MAP:
                    raise
                continue
            if env.lib_version()[0] != ENGINE:
                env.close()
                raise errors.UnknownFormat(f"{self.folder} was written by LMDB 1.x; fusecas uses 0.9's format")
            return env

    def close(self) -> None:
        with self._writing:  # a transaction of another thread holds a lock that only it can give back
            self._env.close()
        self.locks_open_here.discard(self._lock)

    def leave_to_parent(self) -> None:
        """In a process that was forked from the one that opened it: it can be opened here again. Takes no locks, which
        threads of the parent may have held; and closes nothing, which would give back the slots of its readers."""
        self._env, self._tables = None, {}
        self.locks_open_here.discard(self._lock)

    def reader_check(self) -> int:
        """Free the slots of readers that were killed: they keep freed space from being reused."""
        return int(self._env.reader_check())

    def info(self) -> dict[str, int]:
        return {**self._env.info(), "page_size": self._env.stat()["psize"]}

    def used_bytes(self) -> int:
        """What the tables take in the file; the rest of it is free and will be used again."""
        with self._translated():
            txn = self._begin_read()
            try:
                used = 2
                for table in self._tables.values():
                    stat = txn.stat(table)
                    used += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
                return int(used * self._env.stat()["psize"])
            finally:
                txn.abort()

    @contextmanager
    def read(self) -> Iterator[LmdbKV]:
        with self._translated():
            txn = self._begin_read()
            try:
                yield LmdbKV(txn, self._tables)
            finally:
                txn.abort()

    def _begin_read(self) -> Any:
        try:
            return self._env.begin(buffers=True)
        except lmdb.ReadersFullError:
            self._env.reader_check()
            return self._env.begin(buffers=True)

    @contextmanager
    def write(self) -> Iterator[LmdbKV]:
        with self._writing, self._translated():
            try:
                txn = self._env.begin(write=True, buffers=True)
                try:
                    yield LmdbKV(txn, self._tables)
                except BaseException:
                    txn.abort()
                    raise
                txn.commit()
            finally:
                if self._stop_wanted:
                    self._stop_wanted = False
                    stop_here()

    def hold_back_stop(self) -> None:
        """Make Ctrl-Z wait for the end of a write transaction: a stopped writer would stop every other process.

        Takes the process's SIGTSTP over, so it is for a program to call, not for a library; from the main thread.
        """
        signal.signal(signal.SIGTSTP, self._stop)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._writing.acquire(blocking=False):
            self._stop_wanted = True
            return
        try:
            stop_here()
        finally:
            self._writing.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except lmdb.NotFoundError:
            raise
        except lmdb.Error as error:
            self._raise(error)

    def _raise(self, error: lmdb.Error) -> Never:
        code = getattr(error, "code", 0)
        if isinstance(error, DAMAGE):
            raise errors.DamagedEnvironment(
                f"{self.folder} is damaged: {error}", hint="restore it from a backup or a bundle"
            ) from error
        if isinstance(error, lmdb.ReadersFullError):
            raise errors.TooManyReaders(f"{MAX_READERS} readers of {self.folder} are open") from error
        if isinstance(error, lmdb.MapFullError):
            raise errors.DiskFull(f"{self.folder} has reached the size of its map") from error
        if isinstance(error, lmdb.PanicError):
            raise errors.StorageProblem(
                f"{self.folder}: an earlier write failed half-way", hint="run it again"
            ) from error
        if isinstance(error, (lmdb.BadRslotError, lmdb.LockError)) or (
            code in (errno.EAGAIN, errno.EACCES) and self._is_ours()
        ):
            raise errors.SharedPid(
                f"another process with pid {os.getpid()}, in another container, has {self.folder} open",
                hint="run one of the two in the other's pid namespace",
            ) from error
        if code == errno.EACCES or code == errno.EPERM or code == errno.EROFS:
            raise errors.PermissionProblem(f"{self.folder}: {os.strerror(code)}") from error
        if code == errno.ENOENT:
            raise errors.RepositoryNotFound(f"{self.folder}: no store here") from error
        if code == errno.ENOMEM or isinstance(error, lmdb.MemoryError):
            raise errors.NoAddressSpace(
                f"{self.folder}: no address space for the store's map", hint="raise `ulimit -v`"
            ) from error
        if "already open in this process" in str(error):
            raise errors.InUse(f"{self.folder} is already open in this process") from error
        if code in (errno.ENOSPC, errno.EDQUOT) or (code in (errno.EIO, 0) and self._disk_is_full()):
            raise errors.DiskFull(
                f"no space left for {self.folder}", hint="free some space and run it again"
            ) from error
        raise errors.StorageProblem(f"{self.folder}: {error}") from error

    def _is_ours(self) -> bool:
        return os.access(self.folder / "lock.mdb", os.R_OK | os.W_OK)

    def _disk_is_full(self) -> bool:
        """LMDB reports a short write as an I/O error; a file system may refuse megabytes as a whole."""
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < 8 << 20 or (disk.f_files > 0 and disk.f_favail == 0)


def stop_here() -> None:
    """Stop as Ctrl-Z does, at once and whatever thread asks; its caller sees to it that no transaction is open."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _make_folder(folder: Path) -> None:
    """The folder of a new environment, with the space that its lock file will need: LMDB leaves it full of holes and
    writes to it by its map, which is SIGBUS on a full disk."""
    try:
        folder.mkdir(mode=0o700)
        lock = os.open(folder / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(lock, 0, LOCK_BYTES)
        finally:
            os.close(lock)
    except PermissionError as error:
        raise errors.PermissionProblem(f"{folder}: {error.strerror}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull(f"no space left for {folder}") from error
        raise


def check_file(path: Path) -> None:
    """Refuse a data file that was cut short or pieced together, before LMDB maps it: a map beyond its end is SIGBUS."""
    try:
        for _attempt in range(5):
            if (problem := _problem(path)) is None:
                return
    except FileNotFoundError as error:
        raise errors.RepositoryNotFound(f"{path}: no store here") from error
    except PermissionError as error:
        raise errors.PermissionProblem(f"{path}: {error.strerror}") from error
    raise errors.DamagedEnvironment(f"{path}: {problem}", hint="restore it from a backup or a bundle")


def _problem(path: Path) -> str | None:
    """What is wrong with the meta pages, if anything. A commit beside us may make us see two at once: ask again."""
    with path.open("rb") as file:
        first = file.read(PAGE_HEADER + META.size)
        if len(first) < PAGE_HEADER + META.size:
            return "shorter than its first page"
        page_size = struct.unpack_from("<I", first, PAGE_HEADER + 24)[0]
        if page_size not in (1 << shift for shift in range(9, 17)):
            return f"a page size of {page_size}"
        file.seek(page_size)
        second = file.read(PAGE_HEADER + META.size)
        length = file.seek(0, os.SEEK_END)
    if len(second) < PAGE_HEADER + META.size:
        return "shorter than its second page"
    transactions: list[int] = []
    newest_last_page = 0
    for page in (first, second):
        magic, version, _, _, _, _, last_page, transaction = META.unpack_from(page, PAGE_HEADER)
        if magic != META_MAGIC:
            return "a meta page without LMDB's mark"
        if version != 1:
            return f"version {version} of LMDB's format"
        if transaction >= max(transactions, default=0):
            newest_last_page = last_page
        transactions.append(transaction)
    if abs(transactions[0] - transactions[1]) > 1:
        return f"its meta pages are {abs(transactions[0] - transactions[1])} transactions apart"
    if length < (newest_last_page + 1) * page_size and _lacks_pages(path):
        return f"cut short: {length} bytes, but {newest_last_page + 1} pages are in use"
    return None


def _lacks_pages(path: Path) -> bool:
    """Whether a page that is in use lies beyond the end. LMDB leaves free pages at the end unwritten: so a short file
    may be whole, and only a walk over its pages can tell."""
    from lmdb import verify

    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        walk: Any = verify._Verifier(file, length)  # type: ignore[no-untyped-call]
        try:
            walk.verify()
        except verify.VerifyError:
            return True
        # Its public function doesn't look at the later pages of a value.
        return 1 in walk.live[length // walk.psize :]
