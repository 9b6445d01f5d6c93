"""The main job: a command becomes a layer, and is not run twice on the same state; when it is, and when it isn't."""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from fusecas.run import host as host_module
from tests.run.conftest import Runner


def test_one_command_on_a_fresh_machine_is_all_it_takes(runner: Runner) -> None:
    text = runner.counted("echo hello > hello.txt; echo said; echo complained >&2")
    first = runner.run("run", text)
    assert (first.code, first.text) == (0, "said\n")
    assert "made " in first.stderr and "complained\n" in first.stderr and "(1 added)" in first.stderr
    assert (runner.work / "hello.txt").read_text() == "hello\n"
    assert "nothing changed" in runner.run("run", text).stderr  # its input holds hello.txt now: another state
    assert runner.executions == 2
    runner.ok("undo")
    assert not (runner.work / "hello.txt").exists()
    again = runner.run("run", text)
    assert (again.code, again.text) == (0, "said\n") and "complained\n" in again.stderr and "cached" in again.stderr
    assert runner.executions == 2
    assert (runner.work / "hello.txt").read_text() == "hello\n"


def test_a_hit_moves_the_head_and_what_follows_stands_on_it(runner: Runner) -> None:
    one, two = runner.counted("echo 1 > one"), runner.counted("cat one one > two")
    layers = [runner.json(each)["hash"] for each in (one, two)]
    runner.ok("undo", "2")
    assert [runner.json(each)["cached"] for each in (one, two)] == [True, True]
    assert [runner.ok("log", "--json").result[at]["hash"] for at in (1, 0)] == layers
    assert runner.executions == 2
    third = runner.json("rm one")
    assert runner.ok("inspect", "--json", str(third["hash"])).result["parent"] == layers[1]


def test_a_hit_counts_what_it_changed_as_the_run_did(runner: Runner) -> None:
    runner.json("mkdir -p old/deep; echo 1 > old/deep/a; echo 1 > b; echo 1 > c; mkdir d; touch d/x")
    text = "rm -r old; mkdir -p new/deep; echo 2 > new/deep/a; echo 2 > b; chmod 600 c; rm -r d; touch d; touch b"
    came = [runner.json(text), runner.ok("undo", "--json").result, runner.json(text)]
    counts = [(each["added"], each["removed"], each["changed"]) for each in came]
    assert counts == [(3, 4, 3), (4, 3, 3), (3, 4, 3)] and came[2]["cached"] is True


def test_any_difference_in_the_tree_is_a_miss(runner: Runner) -> None:
    runner.json("echo input > input")
    text = runner.counted("wc -c < input > size")
    runner.json(text)
    runner.ok("undo")
    (runner.work / "input").write_text("changed")
    came = runner.json(text)
    assert (came["cached"], came["edits"] is not None, runner.executions) == (False, True, 2)
    assert (runner.work / "size").read_text().strip() == "7"
    kinds = [each["kind"] for each in runner.ok("log", "--json").result]
    assert kinds == ["run", "edits", "run"]
    runner.ok("undo")
    assert not (runner.work / "size").exists() and (runner.work / "input").read_text() == "changed"
    assert runner.json(text)["cached"] is True and runner.executions == 2


def test_the_result_is_found_by_content_whatever_way_led_there(runner: Runner) -> None:
    text = runner.counted("cp a b")
    (runner.repository.parent).mkdir(exist_ok=True)
    runner.json("echo same > a")
    runner.json(text)
    runner.ok("checkout", "@empty")
    runner.json("printf 'same\\n' > a")
    assert runner.json(text)["cached"] is True and runner.executions == 1


def test_variables_are_part_of_the_key_but_for_those_of_a_session(runner: Runner) -> None:
    text = runner.counted('echo "$CFLAGS" > flags')

    def runs_with(**env: str) -> bool:
        came = runner.json(text, env=env)
        runner.ok("undo")
        return came["cached"] is False

    assert runs_with(CFLAGS="-O1")
    assert not runs_with(CFLAGS="-O1", GPG_TTY="/dev/pts/7", SSH_CONNECTION="a b c", WINDOWID="3", API_TOKEN="secret")
    assert runs_with(CFLAGS="-O3")
    assert runs_with(CFLAGS="-O3", NODE_ENV="production")
    assert not runs_with(CFLAGS="-O1")


def test_another_version_of_a_program_is_a_miss(runner: Runner) -> None:
    tool = runner.folder / "tool"
    tool.write_text(f"#!/bin/sh\necho x >> {runner.counter}; echo one > made\n")
    tool.chmod(0o755)
    found = {"PATH": f"{runner.folder}:{os.environ['PATH']}"}
    assert runner.json("--", "tool", env=found)["cached"] is False
    runner.ok("undo")
    assert runner.json("--", "tool", env=found)["cached"] is True
    runner.ok("undo")
    tool.write_text(tool.read_text().replace("one", "two"))
    assert runner.json("--", "tool", env=found)["cached"] is False
    assert (runner.work / "made").read_text() == "two\n"


