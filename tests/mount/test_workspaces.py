"""`.fusecas` in the mount: forks that live beside their source, layers to look at, and what refuses to be changed."""

import errno
import os
import subprocess
from pathlib import Path

import pytest

from fusecas.store.repository import Repository
from tests.cli.calling import ENVIRONMENT, PROGRAM
from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed, tree
from tests.store.making import collect


@pytest.fixture
def inner(mounted: Mounted) -> Path:
    return mounted.work / ".fusecas"


def refused(number: int) -> "pytest.RaisesExc[OSError]":
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def test_a_fork_has_what_is_uncommitted_and_goes_its_own_way(mounted: Mounted, inner: Path) -> None:
    work = mounted.work
    (work / "d").mkdir()
    (work / "d" / "file").write_text("committed")
    mounted.ok("commit")
    (work / "d" / "file").write_text("uncommitted")
    number = (work / "d" / "file").stat().st_ino
    said = mounted.ok("fork", "other").text
    other = inner / "ws" / "other"
    assert str(other) in said
    assert tree(other) == {"d": None, "d/file": b"uncommitted"}
    assert (other / "d" / "file").stat().st_ino % (1 << 36) == number % (1 << 36)
    (other / "d" / "file").write_text("theirs")
    (work / "mine").write_text("mine")
    assert tree(work) == {"d": None, "d/file": b"uncommitted", "mine": b"mine"}
    assert tree(other) == {"d": None, "d/file": b"theirs"}
    status = mounted.ok("status", "--ws", "other", "--json").result
    assert [(each["letter"], each["path"]) for each in status["changes"]] == [("M", "d/file")]
    assert status["mountpoint"] == str(other)
    mounted.ok("commit", "-m", "theirs", cwd=other / "d")  # whoever stands in a workspace means it
    assert mounted.ok("cat", "ws:other:d/file").text == "theirs"
    mounted.ok("undo", "2", "--ws", "other")
    assert tree(other) == {"d": None, "d/file": b"uncommitted"}


