"""Other ways to run commands: exec, shell, batch, and runs in runs."""

import json
import os
import pty
import shlex
import signal
from pathlib import Path

import pytest

from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT, Answer, read_all
from tests.mount.conftest import end
from tests.run.conftest import Runner
from tests.run.test_bracket import is_asleep, sleeping, started, until

# ---- exec


def test_exec_makes_no_layer_and_no_record(runner: Runner) -> None:
    runner.json("mkdir d")
    said = runner.run("exec", "--cwd", "d", "-e", "X=1", "cat; pwd; echo $X; echo x > made; exit 5", input=b"passed\n")
    assert (said.code, said.text) == (5, f"passed\n{runner.work}/d\n1\n")
    assert runner.changes() == {"d/made": "A"} and len(runner.ok("runs", "--json").result) == 1
    assert runner.run("exec", "--", "no-such-program").code == 127
    assert runner.run("exec", "--", "./d").code == 126
    assert runner.run("exec", "kill -TERM $$").code == -signal.SIGTERM
    assert runner.run("exec").code == 125


def test_exec_answers_in_json(runner: Runner) -> None:
    said = runner.run("exec", "--json", "echo out; echo err >&2; exit 3")
    assert said.code == 3
    result = said.result
    assert (result["exit_code"], result["stdout"], result["stderr"]) == (3, "out\n", "err\n")
    assert runner.run("exec", "--json", "--", "no-such-program").result["exit_code"] == 127


def test_exec_has_the_terminal(runner: Runner) -> None:
    runner.ok("run", "true")
    assert "terminal" in runner.on_terminal("exec", "test -t 0 && test -t 1 && test -t 2 && echo terminal")


def test_exec_beside_a_run_is_an_outsider(runner: Runner) -> None:
    runner.json("echo x > x")
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.02; done; echo mine > mine")
    runner.ok("exec", "echo theirs > theirs")
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0
    assert "others had a hand in it" in (runner.folder / "said").read_text()


def test_what_is_called_without_a_record_dies_of_a_broken_pipe_as_anywhere(runner: Runner) -> None:
    runner.ok("run", "true")
    inner = f"{PROGRAM} run 'yes | head -1'"
    for words in (("exec", "yes | head -1"), ("run", inner)):
        said = runner.run(*words)
        assert said.text == "y\n" and "roken pipe" not in said.stderr


# ---- shell


def shell(runner: Runner, text: str, *options: str) -> Answer:
    return runner.run("shell", *options, input=text.encode(), env={"SHELL": "/bin/sh"})


def test_a_shell_leaves_one_layer_of_what_no_run_has_made(runner: Runner) -> None:
    runner.json("mkdir d")
    text = f"echo 1 > one; {PROGRAM} run 'echo 2 > two' 2>&1; echo 3 > three; cd /; {PROGRAM} status --json; exit 7\n"
    said = shell(runner, text)
    assert said.code == 7 and '"path": "three"' in said.text
    listed = runner.ok("log", "--json").result
    assert [each["instruction"] for each in listed][:3] == ["(shell)", "echo 2 > two", "(edits)"]
    assert runner.changes() == {}
    runner.ok("undo")
    assert (runner.work / "three").exists() and runner.changes() == {"three": "A"}


def test_a_shell_that_changes_nothing_makes_no_layer(runner: Runner) -> None:
    runner.json("echo x > x")
    (runner.work / "edit").write_text("mine")
    assert "layer" not in shell(runner, "ls; cat edit\n").stderr
    assert runner.changes() == {"edit": "A"}
    said = shell(runner, "rm edit; echo y > y\n", "-m", "tried", "--json")
    assert json.loads(said.stdout.splitlines()[-1])["result"]["layer"] is not None
    assert runner.ok("log", "--json").result[0]["instruction"] == "tried"


def test_a_shell_knows_its_workspace(runner: Runner) -> None:
    runner.json("echo x > x")
    runner.ok("fork", "other")
    place = runner.work / ".fusecas" / "ws" / "other"
    assert shell(runner, "pwd; echo y > y\n", "--ws", "other").lines == [str(place)]
    assert (place / "y").exists() and not (runner.work / "y").exists()
    assert runner.ok("status", "--ws", "other", "--json").result["changes"] == []


def test_a_shell_that_cannot_be_started_says_so(runner: Runner) -> None:
    runner.ok("run", "true")
    said = runner.run("shell", env={"SHELL": "/nowhere/sh"})
    assert said.code == 127 and "/nowhere/sh: No such file" in said.stderr


