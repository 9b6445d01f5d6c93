"""A daemon, and a client of docs/protocol.md: of json and socket alone."""

import os
import re
import select
import signal
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fusecas.mount.device import detach, is_mounted
from tests.cli.calling import Place

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
PATIENCE = 30


def client_of_the_page() -> type[Any]:
    code = textwrap.dedent(PAGE.read_text().partition("## A client\n")[2])
    assert set(re.findall(r"^import (.*)$", code, re.MULTILINE)) == {"json, socket"}
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    found: type[Any] = names["Daemon"]
    return found


class Working(Place):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.work = folder / "work"
        self.daemon: Any = None

    def connect(self) -> Any:
        daemon = client_of_the_page()(self.repository)
        daemon.socket.settimeout(PATIENCE)
        return daemon

    def told_until(self, path: str) -> list[dict[str, Any]]:
        """Notifications, up to the one that tells of a path."""
        told = []
        while True:
            one = self.daemon.notification()
            assert one["method"] == "changed" and one["jsonrpc"] == "2.0"
            told.append(one["params"])
            if path in paths(one["params"]):
                return told


def paths(told: dict[str, Any]) -> list[str]:
    return [change[1] for change in told["changes"]]


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Working]:
    working = Working(tmp_path)
    working.ok("init")
    working.ok("mount", str(working.work))
    working.daemon = working.connect()
    end = os.pidfd_open(working.daemon.call("hello")["pid"])
    yield working
    with suppress(ProcessLookupError):  # a test has ended it
        signal.pidfd_send_signal(end, signal.SIGTERM)
    assert select.select([end], [], [], PATIENCE)[0], "the daemon does not end"
    os.close(end)
    working.daemon.lines.close()
    working.daemon.socket.close()
    if is_mounted(working.work):
        detach(working.work)
