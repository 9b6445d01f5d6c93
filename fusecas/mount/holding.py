"""What somebody looks at is kept from gc until the mount ends, whatever becomes of its names."""

import logging
import threading
from typing import TYPE_CHECKING

from fusecas.errors import FusecasError
from fusecas.store.ids import Kind
from fusecas.store.store import Store
from fusecas.workspace.target import Target

if TYPE_CHECKING:
    from fusecas.store.session import Session

log = logging.getLogger(__name__)


class Holding:
    """A session that puts what is there already, and so holds it. Thread-safe; begins with the first thing held."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._session: Session | None = None

    def hold(self, target: Target) -> None:
        """If that fails (the disk is full, say), it can be looked at all the same, for as long as gc leaves it."""
        with self._lock:
            try:
                session = self._session = self._session or self._store.session()
                with self._store.read() as snapshot:
                    session.put_node(Kind.STATE, snapshot.read_node(target.state, Kind.STATE))
                    if target.layer is not None:
                        session.put_node(Kind.LAYER, snapshot.read_node(target.layer, Kind.LAYER))
                session.flush()
            except FusecasError:
                log.warning("%s is not kept from gc", target.state.hex(), exc_info=True)

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
            if session is not None:
                with session:
                    pass