def test_an_interactive_shell_has_its_jobs(runner: Runner) -> None:
    """Ctrl-C and Ctrl-Z go to what runs in it, not to us."""
    runner.ok("run", "true")
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(runner.folder)
        os.execve(PROGRAM, [str(PROGRAM), "shell"], {**ENVIRONMENT, "SHELL": "/bin/bash", "HOME": "/nowhere"})
    place = runner.folder
    os.write(master, f"touch {place}/ready; sleep 100\n".encode())
    until((place / "ready").exists)
    until(lambda: is_in_foreground(master, "sleep"))
    os.write(master, b"\x1a")
    until(lambda: is_in_foreground(master, "bash"))
    os.write(master, f"jobs > {place}/jobs; fg\n".encode())
    until(lambda: is_in_foreground(master, "sleep"))
    os.write(master, b"\x03")
    until(lambda: is_in_foreground(master, "bash"))
    os.write(master, b"echo x > made; exit 3\n")
    read_all(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert "Stopped" in (place / "jobs").read_text()
    assert runner.ok("log", "--json").result[0]["instruction"] == "(shell)"


def test_a_shell_that_is_told_to_suspend_gives_the_terminal_back_until_fg(runner: Runner) -> None:
    runner.ok("run", "true")
    place = runner.folder
    variables = {**ENVIRONMENT, "SHELL": "/bin/bash", "HOME": "/nowhere"}
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], variables)
    os.write(master, f"{PROGRAM} shell\n".encode())
    os.write(master, f"echo $PPID > {place}/ours; suspend\n".encode())
    until(lambda: (place / "ours").exists() and (place / "ours").read_text())
    ours = int((place / "ours").read_text())
    until(lambda: Path(f"/proc/{ours}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    os.write(master, f"echo outer > {place}/outer; fg\n".encode())
    until((place / "outer").exists)
    os.write(master, b"echo x > made; exit\n")
    until(lambda: not Path(f"/proc/{ours}").exists())
    os.write(master, b"exit 5\n")
    read_all(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert runner.ok("log", "--json").result[0]["instruction"] == "(shell)"


def is_in_foreground(master: int, name: str) -> bool:
    group = os.tcgetpgrp(master)
    try:
        return Path(f"/proc/{group}/comm").read_text().strip() == name
    except OSError:
        return False


# ---- batch


def test_a_batch_runs_line_by_line_and_what_is_known_is_not_run_again(runner: Runner) -> None:
    steps = runner.folder / "steps"
    one, two = (runner.counted(each) for each in ("echo 1 > one", "cat one one > two"))
    steps.write_text(f"# steps\n\n  {one}\n{two}\n")
    said = runner.run("batch", "steps")
    assert said.code == 0 and "2 commands: 2 run, 0 cached" in said.stderr
    runner.ok("undo", "2")
    steps.write_text(f"{one}\n{two}\necho 3 > three\n")
    assert "3 commands: 1 run, 2 cached" in runner.run("batch", "steps").stderr
    assert runner.executions == 2 and sorted(os.listdir(runner.work)) == ["one", "three", "two"]


def test_a_batch_stops_at_the_first_failure_and_exits_as_it_did(runner: Runner) -> None:
    said = runner.run("batch", "-", input=b"echo 1 > one\nexit 3\necho 2 > two\nexit 4\n")
    assert (
        said.code == 3 and "4 commands: 2 run, 0 cached, 1 failed, first 2: exit 3 (exit 3); 2 not run" in said.stderr
    )
    assert os.listdir(runner.work) == ["one"]
    said = runner.run("batch", "-k", "-", input=b"exit 3\necho 2 > two\nexit 4\n")
    assert said.code == 3 and "3 commands: 3 run, 0 cached, 2 failed, first 1: exit 3 (exit 3)" in said.stderr
    assert (runner.work / "two").exists()


def test_a_batch_of_json_has_words_and_answers_in_json(runner: Runner) -> None:
    commands = json.dumps(["echo 'a b'\necho c", ["printf", "%s", "x y"], ["no-such-program"], "true"])
    said = runner.run("batch", "--json", "-", input=commands.encode())
    assert said.code == 127
    results = said.result
    assert [each["stdout"] for each in results] == ["a b\nc\n", "x y", ""]
    assert [each["instruction"] for each in results][1:] == ["printf %s 'x y'", "no-such-program"]
    assert [each["exit_code"] for each in results] == [0, 0, 127]


@pytest.mark.parametrize("text", ['["true"', '["true", 3]', '["true", []]', '[""]', '["a\\u0000b"]', '["\\ud800"]'])
def test_a_batch_that_cannot_be_understood_runs_nothing(runner: Runner, text: str) -> None:
    runner.json("echo x > x")
    refused = runner.run("batch", "-", input=text.encode())
    assert refused.code == 125 and len(runner.ok("runs", "--json").result) == 1


def test_a_batch_begins_with_brackets_of_the_shell(runner: Runner) -> None:
    assert runner.run("batch", "-", input=b"[ -d . ] && echo yes\n").text == "yes\n"
    assert runner.run("batch", "-", input=b"").code == 0
    assert runner.run("batch", "-", input=b"printf %s 'a\x0cb\x85'\r\n").stdout == b"a\x0cb\x85"


def test_an_error_of_ours_is_told_in_its_place(runner: Runner) -> None:
    runner.json("echo x > x")
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.02; done")
    said = runner.run("batch", "--json", "-", input=b"true\ntrue\n")
    assert said.code == 125 and [each["error"]["code"] for each in said.result] == ["still-running"]
    said = runner.run("batch", "-", input=b"true\ntrue\n")
    assert said.code == 125 and "a command is running" in said.stderr and "1 not run" in said.stderr
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0


def test_ctrl_c_ends_a_batch_that_would_go_on(runner: Runner) -> None:
    runner.ok("run", "true")
    (runner.folder / "steps").write_text(f"{sleeping(runner)}\ntouch {runner.folder}/second\n")
    # Tests that run in the background of a shell ignore it.
    process = runner.start(
        "batch", "-k", "steps", process_group=0, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    until(lambda: is_asleep(runner))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(TIMEOUT) == -signal.SIGINT
    assert not (runner.folder / "second").exists()


# ---- runs in runs


def test_whatever_is_called_in_a_run_is_part_of_it(runner: Runner) -> None:
    steps = runner.folder / "steps"
    steps.write_text("echo 1 > one\necho 2\n")
    text = f"{PROGRAM} batch {steps} && {PROGRAM} exec 'echo 3 > three' && {PROGRAM} batch --json {steps}"
    came = runner.json(text)
    assert came["added"] == 2 and len(runner.ok("log", "--json").result) == 1
    assert all(each["nested"] for each in json.loads(str(came["stdout"]).splitlines()[-1])["result"])
    assert "2 commands: 2 run" in str(came["stderr"])


def test_a_run_in_a_run_is_told_by_its_descent_if_the_variables_are_gone(runner: Runner) -> None:
    clean = f"env -i PATH={shlex.quote(os.environ['PATH'])} HOME={runner.folder}"
    came = runner.json(f"{clean} {PROGRAM} run 'echo inner > inner'; {clean} {PROGRAM} run --json true")
    assert came["added"] == 1 and json.loads(str(came["stdout"]))["result"]["run"] == came["run"]


def test_make_may_call_us(runner: Runner) -> None:
    makefile = f"all: a b\na:\n\t{PROGRAM} run 'echo a > a'\nb:\n\t@cd / && {PROGRAM} run -- sh -c 'pwd; echo b > b'\n"
    runner.json(f"printf %s {shlex.quote(makefile)} > Makefile")
    text = runner.counted("make -j2")
    came = runner.json(text)
    assert came["added"] == 2 and f"{runner.work}\n" in str(came["stdout"])
    runner.ok("undo")
    assert runner.json(text)["cached"] is True and runner.executions == 1


def test_a_run_in_another_workspace_is_one_of_its_own(runner: Runner) -> None:
    runner.json("echo base > base")
    runner.ok("fork", "other")
    came = runner.json(f"{PROGRAM} run --ws other 'echo theirs > theirs'; echo mine > mine")
    assert came["added"] == 1 and came["mixed"] is None
    assert runner.ok("log", "--json").result[0]["hash"] == came["hash"]
    theirs = [each["instruction"] for each in runner.ok("runs", "--json").result]
    assert "echo theirs > theirs" in theirs
    place = runner.work / ".fusecas" / "ws" / "other"
    assert (
        sorted(os.listdir(place)) == ["base", "theirs"]
        and runner.ok("status", "--ws", "other", "--json").result["changes"] == []
    )


def test_a_run_in_another_repository_is_one_of_its_own(runner: Runner, request: pytest.FixtureRequest) -> None:
    other = Runner(runner.folder / "elsewhere")
    other.folder.mkdir()
    request.addfinalizer(lambda: end(other))
    other.ok("init")
    came = runner.json(
        f"{PROGRAM} run --repo {other.repository} 'echo x > x'; cd {other.folder}; {PROGRAM} run 'echo y > y'"
    )
    assert came["exit_code"] == 0 and came["empty"] is True and came["killed"] == []
    assert [each["instruction"] for each in other.ok("log", "--json").result] == ["echo y > y", "echo x > x"]


def test_what_moves_the_workspace_is_refused_in_a_run(runner: Runner) -> None:
    runner.json("echo x > x")
    (runner.folder / "d").mkdir()
    words = ["commit", "checkout @empty", "undo", "redo", f"import {runner.folder}/d", "umount", "umount --lazy"]
    text = "; ".join(f"{PROGRAM} {each} > /dev/null 2>&1; echo $?" for each in words)
    came = runner.json(f"echo new > new; {text}; {PROGRAM} status > /dev/null; echo $?")
    assert str(came["stdout"]).split() == ["4"] * len(words) + ["0"]


def test_the_variable_of_a_run_that_is_over_makes_no_run_part_of_it(runner: Runner) -> None:
    came = runner.json("echo x > x")
    inherited = {
        "FUSECAS_RUN": str(came["run"]),
        "FUSECAS_RUN_REPOSITORY": str(runner.repository),
        "FUSECAS_RUN_WORKSPACE": "main",
    }
    assert runner.json("echo y > y", env=inherited)["nested"] is False
