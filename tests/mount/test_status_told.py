"""What `fusecas status` prints for people, for scripts and as JSON."""

import os

import pytest

from tests.cli.calling import NOT_UTF8
from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed


@pytest.fixture
def changed(mounted: Mounted) -> Mounted:
    """One of each."""
    work = mounted.work
    for name in ("content", "gone", "mode", "kind", "owner"):
        (work / name).write_text("one")
    committed(mounted, "first")
    (work / "content").write_text("two")
    (work / "content").chmod(0o755)
    (work / "gone").unlink()
    (work / "mode").chmod(0o600)
    (work / "kind").unlink()
    (work / "kind").mkdir()
    os.setxattr(work / "owner", "user.x", b"y")
    (work / "new dir").mkdir()
    (work / "new dir" / "in it").touch()
    return mounted


PATHS = {"+": ["new dir", "new dir/in it"], "~": ["content", "kind", "mode", "owner"], "-": ["gone"]}


def test_each_line_begins_with_what_was_done(changed: Mounted) -> None:
    assert changed.ok("status").lines == [
        f"mounted at {changed.work}",
        "~ content",
        "- gone",
        "~ kind/ (type)",
        "~ mode (mode)",
        "+ new dir/",
        "+ new dir/in it",
        "~ owner (xattr)",
    ]


def test_the_same_is_told_of_a_workspace_that_is_not_mounted(changed: Mounted) -> None:
    mounted = changed.ok("status").lines
    changed.umount()
    assert changed.ok("status").lines == ["not mounted", *mounted[1:]]


def test_json_has_lists_by_what_was_done(changed: Mounted) -> None:
    found = changed.ok("status", "--json").result
    for sign, field in (("+", "added"), ("~", "modified"), ("-", "deleted")):
        assert [each["path"] for each in found[field]] == PATHS[sign]
    assert [each["kinds"] for each in found["modified"]] == [["mode", "modified"], ["type"], ["mode"], ["xattr"]]
    assert (found["touched"], found["clean"]) == ([], False)
    committed(changed, "second")
    found = changed.ok("status", "--json").result
    assert all(found[each] == [] for each in ("added", "modified", "deleted", "touched", "changes")) and found["clean"]


def test_scripts_get_a_sign_and_a_path_and_nothing_else(changed: Mounted) -> None:
    expected = sorted((path, sign) for sign, paths in PATHS.items() for path in paths)
    assert changed.ok("status", "--porcelain").lines == [f"{sign} {path}" for path, sign in expected]
    committed(changed, "second")
    assert changed.ok("status", "--porcelain").stdout == b""


def test_scripts_get_odd_names_in_quotes_or_raw(mounted: Mounted) -> None:
    names = [b"a\nb", NOT_UTF8, b'q"uote', "größe".encode()]
    for name in names:
        open(os.fsencode(mounted.work) + b"/" + name, "wb").close()
    assert mounted.ok("status", "--porcelain").lines == [
        '+ "a\\nb"',
        '+ "caf\\351"',
        '+ "gr\\303\\266\\303\\237e"',
        '+ "q\\"uote"',
    ]
    raw = mounted.ok("status", "--porcelain", "-z").stdout
    assert raw == b"".join(b"+ " + name + b"\0" for name in sorted(names))
    fields = mounted.ok("status", "--json").result["added"][1]
    assert fields == {"path": "caf\ufffd", "path_b64": "Y2Fm6Q=="}


def test_z_is_for_scripts_only(mounted: Mounted) -> None:
    assert mounted.run("status", "-z").code == 2


def test_the_exit_code_says_whether_all_is_committed_if_it_is_asked(changed: Mounted) -> None:
    assert changed.run("status").code == 0
    assert changed.run("status", "--exit-code").code == 1
    assert changed.run("status", "--exit-code", "--json").code == 1
    committed(changed, "second")
    assert changed.run("status", "--exit-code").code == 0


def test_only_a_terminal_gets_colours(changed: Mounted) -> None:
    assert "\x1b[" not in changed.ok("status").text
    assert "\x1b[32m+\x1b[0m new dir/" in changed.on_terminal("status")
    assert "\x1b[" not in changed.on_terminal("status", env={"NO_COLOR": "1"})
    assert "\x1b[" not in changed.on_terminal("status", "--porcelain")


# ---- touched


@pytest.fixture
def standing(mounted: Mounted) -> Mounted:
    """After a run: its times are the baseline."""
    (mounted.work / "d").mkdir()
    for name in ("a", "b", "d/c"):
        (mounted.work / name).write_text(name)
    (mounted.work / "link").symlink_to("a")
    os.link(mounted.work / "b", mounted.work / "b2")
    committed(mounted, "first")
    mounted.ok("run", "echo ran > ran")
    assert told(mounted) == []
    return mounted


def told(mounted: Mounted) -> list[str]:
    return mounted.ok("status", "--porcelain").lines


def seal(mounted: Mounted) -> None:
    """As a run does: a fork freezes, its commit stores."""
    mounted.ok("fork", "other")
    mounted.ok("commit", "--ws", "other")


def test_a_file_with_a_new_time_is_touched_and_all_is_committed(standing: Mounted) -> None:
    standing.shell("touch a d/c; touch -h -d 2001-01-01 link")
    assert told(standing) == ["t a", "t d/c", "t link"]
    assert standing.ok("status").lines[-1] == "nothing uncommitted"
    assert standing.run("status", "--exit-code").code == 0
    found = standing.ok("status", "--json").result
    assert ([each["path"] for each in found["touched"]], found["clean"]) == (["a", "d/c", "link"], True)
    standing.umount()
    assert told(standing) == ["t a", "t d/c", "t link"]


def test_each_name_of_a_touched_file_is_told(standing: Mounted) -> None:
    standing.shell("touch b2")
    assert told(standing) == ["t b", "t b2"]


def test_what_was_touched_is_still_told_once_it_is_sealed(standing: Mounted) -> None:
    standing.shell("touch a d/c")
    seal(standing)
    assert told(standing) == ["t a", "t d/c"]
    standing.shell("chmod 600 d/c; mv a gone; touch b")
    assert told(standing) == ["- a", "t b", "t b2", "~ d/c", "+ gone"]


def test_a_time_that_was_put_back_is_not_touched(standing: Mounted) -> None:
    before = (standing.work / "a").stat().st_mtime_ns
    standing.shell("touch a")
    seal(standing)
    assert told(standing) == ["t a"]
    os.utime(standing.work / "a", ns=(0, before))
    assert told(standing) == []


def test_what_is_changed_is_not_told_as_touched_as_well(standing: Mounted) -> None:
    standing.shell("chmod 600 a; touch a; echo more >> d/c; touch d")
    assert told(standing) == ["~ a", "~ d/c"]
