"""`@live`: what is there now, whether it is sealed or not; and `@`: the workspace that one is in."""

import pytest

from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed, tree


@pytest.fixture
def edited(mounted: Mounted) -> Mounted:
    mounted.shell("mkdir d; echo one > d/file; echo one > kept; echo one > gone")
    committed(mounted, "first")
    mounted.shell("echo two > d/file; rm gone; echo new > new")
    return mounted


def test_a_diff_shows_what_is_uncommitted(edited: Mounted) -> None:
    assert edited.ok("diff").lines == ["M d/file", "D gone", "A new"]
    assert "+two" in edited.ok("diff", "-p", "--", "d").lines
    assert edited.ok("diff", "@empty", "--name-only").lines == ["d", "d/file", "kept", "new"]
    assert edited.run("diff", "--exit-code").code == 1
    committed(edited, "second")
    assert edited.run("diff", "--exit-code").code == 0
    edited.shell("echo three > d/file")
    assert edited.ok("diff", "@~1", "@").lines == ["M d/file", "D gone", "A new"], "both are layers"
    assert edited.ok("diff", "@live", "@").lines == ["M d/file"]


def test_it_is_the_same_without_a_mount(edited: Mounted) -> None:
    edited.umount()
    assert edited.ok("diff").lines == ["M d/file", "D gone", "A new"]
    assert edited.ok("cat", "@live:new").text == "new\n"


def test_each_verb_that_reads_sees_what_is_there_now(edited: Mounted) -> None:
    assert edited.ok("cat", "@live:d/file").text == "two\n"
    assert edited.ok("ls", "@live").lines == ["d/", "kept", "new"]
    edited.shell("echo three > d/file")
    assert edited.ok("ls", "-R", "@live:d").lines == ["file"]
    assert edited.ok("cat", "@live:d/file").text == "three\n"
    edited.ok("export", "@live", "out")
    assert tree(edited.folder / "out") == tree(edited.work)
    assert edited.changes() == {"d/file": "M", "gone": "D", "new": "A"}, "and all of it is still uncommitted"


def test_to_look_is_no_operation(edited: Mounted) -> None:
    before = edited.ok("op", "log", "--json").result
    edited.ok("diff")
    assert edited.ok("op", "log", "--json").result == before


def test_what_is_uncommitted_is_no_layer(edited: Mounted) -> None:
    answer = edited.run("tag", "name", "@live")
    assert answer.code == 3 and "fusecas commit" in answer.stderr


def test_paths_of_a_diff_are_seen_from_where_one_is(edited: Mounted) -> None:
    assert edited.ok("diff", "--", "file", cwd=edited.work / "d").lines == ["M d/file"]
    assert edited.ok("diff", "--", "d/file").lines == ["M d/file"]
    assert edited.run("diff", "--", "../../x", cwd=edited.work / "d").code == 2


def test_the_workspace_that_one_is_in_is_meant(edited: Mounted) -> None:
    edited.ok("fork", "other")
    fork = edited.work / ".fusecas/ws/other"
    (fork / "new").write_text("of the fork\n")
    edited.ok("commit", cwd=fork)
    (fork / "kept").write_text("two")
    assert edited.ok("diff", cwd=fork).lines == ["M kept"]
    assert edited.ok("cat", "@:new", cwd=fork).text == "of the fork\n"
    assert edited.ok("diff", env={"FUSECAS_WS": "other"}).lines == ["M kept"]
    assert edited.ok("head", "--json", cwd=fork).result["workspace"] == "other"
    assert edited.ok("diff").lines == ["M d/file", "D gone", "A new"]


def test_the_mounted_workspace_is_meant(edited: Mounted) -> None:
    edited.ok("fork", "other")
    edited.umount()
    edited.mount("--ws", "other")
    (edited.work / "kept").write_text("two")
    committed(edited, "in other")
    assert edited.ok("head", "--json").result["workspace"] == "other"
    assert edited.ok("cat", "@:kept").text == "two"
    edited.kill()
    assert edited.ok("head", "--json").result["workspace"] == "main"
