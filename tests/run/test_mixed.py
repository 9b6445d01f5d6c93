"""What others do in a workspace while a command runs is never taken for its result without saying so."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.calling import TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import until


def run_beside(runner: Runner, act: Callable[[], object]) -> tuple[bool, str]:
    """Run a command, and do something else meanwhile: whether it was remembered, and what was said."""
    runner.ok("run", "true")
    text = runner.counted(
        f"touch {runner.folder}/begun; while [ ! -e {runner.folder}/go ]; do sleep 0.02; done; echo made > made"
    )
    with (runner.folder / "said").open("wb") as said:
        process = runner.start("run", text, stderr=said)
    until((runner.folder / "begun").exists)
    act()
    (runner.folder / "go").touch()
    assert process.wait(TIMEOUT) == 0
    runner.ok("undo")
    again = runner.json(text)
    return again["cached"] is True, (runner.folder / "said").read_text()


def other(runner: Runner, text: str) -> Callable[[], object]:
    return lambda: subprocess.run(["sh", "-euc", text], cwd=runner.work, check=True, timeout=TIMEOUT)


CHANGES = {
    "makes a file": "echo x > theirs",
    "makes a directory": "mkdir theirs",
    "makes a link": "ln -s x theirs",
    "links": "ln there theirs",
    "removes": "rm there",
    "renames": "mv there theirs",
    "changes a mode": "chmod 600 there",
    "sets a time": "touch -d 2001-01-01 there",
    "writes": "echo more >> there",
    "sets an attribute": f'{sys.executable} -c \'import os; os.setxattr("there", "user.x", b"y")\'',
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whoever_changes_something_meanwhile_is_named(runner: Runner, change: str) -> None:
    runner.ok("run", "echo x > there")
    remembered, said = run_beside(runner, other(runner, change))
    assert not remembered and "not remembered: others had a hand in it" in said
    assert any(name in said for name in ("theirs", "there")) and "(" in said


def test_who_only_reads_has_no_hand_in_it(runner: Runner) -> None:
    runner.ok("run", "echo x > there")
    remembered, said = run_beside(runner, other(runner, "cat there; ls -l; find . > /dev/null; test ! -e nothing"))
    assert remembered and "not remembered" not in said


def test_a_file_that_others_had_open_for_writing_is_theirs(runner: Runner) -> None:
    runner.ok("run", "echo x > there")
    with (runner.work / "there").open("ab", buffering=0) as file:
        remembered, said = run_beside(runner, lambda: file.write(b"more"))
    assert not remembered and "changed there" in said


def test_what_descendants_do_is_the_commands_own_however_far_away(runner: Runner) -> None:
    script = runner.folder / "far.py"
    script.write_text("import os\nif not os.fork():\n  os.setsid()\n  if not os.fork(): open('far', 'w').write('x')\n")
    text = runner.counted(f"{sys.executable} {script}; while [ ! -s far ]; do sleep 0.02; done; (echo x > near) &")
    assert runner.json(text)["mixed"] is None
    runner.ok("undo")
    assert runner.json(text)["cached"] is True


def test_what_happens_in_another_workspace_has_no_part_in_it(runner: Runner) -> None:
    runner.ok("run", "echo x > there")
    runner.ok("fork", "other")
    place = runner.work / ".fusecas" / "ws" / "other"
    remembered, said = run_beside(runner, lambda: (place / "theirs").write_text("x"))
    assert remembered and "not remembered" not in said


def test_two_workspaces_run_at_once_each_for_itself(runner: Runner) -> None:
    runner.ok("run", "echo x > there")
    runner.ok("fork", "other")
    texts = {name: f"sleep 0.3; echo {name} > made; sleep 0.3" for name in ("main", "other")}
    running = [runner.start("run", "--ws", name, text, stderr=subprocess.DEVNULL) for name, text in texts.items()]
    assert [each.wait(TIMEOUT) for each in running] == [0, 0]
    for name, text in texts.items():
        runner.ok("undo", "--ws", name)
        assert runner.json("--ws", name, text)["cached"] is True
        where = runner.work if name == "main" else Path(runner.work, ".fusecas", "ws", name)
        assert (where / "made").read_text() == f"{name}\n" and sorted(os.listdir(where)) == ["made", "there"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("cat .fusecas/ws/other/base > copy", "workspace other"),
        ("ls .fusecas/ws/other > names", "workspace other"),
        ("cat .fusecas/at/v1/base > copy", "a layer under .fusecas/at"),
    ],
)
def test_what_looks_into_another_place_is_not_remembered(runner: Runner, text: str, where: str) -> None:
    runner.json("echo base > base")
    runner.ok("tag", "v1")
    runner.ok("fork", "other")
    text = runner.counted(text)
    said = runner.run("run", text)
    assert f"not remembered: it looked into {where}, which is not in its key" in said.stderr
    runner.ok("undo")
    assert runner.json(text)["cached"] is False and runner.executions == 2


def test_runs_in_two_forks_at_once_do_not_disturb_each_other(runner: Runner) -> None:
    runner.json("echo base > base")
    runner.ok("fork", "other")
    text = "touch {0}; until [ -e {1} ]; do :; done; for i in 1 2 3 4 5; do cat base; ls; done > said"
    places = [runner.folder / "one", runner.folder / "two"]
    started = [
        runner.start("run", "--json", *words, text.format(*order))
        for words, order in (((), places), (("--ws", "other"), places[::-1]))
    ]
    for process in started:
        assert process.wait(TIMEOUT) == 0
    assert [each["mixed"] for each in runner.ok("runs", "--json").result[:2]] == [None, None]
