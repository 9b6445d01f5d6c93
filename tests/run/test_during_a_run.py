"""What is where while a command runs, and what it comes to: the head, exit codes, who fails."""

from tests.cli.calling import PROGRAM, TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import started


def test_the_head_stays_until_a_command_has_ended_well(runner: Runner) -> None:
    runner.json("echo base > base")
    (runner.work / "edit").write_text("mine")
    head = runner.ok("head", "--json").result["layer"]
    process = started(runner, f"echo half > half; until [ -e {runner.folder}/go ]; do sleep 0.02; done; [ ! -e base ]")
    assert runner.ok("head", "--json").result["layer"] == head
    assert {"edit", "half"} >= set(runner.changes()) >= {"edit"}
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 1
    assert runner.ok("head", "--json").result["layer"] == head and runner.changes() == {"edit": "A", "half": "A"}
    runner.ok("undo")
    assert runner.changes() == {"edit": "A"}, "a failed run that changed files is an operation of its own"


def test_a_failed_run_that_changed_nothing_is_no_operation(runner: Runner) -> None:
    runner.json("echo base > base")
    operations = runner.ok("op", "log", "--json").result
    assert runner.run("run", "exit 3").code == 3
    assert runner.ok("op", "log", "--json").result == operations
    assert runner.ok("runs", "--json").result[0]["exit"] == 3


def test_all_that_can_be_read_can_be_read_in_a_run(runner: Runner) -> None:
    runner.json("echo base > base; echo said")
    verbs = [
        "status",
        "log",
        "head",
        "history",
        "op log",
        "runs",
        "logs @",
        "diff",
        "ls",
        "cat @:base",
        "inspect",
        "path",
    ]
    text = "; ".join(f"{PROGRAM} {verb} > /dev/null || echo {verb}" for verb in (*verbs, "tags", "verify", "stats"))
    assert runner.json(text)["stdout"] == ""


def test_run_and_batch_exit_as_the_command_did(runner: Runner) -> None:
    runner.json("echo 1 > data")
    ends = {"exit 7": 7, "no-such-program-here": 127, "./data": 126, "kill -KILL $$": 137, "sleep 60": 124}
    for text, code in ends.items():
        limit = ("--timeout", "0.3") if code == 124 else ()
        assert runner.run("run", *limit, text).code == code
        assert runner.run("batch", *limit, "-", input=f"true\n{text}\n".encode()).code == code


def test_what_fails_by_ourselves_is_125_with_a_code_and_a_line_that_says_whose_it_is(runner: Runner) -> None:
    runner.json("true")
    for verb, words in {"run": ["true"], "exec": ["true"], "shell": [], "batch": ["-"]}.items():
        said = runner.run(verb, "--ws", "nothing", *words, input=b"true\n")
        assert said.code == 125 and said.stderr.startswith("fusecas: ")
        said = runner.run(verb, "--ws", "nothing", "--json", *words, input=b"true\n")
        assert said.code == 125 and said.error["code"] == "ref-not-found"
