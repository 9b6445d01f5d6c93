"""Where a workspace is to go."""

from collections.abc import Callable
from typing import NamedTuple

from fusecas.store.heads import Head
from fusecas.store.ids import LayerId, StateId, TimesId
from fusecas.store.prolly import Loader, Saver
from fusecas.store.rows import Cursor
from fusecas.store.transaction import Transaction


class Target(NamedTuple):
    """A layer, the live state on it, and its times. `owner`: of what has none recorded, if it is to change.

    `make_layer`: the layer is made when the workspace goes there, on what the head is then, with the times that it
    gets. `make_times`: those are worked out when it is known from where. `cursor`: of undo and redo.
    """

    layer: LayerId | None
    state: StateId
    times: TimesId | None
    owner: tuple[int, int] | None = None
    cursor: Cursor | None = None
    make_layer: Callable[[Transaction, Head, TimesId | None], LayerId] | None = None
    make_times: Callable[[Loader, Saver], TimesId | None] | None = None
