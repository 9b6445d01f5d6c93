"""The control socket keeps its bounds and its temper: the real Control, its clients in the same trio."""

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from fusecas.daemon import connection, control, rpc
from fusecas.daemon.connection import Caller
from fusecas.daemon.control import Control
from fusecas.errors import AmbiguousPrefix, Conflict, UsageError
from fusecas.parameters import checked
from fusecas.wire import LONGEST_REQUEST

NOBODY = 65534


class Peer:
    """A client that says what it likes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._seen = bytearray()

    async def say(self, line: bytes) -> None:
        await self.stream.send_all(line + b"\n")

    async def ask(self, method: str, number: Any = 1, **params: Any) -> None:
        await self.say(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode())

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self._seen:
            data = await self.stream.receive_some()
            assert data, "the connection was closed"
            self._seen += data
        line, _, rest = bytes(self._seen).partition(b"\n")
        self._seen = bytearray(rest)
        return dict(json.loads(line))

    async def call(self, method: str, **params: Any) -> Any:
        await self.ask(method, **params)
        return (await self.hear())["result"]

    async def is_closed(self) -> bool:
        try:
            return not await self.stream.receive_some()
        except trio.BrokenResourceError:
            return True


class Served:
    """A Control with methods of all kinds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers: list[Peer] = []
        self.gate = trio.Event()
        self.begun: list[int] = []
        self.done: list[int] = []
        methods: dict[str, control.Method] = {
            "echo": self._echo,
            "wait": self._wait,
            "bug": self._bug,
            "refuse": self._refuse,
            "disk": self._disk,
            "large": self._large,
            "odd": self._odd,
        }
        self.control = Control(folder, methods, {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe})

    async def connect(self) -> Peer:
        self.peers.append(Peer(await trio.open_unix_socket(self.folder / "run" / "socket")))
        return self.peers[-1]

    async def _echo(self, params: dict[str, Any]) -> Any:
        return params

    async def _wait(self, params: dict[str, Any]) -> Any:
        self.begun.append(1)
        await self.gate.wait()
        self.done.append(1)
        return "waited"

    async def _bug(self, params: dict[str, Any]) -> Any:
        return {}["no such key"]

    async def _refuse(self, params: dict[str, Any]) -> Any:
        if checked(params, ambiguous=(bool, False))["ambiguous"]:
            raise AmbiguousPrefix.among("abcd", ["abcd1", "abcd2"])
        raise Conflict("moved: caf\udce9", hint="again")

    async def _disk(self, params: dict[str, Any]) -> Any:
        raise OSError(28, "No space left on device")

    async def _large(self, params: dict[str, Any]) -> Any:
        return "x" * params["size"]

    async def _odd(self, params: dict[str, Any]) -> Any:
        return {"bytes": b"no JSON"}

    async def _subscribe(self, params: dict[str, Any], caller: Caller) -> Any:
        async def tell(number: int) -> None:
            at = 0
            while True:
                await caller.connection.notify("told", {"subscription": number, "at": at, "filler": "x" * 1000})
                at += 1

        subscription = caller.connection.subscribe(tell)
        caller.afterwards(subscription.begin)
        return subscription.number

    async def _unsubscribe(self, params: dict[str, Any], caller: Caller) -> Any:
        return caller.connection.unsubscribe(params["subscription"])


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with trio.open_nursery() as nursery:
        serving = Served(folder)
        listener = serving.control.listen()
        nursery.start_soon(serving.control.serve, listener)
        try:
            with trio.fail_after(20):
                yield serving
        finally:
            for peer in serving.peers:
                await trio.aclose_forcefully(peer.stream)
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_hello_says_who_answers_and_what_fits(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        said = await (await serving.connect()).call("hello")
        assert said["protocol"] == 2 and said["pid"] == os.getpid()
        assert said["limits"]["request"] == LONGEST_REQUEST


@pytest.mark.trio
async def test_the_socket_is_its_owners_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    async with served(tmp_path):
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "run" / "socket").stat().st_mode) == 0o600


