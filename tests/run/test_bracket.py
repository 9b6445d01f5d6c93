"""Around a command: who is waited for, who is ended, what signals do, and what a crash leaves."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.run.conftest import Runner


def until(what: Callable[[], object]) -> None:
    give_up = time.monotonic() + TIMEOUT
    while not what():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(0.01)


def started(runner: Runner, text: str) -> "subprocess.Popen[bytes]":
    """A run that is on: its command has begun to wait for the file `go` outside."""
    with (runner.folder / "said").open("wb") as said:
        process = runner.start("run", f"touch {runner.folder}/begun; {text}", stderr=said)
    until((runner.folder / "begun").exists)
    return process


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_what_a_command_leaves_running_is_ended_and_named(runner: Runner) -> None:
    pid = runner.folder / "pid"
    sleeping = "until grep -q sleep /proc/$p/comm; do :; done"
    text = f"(setsid sleep 100 & echo $! > {pid}); sleep 101 & for p in $! $(cat {pid}); do {sleeping}; done"
    came = runner.json(f"{text}; echo done > file")
    assert sorted(str(each).split()[0] for each in came["killed"]) == ["sleep", "sleep"]  # type: ignore[attr-defined]
    assert not is_alive(int(pid.read_text()))
    assert came["added"] == 1


def test_what_descendants_write_before_they_end_is_part_of_the_run(runner: Runner) -> None:
    script = "trap 'echo late > late; exit' TERM; echo ready > ready; while :; do sleep 0.05; done"
    came = runner.json(f'sh -c "{script}" & while [ ! -e ready ]; do sleep 0.05; done')
    assert (runner.work / "late").read_text() == "late\n" and came["added"] == 2
    assert runner.changes() == {}


def test_a_command_that_takes_too_long_is_ended(runner: Runner) -> None:
    said = runner.run("run", "--timeout", "0.5", "echo begun > begun; sleep 100")
    assert said.code == 124 and "timed out" in said.stderr
    assert runner.changes() == {"begun": "A"}


def test_the_program_dies_of_the_signal_that_the_command_died_of(runner: Runner) -> None:
    runner.ok("run", "true")
    assert runner.run("run", "kill -TERM $$").code == -signal.SIGTERM
    assert runner.run("run", "kill -SEGV $$").code == 128 + signal.SIGSEGV


def test_a_signal_that_is_sent_to_the_program_reaches_the_command(runner: Runner) -> None:
    trapped = runner.folder / "trapped"
    text = f"trap 'echo told > told; exit 9' TERM; touch {trapped}; while :; do sleep 0.05; done"
    process = started(runner, text)
    until(trapped.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 9
    assert runner.changes() == {"told": "A"}


def test_ctrl_c_reaches_both_and_the_program_tells_what_came_of_it(runner: Runner) -> None:
    runner.ok("run", "true")
    text = f"echo half > half; {sleeping(runner)}"
    process = runner.start("run", text, stderr=subprocess.PIPE, process_group=0)
    until(lambda: is_asleep(runner))
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGINT and b"uncommitted: 1 added" in said
    assert runner.changes() == {"half": "A"}


def test_a_reader_that_goes_ends_the_command_as_in_a_pipe(runner: Runner) -> None:
    runner.ok("run", "true")
    text = f"{runner.repository.parent}/pipe.sh"
    Path(text).write_text(f"{PROGRAM} run 'yes; echo $? > {runner.folder}/status' | head -1\n")
    done = subprocess.run(["sh", text], cwd=runner.folder, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.stdout == "y\n"


def test_while_a_command_runs_nothing_else_moves_its_workspace(runner: Runner) -> None:
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.05; done; echo done > done")
    for words in (("commit",), ("checkout", "@empty"), ("undo",)):
        refused = runner.run(*words)
        assert refused.code == 4 and "a command is running" in refused.stderr
    assert runner.run("run", "true").code == 125
    assert runner.ok("status").code == 0
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0
    runner.ok("undo")


def test_the_program_is_killed_and_what_the_command_did_is_uncommitted(runner: Runner) -> None:
    pids = runner.folder / "pids"
    process = started(runner, f"setsid sleep 100 & echo $$ $! > {pids}; echo half > half; sleep 100")
    until((runner.work / "half").exists)
    process.kill()
    process.wait()
    until(lambda: runner.run("commit", "-m", "left").code == 0)
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())
    assert runner.ok("log", "--json").result[0]["instruction"] == "left"
    runner.ok("run", "echo more > more")


def test_the_daemon_is_killed_and_the_command_is_ended(runner: Runner) -> None:
    process = started(runner, f"echo half > half; echo $$ > {runner.folder}/pid; sleep 100")
    until(lambda: (runner.folder / "pid").exists() and (runner.folder / "pid").read_text())
    runner.kill()
    assert process.wait(TIMEOUT) == 125 and "the daemon has gone" in (runner.folder / "said").read_text()
    until(lambda: not is_alive(int((runner.folder / "pid").read_text())))
    came = runner.json("cat half > copy")  # mounts again
    assert came["edits"] is not None and (runner.work / "copy").read_text() == "half\n"


def test_a_shell_that_stands_in_a_mount_that_has_died_goes_on(runner: Runner) -> None:
    """As a person at a prompt, who has not gone anywhere: in the root, and deeper."""
    runner.json("mkdir -p d/e; echo first > first")
    script = f"""
        cd {runner.work}/d
        kill -9 {runner.pid()}; while {PROGRAM} status | grep -q 'mounted at'; do sleep 0.05; done
        {PROGRAM} run 'pwd; echo second > second' || exit 1
        {PROGRAM} status || exit 2
        {PROGRAM} checkout --discard . || exit 3
        {PROGRAM} run --cwd e pwd || exit 4
        cd .; cat second
    """
    done = subprocess.run(["bash", "-c", script], cwd=runner.folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done
    assert f"{runner.work}/d\n" in done.stdout and f"{runner.work}/d/e\n" in done.stdout
    assert done.stdout.endswith("second\n") and "cd . goes into the new one" in done.stderr


def test_undo_of_an_interrupted_run_brings_back_what_was_there_before(runner: Runner) -> None:
    runner.ok("run", "true")
    for kill_daemon in (False, True):
        (runner.work / "precious").write_text("precious")
        process = started(runner, "rm precious; sleep 100")
        until(lambda: not (runner.work / "precious").exists())
        if kill_daemon:
            runner.kill()
        else:
            process.kill()
        process.wait(TIMEOUT)
        until(lambda: runner.run("run", "true").code == 0)  # mounts again; the leftovers are ended, it is recorded
        assert [each["status"] for each in runner.ok("runs", "--json").result][1] == "interrupted"
        runner.ok("undo")
        assert (runner.work / "precious").read_text() == "precious"
        (runner.folder / "begun").unlink()


def test_a_run_in_a_run_is_part_of_it(runner: Runner) -> None:
    inner = f"{PROGRAM} run 'echo inner > inner'"
    came = runner.json(f"{inner}; echo outer > outer")
    assert came["added"] == 2
    assert len(runner.ok("log", "--json").result) == 1


def test_output_into_the_workspace_is_refused(runner: Runner) -> None:
    runner.ok("run", "true")
    with (runner.work / "log").open("wb") as log:
        refused = runner.run("run", "echo x", stdout=log)
    assert refused.code == 125 and "stdout is a file of this workspace" in refused.stderr


def test_many_runs_leave_nothing_behind(runner: Runner) -> None:
    """Two hundred by one program, a few by one each: no descriptor, task or process more, here or in the daemon."""
    runner.ok("run", "true")
    seen = runner.folder / "seen"
    sleep = f"sleep {100_000 + os.getpid()}"
    text = f"ls /proc/$PPID/fd | wc -l >> {seen}; ls /proc/$PPID/task | wc -l >> {seen}; echo $N | tee file; {sleep} &"
    lines = [text.replace("$N", str(number)) for number in range(20)]
    runner.ok(
        "batch", "--no-cache", "-", input="\n".join(lines).encode()
    )  # threads and descriptors that are kept for later
    pid = runner.pid()

    def counts() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task")]

    before = counts()
    seen.unlink()
    runner.ok("batch", "-", input="\n".join(f"echo {number} > file" for number in range(200)).encode())
    runner.ok("batch", "--no-cache", "-", input="\n".join(lines).encode())
    for number in range(5):
        runner.ok("run", f"echo {number} > file")
    # A worker that waits for more to do, a connection that is just closing: a few, but not one for each run.
    assert all(now < then + 8 for now, then in zip(counts(), before, strict=True))
    found = seen.read_text().split()
    counted = list(map(int, found))
    assert counted[-2] <= counted[0] and counted[-1] <= counted[1] and len(found) == 2 * len(lines)
    assert os.listdir(runner.repository / "run" / "logs") == []
    assert not is_running(sleep)


def is_running(words: str) -> bool:
    wanted = words.replace(" ", "\0").encode() + b"\0"
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(entry.path, "cmdline").read_bytes() == wanted:
                    return True
    return False


def test_a_command_that_is_killed_is_told_as_by_a_shell(runner: Runner) -> None:
    runner.ok("run", "true")
    process = started(runner, f"echo half > half; {sleeping(runner)}")
    until(lambda: is_asleep(runner))
    os.kill(int((runner.folder / "pid").read_text()), signal.SIGKILL)
    assert process.wait(TIMEOUT) == 128 + signal.SIGKILL
    record = runner.ok("runs", "--json").result[0]
    assert (record["exit"], record["signal"]) == (137, 9) and runner.changes() == {"half": "A"}


def sleeping(runner: Runner) -> str:
    """What a signal ends whenever it comes: a shell misses one that comes while it begins a command, or ends one."""
    return f"echo $$ > {runner.folder}/pid; exec sleep 100"


def is_asleep(runner: Runner) -> bool:
    pid = runner.folder / "pid"
    number = pid.read_text().strip() if pid.exists() else ""
    return bool(number) and Path(f"/proc/{number}/comm").read_text() == "sleep\n"


# ---- on a terminal


@contextmanager
def terminal(runner: Runner, *words: str) -> Iterator[int]:
    """A program that has a terminal of its own, whose other end is given."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(runner.folder)
        os.execve(words[0], words, {**ENVIRONMENT, "HOME": "/nowhere", "PS1": "$ "})
    try:
        yield master
    finally:
        os.close(master)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_command_sees_the_size_of_the_window_change(runner: Runner) -> None:
    runner.ok("run", "true")
    text = "trap 'stty size < /dev/tty > size' WINCH; touch begun; while [ ! -s size ]; do sleep 0.02; done"
    with terminal(runner, str(PROGRAM), "run", text) as master:
        until((runner.work / "begun").exists)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        until(lambda: len(runner.ok("log", "--json").result) == 1)
    assert (runner.work / "size").read_text() == "33 77\n"


