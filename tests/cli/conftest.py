"""A repository with two layers: shared by tests that read, copied for those that write."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import NOT_UTF8, Place


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """No repository yet."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Place(tmp_path_factory.mktemp("template"))
    place.ok("init")
    source = place.folder / "source"
    source.mkdir()
    (source / "a.txt").write_text("hello, this is a\n")
    (source / "b.txt").write_text("one\ntwo\n")
    (source / "empty").touch()
    (source / "d").mkdir()
    (source / "d" / "x").write_text("x\n")
    (source / "link").symlink_to("a.txt")
    Path(os.fsdecode(os.fsencode(source) + b"/" + NOT_UTF8)).write_text("strange\n")
    place.ok("import", "source", "-m", "first drop")
    (source / "b.txt").write_text("one\ntwo\nthree\n")
    (source / "a.txt").rename(source / "c.txt")
    (source / "d" / "x").chmod(0o755)
    (source / "bin").write_bytes(bytes(range(256)))
    place.ok("import", "source", "-m", "second drop")
    place.ok("tag", "old", "@~1")
    return place.folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Place:
    """A repository of one's own: two layers, a tag `old` on the first."""
    shutil.copytree(template, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


@pytest.fixture(scope="session")
def shared(template: Path) -> Iterator[Place]:
    """The same for tests that only read."""
    before = (template / ".fusecas/store/data.mdb").read_bytes()
    yield Place(template)
    assert (template / ".fusecas/store/data.mdb").read_bytes() == before, "a test that should only read has written"
