"""Numbers of inodes that were never written down: whatever is done, and however often it is sealed, they stay."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fusecas.store import heads, prolly
from fusecas.store.ids import Kind
from fusecas.store.repository import Repository
from fusecas.store.verify import verify
from fusecas.workspace.importing import import_layer
from fusecas.workspace.workspace import Workspace

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
PLACES = st.sampled_from([(), (b"a",), (b"a", b"b"), (b"c",), (b"empty",), (b"new",)])
NAMES = st.sampled_from([b"1", b"2", b"3", b"a", b"b", b"c", b"linked", b"new"])
KINDS = ("write", "write", "write", "cut", "mode", "time", "make", "folder", "unlink", "rmdir", "rename", "link")
STEP = st.tuples(st.sampled_from(KINDS), PLACES, NAMES, PLACES, NAMES)


def source_in(folder: Path) -> Path:
    source = folder / "source"
    for place in (".", "a", "a/b", "c", "empty"):
        (source / place).mkdir(parents=True, exist_ok=True)
        for name in "123" if place != "empty" else "":
            (source / place / name).write_text(place + name)
    os.link(source / "a" / "1", source / "c" / "linked")
    return source


def picture(overlay: Any, ino: int = 0, path: bytes = b"") -> dict[bytes, tuple[Any, ...]]:
    """Every inode's number, kind and times, and the bytes of files."""
    found: dict[bytes, tuple[Any, ...]] = {}
    attributes = overlay.getattr(ino)
    found[path] = (*attributes[:3], *attributes[9:])
    if stat.S_ISREG(attributes[1]):
        found[path] += (overlay.read(ino, 0, attributes[6] + 1),)
    if stat.S_ISDIR(attributes[1]):
        for name, _ in overlay.names(ino)[0]:
            child = overlay.lookup(ino, name)[0]
            found |= picture(overlay, child, path + b"/" + name)
            overlay.forget(child, 1)
    return found


def find(overlay: Any, place: tuple[bytes, ...], held: list[int]) -> int:
    ino = 0
    for name in place:
        child = overlay.lookup(ino, name)
        if child is None or not stat.S_ISDIR(child[1]):
            break
        ino = child[0]
        held.append(ino)
    return ino


def do(overlay: Any, kind: str, place: tuple[bytes, ...], name: bytes, to: tuple[bytes, ...], new: bytes) -> None:
    held: list[int] = []
    parent, other = find(overlay, place, held), find(overlay, to, held)
    there = overlay.lookup(parent, name)
    ino = parent if there is None else there[0]
    if there is not None:
        held.append(ino)
    with suppress(OSError):
        match kind:
            case "write":
                overlay.write(ino, 3, b"written")
            case "cut":
                overlay.setattr(ino, size=2)
            case "mode":
                overlay.setattr(ino, mode=0o700)
            case "time":
                overlay.setattr(ino, mtime=5)
            case "make" | "folder":
                held.append(overlay.make(parent, name, FILE if kind == "make" else FOLDER, 0, 0, 0)[0])
            case "unlink":
                overlay.unlink(parent, name)
            case "rmdir":
                overlay.rmdir(parent, name)
            case "rename":
                overlay.rename(parent, name, other, new, False, True)
            case "link":
                overlay.link(ino, other, new)
                held.append(ino)
    for each in held:
        with suppress(OSError):
            overlay.forget(each, 1)


@given(st.lists(st.lists(STEP, max_size=5), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_seals_and_starts_change_no_number_and_no_time(rounds: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Repository.create(Path(folder) / ".fusecas") as repository:
        import_layer(repository, source_in(Path(folder)))
        workspace = Workspace(repository)
        for steps in rounds:
            for step in steps:
                do(workspace.overlay, *step)
            before = picture(workspace.overlay)
            workspace.seal()
            assert picture(workspace.overlay) == before
            workspace = Workspace(repository)
            assert picture(workspace.overlay) == before
        assert verify(repository.store).clean


def test_what_only_writes_to_files_writes_no_numbers_down(tmp_path: Path) -> None:
    """In a folder of a thousand files that would be a thousand numbers."""
    with Repository.create(tmp_path / ".fusecas") as repository:
        import_layer(repository, source_in(tmp_path))
        workspace = Workspace(repository)

        def has_numbers() -> bool:
            workspace.commit("step")
            with repository.store.read() as snapshot:
                root = heads.read_head(snapshot).live.inodes
                found = prolly.find(Kind.INODES, root, b"a", lambda node, kind: snapshot.read_node(node, kind))
                return found is not None and found[3] is not None

        assert not has_numbers()
        do(workspace.overlay, "write", (b"a", b"b"), b"2", (), b"")
        assert not has_numbers()
        do(workspace.overlay, "mode", (b"a", b"b"), b"2", (), b"")
        assert has_numbers()
