"""Files mapped into memory."""

import mmap
import os
from pathlib import Path

import pytest

from tests.posix.calls import in_child, touch

SIZE = 3 * mmap.PAGESIZE


@pytest.fixture
def file(folder: Path) -> Path:
    return touch(folder / "f", b"x" * SIZE)


def test_a_store_through_a_shared_mapping_is_read_by_everybody(file: Path) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as mapped:
        mapped[5000:5005] = b"store"
        assert os.pread(opened.fileno(), 5, 5000) == b"store"
        assert in_child(lambda: file.read_bytes()[5000:5005]) == b"store"
        mapped.flush()
    assert file.read_bytes()[5000:5005] == b"store"


def test_a_write_shows_in_a_shared_mapping(file: Path) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as mapped:
        assert mapped[5000] == ord("x")
        os.pwrite(opened.fileno(), b"write", 5000)
        assert mapped[5000:5005] == b"write"


def test_two_mappings_of_a_file_are_one(file: Path) -> None:
    with (
        file.open("r+b") as a,
        file.open("r+b") as b,
        mmap.mmap(a.fileno(), SIZE) as one,
        mmap.mmap(b.fileno(), SIZE, prot=mmap.PROT_READ) as two,
    ):
        one[0:3] = b"abc"
        assert two[0:3] == b"abc"


def test_a_store_through_a_private_mapping_is_nobody_elses(file: Path) -> None:
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped,
    ):
        mapped[0:5] = b"store"
        assert mapped[0:5] == b"store"
    assert file.read_bytes() == b"x" * SIZE


def test_a_mapping_outlives_its_descriptor_and_its_name(file: Path) -> None:
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), SIZE)
    file.unlink()
    mapped[0:5] = b"store"
    assert mapped[0:6] == b"storex"
    mapped.close()


def test_a_store_moves_mtime(file: Path) -> None:
    before = file.stat().st_mtime_ns
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), SIZE) as mapped:
        mapped[0:5] = b"store"
        mapped.flush()
    assert file.stat().st_mtime_ns > before


def test_what_lies_behind_the_end_in_the_last_page_is_zero_and_is_not_kept(folder: Path) -> None:
    path = touch(folder / "f", b"x" * 100)
    with path.open("r+b") as opened, mmap.mmap(opened.fileno(), 100) as mapped:
        assert mapped[99:100] == b"x"
        mapped[0:1] = b"y"
        mapped.flush()
        os.ftruncate(opened.fileno(), 200)
    assert path.read_bytes() == b"y" + b"x" * 99 + bytes(100)


def test_a_file_that_grows_under_a_mapping_shows_there(file: Path) -> None:
    with file.open("r+b") as opened:
        os.ftruncate(opened.fileno(), 2 * SIZE)
        with mmap.mmap(opened.fileno(), 2 * SIZE) as mapped:
            os.ftruncate(opened.fileno(), SIZE)
            os.ftruncate(opened.fileno(), 2 * SIZE)
            assert mapped[SIZE - 1 : SIZE + 1] == b"x\0"
            mapped[2 * SIZE - 1 :] = b"e"
    assert file.read_bytes() == b"x" * SIZE + bytes(SIZE - 1) + b"e"
