"""What is served and what never is: marks of a command, and what a mark is for."""

import subprocess

import pytest

from tests.cli.calling import TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import until
from tests.run.test_policy import configure


@pytest.fixture
def check(runner: Runner) -> str:
    """A program that counts how often it is executed, changes something if it is told to, and says it has passed."""
    runner.json("echo base > base")
    program = runner.folder / "check"
    program.write_text(f'#!/bin/sh\necho x >> {runner.counter}\n[ "$1" != make ] || echo x > made\necho passed\n')
    program.chmod(0o755)
    return str(program)


def test_what_is_never_served_runs_though_it_changes_something_unless_it_is_called_pure(
    runner: Runner, check: str
) -> None:
    configure(runner, f'never = ["{check}*"]\npure = ["{check}*"]')
    text = f"{check} make"
    for executions in (1, 2):
        came = runner.json(text)
        assert came["cached"] is False and runner.executions == executions
        runner.ok("undo")
    assert came["refused"] == "it is never to be served"
    assert runner.json("--pure", text)["cached"] is True and runner.executions == 2


def test_a_pattern_is_for_the_stripped_text_or_for_the_words_as_a_shell_would_quote_them(
    runner: Runner, check: str
) -> None:
    configure(runner, f'pure = ["{check} --all*", "{check} \'a b\'", "{check} ; true"]')
    for words in ((f"  {check} --all -x \n",), ("--", check, "a b"), (f"{check} ; true",)):
        assert [runner.json(*words)["cached"] for _ in range(2)] == [False, True], words
    for words in ((f"{check} --all; true",), (f"{check} --all | cat",), ("--", check, "a", "b"), (check,)):
        assert [runner.json(*words)["cached"] for _ in range(2)] == [False, False], words


def test_words_with_signs_of_a_shell_are_matched_by_themselves_only(runner: Runner, check: str) -> None:
    configure(runner, f'pure = ["{check}*"]')
    assert [runner.json("--", check, "a;b")["cached"] for _ in range(2)] == [False, False]


def test_gc_between_a_run_and_its_hit(runner: Runner) -> None:
    """Kept, it is served; taken, it is a miss and nothing worse."""
    text = runner.counted("head -c 300000 /dev/urandom > large; cp large copy; echo said")
    runner.json(text)
    runner.ok("undo")
    runner.ok("gc", "--min-age", "0")
    assert runner.json(text)["cached"] is True
    runner.ok("undo")
    runner.ok("gc", "--min-age", "0", "--expire", "0")
    came = runner.json(text)
    assert (came["cached"], came["stdout"], runner.executions) == (False, "said\n", 2)
    runner.ok("verify")


def test_a_hit_is_a_step_that_undo_takes_back_as_that_of_a_run(runner: Runner) -> None:
    text = runner.counted("echo made > made")
    runner.json(text)
    runner.ok("undo")
    (runner.work / "made").write_text("mine")
    assert runner.json(text)["cached"] is False
    runner.ok("undo")
    assert (runner.work / "made").read_text() == "mine"
    (runner.work / "made").unlink()
    assert runner.json(text)["cached"] is True
    runner.ok("undo")
    assert not (runner.work / "made").exists() and runner.changes() == {}


def test_what_is_done_in_a_shell_beside_a_run_is_told_with_process_and_path(runner: Runner) -> None:
    runner.json("echo base > base")
    begun, go, said = (runner.folder / name for name in ("begun", "go", "said"))
    with said.open("wb") as file:
        process = runner.start("run", f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done; touch made", stderr=file)
    until(begun.exists)
    runner.run("shell", input=b"touch theirs\n", env={"SHELL": "/bin/sh"}, stderr=subprocess.DEVNULL)
    go.touch()
    assert process.wait(TIMEOUT) == 0
    assert "others had a hand in it: touch (" in said.read_text() and "changed theirs" in said.read_text()
