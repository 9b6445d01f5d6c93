"""All workspaces of a repository that are open in this process: opened when asked for, once."""

import os
import shutil
import threading

from fusecas.errors import BadName, InUse, Refused
from fusecas.store import heads
from fusecas.store.names import check_name
from fusecas.store.repository import Repository
from fusecas.workspace.mover import Deed
from fusecas.workspace.siblings import Siblings
from fusecas.workspace.workspace import ID_BYTES, OVERLAYS, Workspace


class Workspaces:
    """Belongs to the one process that serves the repository, or that holds it briefly. Thread-safe.

    `default`: the one that is meant if nobody says which.
    """

    def __init__(self, repository: Repository, default: str = heads.DEFAULT) -> None:
        self.repository = repository
        self.default = default
        self._siblings = Siblings()
        self._opening = threading.Lock()

    def get(self, name: str) -> Workspace:
        """RefNotFound if there is none of that name."""
        with self._opening:
            found = self._siblings.named(name)
            return found or Workspace(self.repository, name, self._siblings)

    def opened(self) -> list[Workspace]:
        return self._siblings.all()

    def names(self) -> list[str]:
        with self.repository.store.read() as snapshot:
            return heads.names(snapshot)

    def has(self, name: str) -> bool:
        with self.repository.store.read() as snapshot:
            try:
                return snapshot.get_ref(heads.NAMESPACE + check_name(name)) is not None
            except BadName:
                return False

    def create(self, name: str, deed: Deed = Deed()) -> bytes:
        """A new workspace, empty: its id. It is opened when somebody looks at it."""
        check_new_name(name)
        with self.repository.store.write() as transaction:
            owner = (os.geteuid(), os.getegid())
            made = heads.create_head(transaction, name, os.urandom(ID_BYTES), owner, *deed, verb="ws create")
        return made.workspace.id

    def fork(self, name: str, source: str, deed: Deed = Deed()) -> bytes:
        """A new workspace with all that is in another one now, uncommitted changes included: its id. Costs the same
        whatever the source holds, and whatever has changed in it."""
        check_new_name(name)
        return self.get(source).fork(name, deed)

    def remove(self, name: str, deed: Deed = Deed(), *, force: bool = False, verb: str = "ws rm") -> None:
        """Its state is kept by the operation for as long as that can be undone. InUse while files are open in it."""
        if name == heads.DEFAULT:
            raise Refused(f"{name} is the default workspace: it stays")
        workspace = self.get(name)
        if workspace.overlay.open_files and not force:
            raise InUse(f"files are open in workspace {name}", hint="close them, or --force")
        workspace.remove(deed, verb)
        shutil.rmtree(self.repository.folder / OVERLAYS / workspace.id.hex(), ignore_errors=True)

    def close(self) -> None:
        """Make everything durable; what is uncommitted stays so."""
        for workspace in self.opened():
            workspace.close()


def check_new_name(name: str) -> None:
    check_name(name)
    if "/" in name:
        raise BadName(f"{name!r} can't be a workspace's name: it is a folder's name, too, and holds '/'")
