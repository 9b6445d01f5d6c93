"""A result that holds the path of the workspace is served at that path only; all others anywhere."""

import sys

import pytest

from tests.cli.calling import TIMEOUT
from tests.run.conftest import Runner

OTHER = ("--ws", "other")
BY_MAPPING = (
    'import mmap, os; f = open("where", "w+b"); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); p = os.getcwdb(); '
    "m[4000 : 4000 + len(p)] = p"
)
"""A store through a mapping: no write of the command's own."""


@pytest.fixture
def two(runner: Runner) -> Runner:
    """And a fork, `other`."""
    runner.json("echo base > base")
    runner.ok("fork", "other")
    return runner


def test_what_does_not_say_where_it_is_is_served_in_any_fork(two: Runner) -> None:
    text = two.counted("cp base copy; echo done")
    two.json(text)
    served = two.json(*OTHER, text)
    assert served["cached"] is True and two.executions == 1
    assert (two.work / ".fusecas" / "ws" / "other" / "copy").read_text() == "base\n"


@pytest.mark.parametrize(
    "text",
    [
        "pwd > where",
        "printf %s $PWD > where",
        'printf \'%s\' "\\"$PWD\\"" > where',
        "head -c 1048570 /dev/zero > where; pwd >> where",
        "truncate -s 30M where; printf %s $PWD | dd of=where bs=1 seek=20000000 conv=notrunc status=none",
        f"{sys.executable} -c '{BY_MAPPING}'",
        "ln -s $PWD/base link",
        f'{sys.executable} -c \'import os; os.setxattr("base", "user.where", os.getcwdb())\'',
        "echo x > made; pwd",
        "echo x > made; pwd >&2",
    ],
)
def test_what_says_where_it_is_is_served_there_only(two: Runner, text: str) -> None:
    text = two.counted(text)
    two.json(text)
    assert two.json(*OTHER, text)["cached"] is False and two.executions == 2
    for words in ((), OTHER):
        two.ok("undo", *words)
        assert two.json(*words, text)["cached"] is True
    assert two.executions == 2


def test_a_longer_name_is_another_path(two: Runner) -> None:
    text = two.counted("printf %s-more $PWD > where")
    two.json(text)
    assert two.json(*OTHER, text)["cached"] is True


def test_what_runs_on_such_a_state_is_for_its_path_too(two: Runner) -> None:
    text = two.counted("wc -l < base > lines")
    two.shell("pwd > where")
    two.ok("fork", "third")
    two.json(text)
    assert two.json("--ws", "third", text)["cached"] is False and two.executions == 2
    two.ok("undo")
    (two.work / "where").unlink()
    two.json(text)
    assert two.executions == 3
    (two.work / ".fusecas" / "ws" / "third" / "where").unlink()
    two.ok("undo", *("--ws", "third"))
    (two.work / ".fusecas" / "ws" / "third" / "where").unlink(missing_ok=True)


def test_once_it_is_gone_all_is_as_before(two: Runner) -> None:
    text = two.counted("wc -l < base > lines")
    two.shell("pwd > where")
    two.ok("commit")
    (two.work / "where").unlink()
    two.json(text)
    assert two.json(*OTHER, text)["cached"] is True and two.executions == 1


def test_what_was_written_while_nobody_served_it_is_looked_at_as_well(two: Runner) -> None:
    two.shell("pwd > where")
    two.kill()
    two.ok("commit")
    two.mount()
    two.ok("fork", "third")
    text = two.counted("wc -l < base > lines")
    two.json(text)
    assert two.json("--ws", "third", text)["cached"] is False


def test_a_workspace_that_is_mounted_elsewhere_is_served_what_does_not_say_where_it_was(two: Runner) -> None:
    plain, bound = (two.counted(each) for each in ("wc -c base > size", "pwd > where"))
    for text in (plain, bound):
        two.json(text)
    two.ok("undo", "2")
    two.ok("umount")
    two.ok("mount", str(two.folder / "elsewhere"))
    for text, cached in ((plain, True), (bound, False)):
        assert two.json(text)["cached"] is cached
    assert (two.folder / "elsewhere" / "where").read_text() == f"{two.folder}/elsewhere\n"
    two.ok("umount")
    two.ok("mount", str(two.work))


def test_two_forks_run_one_command_at_once(two: Runner) -> None:
    """Each executes it, and the layers are the same; then it is known."""
    text = two.counted(f"while [ $(wc -l < {two.counter}) -lt 2 ]; do sleep 0.02; done; cat base > copy")
    running = [two.start("run", *words, text) for words in ((), OTHER)]
    assert [each.wait(TIMEOUT) for each in running] == [0, 0]
    assert two.ok("head", "--json").result["layer"] == two.ok("log", "ws:other", "--json").result[0]["hash"]
    two.ok("undo")
    assert two.json(text)["cached"] is True and two.executions == 2


def test_a_venv_serves_at_its_own_path_again(two: Runner) -> None:
    text = two.counted(f"{sys.executable} -m venv --without-pip v")
    two.json(text)
    two.ok("undo")
    assert two.json(text)["cached"] is True
    assert two.json(*OTHER, text)["cached"] is False
    assert two.json(*OTHER, "v/bin/python -c 'import sys; print(sys.prefix)'")["stdout"] == (
        f"{two.work}/.fusecas/ws/other/v\n"
    )