@pytest.mark.trio
async def test_another_user_is_told_so_and_sent_away(tmp_path: Path) -> None:
    """Even if somebody has opened folder and socket to all."""
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9999).decode())"
    )
    async with served(tmp_path):
        (tmp_path / "run" / "socket").chmod(0o666)
        place = os.open(tmp_path / "run", os.O_PATH | os.O_DIRECTORY)
        (tmp_path / "run").chmod(0o755)
        try:
            words = ["/usr/bin/env", "python3", "-c", script, f"/proc/self/fd/{place}/socket"]
            done = await trio.run_process(words, capture_stdout=True, user=NOBODY, pass_fds=(place,))
        finally:
            os.close(place)
        assert json.loads(done.stdout)["error"]["data"]["code"] == "permission-problem"


@pytest.mark.trio
async def test_a_long_call_holds_up_no_other(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("wait", 1)
        await peer.ask("echo", 2, x=1)
        assert (await peer.hear())["id"] == 2
        serving.gate.set()
        assert await peer.hear() == {"jsonrpc": "2.0", "id": 1, "result": "waited"}


def code_of(answer: dict[str, Any]) -> tuple[Any, int]:
    return answer["id"], answer["error"]["code"]


@pytest.mark.trio
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", (None, rpc.PARSE_ERROR)),
        (b"{", (None, rpc.PARSE_ERROR)),
        (b"\xff\xfe", (None, rpc.PARSE_ERROR)),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "hello"\0}', (None, rpc.PARSE_ERROR)),
        (b'{"id": 1' + b"0" * 5000 + b"}", (None, rpc.PARSE_ERROR)),
        (b'{"id": 1e999}', (None, rpc.PARSE_ERROR)),
        (b'{"id": NaN}', (None, rpc.PARSE_ERROR)),
        (b"[" * 1_000_000, (None, rpc.PARSE_ERROR)),
        (b'{"params":' * 90_000, (None, rpc.PARSE_ERROR)),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "hello"}]', (None, rpc.INVALID_REQUEST)),
        (b"7", (None, rpc.INVALID_REQUEST)),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "hello"}', (None, rpc.INVALID_REQUEST)),
        (b'{"jsonrpc": "2.0", "id": true, "method": "hello"}', (None, rpc.INVALID_REQUEST)),
        (b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "hello"}', (None, rpc.INVALID_REQUEST)),
        (b'{"id": 5, "method": "hello"}', (5, rpc.INVALID_REQUEST)),
        (b'{"jsonrpc": "2.0", "id": 5, "method": ["hello"]}', (5, rpc.INVALID_REQUEST)),
        (b'{"jsonrpc": "2.0", "id": 5, "method": "hello", "params": [1]}', (5, rpc.BAD_PARAMS)),
        (b'{"jsonrpc": "2.0", "id": "a", "method": "no.such"}', ("a", rpc.NO_SUCH_METHOD)),
        (b'{"jsonrpc": "2.0", "id": "a", "method": "\\ud800"}', ("a", rpc.NO_SUCH_METHOD)),
        (b'{"jsonrpc": "2.0", "id": 5, "method": "refuse", "params": {"x": 1}}', (5, rpc.BAD_PARAMS)),
        (b'{"jsonrpc": "2.0", "id": 5, "method": "refuse", "params": {"ambiguous": 1}}', (5, rpc.BAD_PARAMS)),
        (b" " * LONGEST_REQUEST + b"7", (None, rpc.INVALID_REQUEST)),
        (b"x" * (5 * LONGEST_REQUEST), (None, rpc.INVALID_REQUEST)),
    ],
    ids=lambda each: repr(each[:40]) if isinstance(each, bytes) else None,
)
async def test_what_is_no_request_is_told_so_and_the_connection_goes_on(
    tmp_path: Path, line: bytes, expected: tuple[Any, int]
) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.say(line)
        assert code_of(await peer.hear()) == expected
        assert await peer.call("echo", still=True) == {"still": True}


