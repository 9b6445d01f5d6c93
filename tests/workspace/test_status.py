"""What is said to be uncommitted, wherever it is: open, sealed, or found at a start, while the kernel holds nothing."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas.store import heads
from fusecas.store.ids import Kind, ObjectId
from fusecas.store.repository import Repository
from fusecas.store.touched import retimed
from fusecas.workspace.status import status
from fusecas.workspace.workspace import Workspace

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
LINK = stat.S_IFLNK | 0o777


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Repository.create(tmp_path / ".fusecas") as made:
        workspace = Workspace(made)
        overlay = workspace.overlay
        above = 0
        for name in (b"deep", b"er"):
            above = made_at(overlay, above, name, FOLDER)
        for name in (b"content", b"mode", b"owner", b"xattr", b"touched", b"gone", b"kind"):
            overlay.write(made_at(overlay, above, name, FILE), 0, b"before")
        overlay.make(above, b"link", LINK, 0, os.geteuid(), os.getegid(), target=b"before")
        workspace.commit("all")
        yield again(workspace)


def made_at(overlay: Any, parent: int, name: bytes, mode: int) -> int:
    return int(overlay.make(parent, name, mode, 0, os.geteuid(), os.getegid())[0])


def again(workspace: Workspace) -> Workspace:
    """After a start: nothing is held."""
    return Workspace(workspace.repository)


def held(overlay: Any, *names: bytes) -> int:
    ino = 0
    for name in names:
        ino = overlay.lookup(ino, name)[0]
    return ino


def change_each(overlay: Any) -> None:
    deep = held(overlay, b"deep", b"er")
    overlay.write(held(overlay, b"deep", b"er", b"content"), 0, b"after ")  # as long as before
    overlay.setattr(held(overlay, b"deep", b"er", b"mode"), mode=0o600)
    overlay.setattr(held(overlay, b"deep", b"er", b"owner"), uid=os.geteuid() + 1)
    overlay.setxattr(held(overlay, b"deep", b"er", b"xattr"), b"user.x", b"after")
    overlay.setattr(held(overlay, b"deep", b"er", b"touched"), mtime=5)
    overlay.unlink(deep, b"gone")
    overlay.unlink(deep, b"kind")
    overlay.make(deep, b"kind", FOLDER, 0, os.geteuid(), os.getegid())
    overlay.unlink(deep, b"link")
    overlay.make(deep, b"link", LINK, 0, os.geteuid(), os.getegid(), target=b"after ")
    overlay.make(deep, b"new", FILE, 0, os.geteuid(), os.getegid())


CHANGES = ["Mcontent", "Dgone", "Tkind", "Mlink", "mmode", "Anew", "mowner", "mxattr"]


def letters(workspace: Workspace) -> list[str]:
    return [each.letter + each.path.decode().removeprefix("deep/er/") for each in status(workspace).changes]


def test_a_committed_workspace_has_nothing_uncommitted(workspace: Workspace) -> None:
    assert status(workspace) == ([], [])


def test_each_change_is_told_while_it_is_open(workspace: Workspace) -> None:
    change_each(workspace.overlay)
    assert letters(workspace) == CHANGES
    assert letters(again(workspace)) == CHANGES


def test_the_same_is_told_once_it_is_sealed_and_after_a_start(workspace: Workspace) -> None:
    change_each(workspace.overlay)
    workspace.seal()
    assert letters(workspace) == CHANGES
    assert letters(again(workspace)) == CHANGES


def test_a_sealed_change_below_something_that_is_changed_again_is_still_told(workspace: Workspace) -> None:
    change_each(workspace.overlay)
    workspace.seal()
    workspace.overlay.setattr(held(workspace.overlay, b"deep", b"er", b"content"), mode=0o600)
    workspace.overlay.setattr(held(workspace.overlay, b"deep", b"er"), mode=0o700)
    assert sorted(letters(workspace)) == sorted([*CHANGES, "mdeep/er"])


def test_what_hangs_in_a_folder_that_took_the_place_of_another_is_compared_with_what_it_is(
    workspace: Workspace,
) -> None:
    overlay = workspace.overlay
    other = made_at(overlay, 0, b"other", FOLDER)
    overlay.write(made_at(overlay, other, b"content", FILE), 0, b"other ")
    workspace.seal()
    overlay.rename(0, b"other", held(overlay, b"deep"), b"er", True, True)
    expected = ["Mcontent", "Dgone", "Dkind", "Dlink", "Dmode", "Downer", "Dtouched", "Dxattr"]
    assert letters(workspace) == [*expected, "Aother", "Aother/content"]
    overlay.rename(0, b"other", held(overlay, b"deep"), b"er", True, True)
    assert letters(workspace) == ["Aother", "Aother/content"]


def test_what_a_folder_had_that_was_removed_and_made_anew_is_gone(workspace: Workspace) -> None:
    overlay = workspace.overlay
    deep = held(overlay, b"deep")
    overlay.rename(deep, b"er", 0, b"elsewhere", False, True)
    made_at(overlay, made_at(overlay, deep, b"er", FOLDER), b"mode", FILE)
    expected = ["Dcontent", "Dgone", "Dkind", "Dlink", "Mmode", "Downer", "Dtouched", "Dxattr", "Aelsewhere"]
    assert letters(workspace) == expected
    workspace.seal()
    assert [each for each in letters(workspace) if "elsewhere" not in each] == expected[:-1]


def test_a_change_that_is_taken_back_is_none(workspace: Workspace) -> None:
    overlay = workspace.overlay
    mode = held(overlay, b"deep", b"er", b"mode")
    overlay.setattr(mode, mode=0o600)
    workspace.seal()
    overlay.setattr(mode, mode=0o644)
    assert letters(workspace) == []


def test_status_leaves_nothing_held(workspace: Workspace) -> None:
    change_each(workspace.overlay)
    workspace.seal()
    fresh = again(workspace)
    status(fresh)
    assert not fresh.overlay.is_held


def test_what_is_new_since_the_baseline_is_not_looked_at_for_what_was_touched(workspace: Workspace) -> None:
    """A tree that was made by hand and committed costs each status nothing."""
    loaded: list[ObjectId] = []
    with workspace.store.read() as snapshot:
        live = heads.read_head(snapshot).live

        def load(node: ObjectId, kind: Kind) -> bytes:
            loaded.append(node)
            return snapshot.read_node(node, kind)

        assert (list(retimed(load, live, new=False)), loaded) == ([], [])
        assert len(list(retimed(load, live))) == 8 and loaded
