"""rebuild: what a workspace stands on is checked, and what belongs to it alone is made anew."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusecas.store import heads
from fusecas.store.ids import ObjectId
from fusecas.store.repository import Repository
from fusecas.store.store import Store
from tests.cli.calling import ENVIRONMENT
from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed, tree
from tests.store.test_verify import change


@pytest.fixture
def standing(mounted: Mounted) -> Mounted:
    mounted.shell("mkdir -p d/e; for i in 1 2 3; do echo $i > file$i; echo $i > d/e/$i; done; ln file1 linked")
    committed(mounted, "first")
    mounted.shell("echo more >> file1; touch -d 2001-01-01 file2")
    committed(mounted, "second")
    mounted.shell("echo uncommitted > mine")
    return mounted


@contextmanager
def opened(mounted: Mounted) -> Iterator[tuple[Store, heads.Head]]:
    with Repository.open(mounted.repository) as repository:
        with repository.store.read() as snapshot:
            head = heads.read_head(snapshot)
        yield repository.store, head


def damage(mounted: Mounted, part: str) -> None:
    with opened(mounted) as (store, head):
        found = head.workspace.layer if part == "layer" else getattr(head.live, part)
        assert found is not None
        change(store, ObjectId(found))


def operations(mounted: Mounted) -> list[str]:
    return [each["verb"] for each in mounted.ok("op", "log", "--json").result]


@pytest.mark.parametrize("is_mounted", [True, False])
def test_what_is_whole_stays_as_it_is_and_is_no_operation(standing: Mounted, is_mounted: bool) -> None:
    before, log = tree(standing.work), operations(standing)
    if not is_mounted:
        standing.umount()
    answer = standing.ok("rebuild")
    assert answer.lines[0].startswith("verified 2 layers, ") and answer.lines[1:] == [
        "the live tree is as it should be"
    ]
    assert operations(standing) == log
    if not is_mounted:
        standing.mount()
    assert tree(standing.work) == before and standing.changes() == {"mine": "A"}


def test_a_deleted_file_does_not_come_back(standing: Mounted) -> None:
    standing.shell("rm -r d file3")
    standing.ok("rebuild")
    committed(standing, "without")
    standing.ok("rebuild")
    assert sorted(tree(standing.work)) == ["file1", "file2", "linked", "mine"]


def test_damaged_content_can_not_be_made_anew(standing: Mounted) -> None:
    standing.umount()
    damage(standing, "layer")
    answer = standing.run("rebuild", "--json")
    assert (answer.code, standing.run("rebuild").code) == (5, 5)
    with opened(standing) as (store, _), store.read() as snapshot:
        assert next(snapshot.operations_back()).verb == "commit"


@pytest.mark.parametrize("part", ["times", "inodes"])
def test_damaged_side_trees_are_made_anew(standing: Mounted, part: str) -> None:
    committed(standing, "third")
    standing.umount()
    damage(standing, part)
    assert standing.run("mount", str(standing.work)).code == 5
    result = standing.ok("rebuild", "--json").result
    assert (result["repaired"], result["layers"]) == ([part], 3)
    assert operations(standing)[0] == "rebuild"
    standing.mount()
    assert tree(standing.work)["d/e/2"] == b"2\n" and tree(standing.work)["mine"] == b"uncommitted\n"
    assert (standing.work / "file1").samefile(standing.work / "linked") and standing.changes() == {}
    standing.shell("echo new > new; echo changed > d/e/1; mkdir f; mv d f")
    committed(standing, "fourth")
    standing.ok("rebuild")


def test_what_is_mounted_is_not_repaired_under_its_hands(standing: Mounted) -> None:
    committed(standing, "third")
    damage(standing, "times")
    answer = standing.run("rebuild")
    assert (answer.code, "fusecas umount" in answer.stderr) == (4, True)


def test_a_damaged_journal_is_put_aside_and_the_workspace_is_what_was_sealed(standing: Mounted) -> None:
    standing.ok("diff")  # seals
    sealed = tree(standing.work)
    standing.shell("echo lost > lost; echo lost > file1")
    damage_journal(standing)
    result = standing.ok("rebuild", "--json").result
    assert result["repaired"] == ["journal"] and Path(result["aside"]).is_dir()
    standing.mount()
    assert tree(standing.work) == sealed and standing.changes() == {"mine": "A"}
    standing.shell("echo again > file1")
    standing.umount()
    standing.mount()
    assert (standing.work / "file1").read_text() == "again\n"


KILLED = """
import os, signal, sys
from fusecas.store import heads
heads.advance = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from fusecas.cli import main
main(["rebuild"])
"""


def test_a_rebuild_that_is_killed_between_the_journal_and_the_row_is_gone_on_with(standing: Mounted) -> None:
    standing.ok("diff")  # seals
    sealed = tree(standing.work)
    standing.shell("echo lost > lost")
    damage_journal(standing)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED], cwd=standing.folder, env=ENVIRONMENT)
        assert done.returncode == -signal.SIGKILL
    assert list((standing.repository / "overlays").glob("*.damaged-*/a-*"))  # nothing of it is deleted
    assert standing.ok("rebuild", "--json").result["repaired"] == ["journal"]
    assert operations(standing)[:2] == ["rebuild", "commit"]
    standing.mount()
    assert tree(standing.work) == sealed and standing.changes() == {"mine": "A"}
    standing.ok("verify")


def damage_journal(mounted: Mounted) -> None:
    """Its files are gone, but the row names what was in them."""
    mounted.umount()
    mounted.mount()  # which writes down how far it goes
    mounted.umount()
    for file in (mounted.repository / "overlays").glob("*/j-*"):
        file.unlink()
    assert mounted.run("mount", str(mounted.work)).code == 5
