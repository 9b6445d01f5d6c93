"""What a file system that is only looked at refuses, and how many names a file may have."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted
from tests.posix.calls import fails, touch
from tests.posix.conftest import IS_ROOT

MOST_LINKS = 65_000


def furnish(folder: Path) -> None:
    touch(folder / "file", b"content")
    os.setxattr(folder / "file", "user.there", b"x")
    (folder / "link").symlink_to("file")
    (folder / "directory").mkdir()


@pytest.fixture(params=["plain", "view"] if IS_ROOT else ["view"])
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A plain folder that is mounted read-only, and a layer to be looked at."""
    if request.param == "view":
        mounted: Mounted = request.getfixturevalue("mounted")
        furnish(mounted.work)
        mounted.ok("commit")
        yield mounted.work / ".fusecas" / "at" / "@"
        return
    furnish(tmp_path)
    subprocess.run(["mount", "--bind", "-o", "ro", tmp_path, tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda top: os.open(top / "new", os.O_WRONLY | os.O_CREAT),
    "open to write": lambda top: os.open(top / "file", os.O_WRONLY),
    "open to truncate": lambda top: os.open(top / "file", os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda top: os.truncate(top / "file", 0),
    "unlink": lambda top: os.unlink(top / "file"),
    "rmdir": lambda top: os.rmdir(top / "directory"),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "mkfifo": lambda top: os.mkfifo(top / "new"),
    "symlink": lambda top: os.symlink("x", top / "new"),
    "link": lambda top: os.link(top / "file", top / "new"),
    "rename": lambda top: os.rename(top / "file", top / "new"),
    "rename over": lambda top: os.rename(top / "file", top / "link"),
    "chmod": lambda top: os.chmod(top / "file", 0o600),
    "chown": lambda top: os.chown(top / "file", os.geteuid(), os.getegid()),
    "utime": lambda top: os.utime(top / "file", (1, 1)),
    "utime of a link": lambda top: os.utime(top / "link", (1, 1), follow_symlinks=False),
    "setxattr": lambda top: os.setxattr(top / "file", "user.new", b"y"),
    "removexattr": lambda top: os.removexattr(top / "file", "user.there"),
    "chmod of the top": lambda top: os.chmod(top, 0o700),
}


def answer_of(change: Callable[[Path], object], top: Path) -> str:
    try:
        change(top)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def test_what_is_only_looked_at_refuses_every_change(read_only: Path) -> None:
    assert {name: answer_of(change, read_only) for name, change in CHANGES.items()} == dict.fromkeys(CHANGES, "EROFS")
    assert sorted(os.listdir(read_only)) == ["directory", "file", "link"]
    assert (read_only / "file").read_bytes() == b"content" and os.listxattr(read_only / "file") == ["user.there"]


def test_a_file_has_at_most_65000_names(folder: Path) -> None:
    first = touch(folder / "0", b"x")
    for at in range(1, MOST_LINKS):
        os.link(first, folder / f"{at}")
    with fails(errno.EMLINK):
        os.link(first, folder / "more")
    assert first.stat().st_nlink == MOST_LINKS and not (folder / "more").exists()
    (folder / "1").unlink()
    os.link(first, folder / "more")
    assert first.stat().st_nlink == MOST_LINKS