def test_the_installed_packages_are_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "status"
    packages.write_text("gcc 12")
    monkeypatch.setattr(host_module, "PACKAGES", (os.fsencode(packages),))
    host = host_module.Host()

    def key() -> object:
        return host.of(b"/bin/sh", b"/nowhere", "auto", b"")

    before = key()
    assert key() == before
    packages.write_text("gcc 13")
    assert key() != before


def test_where_it_runs_and_as_what_is_part_of_the_key(runner: Runner) -> None:
    runner.json("mkdir d")
    text = runner.counted("pwd > here")
    root = runner.json(text)
    runner.ok("undo")
    below = runner.json(text, cwd=runner.work / "d")
    assert (runner.work / "d" / "here").read_text().strip() == str(runner.work / "d")
    runner.ok("undo")
    words = runner.json("--", "sh", "-c", text)
    runner.ok("undo")
    masked = runner.json("--umask", "077", text)
    assert [each["cached"] for each in (root, below, words, masked)] == [False] * 4
    assert (runner.work / "here").stat().st_mode & 0o777 == 0o600


def test_a_touched_file_is_a_miss_and_make_would_say_so_too(runner: Runner) -> None:
    runner.json("printf 'out: in\\n\\tcp in out\\n' > Makefile; echo 1 > in")
    text = runner.counted("make")
    runner.json(text)
    runner.ok("undo")
    assert runner.json(text)["cached"] is True
    runner.ok("undo")
    os.utime(runner.work / "in")
    assert runner.json(text)["cached"] is False


def test_after_a_hit_make_has_nothing_to_do(runner: Runner) -> None:
    runner.json("printf 'out: in\\n\\tcp in out\\n' > Makefile; echo 1 > in")
    runner.json("make")
    runner.ok("checkout", "@empty")
    runner.json("printf 'out: in\\n\\tcp in out\\n' > Makefile; echo 1 > in; : the same again, newer than the result")
    assert runner.json("make")["cached"] is True
    assert (runner.work / "out").stat().st_mtime_ns >= (runner.work / "in").stat().st_mtime_ns
    assert "up to date" in runner.shell("make -q out && echo up to date")


def test_times_that_the_command_set_itself_stay_as_set(runner: Runner) -> None:
    text = "touch -d 2001-02-03 old; echo new > new"
    runner.json(text)
    old = (runner.work / "old").stat().st_mtime_ns
    runner.ok("undo")
    before = time.time_ns()
    assert runner.json(text)["cached"] is True
    assert (runner.work / "old").stat().st_mtime_ns == old
    assert before <= (runner.work / "new").stat().st_mtime_ns <= time.time_ns()


def test_a_venv_is_not_served_at_another_path(runner: Runner) -> None:
    runner.ok("run", "echo base > base")
    runner.ok("fork", "other")
    text = runner.counted(f"{sys.executable} -m venv --without-pip v")
    runner.json(text)
    assert runner.json("--ws", "other", text)["cached"] is False and runner.executions == 2
    place = runner.work / ".fusecas" / "ws" / "other"
    assert f"VIRTUAL_ENV={place}/v" in (place / "v" / "bin" / "activate").read_text().replace('"', "")


def test_what_changes_nothing_runs_each_time(runner: Runner) -> None:
    text = runner.counted("echo pushed")
    assert [runner.json(text)["stdout"] for _ in range(2)] == ["pushed\n"] * 2
    assert runner.executions == 2


def test_what_is_pure_is_served_though_it_changes_nothing_but_only_where_it_is_called_so(runner: Runner) -> None:
    text = runner.counted("echo passed; echo warned >&2")
    said = [runner.run("run", "--pure", text) for _ in range(2)]
    assert [each.text for each in said] == ["passed\n"] * 2 and "warned\n" in said[1].stderr
    assert "cached: nothing changed" in said[1].stderr and runner.executions == 1
    assert "not marked pure" in runner.run("run", text).stderr and runner.executions == 2
    (runner.work / "input").write_text("another state")
    runner.json("--pure", text)
    assert runner.executions == 3


def test_a_failed_command_makes_no_layer_and_is_no_hit(runner: Runner) -> None:
    runner.json("echo base > base")
    text = runner.counted("echo half > half; exit 3")
    said = runner.run("run", text)
    assert said.code == 3 and "failed (exit 3)" in said.stderr and "1 added" in said.stderr
    assert runner.changes() == {"half": "A"}
    runner.ok("undo")
    assert runner.changes() == {}
    assert runner.run("run", text).code == 3 and runner.executions == 2


