"""Life as an ordinary user, who mounts through fusermount3: the same promises, and clear refusals."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.conftest import wait_for
from tests.mount.ordinary import IS_ROOT, USER, Ordinary

ALLOW_OTHER = "user_allow_other" in Path("/etc/fuse.conf").read_text().split()


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Not below pytest's folders, which others may not enter."""
    folder = Path(tempfile.mkdtemp(prefix="fusecas-ordinary-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def base() -> Iterator[Path]:
    with reachable_folder() as folder:
        yield folder


@pytest.fixture
def user(base: Path) -> Iterator[Ordinary]:
    user = Ordinary(base)
    user.ok("init")
    yield user
    user.close()


@pytest.fixture(scope="module")
def never_mounted() -> Iterator[Ordinary]:
    with reachable_folder() as folder:
        user = Ordinary(folder)
        user.ok("init")
        yield user
        user.close()


@contextmanager
def somebody_in(user: Ordinary) -> Iterator[None]:
    with user.start_as(USER, "sh", "-c", "cd work; echo in; exec sleep 60", stdout=subprocess.PIPE) as sleeper:
        assert sleeper.stdout is not None and sleeper.stdout.readline() == b"in\n"
        yield
        sleeper.kill()


def test_an_ordinary_user_mounts_works_commits_and_unmounts(user: Ordinary) -> None:
    user.mount()
    assert (
        user.sh("echo hello > work/file; mkdir work/d; ln work/file work/d/linked; id -u; stat -c %u work/file")[0] == 0
    )
    assert user.changes() == {"file": "A", "d": "A", "d/linked": "A"}
    user.ok("commit", "-m", "mine")
    assert user.sh("cat work/d/linked; rm work/file; stat -c '%u %h' work/d/linked").text == f"hello\n{USER} 1\n"
    user.umount()
    assert user.mounts() == [] and user.changes() == {"file": "D"}
    log = (user.repository / "run" / "log").read_text()
    assert " ERROR " not in log and " WARNING " not in log


def test_what_was_acknowledged_survives_the_daemons_death_and_the_next_start_clears_up(user: Ordinary) -> None:
    user.mount()
    user.sh("echo hello > work/file")
    user.signal(signal.SIGKILL)
    assert "not connected" in user.sh("ls work").stderr
    user.mount()
    assert user.sh("cat work/file").text == "hello\n"
    assert user.mounts() == [str(user.work)]


def test_a_start_elsewhere_takes_away_what_a_killed_daemon_left(user: Ordinary) -> None:
    user.mount()
    user.signal(signal.SIGKILL)
    user.ok("mount", str(user.folder / "elsewhere"))
    assert user.mounts() == [str(user.folder / "elsewhere")]


def test_umount_takes_away_what_a_killed_daemon_left(user: Ordinary) -> None:
    user.mount()
    user.signal(signal.SIGKILL)
    user.umount()
    assert user.mounts() == []
    assert user.run("umount").code == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_cleanly_even_if_somebody_is_in_it(user: Ordinary, number: signal.Signals) -> None:
    user.mount()
    user.sh("echo hello > work/file")
    with somebody_in(user):
        user.signal(number)
    assert user.mounts() == []
    assert user.changes() == {"file": "A"}
    user.mount()
    assert user.sh("cat work/file").text == "hello\n"


def test_an_umount_is_refused_while_somebody_is_in_it(user: Ordinary) -> None:
    user.mount()
    with somebody_in(user):
        answer = user.run("umount")
        assert (answer.code, answer.stderr.splitlines()[0]) == (
            4,
            f"fusecas: {user.work} can't be unmounted: Device or resource busy",
        )
        assert "ends when they leave" in user.ok("umount", "--lazy").stderr
        assert user.mounts() == []
        daemon = os.pidfd_open(user.pid())
    wait_for(daemon)
    os.close(daemon)


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(user: Ordinary) -> None:
    user.mount()
    answer = user.run("mount", "other")
    assert answer.code == 4 and f"process {user.pid()}" in answer.stderr
    assert not (user.folder / "other").exists()


def test_allow_other_needs_the_administrators_leave(base: Path) -> None:
    user = Ordinary(base, allow_other=False)
    try:
        user.ok("init")
        answer = user.run("mount", str(user.work), "--allow-other")
        if IS_ROOT or not ALLOW_OTHER:
            assert answer.code == 6 and "user_allow_other" in answer.stderr
            assert user.mounts() == []
    finally:
        user.close()


def test_others_may_enter_with_allow_other_and_nobody_without(base: Path) -> None:
    user = Ordinary(base, allow_other=True)
    other = 0 if IS_ROOT else USER
    try:
        user.ok("init")
        user.mount()
        user.sh("echo hello > work/file; echo secret > work/secret; chmod 600 work/secret; chmod 755 work")
        if IS_ROOT:
            assert "Permission denied" in user.sh("cat work/file", user=other).stderr
        user.umount()
        if IS_ROOT or ALLOW_OTHER:
            user.mount("--allow-other")
            assert user.sh("cat work/file", user=other).text == "hello\n"
        if IS_ROOT:
            assert "Permission denied" in user.sh("cat work/secret", user=USER - 1).stderr
    finally:
        user.close()


@pytest.mark.parametrize(
    ("make", "place", "code", "said"),
    [
        ("echo x > file", "file", 4, "is no folder"),
        ("echo x > file", "file/below", 4, "is no folder"),
        ("ln -s nowhere dangling; touch nowhere", "dangling", 4, "is no folder"),
        ("mkdir full; touch full/x", "full", 4, "is not empty"),
        ("mkdir ro; chmod 555 ro", "ro/below", 6, "Permission denied"),
        ("mkdir ro; chmod 555 ro", "ro", 6, "no write access"),
        ("true", "/proc/below", 3, "No such file"),
        ("true", "/proc", 4, "is a mount already"),
        ("true", "a" * 300, 2, "too long"),
        ("true", "aaaaaaaaa/" * 500, 2, "too long"),
        ("true", ".fusecas/overlays", 4, "inside of the repository"),
        ("true", ".fusecas/work/below", 4, "inside of the repository"),
    ],
)
def test_a_place_that_can_not_be_mounted_on_is_refused_and_nothing_is_made(
    never_mounted: Ordinary, make: str, place: str, code: int, said: str
) -> None:
    user = never_mounted
    assert user.sh(f"rm -rf file dangling nowhere full ro; {make}").code == 0
    before = user.sh("find . -path ./.fusecas -prune -o -print").lines
    answer = user.run("mount", place)
    assert answer.code == code and said in answer.stderr, answer
    assert user.sh("find . -path ./.fusecas -prune -o -print").lines == before
    assert user.mounts() == []


def test_root_takes_away_what_a_user_left_and_never_what_a_user_has(user: Ordinary) -> None:
    """The kernel tells root the same of both."""
    mounted = "from pathlib import Path; from fusecas.mount.device import is_stale; print(is_stale(Path('work')))"
    ask = f"{shlex.quote(sys.executable)} -c {shlex.quote(mounted.replace('work', str(user.work)))}"
    user.mount()
    assert user.sh(ask, user=0 if IS_ROOT else USER).text == "False\n"
    user.signal(signal.SIGKILL)
    assert user.sh(ask, user=0 if IS_ROOT else USER).text == "True\n"


def test_a_mount_within_its_own_mount_is_refused_and_makes_nothing_there(user: Ordinary) -> None:
    user.mount()
    assert user.run("mount", "work/below").code == 4
    assert user.changes() == {}
