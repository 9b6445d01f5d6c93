"""What a command says: it comes in order and whole, and nobody who does not read it holds the command."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.calling import PROGRAM, TIMEOUT
from tests.mount.conftest import end
from tests.run.conftest import Runner
from tests.run.test_bracket import is_alive, until

FULL = 1 << 22
"""More than all pipes and buffers on the way take."""


def test_a_command_that_takes_too_long_is_ended_though_nobody_reads_what_it_says(runner: Runner) -> None:
    runner.ok("run", "true")
    pid = runner.folder / "pid"
    process = runner.start("run", "--timeout", "1", f"echo $$ > {pid}; exec yes", stdout=subprocess.PIPE)
    until(lambda: pid.exists() and pid.read_text())
    began = time.monotonic()
    until(lambda: not is_alive(int(pid.read_text())))
    assert time.monotonic() - began < 5
    until(lambda: runner.ok("runs", "--json").result[0]["exit"] == 124)
    assert process.stdout is not None and process.stdout.read(2) == b"y\n"
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == 124


def test_who_does_not_read_what_was_said_before_the_time_was_over_is_not_waited_for(runner: Runner) -> None:
    runner.ok("run", "true")
    said = runner.folder / "said"
    with said.open("wb") as errors:
        process = runner.start("run", "--timeout", "0.5", "exec yes", stdout=subprocess.PIPE, stderr=errors)
    assert process.wait(TIMEOUT) == 124
    assert "whoever reads the output does not" in said.read_text()
    process.communicate()


def test_a_slow_reader_gets_all_and_the_command_waits_for_it(runner: Runner) -> None:
    runner.ok("run", "true")
    text = f"head -c {FULL} /dev/zero; touch {runner.folder}/done; echo made > made"
    with runner.start("run", text, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(0.3)  # not for something to happen: it is shown that it does not
        assert not (runner.folder / "done").exists()
        assert len(process.stdout.read()) == FULL - 1
        assert process.wait(TIMEOUT) == 0
    assert runner.json("cat made")["stdout"] == "made\n"


def test_a_layer_does_not_wait_for_a_reader_once_its_command_has_ended(runner: Runner) -> None:
    runner.ok("run", "true")
    with runner.start("run", "head -c 300000 /dev/zero; echo made > made", stdout=subprocess.PIPE) as process:
        until(lambda: len(runner.ok("log", "--json").result) == 1)
        assert process.poll() is None and process.stdout is not None
        assert len(process.stdout.read()) == 300_000
        assert process.wait(TIMEOUT) == 0


def test_stdout_and_stderr_to_one_place_come_in_turn_however_late_they_are_read(runner: Runner) -> None:
    runner.ok("run", "true")
    text = f"head -c 300000 /dev/zero; sleep 0.2; echo end >&2; sleep 0.2; touch {runner.folder}/done"
    with runner.start("run", text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until((runner.folder / "done").exists)
        said, _ = process.communicate(timeout=TIMEOUT)
    assert said.startswith(bytes(300_000) + b"end\n")


def test_who_else_holds_the_pipe_and_writes_on_is_not_waited_for(runner: Runner) -> None:
    """It is no descendant: it was handed the pipe."""
    runner.ok("run", "true")
    script = runner.folder / "taker.py"
    script.write_text(
        "import os, socket, sys\n"
        f"place = {str(runner.folder / 'socket')!r}\n"
        "with socket.socket(socket.AF_UNIX) as one:\n"
        "  one.bind(place); one.listen()\n"
        "  other = one.accept()[0]\n"
        "  pipe = socket.recv_fds(other, 1, 1)[1][0]\n"
        "try:\n"
        "  while True: os.write(pipe, b'x' * 1000)\n"
        "except BrokenPipeError: pass\n"
    )
    giver = "import socket; s = socket.socket(1); s.connect('socket'); socket.send_fds(s, [b'x'], [1])"
    with subprocess.Popen(["python3", script]) as taker:
        until((runner.folder / "socket").exists)
        came = runner.run("run", f'cd {runner.folder}; exec python3 -c "{giver}"')
        assert came.code == 0 and set(came.stdout) <= {ord("x")}
        assert taker.wait(TIMEOUT) == 0


def test_what_is_over_the_limit_is_passed_on_but_not_recorded_and_the_run_not_remembered(runner: Runner) -> None:
    runner.ok("run", "true")
    text = "head -c 70000000 /dev/zero; echo made > made"
    with runner.start("run", text, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and len(stdout) == 70_000_000
    assert b"more than 64.0 MiB" in stderr
    assert runner.ok("runs", "--json").result[0]["kept"] is False
    logged = runner.ok("logs", "@").stdout
    assert logged.endswith(b"over the limit of what is recorded\n") and len(logged) < 68_000_000
    runner.ok("undo")
    assert runner.json("true")["truncated"] is False


def test_head_ends_a_command_as_in_any_pipe(runner: Runner) -> None:
    runner.ok("run", "true")
    script = f"{PROGRAM} run 'yes; echo \"$?\" > {runner.folder}/status' | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=runner.folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stdout == f"y\ny\n{128 + signal.SIGPIPE}\n"


def test_a_daemon_that_a_run_has_started_outlives_it(runner: Runner, request: pytest.FixtureRequest) -> None:
    other = runner.folder / "other"
    other.mkdir()
    assert runner.run("init", cwd=other).code == 0
    place = Runner(other)
    request.addfinalizer(lambda: end(place))
    came = runner.json(f"cd {other} && {PROGRAM} mount && echo made > {other}/.fusecas/work/made; sleep 30 & true")
    assert len(came["killed"]) == 1  # type: ignore[arg-type]
    assert (place.work / "made").read_text() == "made\n" and is_alive(place.pid())
    environ = Path(f"/proc/{place.pid()}/environ").read_bytes()
    assert b"FUSECAS_RUN" not in environ
    place.ok("umount")
    assert os.listdir(place.work) == []
