"""Signals that are passed on or not, descendants that are hard to find or to end, writers that can't be told."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.mount.ordinary import IS_ROOT
from tests.run.conftest import Runner
from tests.run.test_bracket import is_alive, is_asleep, sleeping, started, until


def test_a_hangup_is_passed_on_and_what_the_terminal_sends_is_not(runner: Runner) -> None:
    """The terminal sends to the whole group by itself."""
    text = "trap 'echo hup > told' HUP; trap 'echo int > told' INT; trap 'echo quit > told' QUIT"
    process = started(runner, f"{text}; touch {runner.folder}/set; until [ -e told ]; do sleep 0.02; done")
    until((runner.folder / "set").exists)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        process.send_signal(number)
    assert process.wait(TIMEOUT) == 0
    assert (runner.work / "told").read_text() == "hup\n"


def test_quit_at_the_terminal_ends_the_command_and_then_us_by_the_same_signal(runner: Runner) -> None:
    runner.ok("run", "true")
    process = runner.start("run", sleeping(runner), stderr=subprocess.DEVNULL, process_group=0)
    until(lambda: is_asleep(runner))
    os.killpg(process.pid, signal.SIGQUIT)
    assert process.wait(TIMEOUT) == -signal.SIGQUIT
    assert runner.ok("runs", "--json").result[0]["signal"] == signal.SIGQUIT


def test_a_command_is_in_the_process_group_of_its_caller(runner: Runner) -> None:
    text = f"cut -d' ' -f5 /proc/self/stat > {runner.folder}/group"
    process = runner.start("run", text, stderr=subprocess.DEVNULL, process_group=0)
    assert process.wait(TIMEOUT) == 0
    assert int((runner.folder / "group").read_text()) == process.pid


@pytest.mark.parametrize(("stream", "mode"), [("stdin", "rb"), ("stderr", "wb")])
def test_neither_is_a_file_of_the_workspace_read_nor_complained_to(runner: Runner, stream: str, mode: str) -> None:
    runner.json("echo x > file")
    with (runner.work / "file").open(mode) as file:
        refused = runner.run("run", "--json", "cat; echo y >&2", **{stream: file})
    assert refused.code == 125 and f"{stream} is a file of this workspace" in refused.error["message"]
    assert refused.error["hint"] is not None


def test_what_another_adopter_of_orphans_holds_is_found_and_ended(runner: Runner) -> None:
    """Its orphans are never our children as long as it lives."""
    script = runner.folder / "adopter.py"
    script.write_text(
        "import ctypes, os, subprocess, sys, time\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "subprocess.run(['sh', '-c', 'setsid sleep 100 & echo $! > ' + sys.argv[1]])\n"
        "os.rename(sys.argv[1], sys.argv[2])\n"
        "time.sleep(100)\n"
    )
    pid = runner.folder / "pid"
    came = runner.json(
        f"{sys.executable} {script} {pid}.new {pid} & until [ -e {pid} ]; do sleep 0.02; done; touch made"
    )
    assert came["added"] == 1 and not is_alive(int(pid.read_text()))
    assert sorted(str(each).split()[0] for each in came["killed"])[1:] == ["sleep"]  # type: ignore[attr-defined]


def test_what_does_not_end_when_it_is_told_to_is_killed(runner: Runner) -> None:
    """After five seconds."""
    pid = runner.folder / "pid"
    stubborn = f'trap "" TERM; echo $$ > {pid}; while :; do sleep 1; done'
    came = runner.json(f"sh -c '{stubborn}' & until [ -s {pid} ]; do sleep 0.02; done; touch made")
    assert came["exit_code"] == 0 and came["added"] == 1 and not is_alive(int(pid.read_text()))
    assert any(str(each).startswith("sh (") for each in came["killed"])  # type: ignore[attr-defined]


# ---- whose number is 0


class Capsule(Runner):
    """All that it starts lives in namespaces of processes and mounts of its own, and ends with them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        options = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._holder = subprocess.Popen(
            ["unshare", *options, "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self.first = int(children.read_text())

    def start(self, *words: str | bytes, env: dict[str, str] | None = None, **how: Any) -> "subprocess.Popen[bytes]":
        spaces = [f"--{name}=/proc/{self.first}/ns/{kind}" for name, kind in (("mount", "mnt"), ("pid", "pid"))]
        within = ["nsenter", *spaces, "env", "-C", str(self.folder)]
        return subprocess.Popen([*within, PROGRAM, *words], env={**ENVIRONMENT, **(env or {})}, **how)

    def close(self) -> None:
        self._holder.communicate(timeout=TIMEOUT)


@pytest.fixture
def capsule(tmp_path: Path) -> Iterator[Capsule]:
    assert IS_ROOT, "such namespaces can be made by root alone"
    made = Capsule(tmp_path)
    yield made
    made.close()


def test_who_can_not_be_told_at_all_is_an_outsider(capsule: Capsule) -> None:
    """From outside of the daemon's processes: the kernel tells it the number 0."""
    begun, go = capsule.folder / "begun", capsule.folder / "go"
    with (capsule.folder / "said").open("wb") as said:
        process = capsule.start(
            "run", f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done; touch made", stderr=said
        )
    until(begun.exists)
    Path(f"/proc/{capsule.first}/root{capsule.work}/theirs").write_text("x")
    go.touch()
    assert process.wait(TIMEOUT) == 0
    complaint = "not remembered: others had a hand in it: a process that can't be told changed theirs"
    assert complaint in (capsule.folder / "said").read_text()
    capsule.ok("umount")
