"""The edges of a run: what is seen while it begins, who may end it, and what gc leaves it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fusecas.client import Client
from fusecas.errors import FusecasError, InUse, NotFound, UsageError
from fusecas.run.request import Request
from fusecas.run.runs import Running, Runs
from fusecas.store.repository import Repository
from fusecas.wire import path_of
from fusecas.workspace.mover import Deed
from fusecas.workspace.sides import ROOT
from fusecas.workspace.workspace import Workspace
from tests.cli.calling import PROGRAM, TIMEOUT
from tests.mount.conftest import kill
from tests.run.conftest import Runner
from tests.run.test_bracket import started, until

DEATHS, SPAN = 6, 0.6


def begin(client: Client, runner: Runner, text: str, executor: int) -> dict[str, Any]:
    words = {"program": {"shell": [text]}, "cwd": [str(runner.work)], "env": []}
    begun: dict[str, Any] = client.call("run.begin", **words, executor=executor)
    for log in begun["logs"]:
        with open(path_of(log), "wb"):
            pass
    return begun


def end(client: Client, begun: dict[str, Any]) -> dict[str, Any]:
    now = time.time_ns()
    return client.call("run.end", run=begun["run"], exit=0, started=now, ended=now)


@contextmanager
def another(script: str) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            yield process
        finally:
            process.kill()


def test_who_writes_while_a_run_begins_is_seen(runner: Runner) -> None:
    """Between the seal that the key is made of and the answer there is a moment: so it is tried often."""
    runner.ok("run", "echo 0 > theirs")
    place = runner.work / "theirs"
    writes = (
        "import itertools, time\nfor n in itertools.count():\n  time.sleep(0.0005)\n"
        f"  with open({str(place)!r}, 'w') as file: file.write(str(n))"
    )
    with (
        Client(runner.repository) as client,
        another("import time; time.sleep(1000)") as command,
        another(writes) as writer,
    ):
        for number in range(40):
            begun = begin(client, runner, f"command {number}", command.pid)
            writer.send_signal(signal.SIGSTOP)
            came = end(client, begun)
            writer.send_signal(signal.SIGCONT)
            assert came["mixed"] is not None or came["changed"] == 0


def test_a_run_is_ended_once_however_many_try(runner: Runner) -> None:
    runner.ok("run", "echo base > base")
    with Client(runner.repository) as one, Client(runner.repository) as other:
        for number in range(5):
            begun = begin(one, runner, "command", os.getpid())
            (runner.work / "made").write_text(str(number))
            answers: list[object] = []
            act = partial(_try_to_end, answers, begun)
            ending = [threading.Thread(target=act, args=(client,)) for client in (one, other)]
            for each in ending:
                each.start()
            for each in ending:
                each.join(TIMEOUT)
            assert sorted(map(type, answers), key=str) == [bool, dict]
    assert [each["kind"] for each in runner.ok("log", "--json").result] == ["run"] * 6


def _try_to_end(answers: list[object], begun: dict[str, Any], client: Client) -> None:
    try:
        answers.append(end(client, begun))
    except FusecasError:
        answers.append(False)


def test_gc_beside_a_run_leaves_it_what_it_began_with(runner: Runner) -> None:
    """Also if the workspace was sealed meanwhile: then nothing but the run still needs it."""
    runner.ok("run", "echo base > base")
    (runner.work / "edit").write_text("edited " * 1000)
    process = started(runner, f"rm edit; echo new > new; while [ ! -e {runner.folder}/go ]; do sleep 0.05; done")
    runner.ok("fork", "other")
    runner.ok("run", "--ws", "other", "true")  # seals what it shares
    runner.ok("ws", "rm", "other")
    runner.ok("gc", "--min-age", "0", "--expire", "0")
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0, (runner.folder / "said").read_text()
    runner.ok("undo")
    assert (runner.work / "edit").read_text() == "edited " * 1000


def test_output_that_nobody_can_take_is_no_reason_to_let_the_command_go(runner: Runner) -> None:
    runner.ok("run", "true")
    with open("/dev/full", "wb") as full:
        said = runner.run("run", "echo lost; sleep 0.3; echo done > file", stdout=full)
    assert said.code == 125 and "No space left" in said.stderr
    assert (runner.work / "file").read_text() == "done\n" and runner.changes() == {}
    assert runner.ok("runs", "--json").result[0]["kept"] is False


def test_all_output_arrives_where_writing_does_not_wait(runner: Runner) -> None:
    runner.ok("run", "true")
    end, given = os.pipe()
    os.set_blocking(given, False)
    with runner.start("run", "head -c 1000000 /dev/zero; echo made > made", stdout=given) as process:
        os.close(given)
        with open(end, "rb") as output:
            assert output.read() == bytes(1_000_000)
        assert process.wait(TIMEOUT) == 0


def test_a_run_in_a_run_that_cannot_start_says_so_as_a_shell_does(runner: Runner) -> None:
    inner = f"{PROGRAM} run --"
    said = runner.run("run", f"echo text > text; {inner} ./text; echo $?; {inner} no-such-program; echo $?")
    assert said.text == "126\n127\n" and "no-such-program: No such file" in said.stderr


def test_a_program_with_a_nul_is_refused_by_the_daemon(runner: Runner) -> None:
    runner.ok("run", "true")
    with Client(runner.repository) as client:
        for more in ({"program": {"shell": ["a\0b"]}}, {"executable": ["\0"]}, {"env": [["a", "\0"]]}):
            words: dict[str, Any] = {"program": {"shell": ["true"]}, "env": [], **more}
            with pytest.raises(UsageError, match="NUL"):
                client.call("run.begin", **words)


def test_a_run_begins_only_when_what_moves_its_workspace_has_ended(tmp_path: Path) -> None:
    with Repository.create(tmp_path / ".fusecas") as repository:
        workspace = Workspace(repository)
        runs = Runs(repository.store, repository.folder)
        begun: list[object] = []
        request = Request({"shell": b"true"}, b"", b"/nowhere", (), None, 0o022, privileged=False)
        beginning = threading.Thread(target=lambda: begun.append(runs.begin(workspace, request, Deed())))
        with runs.moving(workspace):
            beginning.start()
            until(lambda: is_refused(runs, workspace))  # it has its turn, and waits
            for number in range(30):
                workspace.overlay.make(ROOT, b"%d" % number, 0o100644, 0o022, os.geteuid(), os.getegid())
                workspace.commit()
            assert begun == []
        beginning.join(TIMEOUT)
        assert isinstance(begun[0], Running) and begun[0].keys.live.state == workspace.seal()
        workspace.close()


def is_refused(runs: Runs, workspace: Workspace) -> bool:
    try:
        with runs.moving(workspace):
            return False
    except InUse:
        return True


def test_a_run_is_ended_by_whoever_began_it(runner: Runner) -> None:
    runner.ok("run", "true")
    with Client(runner.repository) as one, Client(runner.repository) as other:
        begun = begin(one, runner, "touch theirs", os.getpid())
        with pytest.raises(NotFound, match="begun on this connection"):
            end(other, begun)
        assert end(one, begun)["mixed"] is None
        with pytest.raises(NotFound):
            end(one, begun)


def test_a_daemon_that_is_killed_in_a_hit_leaves_all_of_it_or_nothing(runner: Runner) -> None:
    text = runner.counted("mkdir many; for i in $(seq 300); do echo $i > many/$i; done; rm base")
    runner.json("echo base > base")
    layer = runner.json(text)["hash"]
    runner.ok("undo")
    came: list[bool] = []
    for number in range(DEATHS):
        pid = runner.pid()
        process = runner.start("run", text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number == DEATHS - 1:
            process.wait()
        else:
            time.sleep(SPAN * number / DEATHS)  # later and later
        kill(pid)
        process.wait()
        runner.ok("path")
        names = set(os.listdir(runner.work))
        came.append("many" in names)
        assert names == ({"many"} if came[-1] else {"base"})
        head = runner.ok("head", "--json").result["layer"]
        if came[-1]:
            assert head == layer and len(os.listdir(runner.work / "many")) == 300
            runner.ok("undo")
        assert runner.changes() == {}
    assert came[-1] and runner.executions == 1