def test_ctrl_z_stops_both_and_fg_goes_on_with_both(runner: Runner) -> None:
    runner.ok("run", "true")
    place, pid = runner.folder, runner.folder / "pid"
    text = f"echo $$ > {pid}; while [ ! -e {place}/go ]; do sleep 0.02; done; echo made > made"
    with terminal(runner, "/bin/bash", "--norc", "--noprofile", "-i") as master:
        os.write(master, f"{PROGRAM} run '{text}'; echo $? > {place}/code\n".encode())
        until(lambda: pid.exists() and pid.read_text())
        os.write(master, b"\x1a")
        until(lambda: Path(f"/proc/{os.tcgetpgrp(master)}/comm").read_text() == "bash\n")
        until(
            lambda: state_of(int(pid.read_text())) in "TD"
        )  # D: it waits for its child, which was stopped before exec
        (place / "go").touch()
        assert runner.run("commit").code == 4  # it is on
        os.write(master, b"fg\n")
        until(lambda: len(runner.ok("log", "--json").result) == 1)
        assert (runner.work / "made").exists()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_c_on_a_terminal_ends_a_loop_of_the_shell_too(runner: Runner) -> None:
    """It goes on after an exit code, and ends after a signal: so ours must be one."""
    runner.ok("run", "true")
    place = runner.folder
    script = f"for n in 1 2; do {PROGRAM} run '{sleeping(runner)}'; touch {place}/after; done"
    with terminal(runner, "/bin/bash", "-c", script) as master:
        until(lambda: is_asleep(runner))
        os.write(master, b"\x03")
        read_until_closed(master)
    assert not (place / "after").exists()


def read_until_closed(master: int) -> None:
    with suppress(OSError):  # EIO: the last who had it open has closed it
        while os.read(master, 1 << 16):
            pass
