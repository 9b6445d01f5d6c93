"""What a crash leaves of a workspace: at random (power.py), and one behaviour after the other."""

import gc
import os
import stat
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas.errors import Conflict, Damaged
from fusecas.store.repository import Repository
from fusecas.store.transaction import Transaction
from fusecas.workspace.workspace import LONG, OVERLAYS, Workspace

TOP = Path(__file__).parents[2]
FILE = stat.S_IFREG | 0o644
SEEDS, EXAMPLES = 2, 20
EVERY = 8  # a sync has no more moments


def power(disk: Path, *words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.workspace.power", *map(str, words)]
    environment = {**os.environ, "LD_PRELOAD": str(disk)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=TOP, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_no_crash_anywhere_loses_what_was_acknowledged_or_mixes_files(disk: Path) -> None:
    seeds = [int.from_bytes(os.urandom(3), "big") for _ in range(SEEDS)]
    machines = [power(disk, EXAMPLES, seed) for seed in seeds]
    said = [each.communicate()[1] for each in machines]
    assert [each.returncode for each in machines] == [0] * SEEDS, f"seeds {seeds}\n" + "\n".join(said)


def test_no_moment_of_a_sync_a_seal_or_a_start_is_a_bad_one_to_crash(disk: Path) -> None:
    every = power(disk, "every", EVERY)
    said, complaint = every.communicate()
    assert every.returncode == 0, said + complaint
    assert [line.split(":")[0] for line in said.splitlines()] == [
        "sync",
        "commit",
        "seal",
        "undo",
        "fork",
        "settle",
        "commit in a fork",
        "a start after a kill",
        "a start after a power cut",
        "a start with a fork after a kill",
        "a start with a fork after a power cut",
    ]
    assert all(int(line.split()[-2]) >= 2 for line in said.splitlines()), said


# ---- single behaviours


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(tmp_path / ".fusecas") as made:
        yield made


def folder_of(workspace: Workspace) -> Path:
    return workspace.repository.folder / OVERLAYS / workspace.id.hex()


def written(overlay: Any, name: bytes, content: bytes) -> int:
    ino = int(overlay.make(0, name, FILE, 0, 0, 0)[0])
    overlay.write(ino, 0, content)
    return ino


def blocks(workspace: Workspace) -> int:
    return workspace.overlay.figures()[3]


def change_while_sealing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, change: Any, *, fails: bool) -> None:
    """Seal, with a change between the freeze and its end."""
    publish = Workspace._to_state

    def late(self: Workspace, *rest: Any) -> Any:
        change()
        if fails:
            raise Conflict("moved meanwhile")
        return publish(self, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "_to_state", late)
        if fails:
            with pytest.raises(Conflict):
                workspace.seal()
        else:
            workspace.seal()


def test_a_file_that_came_and_went_while_another_was_sealed_needs_no_blocks_at_the_next_start(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    written(overlay, b"kept", b"kept")

    def brief() -> None:
        overlay.forget(written(overlay, b"brief", bytes(20 << 20)), 1)
        overlay.unlink(0, b"brief")

    change_while_sealing(workspace, monkeypatch, brief, fails=False)
    assert [each for each in os.listdir(folder_of(workspace)) if each.startswith("a-")] == ["a-0"]
    again = Workspace(repository)
    assert [name for name, _ in again.overlay.names(0)[0]] == [b"kept"]


def test_a_seal_that_fails_keeps_no_blocks_of_what_was_written_over_meanwhile(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    over, removed, opened = (written(overlay, name, bytes(100 << 12)) for name in (b"over", b"removed", b"opened"))
    overlay.forget(removed, 1)
    before = blocks(workspace)

    def change() -> None:
        overlay.write(over, 10 << 12, b"x" * (50 << 12))
        overlay.unlink(0, b"removed")
        overlay.write(opened, 0, b"x" * (30 << 12))
        overlay.unlink(0, b"opened")

    change_while_sealing(workspace, monkeypatch, change, fails=True)
    assert blocks(workspace) == before - 100
    assert overlay.read(over, 9 << 12, 2 << 12) == bytes(1 << 12) + b"x" * (1 << 12)
    overlay.forget(opened, 1)
    assert blocks(workspace) == 100


def test_an_open_file_without_a_name_gives_its_blocks_back_after_a_commit(repository: Repository) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    written(overlay, b"kept", b"kept")
    orphan = written(overlay, b"orphan", bytes(100 << 12))
    overlay.unlink(0, b"orphan")
    workspace.commit()
    assert blocks(workspace) == 100
    overlay.write(orphan, 0, b"x" * (10 << 12))
    overlay.forget(orphan, 1)
    overlay.sync()
    assert blocks(workspace) == 0


def test_what_is_removed_and_synced_gives_its_space_back_to_the_disk(repository: Repository) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    ino = written(overlay, b"large", bytes(100 << 20))
    overlay.sync()
    assert used(workspace) > 100 << 20
    overlay.forget(ino, 1)
    overlay.unlink(0, b"large")
    overlay.sync()
    assert used(workspace) < 16 << 20


def used(workspace: Workspace) -> int:
    return sum(each.stat().st_blocks * 512 for each in folder_of(workspace).iterdir())


def test_bytes_of_a_write_that_was_killed_never_show_behind_a_files_end(repository: Repository) -> None:
    """The kill came after the bytes were in their block, and before the record that makes the file longer."""
    workspace = Workspace(repository)
    written(workspace.overlay, b"file", b"acknowledged")
    (segment,) = folder_of(workspace).glob("a-*")
    at = segment.read_bytes().index(b"acknowledged")
    with segment.open("r+b") as file:
        file.seek(at + len(b"acknowledged"))
        file.write(b"never acknowledged")
    overlay = Workspace(repository).overlay
    ino = overlay.lookup(0, b"file")[0]  # type: ignore[index]
    overlay.setattr(ino, size=30)
    assert overlay.read(ino, 0, 100) == b"acknowledged".ljust(30, b"\0")


@pytest.mark.parametrize("length", [0, 5000])
def test_a_segment_that_a_power_cut_left_without_its_space_is_no_hindrance(repository: Repository, length: int) -> None:
    workspace = Workspace(repository)
    (folder_of(workspace) / "a-0").write_bytes(bytes(length))
    overlay = Workspace(repository).overlay
    ino = written(overlay, b"file", b"written" * 10_000)
    assert overlay.read(ino, 0, 7) == b"written"


def test_a_journal_that_lacks_what_a_mark_promises_is_told_and_left_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(repository)
    written(workspace.overlay, b"file", b"synced")
    workspace.overlay.sync()
    (log,) = folder_of(workspace).glob("j-*")
    log.write_bytes(bytes(log.stat().st_size))
    monkeypatch.setattr("fusecas.workspace.workspace.boot_id", lambda: b"another boot")
    for _ in range(2):
        with pytest.raises(Damaged, match="the journal lacks records"):
            Workspace(repository)
        assert log.exists()


def test_starts_that_die_before_their_row_is_written_leave_the_marks_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = Workspace(repository).overlay
    written(overlay, b"synced", b"synced")
    overlay.sync()

    def die(*_: Any) -> None:
        raise Conflict("killed here")

    for _ in range(3):
        with monkeypatch.context() as patched, pytest.raises(Conflict):
            patched.setattr(Transaction, "set_live", die)
            Workspace(repository)
    monkeypatch.setattr("fusecas.workspace.workspace.boot_id", lambda: b"another boot")
    again = Workspace(repository).overlay
    assert [name for name, _ in again.names(0)[0]] == [b"synced"]


def test_a_workspace_that_nobody_uses_any_more_lets_its_files_go(repository: Repository) -> None:
    workspace = Workspace(repository)
    gone = weakref.ref(workspace)
    before = len(os.listdir("/proc/self/fd"))
    written(workspace.overlay, b"file", b"x")
    del workspace
    gc.collect()
    assert gone() is None and len(os.listdir("/proc/self/fd")) <= before


def test_a_long_journal_is_told_and_a_seal_makes_it_short(repository: Repository) -> None:
    workspace = Workspace(repository)
    overlay = workspace.overlay
    ino = written(overlay, b"file", b"x")
    overlay.setxattr(ino, b"user.long", b"")
    while overlay.log_bytes < LONG:
        assert not workspace.is_long()
        for _ in range(50):
            overlay.setxattr(ino, b"user.long", os.urandom(10) * 6_000)
    overlay.setxattr(ino, b"user.long", bytes(60_000))
    assert workspace.is_long()
    workspace.seal()
    assert not workspace.is_long() and overlay.log_bytes == 0
    assert len(list(folder_of(workspace).glob("j-*"))) == 1
    again = Workspace(repository).overlay
    assert again.log_bytes == 0 and again.lookup(0, b"file") is not None
    assert again.getxattr(ino, b"user.long") == bytes(60_000)


def test_many_starts_without_a_commit_make_a_long_journal(repository: Repository) -> None:
    """Each start begins a stream of its own, in files of its own."""
    for at in range(6):
        workspace = Workspace(repository)
        written(workspace.overlay, b"%d" % at, b"x")
    assert workspace.is_long()
    workspace.seal()
    assert not workspace.is_long()
    assert [name for name, _ in Workspace(repository).overlay.names(0)[0]] == [b"%d" % at for at in range(6)]