@pytest.mark.trio
async def test_a_request_without_an_id_is_done_and_not_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        serving.gate.set()
        await peer.say(b'{"jsonrpc": "2.0", "method": "wait"}')
        await peer.say(b'{"jsonrpc": "2.0", "method": "no.such"}')
        assert await peer.call("echo", x=1) == {"x": 1}
        assert serving.done == [1]


@pytest.mark.trio
async def test_a_line_in_many_pieces_is_one_request(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        for byte in b'{"jsonrpc": "2.0", "id": 1, "method": "echo"}\n':
            await peer.stream.send_all(bytes([byte]))
        assert (await peer.hear())["result"] == {}


@pytest.mark.trio
async def test_half_a_line_is_no_request(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.stream.send_all(b'{"jsonrpc": "2.0", "id": 1, "method": "wait"}')
        await peer.stream.send_eof()
        assert await peer.is_closed()
        assert serving.begun == []


@pytest.mark.trio
async def test_who_has_said_all_is_still_answered(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("wait")
        await peer.stream.send_eof()
        serving.gate.set()
        assert (await peer.hear())["result"] == "waited"
        assert await peer.is_closed()


@pytest.mark.trio
async def test_a_refusal_brings_what_the_command_line_would_say(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("refuse")
        error = (await peer.hear())["error"]
        assert error["code"] == rpc.FAILED
        assert error["data"] == {
            "code": "conflict", "message": "moved: caf\ufffd", "hint": "again", "exit": 4, "details": {},
        }  # fmt: skip
        await peer.ask("refuse", ambiguous=True)
        assert (await peer.hear())["error"]["data"]["details"] == {"candidates": ["abcd1", "abcd2"]}


@pytest.mark.trio
@pytest.mark.expects_log("disk failed")
async def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("disk")
        error = (await peer.hear())["error"]
        assert (error["code"], error["data"]["code"]) == (rpc.FAILED, "disk-full")


@pytest.mark.trio
@pytest.mark.expects_log("(bug|odd) failed")
@pytest.mark.parametrize("method", ["bug", "odd"])
async def test_a_bug_is_logged_and_answered_and_the_daemon_lives(tmp_path: Path, method: str) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask(method)
        error = (await peer.hear())["error"]
        assert (error["code"], error["data"]["exit"]) == (rpc.INTERNAL, 70)
        assert await peer.call("echo", x=1) == {"x": 1}


@pytest.mark.trio
async def test_an_answer_that_no_client_would_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "LONGEST_ANSWER", 10_000)
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("large", size=20_000)
        assert (await peer.hear())["error"]["data"]["code"] == "too-large"
        assert len(await peer.call("large", size=5_000)) == 5_000


@pytest.mark.trio
async def test_open_requests_are_bounded_for_one_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_OPEN", 5)
    monkeypatch.setattr(control, "MOST_OPEN_OF_ONE", 3)
    async with served(tmp_path) as serving:
        first, second = await serving.connect(), await serving.connect()
        for number in range(4):
            await first.ask("wait", number)
        assert code_of(await first.hear()) == (3, rpc.BUSY)
        for number in range(3):
            await second.ask("wait", number)
        assert code_of(await second.hear()) == (2, rpc.BUSY)
        serving.gate.set()
        assert sorted([(await first.hear())["id"] for _ in range(3)]) == [0, 1, 2]
        assert await first.call("echo", x=1) == {"x": 1}


@pytest.mark.trio
async def test_one_client_too_many_is_refused_and_there_is_room_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MOST_CLIENTS", 2)
    async with served(tmp_path) as serving:
        first, second = await serving.connect(), await serving.connect()
        await first.call("echo")
        await second.call("echo")
        third = await serving.connect()
        assert code_of(await third.hear()) == (None, rpc.BUSY)
        assert await third.is_closed()
        await second.stream.send_eof()
        assert await second.is_closed()
        assert await (await serving.connect()).call("echo", x=1) == {"x": 1}


@pytest.mark.trio
async def test_a_call_goes_to_its_end_though_its_client_has_gone(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer, other = await serving.connect(), await serving.connect()
        await peer.ask("wait")
        while not serving.begun:
            await other.call("echo")
        await trio.aclose_forcefully(peer.stream)
        await other.call("echo")
        serving.gate.set()
        await serving.control.idle()
        assert serving.done == [1]


@pytest.mark.trio
async def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    async with served(tmp_path) as serving:
        slow, other = await serving.connect(), await serving.connect()
        await slow.call("echo")
        await slow.ask("large", size=10_000_000)
        while serving.control._clients > 1 or serving.control._open:
            assert await other.call("echo", x=1) == {"x": 1}
            await trio.sleep(0.01)
        received = 0
        with pytest.raises(trio.BrokenResourceError):
            while data := await slow.stream.receive_some():
                received += len(data)
            raise trio.BrokenResourceError
        assert received < 10_000_000


@pytest.mark.trio
async def test_a_client_that_reads_slowly_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("large", size=3_000_000)
        received = b""
        while not received.endswith(b"\n"):
            received += await peer.stream.receive_some(100_000)
            await trio.sleep(0.05)
        assert len(json.loads(received)["result"]) == 3_000_000


@pytest.mark.trio
async def test_a_subscriber_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.3)
    async with served(tmp_path) as serving:
        slow, other = await serving.connect(), await serving.connect()
        await slow.call("subscribe")
        while serving.control._clients > 1:
            await other.call("echo")
            await trio.sleep(0.01)


@pytest.mark.trio
async def test_nothing_is_told_before_the_answer_to_subscribe_or_after_that_to_unsubscribe(tmp_path: Path) -> None:
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("subscribe")
        number = (await peer.hear())["result"]
        told = [(await peer.hear())["params"] for _ in range(3)]
        assert [(each["subscription"], each["at"]) for each in told] == [(number, 0), (number, 1), (number, 2)]
        await peer.ask("unsubscribe", "last", subscription=number)
        while "id" not in (answer := await peer.hear()):
            pass
        assert answer == {"jsonrpc": "2.0", "id": "last", "result": True}
        assert await peer.call("echo", x=1) == {"x": 1}


@pytest.mark.trio
async def test_subscriptions_of_a_connection_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_SUBSCRIPTIONS", 0)
    async with served(tmp_path) as serving:
        peer = await serving.connect()
        await peer.ask("subscribe")
        assert (await peer.hear())["error"]["data"]["code"] == "refused"


@pytest.mark.trio
async def test_a_daemon_about_to_end_answers_what_is_open_and_takes_no_more(tmp_path: Path) -> None:
    async with served(tmp_path) as serving, trio.open_nursery() as nursery:
        peer = await serving.connect()
        await peer.ask("wait", 1)
        while not serving.begun:
            await trio.sleep(0)
        nursery.start_soon(serving.control.idle)
        await trio.testing.wait_all_tasks_blocked()
        await peer.ask("echo", 2)
        assert code_of(await peer.hear()) == (2, rpc.BUSY)
        serving.gate.set()
        assert (await peer.hear())["result"] == "waited"


@pytest.mark.parametrize(
    ("given", "known", "said"),
    [
        ({"b": 1}, {"a": (int, 0)}, "no parameter 'b'"),
        ({"a": True}, {"a": (int, 0)}, "a is a int"),
        ({"a": -1}, {"a": (int, 0)}, "from 0"),
        ({"a": 1 << 63}, {"a": (int, 0)}, "from 0"),
        ({"a": None}, {"a": (str, "")}, "a is a str"),
        ({"a": {}}, {"a": (list, [])}, "a is a list"),
        ({"a": "\udcff"}, {"a": (str, "")}, "a is no text"),
        ({"a": ["\ud800"]}, {"a": (list, [])}, "a has an element that is no text"),
    ],
)
def test_parameters_of_another_kind_are_refused(given: dict[str, Any], known: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        checked(given, **known)
    assert checked({}, a=(str, None)) == {"a": None}
