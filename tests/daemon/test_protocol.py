"""docs/protocol.md held to its word: its own client, of json and socket alone, against a real daemon."""

import base64
import os
import re
import socket
import subprocess

import pytest

from fusecas.daemon.changes import Changes
from fusecas.daemon.reading import READS
from fusecas.workspace.calls import CALLS
from tests.cli.calling import NOT_UTF8
from tests.daemon.conftest import PAGE, PATIENCE, Working, paths


def test_a_client_of_the_page_works_with_a_workspace(working: Working) -> None:
    call = working.daemon.call
    hello = call("hello")
    assert hello["protocol"] == 2 and {"request", "answer", "open"} == set(hello["limits"])
    (working.work / "new").write_text("x")
    status = call("status")
    assert status["changes"] == [{"letter": "A", "path": "new", "directory": False}]
    assert (status["workspace"], status["mountpoint"]) == ("main", str(working.work))
    layer = call("commit", message="by hand", argv=["my", "tool"], actor="me")["layer"]
    assert working.ok("log", "--json").result[0]["hash"] == layer
    operation = working.ok("op", "log", "--json").result[0]
    assert (operation["argv"], operation["actor"]) == (["my", "tool"], "me")
    assert call("commit")["layer"] is None


def test_errors_are_those_of_the_page(working: Working) -> None:
    with pytest.raises(RuntimeError, match="usage-error"):
        working.daemon.call("commit", mesage="a slip")
    with pytest.raises(RuntimeError, match="usage-error"):
        working.daemon.call("changes", since=-1)
    with pytest.raises(RuntimeError, match="usage-error"):
        working.daemon.call("undo", steps=0)
    with pytest.raises(RuntimeError, match="not-found"):
        working.daemon.call("unsubscribe", subscription=9)
    working.daemon.socket.sendall(b"no JSON\n")
    assert working.daemon.receive()["error"]["code"] == -32700
    with subprocess.Popen(["sleep", "60"], cwd=working.work) as sleeper:
        with pytest.raises(RuntimeError, match="in-use"):
            working.daemon.call("umount")
        sleeper.kill()


def test_a_subscriber_is_told_what_changes_and_can_go_on_where_it_was(working: Working) -> None:
    (working.work / "before").write_text("x")
    subscribed = working.daemon.call("subscribe")
    (working.work / "d").mkdir()
    (working.work / "d" / "file").write_text("x")
    told = working.told_until("d/file")
    assert all(each["subscription"] == subscribed["subscription"] and not each["more"] for each in told)
    numbers = [change[0] for each in told for change in each["changes"]]
    assert numbers == sorted(numbers) and numbers[0] > subscribed["last"]
    assert {path for each in told for path in paths(each)} <= {"", "d", "d/file"}
    again = working.daemon.call("changes", since=subscribed["last"])
    assert {"d", "d/file"} <= set(paths(again)) and "before" not in paths(again)
    working.daemon.call("unsubscribe", subscription=subscribed["subscription"])
    late = working.daemon.call("subscribe", since=subscribed["last"])
    (working.work / "later").write_text("x")
    assert {"d/file", "later"} <= {path for each in working.told_until("later") for path in paths(each)}
    assert late["last"] == subscribed["last"]


def test_many_changes_are_told_together(working: Working) -> None:
    """Two thousand writes to one file are a few notifications, each with one path."""
    working.daemon.call("subscribe")
    with (working.work / "file").open("wb", buffering=0) as file:
        for _ in range(2000):
            file.write(b"x")
    (working.work / "end").mkdir()
    told = working.told_until("end")
    assert all(len(paths(each)) == len(set(paths(each))) for each in told)
    assert len(told) < 200


def test_a_path_that_is_not_utf8_comes_with_its_bytes(working: Working) -> None:
    since = working.daemon.call("subscribe")["last"]
    with open(os.fsencode(working.work) + b"/" + NOT_UTF8, "wb"):
        pass
    told = working.told_until("caf\ufffd")[-1]
    assert base64.b64decode(told["changes"][-1][2]) == NOT_UTF8
    status = working.daemon.call("status")["changes"]
    assert [base64.b64decode(each["path_b64"]) for each in status] == [NOT_UTF8]
    assert base64.b64decode(working.daemon.call("changes", since=since)["changes"][-1][2]) == NOT_UTF8


def test_numbers_of_an_earlier_daemon_are_known_to_be_old(working: Working) -> None:
    (working.work / "file").write_text("x")
    last = working.daemon.call("changes")["last"]
    working.ok("umount")
    working.ok("mount", str(working.work))
    again = working.connect()
    try:
        found = again.call("changes", since=last)
        assert found["changes"] is None and found["last"] > last
    finally:
        again.lines.close()
        again.socket.close()
        working.ok("umount")


def test_the_connection_ends_with_the_daemon(working: Working) -> None:
    working.daemon.call("umount")
    with pytest.raises(EOFError):
        working.daemon.receive()


def test_a_commit_is_answered_though_the_client_sends_nothing_more(working: Working) -> None:
    """As `echo … | socat - UNIX-CONNECT:socket` does."""
    (working.work / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as once:
        once.settimeout(PATIENCE)
        once.connect(f"{working.repository}/run/socket")
        once.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "commit"}\n')
        once.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: once.recv(1 << 16), b""))
    assert working.ok("log", "--json").result[0]["hash"].encode() in answer


def test_the_page_knows_every_method() -> None:
    told = {
        name for row in re.findall(r"^\| (`[a-z._`, ]+`) \|", PAGE.read_text(), re.MULTILINE) for name in row.split("`")
    }
    changes = Changes(lambda _name: pytest.fail("nobody asks"))
    assert {"hello", "umount", *CALLS, *READS, *changes.methods, *changes.conversations} <= told
