"""The daemon and its disk fail: what was acknowledged is there, and the user is told."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted

TOP = Path(__file__).parents[2]
KILLS = 10
STEP = 1 << 16
NOISE = os.urandom(STEP - 16)


def test_a_daemon_that_is_killed_at_random_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "tests.crash.daemon",
        tmp_path,
        str(KILLS),
        str(int.from_bytes(os.urandom(3), "big")),
    ]
    done = subprocess.run(words, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    figures = json.loads(done.stdout)
    assert figures["answered"] > 100 and figures["commits"] > 0


# ---- a small disk


def fill(path: Path) -> int:
    """Write to a file until the disk is full; how much was acknowledged."""
    written = 0
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                done = file.write(pattern(written, STEP))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return written
            assert done == STEP
            written += done


def pattern(at: int, length: int) -> bytes:
    """Bytes of a file in which no block is as another."""
    return b"".join(b"%016d" % number + NOISE for number in range(at // STEP, -(-(at + length) // STEP)))[:length]


def test_a_full_disk_is_told_to_the_writer_and_loses_nothing(crowded: Mounted) -> None:
    pid = crowded.pid()
    ballast = crowded.folder / "ballast"
    ballast.write_bytes(bytes(42 << 20))
    (crowded.work / "before").write_bytes(pattern(0, 1 << 20))
    crowded.ok("commit", "-m", "before")
    written = fill(crowded.work / "large")
    assert written > 10 << 20
    assert (crowded.work / "large").read_bytes() == pattern(0, written)
    assert (crowded.work / "before").read_bytes() == pattern(0, 1 << 20)
    refused = crowded.run("commit", "--json")
    assert (refused.code, refused.error["code"]) == (6, "disk-full")
    changes = crowded.changes()
    assert changes["large"] == "A"
    with pytest.raises(OSError) as raised:
        for _ in range(1000):  # so that the journal needs room
            os.setxattr(crowded.work / "before", "user.long", NOISE[:60_000])
    assert raised.value.errno == errno.ENOSPC
    ballast.unlink()
    (crowded.work / "after").write_text("after")
    crowded.ok("commit", "-m", "after")
    assert crowded.changes() == {} and crowded.pid() == pid
    assert crowded.ok("cat", "@:large").stdout == pattern(0, written)
    crowded.ok("verify")


def test_what_is_removed_in_a_full_workspace_makes_room_for_its_commit(crowded: Mounted) -> None:
    (crowded.work / "kept").write_bytes(os.urandom(20 << 20))
    fill(crowded.work / "large")
    assert crowded.run("commit").code == 6
    (crowded.work / "large").unlink()
    synced(crowded.work / "kept")
    crowded.ok("commit")
    assert crowded.changes() == {}


def test_a_daemon_that_is_killed_on_a_full_disk_finds_everything_again(crowded: Mounted) -> None:
    ballast = crowded.folder / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    written = fill(crowded.work / "large")
    crowded.kill()
    answer = crowded.run("mount", str(crowded.work))
    if answer.code:  # the store had no page left for the row that says how far it came
        assert answer.code == 6 and "no space" in answer.stderr, answer
        ballast.unlink()
        crowded.mount()
    assert (crowded.work / "large").read_bytes() == pattern(0, written)


# ---- a disk that fails


@pytest.fixture
def failing(place: Mounted, disk: Path, tmp_path: Path) -> Iterator[Path]:
    """The file whose presence makes the syncs of a workspace fail; it is mounted."""
    flag = tmp_path / "the disk fails"
    place.ok("mount", str(place.work), env={"LD_PRELOAD": str(disk), "DISK_FAILS": str(flag)})
    yield flag
    (place.repository / "run" / "log").write_text("")  # its complaints were expected


def test_a_failed_sync_makes_the_workspace_read_only_until_it_is_mounted_again(place: Mounted, failing: Path) -> None:
    (place.work / "synced").write_text("synced")
    synced(place.work / "synced")
    (place.work / "later").write_text("later")
    failing.touch()
    with pytest.raises(OSError) as raised:
        synced(place.work / "later")
    assert raised.value.errno == errno.EIO
    failing.unlink()  # too late: what has failed once is not trusted again
    for refused in (
        lambda: (place.work / "new").write_text("new"),
        lambda: (place.work / "later").unlink(),
        lambda: (place.work / "later").chmod(0o600),
    ):
        with pytest.raises(OSError) as raised:
            refused()
        assert raised.value.errno == errno.EROFS
    assert (place.work / "later").read_text() == "later"
    assert place.ok("status", "--json").result["failed"]
    assert "the disk has failed" in place.ok("status").text
    refusal = place.run("commit", "--json")
    assert (refusal.code, refusal.error["code"]) == (6, "storage-problem")
    place.umount()
    log = (place.repository / "run" / "log").read_text()
    assert "ERROR" in log and "the disk has failed to store what was written" in log
    place.mount()
    assert (place.work / "later").read_text() == "later" and (place.work / "synced").read_text() == "synced"
    (place.work / "new").write_text("new")
    synced(place.work / "new")
    place.ok("commit")
    assert not place.ok("status", "--json").result["failed"]


def synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


# ---- a long journal


def test_a_journal_that_has_become_long_is_sealed_while_the_workspace_is_in_use(mounted: Mounted) -> None:
    (mounted.work / "file").write_text("uncommitted")
    for at in range(300):
        os.setxattr(mounted.work / "file", "user.long", b"%d" % at + NOISE[:60_000])
    (overlay,) = (mounted.repository / "overlays").iterdir()
    assert len(list(overlay.glob("j-*"))) > 4
    give_up = time.monotonic() + 60
    while len(list(overlay.glob("j-*"))) > 1:
        assert time.monotonic() < give_up, "it is not sealed"
        (mounted.work / "other").write_text(str(time.monotonic()))  # only what changes is looked at
        time.sleep(0.2)
    assert mounted.changes() == {"file": "A", "other": "A"}, "a seal is no commit"
    mounted.kill()
    mounted.mount()
    assert os.getxattr(mounted.work / "file", "user.long") == b"299" + NOISE[:60_000]
    mounted.ok("commit")
    assert mounted.ok("log", "--json").result[0]["parents"] == []
