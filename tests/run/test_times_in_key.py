"""What compares times must not be served where it would have done something else."""

import os
import time
from pathlib import Path

import pytest

from tests.run.conftest import Runner

MAKEFILE = "out: in\n\tcp in out\n"
OLD = 1_000_000_000 * 1_000_000_000


def stamp(path: Path, ns: int | None = None) -> None:
    ns = time.time_ns() if ns is None else ns
    os.utime(path, ns=(ns, ns))


@pytest.fixture
def made(runner: Runner) -> Runner:
    """`in` and what make has made of it. `run make` fails where it is to say that all is up to date."""
    runner.json("true")
    (runner.work / "Makefile").write_text(MAKEFILE)
    (runner.work / "in").write_text("1\n")
    runner.json("make")
    return runner


def always(runner: Runner) -> str:
    """make, with a layer in any case: so that each result could be served."""
    return runner.counted("make; date +%N > stamp")


def test_the_order_in_which_two_files_were_written_counts(runner: Runner) -> None:
    runner.json("true")
    text = always(runner)
    for name in ("other", "same", "again"):
        runner.ok("fork", name)
    outputs = []
    for name, order in (("other", "in out"), ("same", "out in"), ("again", "out in")):
        place = runner.work / ".fusecas" / "ws" / name
        (place / "Makefile").write_text(MAKEFILE)
        for each in order.split():
            (place / each).write_text(f"{each}\n")
        outputs.append(runner.json("--ws", name, text))
        assert (place / "out").read_text() == ("out\n" if order == "in out" else "in\n")
    assert [each["cached"] for each in outputs] == [False, False, True]


def test_a_source_that_is_newer_than_an_edited_result_is_built_again(made: Runner) -> None:
    text = always(made)
    made.ok("fork", "other")
    other = made.work / ".fusecas" / "ws" / "other"
    for place, order in ((made.work, ("in", "out")), (other, ("out", "in"))):
        for each in order:
            if each == "out":
                (place / each).write_text("edited by hand\n")
            else:
                stamp(place / each)
    made.json(text)
    assert made.json("--ws", "other", text)["cached"] is False
    assert (made.work / "out").read_text() == "edited by hand\n" and (other / "out").read_text() == "1\n"


def test_it_is_newer_also_after_a_run_that_changes_nothing(made: Runner) -> None:
    text = always(made)
    made.ok("fork", "other")
    other = made.work / ".fusecas" / "ws" / "other"
    for ws, place, order in (("main", made.work, ("out", "in")), ("other", other, ("in", "out"))):
        for each in order:
            (place / each).write_text(f"{each} by hand\n")
        made.json("--ws", ws, "ls")
    cached = [made.json("--ws", ws, text)["cached"] for ws in ("other", "main")]
    assert cached == [False, False]
    assert (made.work / "out").read_text() == "in by hand\n" and (other / "out").read_text() == "out by hand\n"


def test_touch_and_then_make_also_with_an_edit_between(made: Runner) -> None:
    text = always(made)
    made.json(text)
    made.ok("undo")
    stamp(made.work / "in")
    touched = made.json(text)
    assert touched["cached"] is False and "cp in out" in str(touched["stdout"])
    made.ok("undo")
    assert made.json(text)["cached"] is True
    made.ok("undo")
    (made.work / "notes").write_text("an edit of another file\n")
    stamp(made.work / "in")
    later = made.json(text)
    assert later["cached"] is False and "cp in out" in str(later["stdout"])


def test_an_old_time_counts_as_that_time(made: Runner) -> None:
    text = always(made)
    (made.work / "in").write_text("2\n")
    made.json(text)
    made.ok("undo")
    stamp(made.work / "in", OLD)
    old = made.json(text)
    assert old["cached"] is False and "up to date" in str(old["stdout"])
    made.ok("undo")
    stamp(made.work / "in", OLD)
    assert made.json(text)["cached"] is True


def test_a_time_that_is_yet_to_come_counts_as_that_time(made: Runner) -> None:
    text = always(made)
    stamp(made.work / "in")
    made.json(text)
    made.ok("undo")
    later = time.time_ns() + 3600 * 1_000_000_000
    for cached in (False, True):
        stamp(made.work / "in", later)
        assert made.json(text)["cached"] is cached
        made.ok("undo")


def test_undo_and_checkout_bring_back_what_times_are_measured_by(made: Runner) -> None:
    text = made.counted("cat in notes > all")
    for name in ("notes", "in"):
        (made.work / name).write_text(name)
    first = made.json(text)
    assert first["cached"] is False and first["edits"] is not None
    made.ok("undo")
    assert made.json(text)["cached"] is True
    made.ok("checkout", str(first["edits"]))
    assert made.json(text)["cached"] is True
    made.ok("undo")
    made.ok("fork", "other")
    assert made.json("--ws", "other", text)["cached"] is True
    assert made.executions == 1


def test_so_many_new_files_that_they_are_told_by_a_digest(runner: Runner) -> None:
    runner.json("true")
    text = runner.counted("ls | wc -l > count")
    for number in range(300):
        (runner.work / f"{number:03}").write_text("x")
    runner.json(text)
    runner.ok("undo")
    assert runner.json(text)["cached"] is True
    runner.ok("undo")
    stamp(runner.work / "150")
    assert runner.json(text)["cached"] is False


@pytest.mark.parametrize(("how", "cached"), [("ignore", True), ("touched", False), ("order", False), ("exact", False)])
def test_how_times_count_can_be_said(made: Runner, how: str, cached: bool) -> None:
    (made.repository / "config.toml").write_text(f'[run]\ntimes = "{how}"\n')
    text = always(made)
    made.json(text)
    made.ok("undo")
    stamp(made.work / "in")
    assert made.json(text)["cached"] is cached


def test_where_only_kept_files_count_those_that_were_edited_do_not(made: Runner) -> None:
    (made.repository / "config.toml").write_text('[run]\ntimes = "touched"\n')
    made.ok("fork", "other")
    text = made.counted("cat a b > ab")
    for place, order in ((made.work, "ab"), (made.work / ".fusecas" / "ws" / "other", "ba")):
        for name in order:
            (place / name).write_text(name)
    made.json(text)
    assert made.json("--ws", "other", text)["cached"] is True
