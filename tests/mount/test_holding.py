"""A listing holds what it has told the kernel of, once for each time, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from fusecas import _native
from fusecas.mount.operations import Operations
from fusecas.mount.places import Places
from fusecas.store.repository import Repository
from fusecas.workspace.workspace import Workspace

FILE, MANY, ROOT = 0o100644, 300, 0


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """With files of the base, which are forgotten when nobody holds them, and a removed one."""
    with Repository.create(tmp_path / ".fusecas") as repository:
        workspace = Workspace(repository)
        for number in range(MANY):
            made = workspace.overlay.make(ROOT, b"%04d" % number, FILE, 0, 0, 0)
            workspace.overlay.forget(made[0], 1)
        workspace.commit()
        workspace.overlay.unlink(ROOT, b"0010")
        yield workspace
        workspace.close()


def held(overlay: "_native.Overlay") -> int:
    """Inodes beside the root."""
    return overlay.figures()[0] - 1


class Room:
    """Where pyfuse3 puts an answer; it has room for so many entries."""

    def __init__(self, entries: int) -> None:
        self.left = entries
        self.told: list[tuple[bytes, int, int]] = []

    def reply(self, token: Any, name: bytes, entry: Any, next_id: int) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.told.append((name, entry.st_ino, next_id))
        return True


def test_several_names_are_held_at_once_and_let_go_at_once(workspace: Workspace) -> None:
    overlay = workspace.overlay
    found = overlay.lookup_each(ROOT, [b"0001", b"0010", b"none", b"0002", b"0001"])
    assert [each is None for each in found] == [False, True, True, False, False]
    assert found[0] == found[4] == overlay.getattr(found[0][0]) and held(overlay) == 2  # type: ignore[index]
    overlay.forget_each([each[0] for each in found[:4] if each is not None])
    assert held(overlay) == 1
    overlay.forget(found[4][0], 1)  # type: ignore[index]
    assert held(overlay) == 0


@pytest.mark.parametrize("entries", [0, 1, 2, 3, 30, 66, 100, MANY + 1])
def test_what_has_no_room_in_an_answer_is_not_held(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, entries: int
) -> None:
    room = Room(entries)
    monkeypatch.setattr(pyfuse3, "readdir_reply", room.reply)
    places = Places()
    places.add_workspace(workspace)
    operations = Operations(places, special=None, disk=-1)  # type: ignore[arg-type]

    async def list_once() -> None:
        handle = await operations.opendir(pyfuse3.ROOT_INODE, None)
        await operations.readdir(handle, 0, None)  # type: ignore[arg-type]
        await operations.releasedir(handle)

    trio.run(list_once)
    names = [b"%04d" % number for number in range(MANY) if number != 10]
    assert [name for name, _, _ in room.told] == [b".", b"..", *names][:entries]
    assert held(workspace.overlay) == max(0, len(room.told) - 2)
    trio.run(operations.forget, [(number, 1) for _, number, _ in room.told[2:]])
    assert held(workspace.overlay) == 0
