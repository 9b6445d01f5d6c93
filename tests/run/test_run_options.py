"""What one can ask of a run: where, with what, and what is to become of what is there before and after it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from fusecas.client import Client
from tests.cli.calling import PROGRAM, TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import started, until


def test_a_command_runs_in_the_folder_that_is_named(runner: Runner) -> None:
    runner.json("mkdir -p a/b")
    assert runner.json("--cwd", "a/b", "pwd")["stdout"] == f"{runner.work}/a/b\n"
    assert runner.json("--cwd", str(runner.work / "a"), "pwd")["stdout"] == f"{runner.work}/a\n"
    assert runner.json("--cwd", "b", "pwd", cwd=runner.work / "a")["stdout"] == f"{runner.work}/a/b\n"
    (runner.work / "out").symlink_to("/tmp")
    for folder in ("/tmp", "..", "out"):
        refused = runner.run("run", "--cwd", folder, "pwd")
        assert refused.code == 125 and "is not in the workspace" in refused.stderr
    assert "is no folder" in runner.run("run", "--cwd", "nothing", "pwd").stderr


def test_in_another_workspace_it_runs_at_the_same_place(runner: Runner) -> None:
    runner.json("mkdir d e")
    runner.ok("fork", "other")
    place = runner.work / ".fusecas" / "ws" / "other"
    assert runner.json("--ws", "other", "pwd", cwd=runner.work / "d")["stdout"] == f"{place}/d\n"
    assert runner.json("--ws", "main", "pwd", cwd=place / "d")["stdout"] == f"{runner.work}/d\n"
    os.rmdir(place / "e")
    assert runner.json("--ws", "other", "pwd", cwd=runner.work / "e")["stdout"] == f"{place}\n"


def test_variables_are_set_and_taken_away(runner: Runner) -> None:
    text = runner.counted('echo "$ONE,${TWO-none}" > made')
    runner.json("--env", "ONE=a=b", "--unset", "TWO", text, env={"TWO": "2"})
    assert (runner.work / "made").read_text() == "a=b,none\n"
    runner.ok("undo")
    assert runner.json(text, env={"ONE": "a=b"})["cached"] is True
    runner.ok("undo")
    assert runner.json("-e", "ONE=", text)["cached"] is False
    assert "--env ONE=VALUE" in runner.run("run", "--env", "ONE", text).stderr


def test_what_a_command_reads_is_part_of_its_key(runner: Runner) -> None:
    text = runner.counted("cat > made")
    (runner.folder / "input").write_text("one")
    assert runner.json("--stdin", "input", text)["cached"] is False
    assert (runner.work / "made").read_text() == "one"
    runner.ok("undo")
    assert runner.json("--stdin", "-", text, input=b"one")["cached"] is True
    runner.ok("undo")
    assert runner.json("--stdin", "-", text, input=b"two")["cached"] is False
    runner.ok("undo")
    assert runner.json(text)["cached"] is False and runner.executions == 3
    missing = runner.run("run", "--stdin", "nothing", text)
    assert missing.code == 125 and "nothing: No such file" in missing.stderr


def test_a_file_of_the_workspace_may_be_read_and_changed_meanwhile(runner: Runner) -> None:
    runner.json("seq 1000 > numbers")
    runner.json("--stdin", str(runner.work / "numbers"), "echo changed > numbers; cat > copy")
    assert (runner.work / "copy").read_text().split() == [str(n + 1) for n in range(1000)]
    with (runner.work / "copy").open() as file:
        assert runner.run("run", "--stdin", "-", "wc -l", stdin=file).text.strip() == "1000"


def test_what_was_piped_and_not_passed_is_told_once(runner: Runner) -> None:
    assert runner.run("run", "cat", input=b"lost").stderr.count("stdin not passed; use --stdin -") == 1
    assert "not passed" not in runner.run("run", "cat", input=b"").stderr
    assert "not passed" not in runner.run("run", "--stdin", "-", "cat", input=b"taken").stderr


def test_what_a_failed_command_changed_can_be_taken_back(runner: Runner) -> None:
    runner.json("echo old > old; mkdir d")
    (runner.work / "edit").write_text("mine")
    before = os.stat(runner.work / "old").st_mtime_ns
    came = runner.run("run", "--on-failure", "rollback", "echo new > new; rm -r d edit; echo changed > old; exit 3")
    assert came.code == 3 and "taken back: 1 changed, 1 added, 2 removed" in came.stderr
    assert sorted(os.listdir(runner.work)) == ["d", "edit", "old"]
    assert runner.changes() == {"edit": "A"} and os.stat(runner.work / "old").st_mtime_ns == before
    assert runner.ok("runs", "--json").result[0]["exit"] == 3
    runner.ok("undo")
    assert (runner.work / "new").exists() and not (runner.work / "edit").exists()
    runner.ok("undo")
    assert runner.changes() == {"edit": "A"}
    assert runner.json("--on-failure", "rollback", "echo fine > fine")["put_back"] is False


def test_what_was_touched_before_a_failed_run_still_is_after_it(runner: Runner) -> None:
    runner.json("echo 1 > one; echo 2 > two")
    text = runner.counted("echo made > made")
    runner.json(text)
    runner.ok("undo")
    os.utime(runner.work / "one")
    runner.json("--on-failure", "rollback", "rm two; exit 1", code=1)
    assert runner.json(text)["cached"] is False


def test_the_policy_holds_for_a_program_that_is_killed(runner: Runner) -> None:
    runner.json("echo old > old")
    with (runner.folder / "said").open("wb") as said:
        text = "echo half > half; rm old; sleep 100"
        process = runner.start("run", "--on-failure", "rollback", text, stderr=said)
    until((runner.work / "half").exists)
    process.kill()
    process.wait()
    until(lambda: runner.run("run", "true").code == 0)
    assert os.listdir(runner.work) == ["old"] and runner.changes() == {}


def test_retry_starts_from_where_the_failed_run_began(runner: Runner) -> None:
    runner.json("echo base > base")
    text = f"[ -e half ] && exit 9; echo half > half; rm base; [ -e {runner.folder}/go ]"
    assert runner.run("run", text).code == 1
    assert runner.run("run", text).code == 9
    (runner.folder / "go").touch()
    again = runner.run("run", "--retry", text)
    assert again.code == 9  # the last one began with what the first had left
    runner.ok("undo", "2")
    runner.json("--retry", text, code=9)
    runner.ok("checkout", "@")
    assert runner.run("run", text).code == 0
    refused = runner.run("run", "--retry", text)
    assert refused.code == 125 and "has not failed" in refused.stderr
    assert "was not run here before" in runner.run("run", "--retry", "echo other").stderr


def test_retry_brings_back_what_was_uncommitted_then_and_makes_a_layer(runner: Runner) -> None:
    runner.json("echo base > base")
    (runner.work / "edit").write_text("mine")
    text = f"rm edit base; echo half >> half; [ -e {runner.folder}/go ]"
    assert runner.run("run", text).code == 1
    (runner.folder / "go").touch()
    came = runner.json("--retry", text)
    assert (runner.work / "half").read_text() == "half\n" and came["edits"] is not None
    assert [each["kind"] for each in runner.ok("log", "--json").result] == ["run", "edits", "run"]
    runner.ok("undo")
    assert (runner.work / "edit").read_text() == "mine"


def test_what_a_failed_run_has_left_is_called_so_in_the_layer_that_it_becomes(runner: Runner) -> None:
    runner.run("run", "echo half > half; exit 2")
    runner.json("echo more > more")
    (runner.work / "edit").write_text("x")
    runner.json("rm edit")
    instructions = [each["instruction"] for each in runner.ok("log", "--json").result]
    assert instructions[1] == "(edits)"
    assert instructions[3] == "left by failed 'echo half > half; exit 2' (exit 2)"
    runner.run("run", "--", "sh", "-c", "echo x > x; false")
    runner.ok("undo")
    (runner.work / "edit").write_text("y")
    runner.json("rm edit")
    assert runner.ok("log", "--json").result[1]["instruction"] == "(edits)"


def test_a_run_waits_for_its_turn_if_it_is_told_to(runner: Runner) -> None:
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.02; done; echo first > first")
    with (runner.folder / "waits").open("wb") as said:
        waiting = [
            runner.start("run", "--wait", f"cat first > copy{number}", stderr=said, stdout=said) for number in range(5)
        ]
    until(lambda: (runner.folder / "waits").read_text().count("waiting for it") == 5)
    assert all(each.poll() is None for each in waiting)
    (runner.folder / "go").touch()
    assert [each.wait(TIMEOUT) for each in (process, *waiting)] == [0] * 6
    assert [(runner.work / f"copy{number}").read_text() for number in range(5)] == ["first\n"] * 5


def test_what_moves_a_workspace_waits_for_a_run_if_it_is_told_to(runner: Runner) -> None:
    runner.json("echo first > first")
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.05; done; echo second > second")
    with (runner.folder / "waits").open("wb") as said:
        undo = runner.start("undo", "--wait", stderr=said, stdout=said)
        until(lambda: "waiting for it" in (runner.folder / "waits").read_text())
        assert undo.poll() is None
        (runner.folder / "go").touch()
        assert [process.wait(TIMEOUT), undo.wait(TIMEOUT)] == [0, 0]
    assert not (runner.work / "second").exists()
    for words in (("redo",), ("checkout", "@~1"), ("commit",), ("reset", "--to", "@")):  # they need not wait
        runner.ok(*words, "--wait")


@pytest.mark.parametrize("verb", ["commit", "undo"])
def test_a_run_that_waits_for_itself_is_refused(runner: Runner, verb: str) -> None:
    came = runner.run("run", f"echo x > x; {PROGRAM} {verb} --wait; echo $? > code; setsid {PROGRAM} {verb} --wait")
    assert came.code == 4 and "a command is running" in came.stderr
    assert (runner.work / "code").read_text() == "4\n"


def test_who_waited_and_has_gone_leaves_nothing(runner: Runner) -> None:
    process = started(runner, f"while [ ! -e {runner.folder}/go ]; do sleep 0.02; done")
    said = runner.folder / "waits"
    with said.open("wb") as file:
        waiting = runner.start("run", "--wait", "echo never > never", stderr=file)
    until(lambda: "waiting" in said.read_text())
    waiting.kill()
    waiting.wait()
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0
    runner.json("--wait", "true")
    assert len(runner.ok("runs", "--json").result) == 2 and not (runner.work / "never").exists()


def test_a_run_is_refused_if_anything_is_uncommitted_and_it_is_told_to(runner: Runner) -> None:
    text = runner.counted("echo made > made")
    runner.json("--dirty", "fail", text)
    (runner.work / "edit").write_text("x")
    refused = runner.run("run", "--json", "--dirty", "fail", text)
    assert refused.code == 125 and refused.error["code"] == "refused" and refused.error["exit"] == 4
    assert runner.executions == 1 and runner.changes() == {"edit": "A"}
    runner.ok("commit")
    runner.json("--dirty", "fail", text)


def test_events_come_as_lines_while_they_happen(runner: Runner) -> None:
    runner.ok("run", "true")
    wait = f"while [ ! -e {runner.folder}/go ]; do sleep 0.02; done"
    text = f"echo one; printf '\\303'; echo err >&2; {wait}; printf '\\251'; exit 3"
    with runner.start("run", "--json=lines", text, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in range(3)]
        (runner.folder / "go").touch()
        seen += [json.loads(line) for line in process.stdout]
        assert process.wait(TIMEOUT) == 3
    assert seen[0]["event"] == "start" and seen[0]["cached"] is False
    assert [each["event"] for each in seen] == [
        "start",
        *(["stdout", "stderr"] if "stdout" in seen[1] else ["stderr", "stdout"]),
        "stdout",
        "end",
    ]
    assert "".join(each["stdout"] for each in seen[:-1] if "stdout" in each) == "one\né"
    assert seen[-1]["result"]["exit_code"] == 3 and seen[-1]["result"]["run"] == seen[0]["run"]
    assert "stdout" not in seen[-1]["result"]


def test_a_hit_is_told_as_lines_and_so_is_an_error(runner: Runner) -> None:
    text = "printf '\\377x'; touch made"
    runner.json(text)
    runner.ok("undo")
    lines = [json.loads(line) for line in runner.run("run", "--json=lines", text).lines]
    assert [each["event"] for each in lines] == ["start", "stdout", "end"]
    assert lines[0]["cached"] is True and lines[1]["stdout_b64"] == "/3g="
    lines = [json.loads(line) for line in runner.run("run", "--json=lines", "--cwd", "/", "true").lines]
    assert [(each["event"], each["ok"]) for each in lines] == [("end", False)]
    assert (
        runner.run("run", "--json=lines", "--", "echo", "--json=lines").lines[1].endswith('"stdout":"--json=lines\\n"}')
    )


@pytest.mark.parametrize("wrong", [{"on_failure": "x"}, {"dirty": "x"}, {"stdin": "abc"}, {"wait": 1}])
def test_parameters_of_another_kind_are_refused(runner: Runner, wrong: dict[str, object]) -> None:
    from fusecas.errors import UsageError

    runner.ok("run", "true")
    with Client(runner.repository) as client, pytest.raises(UsageError):
        client.call("run.begin", program={"shell": ["true"]}, env=[], **wrong)


def test_unmounting_is_refused_while_a_command_runs_wherever_it_is(runner: Runner) -> None:
    process = started(
        runner, f"cd /; while [ ! -e {runner.folder}/go ]; do sleep 0.02; done; echo done > {runner.work}/done"
    )
    for words in (("umount",), ("umount", "--lazy")):
        refused = runner.run(*words)
        assert refused.code == 4 and "a command is running" in refused.stderr
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0 and Path(runner.work, "done").exists()
    runner.ok("umount")


def test_a_run_in_a_run_says_so_in_json(runner: Runner) -> None:
    inner = f"{PROGRAM} run --json 'echo inner; echo inner > inner; exit 4' > {runner.folder}/said; echo $?"
    came = runner.json(inner)
    result = json.loads((runner.folder / "said").read_text())["result"]
    assert came["stdout"] == "4\n" and came["added"] == 1
    assert (result["nested"], result["run"], result["exit_code"]) == (True, came["run"], 4)
    assert result["stdout"] == "inner\n"


def test_names_that_are_not_utf8_are_passed_as_they_are(runner: Runner) -> None:
    name = b"caf\xe9"
    runner.ok("run", "--", "mkdir", name)
    (runner.folder / "input").write_bytes(name)
    os.rename(runner.folder / "input", os.path.join(os.fsencode(runner.folder), name))
    said = runner.run("run", "--cwd", name, "-e", b"X=" + name, "--stdin", name, 'pwd; echo "$X"; cat')
    assert said.stdout.split(b"\n")[:2] == [os.path.join(os.fsencode(runner.work), name), name]
    assert said.stdout.endswith(name)
    assert runner.run("batch", "-", input=b"echo " + name).stdout == name + b"\n"
    assert runner.run("run", "--cwd", name + b"x", "pwd").code == 125


def test_a_folder_that_is_gone_when_the_command_begins_is_named(runner: Runner) -> None:
    runner.json("mkdir d")
    said = runner.run("batch", "-k", "--cwd", "d", "-", input=b"rmdir ../d\necho never\n")
    assert said.code == 127 and f"{runner.work}/d: No such file" in said.stderr


def test_retry_of_what_gc_has_taken_says_so(runner: Runner) -> None:
    runner.json("echo base > base")
    (runner.work / "edit").write_text("x" * 5000)
    assert runner.run("run", "rm edit; exit 1").code == 1
    runner.ok("commit")
    runner.ok("run", "echo other > other")
    runner.ok("umount")
    runner.ok("gc", "--min-age", "0", "--expire", "0")
    said = runner.run("run", "--retry", "--json", "rm edit; exit 1")
    assert said.code == 125 and said.error["code"] == "expired-error"


def test_a_daemon_that_is_killed_while_it_takes_back_leaves_all_or_nothing(runner: Runner, tmp_path: Path) -> None:
    runner.json("echo old > old; mkdir d; for n in 1 2 3 4 5 6 7 8 9; do echo $n > d/$n; done")
    (runner.work / "edit").write_text("mine")
    kept, taken_back = {"d": "D", "edit": "A", "new": "A", "old": "M"}, {"edit": "A"}
    for number in range(5):
        made = tmp_path / f"made-{number}"  # outside: what the run made goes again
        text = f"rm -r d; echo new > new; echo changed > old; touch {made}; exit 3"
        process = runner.start("run", "--on-failure", "rollback", text, stderr=subprocess.DEVNULL)
        until(made.exists)
        time.sleep(number * 0.008)  # somewhere else each time; whatever comes of it must be one of two
        runner.kill()
        process.wait(TIMEOUT)
        runner.ok("mount")
        found = {path: letter for path, letter in runner.changes().items() if not path.startswith("d/")}
        if runner.ok("runs", "--json").result[0]["status"] == "done":
            assert found in (kept, taken_back)
        if found != taken_back:
            runner.ok("undo")
        assert runner.changes() == taken_back
    runner.ok("verify")
