"""A repository: the folder `.fusecas`, its store, and what is done to it as a whole without a mount."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from fusecas.errors import AlreadyExists, DiskFull, InUse, PathNotFound, PermissionProblem, RepositoryNotFound
from fusecas.store import heads
from fusecas.store.descent import Belongs
from fusecas.store.durable import sync_folder
from fusecas.store.store import Store

SERVER = "daemon.lock"
MOUNTPOINT = Path("run", "mountpoint")
PATIENCE, RETRY_EVERY = 10.0, 0.02
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
CONFIGURATION = "# Local configuration of this repository.\n"


class Repository:
    """Owns the store of its folder. One a folder and process."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store

    @classmethod
    def create(cls, folder: Path, *, argv: Sequence[bytes] = (), actor: str = "") -> Self:
        """Make a repository with an empty workspace `main`: whole under its name, or not at all."""
        if os.path.lexists(folder):
            raise AlreadyExists(f"{folder} is there already")
        with _building(folder) as new:
            (new / ".gitignore").write_text("*\n")
            (new / "config.toml").write_text(CONFIGURATION)
            (new / "config.toml").chmod(0o600)
            with Store.create(new) as store, store.write() as transaction:
                owner = (os.geteuid(), os.getegid())
                heads.create_head(transaction, heads.DEFAULT, os.urandom(16), owner, argv, actor)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        if not (folder / "store").is_dir():
            raise RepositoryNotFound(f"{folder} is not a repository", hint="fusecas init makes one")
        return cls(folder, Store.open(folder))

    def close(self) -> None:
        self.store.close()

    @property
    def mountpoint(self) -> bytes:
        """Where it is mounted, or was last; empty if it never was. All its workspaces are there or below."""
        try:
            return (self.folder / MOUNTPOINT).read_bytes()
        except FileNotFoundError:
            return b""

    # who serves it

    @contextmanager
    def served(self) -> Iterator[None]:
        """For the one process that holds the workspaces open; InUse names the one that has them already.

        A lock of the open file, asked for without waiting: it goes with the process, however that ends.
        """
        descriptor = os.open(self.folder / SERVER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise InUse(f"{self.folder} is mounted already, by process {pid}", hint="fusecas umount") from error

    @contextmanager
    def held_briefly(self) -> Iterator[None]:
        """As `served`, for a command that is done soon: it waits for others of its kind. InUse if it takes too long."""
        give_up = time.monotonic() + PATIENCE
        while True:
            with ExitStack() as held:
                try:
                    held.enter_context(self.served())
                except InUse:
                    if time.monotonic() >= give_up:
                        raise
                else:
                    yield
                    return
            time.sleep(RETRY_EVERY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A folder to be filled, which then appears under its name, durably; or which goes, if that fails."""
    import shutil
    import tempfile

    parent = folder.parent
    try:
        new = Path(tempfile.mkdtemp(prefix=folder.name + ".new-", dir=parent))
        try:
            yield new
            try:
                os.rename(new, folder)
            except OSError as error:
                raise AlreadyExists(f"{folder} is there already") from error
            for each in (folder / "store", folder, parent):
                sync_folder(each)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except FileNotFoundError as error:
        raise PathNotFound(f"{parent}: no such folder") from error
    except PermissionError as error:
        raise PermissionProblem(f"{error.filename or folder}: {error.strerror}") from error
    except OSError as error:
        if error.errno in DISK_FULL:
            raise DiskFull(f"no space left for {folder}") from error
        raise


def own_files(folder: Path) -> Belongs:
    """What belongs to a repository, under whatever name it is met, and the locks of others that are open here.

    Import and export leave them alone: whoever closes a file with LMDB's locks drops them, for this whole process.
    """
    from fusecas.store.lmdb_environment import LmdbEnvironment

    places = (folder, *folder.iterdir(), *(folder / "store").iterdir())
    own = {(found.st_dev, found.st_ino) for found in (os.lstat(place) for place in places)}
    return lambda device, inode: (device, inode) in own or (device, inode) in LmdbEnvironment.locks_open_here
