"""Files that remember the times of others are in a key by what they say; git's index is one."""

import os
import subprocess
from pathlib import Path

import pytest

from fusecas import _native
from tests.run.conftest import Runner


@pytest.fixture
def project(runner: Runner) -> Runner:
    runner.json("true")
    runner.shell("git init -q .; git config user.email a@b; git config user.name a; mkdir d; echo 1 > d/a; echo 2 > b")
    runner.shell("git add -A; git commit -qm first")
    return runner


def index(runner: Runner) -> bytes:
    return (runner.work / ".git" / "index").read_bytes()


def looked_at(runner: Runner) -> bytes:
    """The index after a `git status` that found other times than it knew."""
    before = index(runner)
    for name in ("b", "d/a"):
        os.utime(runner.work / name, ns=(1, 1))  # long ago: git need not fear that it was changed since
    runner.shell("git status --short")
    assert index(runner) != before
    return index(runner)


def test_a_git_status_at_a_prompt_does_not_cost_the_hits(project: Runner) -> None:
    (project.repository / "config.toml").write_text('[run]\ntimes = "ignore"\n')
    text = project.counted("echo made > d/made; mkdir e; echo x > e/x; ln e/x e/y; rm b; chmod 600 d/a")
    project.json(text)
    wanted = project.shell("ls -lR --time-style=+ .")
    project.ok("undo")
    now = looked_at(project)
    assert project.json(text)["cached"] is True
    assert project.shell("ls -lR --time-style=+ .") == wanted
    assert index(project) == now, "it is left as it is"
    assert project.shell("git status --short").split("\n")[:-1] == [" D b", "?? d/made", "?? e/"]
    project.ok("undo")
    assert index(project) == now and project.executions == 1
    project.ok("verify")


def test_the_index_of_a_repository_within_is_one_if_it_is_said(runner: Runner) -> None:
    runner.json("true")
    (runner.repository / "config.toml").write_text('[run]\nstat_caches = ["within/.git/index"]\n')
    runner.shell(
        "git init -q within; cd within; git config user.email a@b; git config user.name a; echo 1 > a; git add a"
    )
    text = runner.counted("echo made > made")
    runner.json("true")
    runner.json(text)
    runner.ok("undo")
    before = (runner.work / "within" / ".git" / "index").read_bytes()
    runner.shell("cd within; git update-index --index-version 4; git status --short")
    assert (runner.work / "within" / ".git" / "index").read_bytes() != before
    assert runner.json(text)["cached"] is True and runner.executions == 1


def test_what_git_notes_at_a_prompt_is_nothing_uncommitted(project: Runner) -> None:
    project.json("echo made > made")
    layer = project.ok("head", "--json").result["layer"]
    looked_at(project)
    project.shell("git update-index --index-version 4")
    for sealed in (False, True):
        if sealed:
            project.ok("diff")
        status = project.ok("status", "--exit-code", "--json").result
        assert status["clean"] and {"path": ".git/index"} not in status["touched"], sealed
    came = project.json("--dirty", "fail", "echo more > more")
    assert came["edits"] is None
    assert project.ok("log", "--json").result[1]["hash"] == layer
    project.shell("git update-index --index-version 2; git status")
    assert "set aside" not in project.ok("checkout", "@~1").text
    project.shell("git add made")
    assert project.changes()[".git/index"] == "M"
    assert project.run("run", "--dirty", "fail", "true").code == 125
    assert project.json("echo again > again")["edits"] is not None


def test_a_git_status_between_leaves_times_alone(project: Runner) -> None:
    text = project.counted("echo made > made")
    project.json("true")
    project.json(text)
    project.ok("undo")
    project.shell("touch -r b stamp; git update-index --index-version 4; rm stamp; git status --short")
    assert project.json(text)["cached"] is True


def test_what_a_run_itself_makes_of_the_index_is_brought_along(project: Runner) -> None:
    (project.repository / "config.toml").write_text('[run]\ntimes = "ignore"\n')
    text = project.counted("echo new > new; git add new")
    project.json(text)
    project.ok("undo")
    looked_at(project)
    assert project.json(text)["cached"] is True
    assert project.shell("git status --short") == "A  new\n"


def test_what_the_index_says_counts(project: Runner) -> None:
    text = project.counted("git ls-files > files")
    project.json(text)
    project.ok("undo")
    project.shell("echo 3 > c; git add c; rm c")
    assert project.json(text)["cached"] is False


@pytest.mark.parametrize("how", ["2", "3", "4", "sha256", "split", "skip"])
def test_an_index_is_read_as_git_writes_it(tmp_path: Path, how: str) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.email=a@b", "-c", "user.name=a"]

    def run(*words: str) -> None:
        subprocess.run([*git, *words], check=True, capture_output=True)

    run("init", "-q", *(["--object-format=sha256"] if how == "sha256" else []))
    for number in range(20):
        (tmp_path / f"file{number}").write_text(str(number))
    if how in "234":
        run("config", "index.version", how)
    run("add", "-A")
    run("commit", "-qm", "x")
    if how == "3":
        run("update-index", "--skip-worktree", "file3")
    if how == "split":
        run("update-index", "--split-index")
    if how == "skip":
        run("config", "index.skipHash", "true")
    first = _native.git_index_digest((tmp_path / ".git" / "index").read_bytes())
    assert (first is None) is (how == "split")
    if first is None:
        return
    before = (tmp_path / ".git" / "index").read_bytes()
    os.utime(tmp_path / "file1", ns=(5, 5))
    run("status")
    data = (tmp_path / ".git" / "index").read_bytes()
    assert data != before and _native.git_index_digest(data) == first
    run("update-index", "--assume-unchanged", "file7")
    assert _native.git_index_digest((tmp_path / ".git" / "index").read_bytes()) != first
    for cut in range(0, len(data), 7):
        assert _native.git_index_digest(data[:cut]) in (None, first)
    for at in range(len(data)):
        _native.git_index_digest(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])


def test_what_is_no_index_counts_by_its_bytes(project: Runner) -> None:
    (project.repository / "config.toml").write_text('[run]\nstat_caches = ["cache"]\n')
    text = project.counted("cat cache > copy")
    (project.work / "cache").write_text("1")
    project.json(text)
    project.ok("undo")
    (project.work / "cache").write_text("1")
    assert project.json(text)["cached"] is True
    project.ok("undo")
    (project.work / "cache").write_text("2")
    assert project.json(text)["cached"] is False


def test_a_git_status_between_undo_and_redo_is_no_step(project: Runner) -> None:
    project.json("echo 1 > one")
    project.json("echo 2 > two")
    project.ok("undo")
    looked_at(project)
    project.ok("undo")
    looked_at(project)
    assert not (project.work / "one").exists()
    project.ok("redo", "2")
    assert (project.work / "two").read_text() == "2\n"
    project.shell("echo 3 > three; git add three; rm three")
    assert project.run("redo").code == 4
    project.ok("undo")
    assert project.shell("git diff --cached --name-only") == ""