def test_a_fork_outlives_the_daemon(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_text("source")
    mounted.ok("fork", "other")
    (inner / "ws" / "other" / "file").write_text("uncommitted in the fork")
    mounted.kill()
    mounted.mount()
    assert (inner / "ws" / "other" / "file").read_text() == "uncommitted in the fork"
    assert (mounted.work / "file").read_text() == "source"
    mounted.umount()
    mounted.mount("--ws", "other")
    assert (mounted.work / "file").read_text() == "uncommitted in the fork"
    assert (inner / "ws" / "main" / "file").read_text() == "source"


def test_nothing_moves_from_one_workspace_to_another(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_text("x")
    mounted.ok("fork", "other")
    other = inner / "ws" / "other"
    with refused(errno.EXDEV):
        os.rename(mounted.work / "file", other / "moved")
    with refused(errno.EXDEV):
        os.link(mounted.work / "file", other / "linked")
    assert sorted(os.listdir(other)) == ["file"]


def test_the_mounted_workspace_is_among_the_others_as_a_link(mounted: Mounted, inner: Path) -> None:
    mounted.ok("ws", "create", "second")
    assert sorted(os.listdir(inner / "ws")) == ["main", "second"]
    assert os.readlink(inner / "ws" / "main") == "../.."
    assert os.path.samefile(inner / "ws" / "main", mounted.work)
    assert os.listdir(inner / "ws" / "second" / ".fusecas" / "ws") == []


def test_a_removed_workspace_is_gone_and_its_name_is_free(mounted: Mounted, inner: Path) -> None:
    mounted.ok("fork", "other")
    other = inner / "ws" / "other"
    (other / "large").write_bytes(os.urandom(300_000))
    (other / "d").mkdir()
    with (other / "large").open("rb") as file:
        busy = mounted.run("ws", "rm", "other")
        assert (busy.code, "files are open" in busy.stderr) == (4, True)
        inside = os.open(other / "d", os.O_PATH)
        mounted.ok("ws", "rm", "other", "--force")
        assert not other.exists() and os.listdir(inner / "ws") == ["main"]
        assert len(file.read()) == 300_000
        with refused(errno.ENOENT):
            os.mkdir("new", dir_fd=inside)
        os.close(inside)
    mounted.ok("ws", "create", "other")
    assert os.listdir(other) == []
    assert mounted.run("ws", "rm", "main").code == 4
    assert mounted.run("ws", "rm", "nobody").code == 3
    assert mounted.run("fork", "other").code == 4
    mounted.umount()
    with Repository.open(mounted.repository) as repository:
        report = collect(repository.store, grace=0)
    assert report.bytes > 300_000, "what only the removed workspace had is freed"
    mounted.ok("verify")


def test_any_layer_can_be_looked_at(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "d").mkdir()
    (mounted.work / "d" / "file").write_text("one")
    os.utime(mounted.work / "d" / "file", ns=(1, 1_234_567_890_123_456_789))
    first = committed(mounted, "first")
    mounted.ok("tag", "v1")
    (mounted.work / "d" / "file").write_text("two")
    second = committed(mounted, "second")
    for name, text in (("v1", "one"), (first, "one"), ("@", "two"), ("@~1", "one"), (second[:8], "two")):
        assert (inner / "at" / name / "d" / "file").read_text() == text, name
    assert os.readlink(inner / "at" / "v1") == first
    assert (inner / "at" / "v1" / "d" / "file").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.listdir(inner / "at") == ["v1"]
    assert not (inner / "at" / "nothing").exists() and not (inner / "at" / ("0" * 64)).exists()
    mounted.ok("tag", "-f", "v1", "@")
    assert (inner / "at" / "v1" / "d" / "file").read_text() == "two", "a link to where the tag was is never cached"
    with refused(errno.EROFS):
        (inner / "at" / "v1" / "d" / "file").write_text("x")
    with refused(errno.EROFS):
        (inner / "at" / "v1" / "new").mkdir()
    diff = subprocess.run(["diff", "-r", "at/@~1", "at/@"], cwd=inner, capture_output=True, text=True)
    assert "< one" in diff.stdout and "> two" in diff.stdout


def test_the_folder_is_found_but_never_listed_or_changed(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_text("x")
    assert os.listdir(mounted.work) == ["file"] and sorted(os.listdir(inner)) == ["at", "repo", "socket", "ws"]
    assert os.path.samefile(inner / "repo", mounted.repository)
    assert os.path.samefile(inner / "socket", mounted.repository / "run" / "socket")
    for act in (
        lambda: os.mkdir(inner),
        lambda: os.rmdir(inner),
        lambda: os.rename(inner, mounted.work / "moved"),
        lambda: os.rename(mounted.work / "file", inner),
        lambda: os.mkdir(inner / "new"),
        lambda: os.unlink(inner / "socket"),
        lambda: os.chmod(inner, 0o777),
        lambda: os.symlink("x", inner / "at" / "new"),
        lambda: os.setxattr(inner, "user.x", b"y"),
    ):
        with pytest.raises(OSError) as caught:
            act()
        assert caught.value.errno in (errno.EPERM, errno.EEXIST, errno.EISDIR), caught.value
    assert mounted.changes() == {"file": "A"}


def test_views_are_forgotten_with_what_the_kernel_forgets(mounted: Mounted, inner: Path) -> None:
    for at in range(30):
        (mounted.work / "file").write_text(str(at))
        committed(mounted, str(at))
    for at in range(30):
        assert (inner / "at" / f"@~{at}" / "file").read_text() == str(29 - at)
    numbers = {(inner / "at" / f"@~{at}").stat().st_ino >> 36 for at in range(30)}
    assert len(numbers) == 30
    Path("/proc/sys/vm/drop_caches").write_text("2")
    (mounted.work / "file").write_text("last")
    committed(mounted, "last")
    assert (inner / "at" / "@").stat().st_ino >> 36 <= max(numbers)


def test_a_fork_is_shown_at_another_place_too(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_text("x")
    mounted.ok("fork", "other")
    place = mounted.folder / "elsewhere"
    assert "is bound to" in mounted.ok("mount", str(place), "--ws", "other").text
    try:
        (place / "made").write_text("there")
        assert (inner / "ws" / "other" / "made").read_text() == "there"
        busy = mounted.run("umount")
        assert (busy.code, str(place) in busy.stderr) == (4, True)
        full = mounted.run("mount", str(mounted.folder), "--ws", "other")
        assert (full.code, "not empty" in full.stderr) == (4, True)
    finally:
        subprocess.run(["umount", place], check=True)
    assert mounted.run("mount", str(mounted.folder / "x"), "--ws", "nobody").code == 3
    mounted.umount()


def test_who_may_not_bind_gets_a_link(mounted: Mounted) -> None:
    mounted.ok("fork", "other")
    place = mounted.folder / "elsewhere"
    without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    words = [PROGRAM, "mount", place, "--ws", "other"]
    said = subprocess.run([*without, *words], cwd=mounted.folder, capture_output=True, text=True, env=ENVIRONMENT)
    assert said.returncode == 0 and "is a link to" in said.stdout, said
    (place / "made").write_text("there")
    assert (mounted.work / ".fusecas" / "ws" / "other" / "made").exists()


def test_a_layer_that_is_looked_at_is_kept_whatever_becomes_of_its_names(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_bytes(os.urandom(200_000))
    layer = mounted.ok("commit", "-m", "x", "--json").result["layer"]
    content = (mounted.work / "file").read_bytes()
    mounted.ok("checkout", "@empty")
    at = inner / "at" / layer
    at.stat()
    collect = ("gc", "--expire", "0", "--min-age", "0")
    mounted.ok(*collect)
    assert (at / "file").read_bytes() == content
    mounted.umount()
    mounted.ok(*collect)
    mounted.mount()
    assert not at.exists()


def test_nothing_is_seen_from_a_workspace_that_was_removed(mounted: Mounted, inner: Path) -> None:
    (mounted.work / "file").write_text("x")
    layer = mounted.ok("commit", "-m", "x", "--json").result["layer"]
    mounted.ok("fork", "gone")
    at = os.open(inner / "ws" / "gone" / ".fusecas" / "at", os.O_PATH)
    try:
        mounted.ok("ws", "rm", "gone")
        for name in ("@", layer):
            with pytest.raises(FileNotFoundError):
                os.stat(name, dir_fd=at)
    finally:
        os.close(at)
