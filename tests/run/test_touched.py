"""What is only touched counts by its order; what a baseline is; what a hit leaves of times."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.calling import TIMEOUT
from tests.run.conftest import Runner
from tests.run.test_bracket import until
from tests.run.test_times_in_key import OLD, always, made, stamp

__all__ = ["made"]


def touch(runner: Runner, *names: str) -> None:
    for name in names:
        stamp(runner.work / name)


def served(runner: Runner, text: str) -> bool:
    came = runner.json(text)
    runner.ok("undo")
    return came["cached"] is True


def test_touched_files_count_by_their_order_and_never_by_their_times(made: Runner) -> None:
    text = always(made)
    touch(made, "in", "out")
    assert not served(made, text)
    touch(made, "in", "out")
    assert served(made, text)
    touch(made, "out", "in")
    assert not served(made, text)
    stamp(made.work / "out", OLD)  # set back: before all that was not touched
    assert not served(made, text)
    touch(made, "out", "in")
    assert served(made, text)


def test_neither_a_commit_nor_a_seal_moves_what_times_are_measured_by(made: Runner) -> None:
    text = always(made)
    made.json("--no-cache", text)
    made.ok("undo")
    touch(made, "in")
    (made.work / "notes").write_text("a reason to commit\n")
    made.ok("commit")
    said = str(made.json(text)["stdout"])
    assert "cp in out" in said
    made.ok("undo")
    touch(made, "in")
    before = made.ok("status", "--porcelain").lines
    made.ok("umount")  # seals
    made.ok("mount", str(made.work))
    assert made.ok("status", "--porcelain").lines == before == ["t in"]


def test_what_a_run_touches_itself_is_what_times_are_measured_by_then(made: Runner) -> None:
    text = "touch in out"
    assert made.json(text)["empty"] is True
    assert made.ok("status", "--porcelain").lines == []


def test_what_was_touched_still_is_after_a_run_that_changed_nothing(made: Runner) -> None:
    text = always(made)
    made.json(text)
    made.ok("undo")
    touch(made, "in")
    assert made.json("ls")["empty"] is True
    assert made.ok("status", "--porcelain").lines == ["t in"]
    assert "cp in out" in str(made.json(text)["stdout"])


def test_what_others_touch_beside_a_run_that_changes_nothing_is_touched(made: Runner) -> None:
    begun, go = made.folder / "begun", made.folder / "go"
    process = made.start("run", f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done", stderr=subprocess.DEVNULL)
    until(begun.exists)
    touch(made, "in")
    go.touch()
    assert process.wait(TIMEOUT) == 0
    assert made.ok("status", "--porcelain").lines == ["t in"]


def test_a_failed_run_that_changed_nothing_leaves_what_times_are_measured_by(made: Runner) -> None:
    """What had passed before is not served instead of trying again."""
    text = f"make > {made.folder}/said; cat {made.folder}/said; [ ! -e {made.folder}/broken ] || exit 2"
    assert "up to date" in str(made.json("--pure", text)["stdout"])
    touch(made, "in")
    (made.folder / "broken").touch()
    for _ in range(2):
        made.json("--pure", text, code=2)
    times = [(made.work / name).stat().st_mtime_ns for name in ("in", "out")]
    made.ok("umount")
    made.ok("mount", str(made.work))
    assert made.ok("status", "--porcelain").lines == ["t in", "t out"]
    assert [(made.work / name).stat().st_mtime_ns for name in ("in", "out")] == times == sorted(times)


def test_a_touch_is_told_and_makes_no_layer_and_status_is_clean_without_it(made: Runner) -> None:
    layers = made.ok("log", "--json").result
    touch(made, "in")
    status = made.ok("status", "--json").result
    assert status["clean"] is True and made.ok("status", "--porcelain").lines == ["t in"]
    made.ok("status", "--exit-code")
    made.ok("commit")
    assert made.ok("log", "--json").result == layers
    came = made.json("cp Makefile copy")
    assert came["edits"] is None, "no layer for it before that of a run either"


def test_after_a_hit_all_is_clean_and_what_it_did_not_change_is_as_it_was(made: Runner) -> None:
    text = made.counted("make; mkdir -p d; cp out d/copy; chmod 600 in")
    made.json(text)
    made.ok("undo")
    before = os.stat(made.work / "out")
    assert made.json(text)["cached"] is True
    after = os.stat(made.work / "out")
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert made.ok("status", "--porcelain").lines == []


def test_fork_rebuild_and_undo_restore_times_exactly(made: Runner) -> None:
    stamp(made.work / "in", OLD)
    made.json("cp in second")

    def times(place: Path) -> dict[str, int]:
        return {name: (place / name).stat().st_mtime_ns for name in ("in", "out", "Makefile", "second")}

    before = times(made.work)
    made.ok("fork", "other")
    assert times(made.work / ".fusecas" / "ws" / "other") == before
    made.json("touch in out; rm second; echo 2 > second")
    assert times(made.work) != before
    made.ok("undo")
    assert times(made.work) == before
    made.ok("rebuild")
    assert times(made.work) == before


def test_make_after_an_import(made: Runner) -> None:
    """An import is its own baseline: folders with the same content share what was built of them, whatever their times
    were. That is a limit, too: where these would have told make another thing, it builds once more."""
    built = []
    for number, order in enumerate((("in", "out"), ("in", "out"), ("out", "in"))):
        source = made.folder / f"source{number}"
        source.mkdir()
        (source / "Makefile").write_text("out: in\n\tcp in out\nmore: out\n\tcp out more\n")
        for name in order:
            (source / name).write_text(f"{name}\n")
        made.ok("import", str(source))
        came = made.json("make more")
        built.append((came["cached"], (made.work / "more").read_text(), "up to date" in made.shell("make more")))
    assert built == [(False, "out\n", True), (True, "out\n", True), (True, "out\n", False)]


@pytest.mark.parametrize("way", ["rollback", "retry"])
def test_what_is_put_back_after_a_failure_serves_make_as_before(made: Runner, way: str) -> None:
    good = "make && cp out second"
    made.json(good)
    made.ok("undo")
    text = f"touch in && make && cp out third && [ -e {made.folder}/go ]"
    made.run("run", "--on-failure", "rollback" if way == "rollback" else "keep", text)
    if way == "retry":
        (made.folder / "go").touch()
        assert made.json("--retry", text)["exit_code"] == 0
        made.ok("undo", "3")  # the layer, what was put back for it, and what the failed run had left
    assert made.changes() == {}
    assert made.json(good)["cached"] is True
    assert "up to date" in made.shell("make")
