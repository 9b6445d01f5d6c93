"""A repository that is really mounted, by the real program; nothing of it is left behind."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusecas.client import Client, NoDaemon
from fusecas.mount.device import detach, is_mounted
from tests.cli.calling import Place

TIMEOUT = 60
SMALL = 80 << 20


class Mounted(Place):
    """The workspace is at `work`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.work = folder / "work"

    def mount(self, *options: str) -> None:
        self.ok("mount", str(self.work), *options)

    def umount(self) -> None:
        self.ok("umount")

    def pid(self) -> int:
        with Client(self.repository) as client:
            return int(client.call("hello")["pid"])

    def kill(self) -> None:
        """The daemon dies without a word."""
        kill(self.pid())

    def changes(self) -> dict[str, str]:
        found = self.ok("status", "--json").result["changes"]
        return {each["path"]: each["letter"] for each in found}

    def shell(self, text: str, **how: object) -> str:
        """A command in the workspace; it must succeed."""
        done = subprocess.run(
            ["sh", "-euc", text], cwd=self.work, capture_output=True, text=True, timeout=TIMEOUT, **how
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)


def kill(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(descriptor)
    os.close(descriptor)


def wait_for(descriptor: int) -> None:
    import select

    assert select.select([descriptor], [], [], TIMEOUT)[0], "a killed daemon does not end"


def end(place: Mounted) -> None:
    """Neither its daemon nor its mount is there any more."""
    try:
        with Client(place.repository) as client:
            os.kill(client.call("hello")["pid"], signal.SIGTERM)
            client.wait_for_end()
    except NoDaemon:
        pass
    if is_mounted(place.work):
        detach(place.work)


@contextmanager
def repository_in(folder: Path) -> Iterator[Mounted]:
    """A repository, not mounted yet; what is mounted is unmounted in the end, and its log must be without errors."""
    place = Mounted(folder)
    place.ok("init")
    yield place
    if place.repository.exists():
        end(place)
    log = place.repository / "run" / "log"
    complaints = [line for line in log.read_text().splitlines() if " ERROR " in line] if log.exists() else []
    assert complaints == [], "\n".join(complaints)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Mounted]:
    with repository_in(tmp_path) as place:
        yield place


@pytest.fixture
def mounted(place: Mounted) -> Mounted:
    place.mount()
    return place


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 of its own, mounted."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(SMALL)
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def crowded(small_disk: Path, tmp_path: Path) -> Iterator[Mounted]:
    """A workspace whose repository lies on the small disk, and that is mounted elsewhere."""
    place = Mounted(small_disk)
    place.ok("init")
    place.work = tmp_path / "work"
    place.mount()
    yield place
    if is_mounted(place.work):
        place.umount()
