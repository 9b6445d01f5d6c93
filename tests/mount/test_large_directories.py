"""Directories whose trees have more nodes than are cached: each operation on one must come to an end, soon."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from fusecas import _native
from fusecas.store.repository import Repository
from fusecas.workspace.workspace import Workspace
from tests.mount.conftest import Mounted

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
MANY = 100_000
LINKS = 2
ROOT = 0
NOT_COUNTED = 1


def name_of(number: int) -> bytes:
    return b"%06d" % number


def names_in(overlay: "_native.Overlay", ino: int) -> Iterator[bytes]:
    after = None
    while True:
        names, after = overlay.names(ino, after)
        yield from (name for name, _ in names)
        if after is None:
            return


def fill(workspace: Workspace, names: Iterable[bytes]) -> int:
    """A directory with so many files and one directory; its inode."""
    overlay = workspace.overlay
    ino: int = overlay.make(ROOT, b"large", FOLDER, 0, 0, 0)[0]
    for name in names:
        made = overlay.make(ino, name, FILE, 0, 0, 0)
        overlay.forget(made[0], 1)
    overlay.make(ino, b"folder", FOLDER, 0, 0, 0)
    return ino


def test_a_large_directory_is_listed_emptied_and_removed(tmp_path: Path) -> None:
    names = [b"%0250d" % number for number in range(30_000)]
    with Repository.create(tmp_path / ".fusecas") as repository:
        workspace = Workspace(repository)
        fill(workspace, names)
        workspace.commit()
        workspace.close()
        overlay = Workspace(repository).overlay
        found = overlay.lookup(ROOT, b"large")
        assert found is not None and found[LINKS] == NOT_COUNTED
        ino = found[0]
        assert sum(1 for _ in names_in(overlay, ino)) == len(names) + 1
        overlay.rmdir(ino, b"folder")
        with pytest.raises(OSError) as refused:
            overlay.rmdir(ROOT, b"large")
        assert refused.value.errno == errno.ENOTEMPTY
        for name in names[:-1]:
            overlay.unlink(ino, name)
        with pytest.raises(OSError):
            overlay.rmdir(ROOT, b"large")
        overlay.rename(ino, names[-1], ino, names[0], False, True)
        with pytest.raises(OSError):
            overlay.rmdir(ROOT, b"large")
        overlay.unlink(ino, names[0])
        overlay.rmdir(ROOT, b"large")
        assert list(names_in(overlay, ROOT)) == []


def test_a_large_directory_is_listed_whole_in_a_mount(place: Mounted) -> None:
    with Repository.open(place.repository) as repository:
        workspace = Workspace(repository)
        ino = fill(workspace, map(name_of, range(MANY)))
        workspace.commit()
        for number in range(0, MANY, 100):
            workspace.overlay.unlink(ino, name_of(number))
            workspace.overlay.make(ino, b"new " + name_of(number), FILE, 0, 0, 0)
        workspace.close()
    place.mount()
    kept = {name_of(number) for number in range(MANY) if number % 100}
    new = {b"new " + name_of(number) for number in range(0, MANY, 100)}
    listed = os.listdir(os.fsencode(place.work / "large"))
    assert len(listed) == MANY + 1 and set(listed) == kept | new | {b"folder"}
