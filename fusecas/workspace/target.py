"""Where a workspace is to go."""

from collections.abc import Callable
from typing import NamedTuple

from fusecas.store.heads import Head
from fusecas.store.ids import LayerId, StateId, TimesId
from fusecas.store.prolly import Loader, Saver
from fusecas.store.rows import Baseline, Cursor
from fusecas.store.transaction import Transaction


class Target(NamedTuple):
    """A layer, the live state on it, and its times. `baseline`: what those are measured by, if not by themselves.
    `owner`: of what has none recorded, if it is to change.

    `work_out`: state and times are worked out when it is known from where. `make_layer`: the layer is made when the
    workspace goes there, on what the head is then, of the target as it was worked out. `cursor`: of undo and redo.
    """

    layer: LayerId | None
    state: StateId
    times: TimesId | None
    baseline: Baseline | None = None
    owner: tuple[int, int] | None = None
    cursor: Cursor | None = None
    make_layer: "Callable[[Transaction, Head, Target], LayerId] | None" = None
    work_out: Callable[[Loader, Saver], tuple[StateId, TimesId | None]] | None = None
