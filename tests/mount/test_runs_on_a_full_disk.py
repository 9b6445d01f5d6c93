"""Runs whose end, or whose result, finds no room: told so, nothing is lost, and recorded when there is room again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted

NOISE = "head -c 20000000 /dev/urandom > large"


def fill_up(place: Mounted, left: int) -> Path:
    """The disk has so many bytes left, until the file is removed."""
    ballast = place.folder / "ballast"
    free = os.statvfs(place.folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)
    return ballast


@pytest.fixture
def based(crowded: Mounted) -> Iterator[Mounted]:
    crowded.ok("run", "echo base > base")
    yield crowded
    crowded.ok("verify")


def statuses(place: Mounted) -> list[str]:
    return [each["status"] for each in place.ok("runs", "--json").result]


@pytest.mark.parametrize("then", ["undo", "run", "mount again"])
def test_a_run_whose_result_finds_no_room_is_told_so_and_what_it_did_is_uncommitted(based: Mounted, then: str) -> None:
    ballast = fill_up(based, 36 << 20)
    text = f"rm base; {NOISE}"
    said = based.run("run", "--json", text)
    assert (said.code, said.error["code"], said.error["exit"]) == (125, "disk-full", 6)
    assert "what the command changed is uncommitted" in said.error["hint"]
    assert based.changes() == {"base": "D", "large": "A"}
    assert based.run("run", "touch more").code == 125 and based.run("undo").code == 6
    assert based.changes() == {"base": "D", "large": "A"}
    ballast.unlink()
    if then == "undo":
        based.ok("undo")
        assert based.changes() == {} and (based.work / "base").exists()
    elif then == "run":
        based.ok("run", "touch more")
        assert based.ok("log", "--json").result[1]["instruction"].startswith("left by interrupted")
    else:
        based.kill()
        based.mount()
    assert statuses(based) == [*(["done"] if then == "run" else []), "interrupted", "done"]


def test_a_result_that_finds_no_room_is_served_later(based: Mounted) -> None:
    counter = based.work.parent / "counter"
    text = f"echo x >> {counter}; for n in $(seq 300); do echo $n > f$n; done"
    layer = based.ok("run", "--json", text).result["hash"]
    based.ok("undo")
    (based.work / "edit").write_bytes(os.urandom(1 << 20))
    based.ok("undo")
    ballast = fill_up(based, 1 << 16)
    refused = based.run("run", "--json", text)
    if refused.code == 125:  # there are free pages in the store itself: a little may still fit
        assert refused.error["code"] == "disk-full" and based.changes() == {}
        ballast.unlink()
        assert based.ok("run", "--json", text).result["cached"]
    assert based.ok("head", "--json").result["layer"] == layer
    assert len(os.listdir(based.work)) == 301 and len(counter.read_text().splitlines()) == 1


def test_output_that_finds_no_room_is_told_to_the_command(based: Mounted) -> None:
    """Whether there is room for what is recorded of it then, is chance: in the store itself some pages may be free."""
    ballast = fill_up(based, 8 << 20)
    text = "(trap '' PIPE; head -c 30000000 /dev/zero || echo cut > cut); true"
    said = based.run("run", text, stdout=subprocess.DEVNULL)
    ballast.unlink()
    assert (based.work / "cut").exists()
    assert said.code == 0 or (said.code == 125 and "no space left" in said.stderr)
    based.ok("commit")
    assert based.changes() == {} and statuses(based)[0] == ("interrupted" if said.code else "done")
    assert based.ok("runs", "--json").result[0]["kept"] is False
