"""The client meets daemons that do not answer as they should: real sockets, a thread that plays the daemon."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusecas import client as clients
from fusecas.client import Client, NoAnswer, NoDaemon
from fusecas.errors import Conflict, EnvironmentProblem, FusecasError, InternalError, InUse, TooLarge
from fusecas.wire import LONGEST_REQUEST
from tests.cli.calling import TIMEOUT, Place

HELLO = b'{"jsonrpc": "2.0", "id": 1, "result": {"protocol": 2}}\n'
Play = Callable[[socket.socket], None]
Stage = Callable[[Play], Path]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Plays a daemon for one connection; the thread ends with the test."""
    (tmp_path / "run").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "run" / "socket"))
    listener.listen(1)
    threads = []

    def begin(play: Play) -> Path:
        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                play(connection)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return tmp_path

    yield begin
    listener.close()
    for each in threads:
        each.join(10)
        assert not each.is_alive()


def answering(*lines: bytes) -> Play:
    """After hello, each request gets the next line; then the connection is closed."""

    def play(connection: socket.socket) -> None:
        for line in (HELLO, *lines):
            connection.recv(1 << 16)
            connection.sendall(line)

    return play


def test_no_socket_is_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon):
        Client(tmp_path)


def test_a_socket_that_a_killed_daemon_left_is_no_daemon(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "run" / "socket"))
    with pytest.raises(NoDaemon):
        Client(tmp_path)


def test_a_daemon_that_says_nothing_is_not_waited_for_forever(stage: Stage) -> None:
    folder = stage(lambda connection: [connection.recv(1 << 16) for _ in range(2)] and None)
    with pytest.raises(NoAnswer, match="does not answer"):
        Client(folder, patience=0.2)


def test_another_protocol_is_told_so(stage: Stage) -> None:
    folder = stage(lambda connection: connection.sendall(b'{"id": 1, "result": {"protocol": 99, "version": "9"}}\n'))
    with pytest.raises(NoAnswer, match="another version"):
        Client(folder)


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (b"", EnvironmentProblem, "in the middle"),
        (b'{"jsonrpc"', EnvironmentProblem, "in the middle"),
        (b"{]\n", NoAnswer, "no JSON"),
        (b"[" * 100_000 + b"\n", NoAnswer, "no JSON"),
        (b"[]\n", NoAnswer, "no object"),
        (b"x" * 10_001 + b"\n", NoAnswer, "over 10000 bytes"),
        (b'{"id": null, "error": {"code": -32001, "data": {"code": "in-use", "message": "full"}}}\n', InUse, "full"),
        (
            b'{"id": 2, "error": {"code": -32000, "data": {"code": "conflict", "message": "moved"}}}\n',
            Conflict,
            "moved",
        ),
        (
            b'{"id": 2, "error": {"code": -32603, "data": {"code": "x", "message": "bug", "exit": 70}}}\n',
            InternalError,
            "bug",
        ),
        (b'{"id": 2, "error": {"code": -32000, "message": "of old"}}\n', EnvironmentProblem, "of old"),
    ],
    ids=lambda each: repr(each[:30]) if isinstance(each, bytes) else None,
)
def test_what_is_no_answer_is_a_clear_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, line: bytes, kind: type[FusecasError], said: str
) -> None:
    monkeypatch.setattr(clients, "LONGEST_ANSWER", 10_000 if line[:1] == b"x" else 1 << 20)
    folder = stage(answering(line))
    with Client(folder) as client, pytest.raises(kind, match=said):
        client.call("status")


def test_a_refusal_at_the_door_is_heard(stage: Stage) -> None:
    line = b'{"id": null, "error": {"code": -32001, "data": {"code": "in-use", "message": "too many", "exit": 4}}}\n'
    with pytest.raises(InUse, match="too many"):
        Client(stage(lambda connection: connection.sendall(line)))


def test_a_request_that_is_too_long_is_not_sent(stage: Stage) -> None:
    with Client(stage(answering())) as client, pytest.raises(TooLarge):
        client.call("commit", message="x" * LONGEST_REQUEST)


def test_notifications_between_answers_are_kept(stage: Stage) -> None:
    told = [json.dumps({"method": "changed", "params": {"last": at}}).encode() + b"\n" for at in range(3)]
    folder = stage(answering(told[0] + b'{"id": 2, "result": 7}\n' + told[1], told[2] + b'{"id": 3, "result": 8}\n'))
    with Client(folder) as client:
        assert (client.call("subscribe"), client.call("status")) == (7, 8)
        assert [client.wait_for_notification()[1]["last"] for _ in range(3)] == [0, 1, 2]


def test_a_daemon_of_another_version_says_so_and_can_be_unmounted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.ok("init")
    code = "from fusecas import wire; wire.PROTOCOL = 1; from fusecas.daemon import serve; serve.main()"
    ready, say = os.pipe()
    words = [sys.executable, "-c", code, str(place.repository), "main", str(tmp_path / "work"), "0", str(say)]
    with subprocess.Popen(words, pass_fds=(say,), stderr=subprocess.DEVNULL) as daemon:
        os.close(say)
        with open(ready) as answer:
            assert answer.readline() == "{}\n"
        refused = place.run("status", "--json")
        assert refused.code == 6 and "another version" in refused.error["message"]
        assert refused.error["hint"] == "fusecas umount ends it; then mount again"
        place.ok("umount")
        assert daemon.wait(TIMEOUT) == 0
