"""What a process keeps open of repositories between calls: their stores, and connections to their daemons.

Thread-safe. A process that was forked opens its own: neither a connection nor LMDB's handle can be shared.
"""

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fusecas.client import Client
from fusecas.store.lmdb_environment import LmdbEnvironment
from fusecas.store.repository import Repository

MOST_IDLE = 4
Key = tuple[int, int]


class Connection:
    """To one daemon; `places`: where its workspaces are, by name, which does not change while it lives."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.places: dict[str, Path] = {}

    def is_good(self) -> bool:
        """Nothing is said without being asked: what is readable is the end."""
        return not select.select([self.client], [], [], 0)[0]


class Connections:
    """Kept for the next call, a few of them: of calls at once each has its own, and calls in a row share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False

    @contextmanager
    def borrowed(self, connect: Callable[[Path], Client] = Client) -> Iterator[Connection]:
        """NoDaemon if there is none, unless `connect` starts one. After a call that failed half-way it is closed."""
        connection = self._good_one() or Connection(connect(self._folder))
        try:
            yield connection
        except BaseException:
            connection.client.close()
            raise
        with self._lock:
            if len(self._idle) < MOST_IDLE and not self._is_closed:
                self._idle.append(connection)
                return
        connection.client.close()

    def _good_one(self) -> Connection | None:
        while True:
            with self._lock:
                found = self._idle.pop() if self._idle else None
            if found is None or found.is_good():
                return found
            found.client.close()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for each in idle:
            each.client.close()


class Stores:
    """One a folder and process, shared by all who have it open here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Key, tuple[Repository, int]] = {}
        self._inherited: list[Repository] = []
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()  # the other one may be held, by a thread that is not here
        self._inherited += [repository for repository, _ in self._open.values()]
        self._open.clear()

    def take(self, folder: Path) -> tuple[Key, Repository]:
        with self._lock:
            while self._inherited:
                environment = self._inherited.pop().store.environment
                assert isinstance(environment, LmdbEnvironment)
                environment.leave_to_parent()
            found = os.stat(folder)
            key = found.st_dev, found.st_ino
            repository, users = self._open.get(key) or (Repository.open(folder), 0)
            self._open[key] = repository, users + 1
            return key, repository

    def users(self, key: Key) -> int:
        with self._lock:
            return self._open[key][1]

    def give_back(self, key: Key) -> None:
        with self._lock:
            repository, users = self._open.pop(key)
            if users > 1:
                self._open[key] = repository, users - 1
            else:
                repository.close()


STORES = Stores()
