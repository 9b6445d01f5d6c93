"""Each test runs in a folder of a mount, and in a plain one: what lies below /tmp, ext4 as a rule, proves the tests.

One repository is mounted for all of them; each has a folder of its own in it.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted, mounted, place, repository_in

__all__ = ["mounted", "place"]
IS_ROOT = os.geteuid() == 0
collect_ignore = [] if IS_ROOT else ["test_users.py", "test_devices.py"]  # only root can become somebody else
numbers = itertools.count()


@pytest.fixture(scope="session")
def the_mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with repository_in(tmp_path_factory.mktemp("posix")) as place:
        place.mount(*["--allow-other"] if IS_ROOT else [])
        yield place


@pytest.fixture
def mount_folder(the_mount: Mounted) -> Path:
    """For what holds in the mount only."""
    folder = the_mount.work / f"{next(numbers)}"
    folder.mkdir()
    return folder


@pytest.fixture(params=["plain", "mount"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "plain":
        return tmp_path
    return request.getfixturevalue("mount_folder")  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def nothing_stays_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test leaves open would keep the mount from ending."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    below = os.fspath(tmp_path_factory.getbasetemp())
    opened = map(int, set(os.listdir("/proc/self/fd")) - before)
    left = [number for number in opened if leads_to(number).startswith(below)]
    names = [leads_to(number) for number in left]
    for number in left:
        os.close(number)
    assert names == []


def leads_to(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
