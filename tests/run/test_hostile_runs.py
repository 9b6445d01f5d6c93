"""Commands, names and surroundings that nobody would choose: a run, or an error that says what is wrong."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecas.mount.device import detach
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.mount.conftest import end
from tests.run.conftest import Runner
from tests.run.test_bracket import until

STRANGE = b"caf\xe9 \xff"


def test_words_may_be_any_bytes(runner: Runner) -> None:
    assert runner.run("run", "--", "printf", "%s", STRANGE).stdout == STRANGE
    assert runner.ok("run", "--", "touch", "--", "-e A=B", "\n", "'\"", STRANGE).code == 0
    assert set(os.listdir(os.fsencode(runner.work))) == {b"-e A=B", b"\n", b"'\"", STRANGE}
    nothing = runner.run("run", "--", "")
    assert nothing.code == 127 and "'': No such file" in nothing.stderr
    assert runner.run("run", "").code == 0
    assert runner.run("run", "--", "x" * 300).code == 126  # no name is so long
    assert len(runner.ok("runs", "--json").result) == 5
    runner.ok("runs")


def test_a_long_list_of_words_and_large_variables_are_no_hindrance(runner: Runner) -> None:
    words = [f"{'y' * 100}{number}" for number in range(12_000)]
    text = runner.counted("touch made")
    assert runner.run("run", "--", "true", *words).code == 0
    large = {f"LARGE{number}": "\x01" * 100_000 for number in range(5)}
    assert runner.json(text, env=large)["cached"] is False
    runner.ok("undo")
    assert runner.json(text, env=large)["cached"] is True


def test_variables_of_a_run_that_nobody_has_begun_are_none(runner: Runner) -> None:
    runner.ok("run", "true")
    surrogates = os.fsdecode(b"\xff")
    for number in ("", "nonsense", surrogates, "00" * 16, "\n"):
        nonsense = {"FUSECAS_RUN": number, "FUSECAS_RUN_WORKSPACE": number, "FUSECAS_RUN_REPOSITORY": f"/{number}"}
        came = runner.json("touch made", env=nonsense)
        assert came["nested"] is False and came["added"] == 1
        runner.ok("undo")


def test_hardly_anything_around_it_is_needed(runner: Runner) -> None:
    """No variables, no PATH, no descriptors, few descriptors, no permission for anybody."""
    runner.ok("run", "true")
    call = f"exec {PROGRAM} run"
    scripts = {
        "bare": f"exec env -i {PROGRAM} run 'echo x > bare'",
        "no-path": f"PATH= {call} 'echo x > no-path'",
        "odd-variable": f"exec env -i =odd {PROGRAM} run 'echo x > odd-variable'",
        "no-stdin": f"{call} 'cat > no-stdin' <&-",
        "no-stdout": f"{call} 'echo said; echo x > no-stdout' >&-",
        "nothing": f"{call} 'echo said; echo said >&2; echo x > nothing' <&- >&- 2>&-",
        "few": f"ulimit -n 20; {call} 'echo x > few'",
        "mask": f"umask 0777; {call} 'echo x > mask'",
    }
    for name, script in scripts.items():
        done = subprocess.run(["sh", "-c", script], cwd=runner.folder, env=ENVIRONMENT, timeout=TIMEOUT)
        assert done.returncode == 0, name
    assert set(os.listdir(runner.work)) == set(scripts)
    assert (runner.work / "mask").stat().st_mode & 0o777 == 0o644
    assert {each["status"] for each in runner.ok("runs", "--json").result} == {"done"}
    runner.ok("verify")


def test_a_folder_that_is_gone_is_named_and_not_searched(runner: Runner) -> None:
    runner.ok("run", "mkdir gone")
    for words in (("run", "pwd"), ("status",)):
        script = f"rmdir {runner.work}/gone; exec {PROGRAM} {' '.join(words)}"
        done = subprocess.run(
            ["sh", "-c", script], cwd=runner.work / "gone", env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == (125 if words[0] == "run" else 3)
        assert "the folder that this was called in is gone" in done.stderr and "cd to one" in done.stderr
        runner.ok("undo")


@pytest.fixture
def oddly_placed(tmp_path: Path) -> Iterator[Runner]:
    folder = tmp_path / "with space\nnew 'line' \"quote\" $HOME \\ *"
    folder.mkdir()
    place = Runner(folder)
    yield place
    end(place)


def test_the_path_of_a_workspace_may_hold_any_sign(oddly_placed: Runner) -> None:
    text = "pwd > where; ls > names"
    oddly_placed.json(text)
    assert (oddly_placed.work / "where").read_text() == f"{oddly_placed.work}\n"
    oddly_placed.ok("undo")
    assert oddly_placed.json(text)["cached"] is True
    assert oddly_placed.json("pwd", cwd=oddly_placed.work)["stdout"] == f"{oddly_placed.work}\n"


# ---- commands that mean ill


def test_many_children_with_strange_names_are_ended_and_named(runner: Runner) -> None:
    runner.ok("run", b"cp /bin/sleep ./caf\xe9")
    came = runner.json(b"for n in $(seq 200); do ./caf\xe9 1000 & done; touch made; wait_for=$!; "
                       b"until grep -q caf /proc/$wait_for/comm; do :; done")  # fmt: skip
    assert came["killed"]
    assert all(str(each).startswith(("caf\ufffd (", "sh (")) for each in list(came["killed"]))  # type: ignore[call-overload]
    assert came["added"] == 1


def test_a_command_that_kills_its_group_or_the_program_is_an_end_as_any(runner: Runner) -> None:
    runner.ok("run", "true")
    for number, (text, code) in enumerate({
        "touch group; kill -9 0; sleep 100": -signal.SIGKILL,
        "touch term; kill -TERM 0; sleep 100": -signal.SIGTERM,
        "touch parent; kill -9 $PPID; sleep 100": -signal.SIGKILL,
        "touch stopped; (until grep -q State:.T /proc/$$/status; do :; done; kill -9 $PPID) & kill -STOP $$": -9,
    }.items()):  # fmt: skip
        process = runner.start("run", text, process_group=0, stderr=subprocess.DEVNULL)
        assert process.wait(TIMEOUT) == code, text
        until(lambda: runner.run("run", "true").code == 0)
        assert len(runner.changes()) == number + 1
    assert {each["status"] for each in runner.ok("runs", "--json").result} == {"done", "interrupted"}


def test_what_outlives_its_run_is_a_run_of_its_own(runner: Runner) -> None:
    """It has the number of a run that is over."""
    runner.ok("run", "true")
    number = runner.json("true")["run"]
    runner.ok("run", "touch base")
    late = runner.json("touch late", env={"FUSECAS_RUN": str(number), "FUSECAS_RUN_WORKSPACE": "main"})
    assert late["nested"] is False and late["added"] == 1


def test_a_command_that_unmounts_its_workspace_loses_nothing(runner: Runner) -> None:
    runner.ok("run", "touch base")
    refused = runner.json(f"{PROGRAM} umount 2> said; {PROGRAM} umount --lazy 2>> said; cat said; rm said; touch here")
    assert str(refused["stdout"]).count("a command is running") == 2 and refused["added"] == 1
    said = runner.run("run", f"touch late; umount -l {runner.work}; touch later")
    assert said.code == 125 and "the daemon has gone" in said.stderr
    runner.ok("mount")
    assert {"late"} <= set(runner.changes()) <= {"late", "later"}
    assert [each["status"] for each in runner.ok("runs", "--json").result] == ["interrupted", "done", "done"]
    runner.ok("undo")
    assert runner.changes() == {} and sorted(os.listdir(runner.work)) == ["base", "here"]


def test_a_command_that_removes_the_repository_is_told_so(runner: Runner) -> None:
    runner.ok("run", "touch base")
    pid = runner.pid()
    said = runner.run("run", "--json", f"rm -rf {runner.repository}/run {runner.repository}/store; touch made")
    assert said.code == 125 and "is not there any more" in said.error["message"]
    assert "umount" in said.error["hint"]
    assert sorted(os.listdir(runner.work)) == ["base", "made"]  # what is mounted can still be saved
    detach(runner.work)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_limit_of_the_caller_holds_for_the_command_and_for_nobody_else(runner: Runner) -> None:
    """Not for the daemon either, which is begun by it, and serves others, too."""
    script = """
import os, resource, sys
for each, most in ((resource.RLIMIT_FSIZE, 4096), (resource.RLIMIT_NOFILE, 20)):
    resource.setrlimit(each, (most, resource.getrlimit(each)[1]))
os.execv(sys.argv[1], sys.argv[1:])
"""
    runner.ok("init")
    words = [sys.executable, "-c", script, str(PROGRAM), "run", "--json", "head -c 100000 /dev/zero > large; touch end"]
    for made in (2, 0):
        done = subprocess.run(
            words, cwd=runner.folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert json.loads(done.stdout)["result"]["added"] == made
    assert (runner.work / "large").stat().st_size == 4096
    (runner.work / "larger").write_bytes(bytes(100_000))
    runner.ok("commit")
    runner.ok("verify")
