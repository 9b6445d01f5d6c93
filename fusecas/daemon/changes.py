"""What changes in a workspace, for those who ask and for those who have subscribed."""

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import trio

from fusecas import _native
from fusecas.daemon.connection import Caller
from fusecas.errors import NotFound
from fusecas.parameters import checked
from fusecas.wire import path_fields

TOGETHER = 0.05
"""At most so often (seconds) is a subscriber told."""
MOST_AT_ONCE = 1000


class Changes:
    """`find` gives the overlay of a workspace by its name; None names the one that is mounted."""

    def __init__(self, find: "Callable[[str | None], _native.Overlay]") -> None:
        self._find = find
        self.methods = {"changes": self._changes}
        self.conversations = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}

    async def _changes(self, params: dict[str, Any]) -> dict[str, Any]:
        given = checked(params, since=(int, 0), ws=(str, None))
        return told(self._find(given["ws"]), given["since"])

    async def _subscribe(self, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        given = checked(params, since=(int, None), ws=(str, None))
        overlay = self._find(given["ws"])
        last = overlay.event if given["since"] is None else given["since"]
        subscription = caller.connection.subscribe(partial(self._tell, caller, overlay, last))
        caller.afterwards(subscription.begin)
        return {"subscription": subscription.number, "last": last}

    async def _unsubscribe(self, params: dict[str, Any], caller: Caller) -> dict[str, Any]:
        number = checked(params, subscription=(int, 0))["subscription"]
        if not caller.connection.unsubscribe(number):
            raise NotFound(f"this connection has no subscription {number}")
        return {}

    @staticmethod
    async def _tell(caller: Caller, overlay: "_native.Overlay", last: int, subscription: int) -> None:
        bell = overlay.bell()
        while True:
            while bell.arm(last):
                await trio.lowlevel.wait_readable(bell.fileno())
            news = told(overlay, last)
            last = news["last"]
            await caller.connection.notify("changed", {"subscription": subscription, **news})
            if not news["more"]:
                await trio.sleep(TOGETHER)


def told(overlay: "_native.Overlay", since: int) -> dict[str, Any]:
    """Each path once, with the number of its last change. `last` is where to go on: at once, if there is `more`."""
    last, events = overlay.events(since, MOST_AT_ONCE)
    changes = None
    if events is not None:
        latest = {path: number for number, path in events}
        changes = [[number, *path_fields(path).values()] for path, number in sorted(latest.items(), key=itemgetter(1))]
    return {"last": last, "more": last == since + MOST_AT_ONCE and last != overlay.event, "changes": changes}
