"""Checkout of paths, --discard and --touch: a part of a layer in a living workspace, with present times."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.calling import NOT_UTF8
from tests.mount.conftest import Mounted, kill
from tests.mount.test_checkout import committed, tree

OLD = 1_000_000_000
DEATHS = 6 * int(os.environ.get("FUSECAS_TEST_EFFORT", "1"))
SPAN = 0.6
"""Of a checkout of 300 files, from its start as a process to its end, about: seconds."""


@pytest.fixture
def standing(mounted: Mounted) -> Mounted:
    """Two layers; `first` is a tag. All times are old, `out` is newer than `src`, `src` than `lib`."""
    mounted.shell("mkdir -p dir/deep; echo 1 > src; echo 1 > out; echo 1 > lib; echo 1 > dir/deep/file; echo 1 > dir/x")
    mounted.shell(f"touch -d @{OLD} lib dir/deep/file dir/x; touch -d @{OLD + 1} src; touch -d @{OLD + 2} out")
    committed(mounted, "first")
    mounted.ok("tag", "first")
    mounted.shell("for each in src out lib dir/x; do echo 2 > $each; done; rm -r dir/deep; echo 2 > dir/new")
    mounted.shell(f"touch -d @{OLD + 9} src out lib dir/x dir/new")
    committed(mounted, "second")
    return mounted


def stamps(work: Path, *paths: str) -> list[int]:
    return [(work / path).stat().st_mtime_ns for path in paths]


def operations(mounted: Mounted) -> list[str]:
    return [each["verb"] for each in mounted.ok("op", "log", "--json").result]


def test_paths_become_uncommitted_changes_and_the_head_stays(standing: Mounted) -> None:
    head, before = standing.ok("head").text, operations(standing)
    done = standing.ok("checkout", "--json", "first", "--", "src", "dir").result
    assert (done["added"], done["changed"], done["removed"]) == (2, 2, 1)
    expected = {"src": "M", "dir/x": "M", "dir/deep": "A", "dir/deep/file": "A", "dir/new": "D"}
    assert standing.changes() == expected
    assert (standing.work / "dir/deep/file").read_text() == "1\n" and (standing.work / "out").read_text() == "2\n"
    assert standing.ok("head").text == head
    assert operations(standing) == ["checkout", *before]
    standing.ok("verify")


def test_it_is_undone_as_one_step_with_what_was_uncommitted_before(standing: Mounted) -> None:
    standing.shell("echo mine > src; echo mine > mine")
    before, times = tree(standing.work), stamps(standing.work, "src", "out", "dir", "mine")
    standing.ok("checkout", "first", "--", "src", "dir")
    after = tree(standing.work)
    standing.ok("undo")
    assert (tree(standing.work), stamps(standing.work, "src", "out", "dir", "mine")) == (before, times)
    standing.ok("redo")
    assert tree(standing.work) == after


def test_what_changes_gets_present_times_in_the_order_that_it_had(standing: Mounted) -> None:
    before = time.time_ns()
    untouched = stamps(standing.work, "dir/x")
    standing.ok("checkout", "first", "--", "out", "src", "lib", "dir/deep")
    lib, src, out, deep, folder = stamps(standing.work, "lib", "src", "out", "dir/deep/file", "dir")
    assert before - 1_000_000 < lib < src < out <= time.time_ns()
    assert deep == lib, "they had one time"
    assert folder >= before - 1_000_000, "a name has come into it"
    assert stamps(standing.work, "dir/x") == untouched
    standing.umount()
    standing.mount()
    assert stamps(standing.work, "lib", "src", "out", "dir") == [lib, src, out, folder]


def test_only_modes_bring_no_new_time(standing: Mounted) -> None:
    before = stamps(standing.work, "src")
    standing.shell("chmod 600 src")
    standing.ok("checkout", "--discard", "src")
    assert (stamps(standing.work, "src"), standing.changes()) == (before, {})


def test_make_builds_again_what_was_put_back(standing: Mounted) -> None:
    (standing.work / "Makefile").write_text("out: src\n\tcp src out\n")
    standing.shell("make")
    committed(standing, "built")
    standing.shell("echo 3 > src; make")
    assert (standing.work / "out").read_text() == "3\n"
    standing.ok("checkout", "--discard", "src")
    standing.shell("make")
    assert (standing.work / "out").read_text() == "2\n"


def test_what_was_put_back_is_touched_for_the_next_run(standing: Mounted) -> None:
    standing.ok("run", "echo ran > ran")
    standing.shell("echo 3 > src; touch lib")
    standing.ok("checkout", "--discard", "src")
    assert standing.ok("status", "--porcelain").lines == ["t lib", "t src"]


def test_what_is_nowhere_is_not_found_and_nothing_happens(standing: Mounted) -> None:
    before, count = tree(standing.work), len(operations(standing))
    answer = standing.run("checkout", "first", "--", "src", "no such")
    assert (answer.code, tree(standing.work), len(operations(standing))) == (3, before, count)
    assert "no such" in answer.stderr
    assert standing.run("checkout", "first", "--", "src/below").code == 3


def test_a_second_time_nothing_is_left_to_do(standing: Mounted) -> None:
    standing.ok("checkout", "first", "--", "src")
    count = len(operations(standing))
    assert standing.ok("checkout", "first", "--", "src").lines == ["nothing differs from first"]
    assert len(operations(standing)) == count


def test_folders_above_come_along_but_nothing_takes_the_place_of_a_file(standing: Mounted) -> None:
    standing.shell("rm -r dir")
    standing.ok("checkout", "first", "--", "dir/deep/file")
    assert tree(standing.work / "dir") == {"deep": None, "deep/file": b"1\n"}
    standing.shell("rm -r dir; echo mine > dir")
    answer = standing.run("checkout", "first", "--", "dir/deep/file")
    assert (answer.code, (standing.work / "dir").read_text()) == (4, "mine\n")
    standing.ok("checkout", "first", "--", "dir")
    assert tree(standing.work / "dir") == {"deep": None, "deep/file": b"1\n", "x": b"1\n"}
    standing.ok("verify")


def test_a_dot_is_everything(standing: Mounted) -> None:
    standing.ok("checkout", "first", "--", ".")
    after = tree(standing.work)
    standing.ok("checkout", "first")
    assert tree(standing.work) == after


def test_paths_are_seen_from_where_one_is(standing: Mounted) -> None:
    inside = standing.work / "dir"
    standing.ok("checkout", "first", "--", "x", cwd=inside)
    assert standing.changes() == {"dir/x": "M"}
    standing.ok("checkout", "first", "--", "../src", cwd=inside)
    standing.ok("checkout", "first", "--", str(standing.work / "lib"))
    assert standing.changes() == {"dir/x": "M", "src": "M", "lib": "M"}
    assert standing.run("checkout", "first", "--", "../../src", cwd=inside).code == 2
    assert standing.run("checkout", "first", "--", "../src").code == 2
    assert standing.run("checkout", "first", "--", ".fusecas/repo").code == 2
    standing.ok("fork", "other")
    fork = standing.work / ".fusecas/ws/other/dir"
    standing.ok("checkout", "--discard", "x", cwd=fork)
    assert ((fork / "x").read_text(), (inside / "x").read_text()) == ("2\n", "1\n")


def test_a_name_that_is_not_utf8(standing: Mounted) -> None:
    odd = os.fsencode(standing.work) + b"/" + NOT_UTF8
    with open(odd, "wb") as file:
        file.write(b"one")
    committed(standing, "third")
    with open(odd, "wb") as file:
        file.write(b"two")
    standing.ok("checkout", "@", "--", NOT_UTF8)
    with open(odd, "rb") as file:
        assert file.read() == b"one"


def test_an_open_file_keeps_what_it_has(standing: Mounted) -> None:
    with (standing.work / "src").open("r+") as file:
        standing.ok("checkout", "first", "--", "src")
        assert file.read() == "2\n"
        assert (standing.work / "src").read_text() == "1\n"


def test_without_a_mount_it_is_the_same(standing: Mounted) -> None:
    standing.umount()
    standing.ok("checkout", "first", "--", "src", "dir/deep")
    standing.mount()
    assert standing.changes() == {"src": "M", "dir/deep": "A", "dir/deep/file": "A"}


# ---- hard links


def test_links_stay_links_among_what_is_brought(standing: Mounted) -> None:
    work = standing.work
    standing.shell("echo a > a; ln a b; ln a c; echo z > z; ln z z2")
    committed(standing, "linked")
    assert standing.ok("checkout", "@", "--", "a").lines == ["nothing differs from @"]
    assert (work / "b").stat().st_nlink == 3
    standing.shell("rm a b c; echo other > a; echo other > b; ln z z3")
    standing.ok("checkout", "@", "--", "a", "b")
    assert (work / "a").stat().st_nlink == 2 and (work / "b").samefile(work / "a") and not (work / "c").exists()
    assert (work / "z").stat().st_nlink == 3
    standing.ok("checkout", "@", "--", "c")
    assert (work / "c").stat().st_nlink == 1, "what is not brought is another file"
    standing.ok("checkout", "@", "--", "a", "b", "c")
    assert (work / "c").stat().st_nlink == 3
    standing.ok("checkout", "@", "--", "z3")
    assert (work / "z").stat().st_nlink == 2
    assert standing.ok("status", "--porcelain").lines == []
    standing.ok("verify")


def test_one_name_of_two_that_were_changed_is_a_file_of_its_own(standing: Mounted) -> None:
    work = standing.work
    standing.shell("echo a > a; ln a b")
    committed(standing, "linked")
    standing.shell("echo changed > a")
    standing.ok("checkout", "@", "--", "a")
    assert ((work / "a").read_text(), (work / "b").read_text()) == ("a\n", "changed\n")
    assert (work / "a").stat().st_nlink == (work / "b").stat().st_nlink == 1
    standing.ok("commit")
    standing.ok("verify")


# ---- discard


def test_discard_throws_away_what_is_uncommitted_and_undo_brings_it_back(standing: Mounted) -> None:
    committed_tree = tree(standing.work)
    standing.shell("echo mine > src; rm lib; echo mine > mine; chmod 700 out")
    edited = tree(standing.work)
    answer = standing.ok("checkout", "--discard")
    assert "2 changed, 1 added, 1 removed; fusecas undo brings it back" in answer.text
    assert (tree(standing.work), standing.changes()) == (committed_tree, {})
    standing.ok("undo")
    assert tree(standing.work) == edited and standing.changes()["out"] == "m"
    standing.ok("checkout", "--discard", "src", "mine")
    assert standing.changes() == {"lib": "D", "out": "m"}
    standing.ok("checkout", "--discard", "--", "lib", "out")
    assert standing.changes() == {}
    assert standing.ok("checkout", "--discard", "src").lines == ["nothing to discard"]


# ---- touch


def test_touch_brings_present_times_in_the_order_that_they_had(standing: Mounted) -> None:
    before = time.time_ns()
    standing.ok("checkout", "--touch", "first")
    lib, src, out = stamps(standing.work, "lib", "src", "out")
    assert before - 1_000_000 < lib < src < out
    assert standing.ok("status", "--porcelain").lines == []
    standing.ok("undo")
    assert stamps(standing.work, "src") == [(OLD + 9) * 10**9]
    standing.ok("checkout", "first")
    assert stamps(standing.work, "src") == [(OLD + 1) * 10**9]


def test_touch_leaves_alone_what_is_the_same(standing: Mounted) -> None:
    standing.shell(f"echo same > same; touch -d @{OLD} same")
    committed(standing, "third")
    standing.shell("echo 3 > src; rm lib")
    committed(standing, "fourth")
    standing.ok("checkout", "--touch", "@~1")
    assert stamps(standing.work, "same", "out") == [OLD * 10**9, (OLD + 9) * 10**9]
    assert stamps(standing.work, "lib")[0] > (OLD + 100) * 10**9
    standing.ok("verify")


# ---- wrong calls


@pytest.mark.parametrize(
    "words", [[], ["first", "src"], ["--discard", "../x"], ["--discard", ""], ["first", "--", "/etc"]]
)
def test_a_wrong_call_says_what_is_wrong(standing: Mounted, words: list[str]) -> None:
    before = tree(standing.work)
    answer = standing.run("checkout", *words)
    assert answer.code == 2 and answer.stderr and tree(standing.work) == before


# ---- crashes


def test_the_daemon_killed_at_any_moment_leaves_the_old_or_the_new_state(standing: Mounted) -> None:
    """What was uncommitted before is whole either way, and what was put back has its new times or the old ones."""
    standing.shell("mkdir many; for i in $(seq 300); do echo 1 > many/$i; done")
    committed(standing, "many")
    standing.shell("for i in $(seq 300); do echo 2 > many/$i; done; echo mine > mine; ln mine many/linked")
    before, put_back = tree(standing.work), 0
    for number in range(DEATHS):
        pid = standing.pid()
        process = standing.start("checkout", "@", "--", "many", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if number == DEATHS - 1:
            process.wait()
        else:
            time.sleep(SPAN * number / DEATHS)  # later and later
        kill(pid)
        process.wait()
        standing.mount()
        now = tree(standing.work)
        assert now["mine"] == b"mine\n"
        is_new = now["many/1"] == b"1\n"
        put_back += is_new
        expected = {path: b"1\n" for path in before if path.startswith("many/")} if is_new else {}
        gone = "many/linked" if is_new else None
        assert now == {path: expected.get(path, data) for path, data in before.items() if path != gone}
        if is_new:
            standing.ok("undo")
            assert tree(standing.work) == before
    assert 0 < put_back < DEATHS, "not every moment was met"
    standing.ok("verify")
