"""Hard links under a living mount: one file is one inode, whatever becomes of its names."""

import os
from pathlib import Path

import pytest

from tests.mount.conftest import Mounted


@pytest.fixture
def linked(place: Mounted, tmp_path: Path) -> Mounted:
    """Mounted with two names of one file, in a state whose numbers were never written down."""
    source = tmp_path / "source"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
    (source / "a" / "file").write_text("one")
    (source / "other").write_text("other")
    os.link(source / "a" / "file", source / "b" / "file")
    place.ok("import", str(source))
    place.mount()
    return place


def state_of(mounted: Mounted, workspace: str = "main") -> str:
    return str(mounted.ok("commit", "--ws", workspace, "-m", "x", "--json").result["state"])


def test_names_stay_one_file_when_a_directory_moves_and_another_path_comes_first(linked: Mounted) -> None:
    work = linked.work
    number = (work / "a" / "file").stat().st_ino
    with open(work / "a" / "file", "r+b", buffering=0) as file:
        (work / "a").rename(work / "z")
        state_of(linked)
        file.write(b"two")
        assert [(work / name / "file").read_text() for name in ("b", "z")] == ["two", "two"]
        assert [(work / name / "file").stat().st_ino for name in ("b", "z")] == [number, number]
    state_of(linked)
    linked.umount()
    linked.mount()
    assert [(work / name / "file").stat().st_ino for name in ("b", "z")] == [number, number]


@pytest.mark.parametrize("gone", [("a/file",), ("a/file", "b/file")], ids=["one", "all"])
def test_what_is_left_of_linked_names_is_the_state_of_files_that_never_were(
    linked: Mounted, gone: tuple[str, ...]
) -> None:
    for name in gone:
        (linked.work / name).unlink()
    linked.ok("ws", "create", "plain")
    plain = linked.work / ".fusecas" / "ws" / "plain"
    for name in ("a", "b"):
        (plain / name).mkdir()
    if len(gone) == 1:
        (plain / "b" / "file").write_text("one")
    (plain / "other").write_text("other")
    assert state_of(linked) == state_of(linked, "plain")


def test_names_of_a_state_that_was_put_in_place_can_be_taken_away_one_by_one(linked: Mounted) -> None:
    work = linked.work
    linked.ok("checkout", "@empty")
    linked.ok("undo")
    (work / "a" / "file").unlink()
    left = (work / "b" / "file").stat()
    state_of(linked)
    linked.ok("checkout", "@empty")
    linked.ok("undo")
    assert left.st_nlink == 1 == (work / "b" / "file").stat().st_nlink


def test_a_thousand_names_of_one_file_are_one_file(place: Mounted) -> None:
    source = place.folder / "source"
    source.mkdir()
    (source / "0").write_text("one")
    for number in range(1, 1000):
        os.link(source / "0", source / f"{number}")
    place.ok("import", "source")
    place.mount()
    found = {entry.stat().st_ino: entry.stat().st_nlink for entry in os.scandir(place.work)}
    assert list(found.values()) == [1000]
    for number in range(0, 1000, 2):
        (place.work / f"{number}").unlink()
    assert (place.work / "1").stat().st_nlink == 500
    place.ok("commit")
    assert (place.work / "999").read_text() == "one"