def test_no_cache_refresh_and_max_age(runner: Runner) -> None:
    text = runner.counted("date +%N > now")
    runner.json("--no-cache", text)
    runner.ok("undo")
    first = runner.json(text)
    runner.ok("undo")
    refreshed = runner.json("--refresh", text)
    runner.ok("undo")
    assert runner.executions == 3
    served = runner.json(text)
    assert served["cached"] is True and served["hash"] == refreshed["hash"] != first["hash"]
    runner.ok("undo")
    assert runner.json("--max-age", "0", text)["cached"] is False


def test_output_that_is_no_text_comes_back_as_it_was(runner: Runner) -> None:
    text = "printf '\\377\\000x' ; head -c 300000 /dev/zero >&2; touch made"
    first = runner.run("run", text)
    runner.ok("undo")
    again = runner.run("run", text)
    assert first.stdout == again.stdout == b"\xff\0x"
    assert first.stderr.count("\0") == again.stderr.count("\0") == 300_000


def test_results_outlive_the_daemon_and_gc_keeps_what_they_need(runner: Runner) -> None:
    text = runner.counted("head -c 200000 /dev/urandom > large; cat large | wc -c")
    runner.json(text)
    large = (runner.work / "large").read_bytes()
    runner.ok("undo")
    runner.ok("umount")
    runner.ok("gc", "--min-age", "0")
    assert runner.json(text)["stdout"] == "200000\n"
    assert (runner.work / "large").read_bytes() == large and runner.executions == 1
    runner.ok("verify")


def test_what_gc_was_told_to_forget_is_run_again(runner: Runner) -> None:
    text = runner.counted("head -c 200000 /dev/zero > large")
    runner.json(text)
    runner.ok("undo")
    runner.ok("umount")
    runner.ok("gc", "--min-age", "0", "--expire", "0")
    assert runner.json(text)["cached"] is False and runner.executions == 2


def test_words_need_their_dashes(runner: Runner) -> None:
    refused = runner.run("run", "make", "test")
    assert refused.code == 125 and "fusecas run -- WORD..." in refused.stderr
    assert runner.json("--", "printf", "%s", "a b")["stdout"] == "a b"
    assert not shutil.which("no-such-program-here")
    missing = runner.run("run", "--", "no-such-program-here")
    assert missing.code == 127 and "no-such-program-here: No such file" in missing.stderr
    (runner.work / "text").write_text("no program")
    assert runner.run("run", "--", "./text").code == 126


def test_runs_are_listed_and_what_they_said_can_be_read_again(runner: Runner) -> None:
    runner.run("run", "echo out; echo err >&2; echo x > x")
    runner.ok("undo")
    runner.run("run", "echo out; echo err >&2; echo x > x")
    runner.run("run", "--", "sh", "-c", "echo 'a b'; exit 3")
    listed = runner.ok("runs", "--json").result
    assert [(each["exit"], each["hits"], each["kept"]) for each in listed] == [(3, 0, False), (0, 1, True)]
    assert listed[0]["instruction"] == """sh -c 'echo '"'"'a b'"'"'; exit 3'"""
    assert runner.ok("runs", "--exit", "3", "--json").result == listed[:1]
    assert runner.ok("runs", "--grep", "err >&2", "--json").result == listed[1:]
    assert "1 hit" in runner.ok("runs").lines[1] and "exit 3" in runner.ok("runs").lines[0]
    assert runner.ok("runs", "--output", "a b", "--json").result == listed[:1]
    assert [each["exit"] for each in runner.ok("runs", "--output", "rr\n", "--json").result] == [0]
    for name in ("@", listed[1]["run"], listed[1]["run"][:20]):
        said = runner.ok("logs", name)
        assert (said.text, said.stderr) == ("out\n", "err\n")
    assert runner.ok("logs", "--json", listed[0]["run"]).result["stdout"] == "a b\n"
    assert runner.run("logs", "abcdef").code == 3


def test_what_a_layer_said_that_a_hit_has_made_is_what_the_run_said(runner: Runner) -> None:
    """Also if it has another parent, so that no run has made this layer."""
    runner.json("echo one > a")
    text = runner.counted("echo said; cp a b")
    first = runner.json(text)
    runner.ok("checkout", "@empty")
    runner.json("printf 'one\\n' > a")
    again = runner.json(text)
    assert again["cached"] is True and again["hash"] != first["hash"]
    assert runner.ok("logs", "@").text == "said\n" and runner.ok("logs", "--json", "@").result["run"] == first["run"]
