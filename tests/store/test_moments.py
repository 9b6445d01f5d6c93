"""What is imported is of one moment; what is exported may be thousands of directories deep."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas import _native
from fusecas.store import importer, trees
from fusecas.store.descent import MOST_OPEN, Descent
from fusecas.store.exporter import export_tree
from fusecas.store.importer import import_tree
from fusecas.store.store import Store


@pytest.mark.parametrize("size", [100, 2_000_000])
def test_a_files_bytes_and_attributes_are_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """It is made private and rewritten between the listing and the reading."""
    secret = tmp_path / "file"
    secret.write_bytes(b"p" * size)
    secret.chmod(0o644)
    real = _native.look_at
    looks: list[Any] = []

    def then_it_changes(*arguments: Any) -> Any:
        listing = real(*arguments)
        if not looks:
            secret.chmod(0o600)
            secret.write_bytes(b"s" * size)
        looks.append(listing)
        return listing

    monkeypatch.setattr(importer._native, "look_at", then_it_changes)
    with Store.in_memory() as store, store.session() as session:
        found = import_tree(session, tmp_path)
        session.flush()
        with session.read() as reader:
            entry = trees.lookup(reader, found.state, b"file")
            assert entry is not None and entry.target is not None
            assert entry.mode == 0o600 and reader.read_range(entry.target, 0, 1) == b"s"
        session.keep()


def test_a_directory_that_was_replaced_once_is_taken_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    real, replaced = os.open, []

    def replace_once(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if path == b"sub" and not replaced:
            replaced.append(path)
            os.rename(tmp_path / "sub", tmp_path / "sub.old")
            os.mkdir(tmp_path / "sub")
            (tmp_path / "sub" / "new").write_text("new")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(importer.os, "open", replace_once)
    with Store.in_memory() as store, store.session() as session:
        found = import_tree(session, tmp_path)
        session.flush()
        with session.read() as reader:
            assert trees.lookup(reader, found.state, b"sub/new") is not None
        session.keep()


def test_a_file_that_becomes_shorter_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(24 << 20))
    cuts = []

    def cut(_progress: importer.Progress) -> None:
        if len(cuts) < 1 and file.stat().st_size > 1 << 20:
            cuts.append(1)
            os.truncate(file, 3 << 20)

    with Store.in_memory() as store, store.session() as session:
        found = import_tree(session, tmp_path, progress=cut)
        assert found.size == 3 << 20
        session.keep()


@pytest.fixture
def deep_place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content may be deeper than Python's own removal goes."""
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_a_tree_thousands_of_directories_deep_comes_back(deep_place: Path) -> None:
    levels = 1500
    source = os.open(deep_place, os.O_RDONLY)
    os.mkdir("source", dir_fd=source)
    here = os.open("source", os.O_RDONLY, dir_fd=source)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    os.close(source)
    with Store.in_memory() as store:
        with store.session() as session:
            found = import_tree(session, deep_place / "source")
            session.keep()
        report = export_tree(store, found.state, deep_place / "target", times=found.times)
        assert (report.directories, report.files, report.unset) == (levels + 1, 1, ())
        with store.session() as session:
            assert import_tree(session, deep_place / "target").state == found.state
            session.keep()


def test_a_descent_opens_each_directory_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = b"/".join([b"d"] * (3 * MOST_OPEN))
    os.makedirs(os.fsencode(tmp_path) + b"/" + path)
    root = os.open(tmp_path, os.O_RDONLY)
    opened, real = [], os.open

    def counted(*arguments: Any, **options: Any) -> int:
        opened.append(arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(os, "open", counted)
    descent = Descent(root)
    places = [path[: 2 * at + 1] for at in range(3 * MOST_OPEN)]
    for place in [*places, *reversed(places), b""]:
        at = os.fstat(descent.to(place))
        there = os.stat(os.fsencode(tmp_path) + b"/" + place)
        assert (at.st_dev, at.st_ino) == (there.st_dev, there.st_ino)
    descent.close()
    os.close(root)
    assert len(opened) <= 2 * len(places)
