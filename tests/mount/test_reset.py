"""reset: checkout by other names, and the end of a repository; path: where the workspace is."""

import os
import subprocess
from pathlib import Path

import pytest

from fusecas.mount.device import is_mounted
from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed, tree


@pytest.fixture
def standing(mounted: Mounted) -> Mounted:
    """Three layers; other is a workspace at the first one."""
    for number in ("one", "two", "three"):
        (mounted.work / "file").write_text(number)
        committed(mounted, number)
        if number == "one":
            mounted.ok("fork", "other")
    return mounted


def content(mounted: Mounted) -> str:
    return (mounted.work / "file").read_text()


def test_to_a_layer(standing: Mounted) -> None:
    (standing.work / "mine").write_text("uncommitted")
    answer = standing.ok("reset", "--to", "@~1")
    assert "set aside" in answer.text and content(standing) == "two" and not (standing.work / "mine").exists()
    standing.ok("undo")
    assert content(standing) == "three" and (standing.work / "mine").exists()


def test_to_where_the_workspace_was_at_a_time_or_after_an_operation(standing: Mounted) -> None:
    two = standing.ok("op", "log", "main", "--json").result[1]
    standing.ok("reset", "--version", str(two["number"]))
    assert content(standing) == "two"
    seconds, microseconds = divmod(int(two["time_ns"]) // 1000, 10**6)
    moment = subprocess.check_output(["date", "-u", "-d", f"@{seconds}", "+%Y-%m-%dT%H:%M:%S"], text=True).strip()
    standing.ok("checkout", "@empty")
    standing.ok("reset", "--at", f"{moment}.{microseconds:06}+00:00")
    assert content(standing) == "two"
    assert standing.run("reset", "--at", "3d").code == 3, "it was not there yet"


def test_to_where_another_workspace_is(standing: Mounted) -> None:
    standing.ok("reset", "--match", "other")
    assert content(standing) == "one"


@pytest.mark.parametrize(
    "words",
    ["", "--to @ --match other", "--to @ --all", "--yes", "--purge", "--all", "--all --purge", "--at 3", "--at someday",
     "--at }", "--version 0", "--version x", "extra"],
)  # fmt: skip
def test_a_wrong_call_says_what_is_wrong_and_changes_nothing(standing: Mounted, words: str) -> None:
    before = standing.ok("op", "log", "--json").result
    answer = standing.run("reset", *words.split())
    assert answer.code == 2 and answer.stderr
    assert (content(standing), standing.ok("op", "log", "--json").result) == ("three", before)


def test_alone_it_explains_itself(standing: Mounted) -> None:
    said = standing.run("reset").stderr
    assert all(each in said for each in ("checkout --discard", "undo", "--to", "--all --yes"))


@pytest.mark.parametrize(("words", "nearest"), [(["--match", "othre"], "other"), (["--to", "mian"], "main")])
def test_what_is_not_there_is_told_with_the_nearest_name(standing: Mounted, words: list[str], nearest: str) -> None:
    answer = standing.run("reset", *words)
    assert answer.code == 3 and f"did you mean {nearest}?" in answer.stderr


def test_all_puts_the_repository_away_and_it_can_be_brought_back(standing: Mounted) -> None:
    (standing.work / "mine").write_text("uncommitted")
    before = tree(standing.work)
    result = standing.ok("reset", "--all", "--yes", "--json").result
    removed = Path(result["removed_to"])
    assert removed.parent == standing.folder and removed.name.startswith(".fusecas.removed-")
    assert not is_mounted(standing.work) and not standing.repository.exists()
    assert standing.run("status").code == 3
    removed.rename(standing.repository)
    standing.mount()
    assert tree(standing.work) == before and standing.changes() == {"mine": "A"}


def test_all_says_where_it_went(standing: Mounted) -> None:
    answer = standing.ok("reset", "--all", "--yes")
    (removed,) = standing.folder.glob(".fusecas.removed-*")
    assert str(removed) in answer.text


def test_purge_leaves_nothing(standing: Mounted) -> None:
    standing.ok("reset", "--all", "--yes", "--purge")
    assert sorted(os.listdir(standing.folder)) == ["work"] and os.listdir(standing.work) == []


def test_all_is_refused_while_somebody_is_in_the_mount(standing: Mounted) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=standing.work) as sleeper:
        assert standing.run("reset", "--all", "--yes", "--purge").code == 4
        sleeper.kill()
    assert content(standing) == "three"


def test_all_works_after_the_daemon_was_killed(standing: Mounted) -> None:
    standing.kill()
    standing.ok("reset", "--all", "--yes")
    assert not standing.repository.exists() and not is_mounted(standing.work)


# ---- path


def test_path_says_where_the_workspace_is(standing: Mounted) -> None:
    assert standing.ok("path").text == f"{standing.work}\n"
    other = standing.work / ".fusecas/ws/other"
    assert standing.ok("path", "--ws", "other").text == f"{other}\n"
    assert standing.ok("path", cwd=other).text == f"{other}\n"
    assert standing.ok("path", "--json").result == {"workspace": "main", "path": str(standing.work)}
    assert standing.run("path", "--ws", "othre").code == 3


def test_path_mounts_what_is_not_mounted(standing: Mounted) -> None:
    standing.umount()
    assert standing.ok("path").text == f"{standing.work}\n"
    assert is_mounted(standing.work) and content(standing) == "three"
