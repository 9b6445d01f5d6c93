"""op revert: one operation taken back, if nothing has moved since what it moved."""

import os

import pytest

from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed, tree


@pytest.fixture
def standing(mounted: Mounted) -> Mounted:
    for number in ("one", "two"):
        (mounted.work / "file").write_text(number)
        committed(mounted, number)
    return mounted


def last(mounted: Mounted, verb: str) -> str:
    """The number of the newest operation of a verb."""
    found = mounted.ok("op", "log", "--json").result
    return str(next(each["number"] for each in found if each["verb"] == verb))


def test_a_tag_that_was_made_moved_or_deleted(standing: Mounted) -> None:
    before = standing.ok("tags", "--json").result
    standing.ok("tag", "v1", "@~1")
    first = standing.ok("tags", "--json").result
    standing.ok("tag", "-f", "v1", "@")
    moved = last(standing, "tag")
    standing.ok("op", "revert", moved)
    assert standing.ok("tags", "--json").result == first
    standing.ok("tag", "-d", "v1")
    standing.ok("op", "revert", last(standing, "tag"))
    assert standing.ok("tags", "--json").result == first
    standing.ok("tag", "v2")
    assert standing.ok("op", "revert", last(standing, "tag")).text.endswith("tag v2\n")
    assert standing.ok("tags", "--json").result == first != before
    standing.ok("op", "revert", last(standing, "op revert"))
    assert "v2" in standing.ok("tags", "--json").result, "a revert is an operation as any other"


def test_what_has_moved_since_is_named_and_stays(standing: Mounted) -> None:
    standing.ok("tag", "v1", "@~1")
    made = last(standing, "tag")
    standing.ok("tag", "-f", "v1", "@")
    before = standing.ok("op", "log", "--json").result
    answer = standing.run("op", "revert", made, "--json")
    assert (answer.code, answer.error["code"], answer.error["details"]) == (4, "conflict", {"refs": ["tags/v1"]})
    assert "tags/v1" in answer.error["message"]
    assert standing.ok("op", "log", "--json").result == before


def test_a_workspace_goes_back_with_its_files_and_what_is_uncommitted_is_kept(standing: Mounted) -> None:
    one = standing.ok("log", "--json").result[1]["hash"]
    standing.ok("checkout", one)
    (standing.work / "mine").write_text("uncommitted")
    edited = tree(standing.work)
    answer = standing.ok("op", "revert", last(standing, "checkout"))
    assert "set aside" in answer.text
    assert tree(standing.work) == {"file": b"two"}
    standing.ok("undo")
    assert tree(standing.work) == edited
    standing.ok("undo")  # the edits
    standing.ok("op", "revert", last(standing, "checkout"))  # it stands there again
    assert tree(standing.work) == {"file": b"two"}


def test_a_workspace_that_has_gone_on_stays(standing: Mounted) -> None:
    checkout = standing.ok("checkout", "@~1") and last(standing, "checkout")
    (standing.work / "file").write_text("three")
    committed(standing, "three")
    answer = standing.run("op", "revert", checkout)
    assert (answer.code, "heads/main" in answer.stderr) == (4, True)
    assert (standing.work / "file").read_text() == "three"


def test_a_fork_is_gone_and_comes_back_with_what_was_in_it(standing: Mounted) -> None:
    (standing.work / "more").write_text("uncommitted")
    (standing.work / "d").mkdir()
    standing.ok("fork", "other")
    fork = standing.work / ".fusecas/ws/other"
    before = tree(fork)
    standing.ok("op", "revert", last(standing, "fork"))
    assert not fork.exists() and standing.run("status", "--ws", "other").code == 3
    standing.ok("op", "revert", last(standing, "op revert"))
    assert tree(fork) == before
    assert standing.ok("status", "--ws", "other", "--porcelain").lines == ["+ d", "+ more"]
    (fork / "d" / "new").write_text("x")
    (fork / "new").write_text("x")
    paths = ("d", "d/new", "file", "more", "new")
    numbers = {os.lstat(fork / each).st_ino for each in paths}
    assert len(numbers) == len(paths)
    standing.ok("commit", "--ws", "other")
    standing.ok("verify")


def test_a_fork_that_was_worked_in_stays(standing: Mounted) -> None:
    standing.ok("fork", "other")
    (standing.work / ".fusecas/ws/other/new").write_text("x")
    standing.ok("commit", "--ws", "other")
    assert standing.run("op", "revert", last(standing, "fork")).code == 4
    assert (standing.work / ".fusecas/ws/other/new").exists()


def test_the_default_and_the_mounted_workspace_stay(standing: Mounted) -> None:
    fork = standing.ok("fork", "other") and last(standing, "fork")
    standing.umount()
    standing.mount("--ws", "other")
    assert standing.run("op", "revert", fork).code == 4
    assert standing.run("op", "revert", last(standing, "init")).code == 4
    assert standing.run("ws", "rm", "other").code == 4
    assert standing.run("ws", "rm", "main").code == 4


def test_without_a_mount_it_is_the_same(standing: Mounted) -> None:
    standing.ok("checkout", "@~1")
    standing.ok("fork", "other")
    standing.umount()
    standing.ok("op", "revert", last(standing, "fork"))
    standing.ok("op", "revert", last(standing, "checkout"))
    standing.mount()
    assert (standing.work / "file").read_text() == "two"


@pytest.mark.parametrize("number", ["9999999", "0", "-1", "x", "99999999999999999999999"])
def test_a_number_that_is_none(standing: Mounted, number: str) -> None:
    answer = standing.run("op", "revert", "--", number)
    assert answer.code == (3 if number == "9999999" else 2)
