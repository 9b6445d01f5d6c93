"""What a hit must not get wrong, found by trying: each time against what really running the command leaves."""

import sys

import pytest

from tests.run.conftest import Runner

OTHER = ("--ws", "other")


@pytest.fixture
def bound(runner: Runner) -> Runner:
    """A file that says where it is, and one that does not."""
    runner.json("true")
    runner.shell("mkdir d; pwd > d/where; echo base > base")
    runner.ok("commit")
    return runner


@pytest.mark.parametrize(
    "move",
    [
        "mv d/where there",
        "mv d e",
        "chmod 600 d/where",
        "ln d/where second; rm d/where",
        "cp -p d/where second; rm d/where",
        "mkdir x; mv d x; mv x y",
        f'{sys.executable} -c \'import os; os.setxattr("d/where", "user.a", b"1")\'',
        "touch -d 2001-01-01 d/where",
        "chmod 700 d",
        "truncate -s +4096 d/where",
        "echo more >> d/where",
    ],
)
@pytest.mark.parametrize("way", ["live", "run"])
def test_a_file_that_says_where_it_is_is_found_wherever_it_goes(bound: Runner, move: str, way: str) -> None:
    if way == "run":
        bound.json(move)
    else:
        bound.shell(move)
    bound.ok("fork", "other")
    text = bound.counted("cat $(find . -name .fusecas -prune -o -type f -print | sort) | wc -l > lines")
    bound.json(text)
    assert bound.json(*OTHER, text)["cached"] is False


@pytest.mark.parametrize(
    "text",
    [
        'printf "%s;" $PWD > where',
        'printf "%s,b" $PWD > where',
        'printf "(%s)" $PWD > where',
        'printf "[%s]" $PWD > where',
        'printf "<a>%s</a>" $PWD > where',
        'printf "%s=." $PWD > where',
        'printf "%s&x" $PWD > where',
        'printf "I am in %s." $PWD > where',
    ],
)
def test_a_path_ends_before_any_sign_that_is_not_of_a_name(bound: Runner, text: str) -> None:
    bound.ok("fork", "other")
    bound.shell("rm -r d")
    bound.shell("rm -r .fusecas/ws/other/d")
    text = bound.counted(text)
    bound.json(text)
    assert bound.json(*OTHER, text)["cached"] is False


def test_a_variable_that_holds_a_longer_name_is_another_one(runner: Runner) -> None:
    runner.json("true")
    runner.ok("fork", "other")
    other = runner.work / ".fusecas" / "ws" / "other"
    text = runner.counted("expr $WHERE : '.*-\\(.*\\)/' > a; echo $WHERE | sed s,.*-,, > b")
    runner.json(text, env={"WHERE": f"{runner.work}-tools/x"})
    assert runner.json(*OTHER, text, env={"WHERE": f"{other}-tools/x"})["cached"] is False


def test_what_a_hit_made_is_newer_than_what_it_was_made_of(runner: Runner) -> None:
    runner.json("true")
    runner.shell("printf 'b: a\\n\\tcp a b\\nc: b\\n\\tcp b c\\n\\tsleep 1\\n' > Makefile; echo 1 > a")
    runner.ok("commit")
    runner.ok("fork", "other")
    runner.shell("echo 2 > a")
    runner.json("make c")
    (runner.work / ".fusecas/ws/other/a").write_text("2\n")
    assert runner.json("--ws", "other", "make c")["cached"] is True
    assert "up to date" in str(runner.json("--ws", "other", "make c")["stdout"])
    times = [(runner.work / ".fusecas/ws/other" / name).stat().st_mtime_ns for name in "abc"]
    assert times == sorted(times) and len(set(times)) == 3
