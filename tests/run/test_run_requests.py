"""What clients may say to begin and end runs, and what they may not: the socket of a real daemon, twenty at once."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusecas.client import Client
from fusecas.errors import NotFound, StillRunning, UsageError
from fusecas.wire import LONGEST_REQUEST, path_of
from tests.run.conftest import Runner
from tests.run.test_bracket import until

CLIENTS = 20
BAD_PARAMS, FAILED = -32602, -32000


def asked(runner: Runner, text: str, **more: Any) -> dict[str, Any]:
    """The parameters of run.begin."""
    return {"program": {"shell": [text]}, "cwd": [str(runner.work)], "env": [], "executor": os.getpid(), **more}


def begin(client: Client, runner: Runner, text: str, **more: Any) -> dict[str, Any]:
    begun: dict[str, Any] = client.call("run.begin", **asked(runner, text, **more))
    for log in begun["logs"]:
        Path(os.fsdecode(path_of(log))).touch()
    return begun


def end(client: Client, begun: dict[str, Any]) -> dict[str, Any]:
    now = time.time_ns()
    ended: dict[str, Any] = client.call("run.end", run=begun["run"], exit=0, started=now, ended=now)
    return ended


@pytest.fixture
def served(runner: Runner) -> Iterator[Runner]:
    """Mounted; in the end the daemon holds what it held at first, and no run is on."""
    runner.ok("run", "echo base > base")
    pid = runner.pid()
    before = descriptors(pid)
    yield runner
    runner.ok("run", "--wait", "true")
    # A connection that is just closing: a few, but not one for each client.
    until(lambda: descriptors(pid) < before + 8 and not readers(runner, pid))
    assert runner.pid() == pid
    assert {each["status"] for each in runner.ok("runs", "--json").result} <= {"done", "interrupted"}
    assert os.listdir(runner.repository / "run" / "logs") == []
    log = (runner.repository / "run" / "log").read_text()
    assert " ERROR " not in log and "Traceback" not in log, log


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def readers(runner: Runner, pid: int) -> list[str]:
    """The transactions that a process has open: lines of pid, thread and number (none: "-", a slot that is kept)."""
    with lmdb.open(str(runner.repository / "store"), readonly=True, create=False) as store:
        slots = [line.split() for line in store.readers().splitlines()]
    return [slot[-1] for slot in slots if slot[0] == str(pid) and slot[-1] != "-"]


def each_at_once(act: Callable[[int], object], clients: int = CLIENTS) -> list[Any]:
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(act, range(clients)))


# ---- what is no request


WHOLE = st.integers(-(2**63), 2**64)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), WHOLE, st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
NAMES = {
    "run.begin": [
        *("program", "cwd", "env", "executable", "umask", "privileged", "message", "serve", "keep", "pure"),
        *("max_age", "executor", "stdin", "retry", "on_failure", "dirty", "wait", "ws", "argv", "actor"),
    ],
    "run.executor": ["run", "executor"],
    "run.end": ["run", "exit", "signal", "started", "ended", "killed", "keep", "argv", "actor"],
    "place": ["run", "pid", "ws"],
}
SLIPS = st.sampled_from(
    [(method, name) for method, names in NAMES.items() for name in names if (method, name) != ("run.end", "run")]
)


def test_no_value_of_a_parameter_is_a_bug(served: Runner) -> None:
    """It is taken, or refused by a message; whoever else runs something there does not notice."""

    @settings(max_examples=150)
    @given(SLIPS, VALUES)
    @example(("run.begin", "program"), {"shell": ["\ud800"]})
    @example(("run.begin", "program"), {"argv": ["x", "\ud800"]})
    @example(("run.begin", "env"), [["A", "\ud800"]])
    @example(("run.begin", "env"), [["A", "1"], ["A", "2"]])
    @example(("run.begin", "env"), [["A=B", "1"]])
    @example(("run.begin", "executable"), ["/dev/zero"])
    @example(("run.begin", "umask"), 2**62)
    @example(("run.end", "killed"), ["\udcff"])
    @example(("run.end", "exit"), 2**62)
    def answered(slip: tuple[str, str], value: Any) -> None:
        method, name = slip
        with Talk(served) as talk:
            now = time.time_ns()
            parameters: dict[str, Any] = {"run.begin": asked(served, "touch x"), "place": {}}.get(method, {})
            if method in ("run.end", "run.executor"):
                begun = talk.call("run.begin", **asked(served, "touch x"))["result"]
                parameters = {"run": begun["run"], "executor": 1}
                if method == "run.end":
                    for log in begun["logs"]:
                        Path(os.fsdecode(path_of(log))).touch()
                    parameters = {"run": begun["run"], "exit": 0, "started": now, "ended": now}
            answer = talk.call(method, **{**parameters, name: value})
            assert "result" in answer or answer["error"]["code"] in (BAD_PARAMS, FAILED), answer

    answered()


class Talk:
    """A connection that may say anything, and is over when it is left."""

    def __init__(self, runner: Runner) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(f"{runner.repository}/run/socket")
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_raised: object) -> None:
        """The daemon is done with it."""
        self.socket.shutdown(socket.SHUT_WR)
        while self._lines.readline():
            pass
        self._lines.close()
        self.socket.close()

    def say(self, method: str, **parameters: Any) -> None:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.say(method, **parameters)
        return dict(json.loads(self._lines.readline()))

    def vanish(self) -> None:
        self._lines.close()
        self.socket.close()


def test_what_can_be_no_command_is_refused(served: Runner) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"env": [["A", "1"], ["A", "2"]]}, "env has A twice"),
        ({"env": [["A=B", "1"]]}, "env has A=B with = in its name"),
        ({"env": [["A", "\ud800"]]}, "lone surrogates"),
        ({"cwd": [f"{served.work}/../elsewhere"]}, "cwd is .path., from / on and without . and .."),
        ({"cwd": ["relative"]}, "cwd is .path."),
        ({"executable": ["sh"]}, "executable is .path."),
        ({"umask": 0o1000}, "umask is a number from 0 to 511"),
        ({"program": {"shell": "true"}}, "program is"),
    ]
    with Client(served.repository) as client:
        for more, said in wrong:
            with pytest.raises(UsageError, match=said):
                client.call("run.begin", **asked(served, "true", **more))


def test_what_is_no_plain_file_is_no_program_that_is_read(served: Runner) -> None:
    """A pipe that nobody writes to, a device that never ends, a file of another workspace: nobody waits for them."""
    os.mkfifo(served.folder / "fifo")
    served.ok("fork", "other")
    for path in (served.folder / "fifo", Path("/dev/zero"), served.work / ".fusecas" / "ws" / "other" / "base"):
        with Client(served.repository) as client:
            end(client, begin(client, served, f"touch {path.name}", executable=[str(path)]))


def test_an_end_that_can_not_be_is_refused_and_can_be_told_again(served: Runner) -> None:
    wrong = {"exit": 256}, {"signal": 65}, {"started": 2, "ended": 1}, {"killed": ["\ud800"]}, {"killed": [1]}
    with Client(served.repository) as client:
        begun = begin(client, served, "touch x")
        for more in wrong:
            with pytest.raises(UsageError):
                client.call("run.end", **{"run": begun["run"], "exit": 0, "started": 1, "ended": 2, **more})
        assert end(client, begun)["mixed"] is None


# ---- many at once


def test_of_twenty_that_begin_at_once_one_runs_and_the_others_are_told_which(served: Runner) -> None:
    clients = [Client(served.repository) for _ in range(CLIENTS)]

    def attempt(number: int) -> Any:
        try:
            return begin(clients[number], served, f"echo {number} > made")
        except StillRunning as error:
            return error

    came = each_at_once(attempt)
    (number,) = [at for at, each in enumerate(came) if isinstance(each, dict)]
    refused = [each for each in came if isinstance(each, StillRunning)]
    assert len(refused) == CLIENTS - 1
    assert {each.details["run"] for each in refused} == {came[number]["run"]}
    (served.work / "made").write_text(f"{number}")
    assert end(clients[number], came[number])["layer"] is not None
    for each in clients:
        each.close()


def test_twenty_that_wait_are_served_in_turn(served: Runner) -> None:
    lock, on = threading.Lock(), []

    def run(number: int) -> str:
        with Client(served.repository) as client:
            begun = begin(client, served, f"echo {number} > made", wait=True)
            with lock:
                on.append(number)
                assert len(on) == 1
            (served.work / "made").write_text(f"{number}")
            with lock:
                on.remove(number)
            return str(end(client, begun)["layer"])

    layers = each_at_once(run)
    assert len(set(layers)) == CLIENTS
    assert {each["hash"] for each in served.ok("log", "--json").result} >= set(layers)


def test_twenty_in_a_fork_each_run_all_at_once(served: Runner) -> None:
    names = [f"fork{number}" for number in range(CLIENTS)]
    with Client(served.repository) as client:
        for name in names:
            client.call("fork", name=name)
    all_are_on = threading.Barrier(CLIENTS)

    def run(number: int) -> None:
        place = served.work / ".fusecas" / "ws" / names[number]
        thread = threading.get_native_id()
        with Client(served.repository) as client:
            begun = begin(client, served, "make it", ws=names[number], cwd=[str(place)], executor=thread)
            all_are_on.wait(30)
            (place / "made").write_text(f"{number}")
            ended = end(client, begun)
            assert (ended["added"], ended["mixed"]) == (1, None)
        assert sorted(os.listdir(place)) == ["base", "made"] and (place / "made").read_text() == f"{number}"

    each_at_once(run)
    assert os.listdir(served.work) == ["base"]
    with Client(served.repository) as client:
        for name in names:
            client.call("ws.rm", name=name)


# ---- who goes


def test_who_goes_at_any_moment_leaves_nothing_on(served: Runner) -> None:
    """Before the answer, after it, before and after it is said who executes, in the middle of the end, and after it."""

    def go(number: int) -> None:
        talk, moment = Talk(served), number % 7
        more = {"wait": True} if number >= CLIENTS else {}
        talk.say("run.begin", **asked(served, f"touch {number}", **more))
        if moment == 0:
            return talk.vanish()
        begun = json.loads(talk._lines.readline())
        if "error" in begun or moment == 1:
            return talk.vanish()
        run = begun["result"]["run"]
        if moment >= 2:
            talk.say("run.executor", run=run, executor=os.getpid())
        if moment >= 3:
            talk._lines.readline()
        (served.work / f"half{number}").touch()
        if moment == 4:
            talk.socket.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "run.end", "params": {"run": "' + run.encode())
        if moment >= 5:
            for log in begun["result"]["logs"]:
                Path(os.fsdecode(path_of(log))).touch()
            talk.say("run.end", run=run, exit=0, started=1, ended=2)
        if moment == 6:
            talk._lines.readline()
        return talk.vanish()

    each_at_once(go, 2 * CLIENTS)


def test_nobody_ends_or_changes_the_run_of_another(served: Runner) -> None:
    with Client(served.repository) as one, Client(served.repository) as other:
        begun = begin(one, served, "touch x")
        now = time.time_ns()
        for method, more in (("run.executor", {"executor": 1}), ("run.end", {"exit": 0, "started": now, "ended": now})):
            for number in (begun["run"], "00" * 16, "", "0" * 31, "x", "é"):
                with pytest.raises((NotFound, UsageError)):
                    other.call(method, run=number, **more)
        assert other.call("place", run="x", pid=2**62)["run"] is None
        assert other.call("place", run=begun["run"])["run"] == begun["run"]
        assert end(one, begun)["mixed"] is None


def test_a_run_that_is_too_long_to_be_asked_for_is_refused_before_anything_happens(served: Runner) -> None:
    with Talk(served) as talk:
        for size in (LONGEST_REQUEST, 5 * LONGEST_REQUEST):
            assert talk.call("run.begin", **asked(served, "x" * size))["error"]["code"] == -32600
            assert "result" in talk.call("status")
