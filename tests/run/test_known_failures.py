"""How another tool of this kind has lost work, or lied: it does not happen here.

What has a test elsewhere has none here: hits that don't move the head, say nothing or ignore edits; two runs at once;
work that is thrown away.
"""

import os
import stat

import pytest

from tests.cli.calling import NOT_UTF8
from tests.run.conftest import Runner


def layer(runner: Runner, text: str) -> str:
    return str(runner.json(text)["hash"])


def test_a_deleted_file_stays_deleted_after_checkout_and_rebuild(runner: Runner) -> None:
    with_it = layer(runner, "echo 1 > one; echo 2 > two")
    without = layer(runner, "rm one")
    for ref in (with_it, without):
        runner.ok("checkout", ref)
    runner.ok("rebuild")
    assert not (runner.work / "one").exists() and (runner.work / "two").exists()


def test_any_layer_can_be_checked_out_not_only_what_the_head_came_from(runner: Runner) -> None:
    base = layer(runner, "echo base > base")
    left = layer(runner, "echo left > left")
    runner.ok("checkout", base)
    layer(runner, "echo right > right")
    runner.ok("checkout", left)
    assert sorted(os.listdir(runner.work)) == ["base", "left"]


def test_states_that_come_in_turn_are_layers_of_their_own(runner: Runner) -> None:
    made = [layer(runner, f"echo {name} > state") for name in "ABAB"]
    assert len(set(made)) == 4
    assert [each["hash"] for each in runner.ok("history", "--json").result] == made
    for back in range(1, 4):
        runner.ok("undo")
        assert (runner.work / "state").read_text().strip() == "ABA"[back - 1]


def test_a_directory_that_becomes_a_file_is_one_and_back(runner: Runner) -> None:
    before = layer(runner, "mkdir -p d/e; echo 1 > d/e/f")
    after = layer(runner, "rm -r d; echo 2 > d")
    runner.ok("rebuild")
    assert (runner.work / "d").read_text() == "2\n"
    runner.ok("checkout", before)
    assert (runner.work / "d" / "e" / "f").read_text() == "1\n"
    runner.ok("checkout", after)
    assert (runner.work / "d").read_text() == "2\n"


def test_a_change_of_mode_alone_is_a_change(runner: Runner) -> None:
    runner.json("echo 1 > tool")
    assert runner.json("chmod 755 tool")["changed"] == 1
    runner.ok("undo")
    assert stat.S_IMODE((runner.work / "tool").stat().st_mode) == 0o644
    assert runner.json("chmod 755 tool")["cached"] is True
    assert stat.S_IMODE((runner.work / "tool").stat().st_mode) == 0o755


def test_odd_files_are_captured_and_come_back(runner: Runner) -> None:
    odd = os.fsencode(runner.work) + b"/" + NOT_UTF8
    runner.json("--", "sh", "-c", 'mkfifo pipe; echo at > @at; echo odd > "$1"', "sh", os.fsdecode(NOT_UTF8))
    runner.ok("undo")
    assert os.listdir(runner.work) == []
    runner.ok("redo")
    assert stat.S_ISFIFO((runner.work / "pipe").stat().st_mode) and (runner.work / "@at").read_text() == "at\n"
    with open(odd, "rb") as file:
        assert file.read() == b"odd\n"


def test_failures_of_several_kinds_have_several_exit_codes(runner: Runner) -> None:
    runner.json("true")
    assert runner.run("run", "exit 7").code == 7
    assert runner.run("run", "kill -9 $$").code == 137
    assert [runner.run("run", "--", each).code for each in ("no-such-program", "/etc/passwd")] == [127, 126]
    assert runner.run("run", "--timeout", "0.1", "sleep 60").code == 124
    assert runner.run("run").code == 125
    runner.json("echo 1 > one")
    calls = (("tag", "a b"), ("checkout", "nothing-of-that-name"), ("ws", "rm", "main"))
    assert [runner.run(*words).code for words in calls] == [2, 3, 4]


@pytest.mark.parametrize(
    ("name", "code"), [("constructor", 0), ("__proto__", 0), ("../x", 2), ("-x", 2), ("a/../b", 2)]
)
def test_names_of_tags_are_only_names(runner: Runner, name: str, code: int) -> None:
    made = layer(runner, "echo 1 > one")
    assert runner.run("tag", "--", name).code == code
    assert runner.ok("tags", "--json").result == ({name: made} if code == 0 else {})
    assert sorted(os.listdir(runner.folder)) == [".fusecas"]
