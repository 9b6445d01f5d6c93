"""Listings: complete, and valid while others make and remove what is listed."""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.calls import Listed, fails, getdents, list_all, touch

MANY = 300
SOME_ROOM = 1024
KINDS = {stat.S_IFREG: 8, stat.S_IFDIR: 4, stat.S_IFLNK: 10, stat.S_IFIFO: 1}


@pytest.fixture
def full(folder: Path) -> Path:
    for number in range(MANY):
        touch(folder / f"{number:04}")
    return folder


@pytest.fixture
def opened(full: Path) -> Iterator[int]:
    descriptor = os.open(full, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def names_of(entries: list[Listed]) -> list[bytes]:
    return [each.name for each in entries]


def test_a_listing_has_everything_once_with_dot_and_dot_dot(full: Path) -> None:
    descriptor = os.open(full, os.O_RDONLY)
    found = []
    while some := getdents(descriptor, SOME_ROOM):
        found += some
    os.close(descriptor)
    assert sorted(names_of(found)) == [b".", b".."] + [f"{number:04}".encode() for number in range(MANY)]
    numbers = {each.name: each.ino for each in found}
    assert numbers[b"."] == full.stat().st_ino and numbers[b"0007"] == (full / "0007").stat().st_ino


def test_a_listing_tells_what_kind_each_is(folder: Path) -> None:
    touch(folder / "file")
    (folder / "dir").mkdir()
    (folder / "link").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    descriptor = os.open(folder, os.O_RDONLY)
    for each in list_all(descriptor):
        assert each.kind == KINDS[stat.S_IFMT(os.lstat(folder / os.fsdecode(each.name)).st_mode)]
    os.close(descriptor)


def test_what_stays_is_listed_once_while_others_go(full: Path, opened: int) -> None:
    found = names_of(getdents(opened, SOME_ROOM))
    for number in range(0, MANY, 2):
        (full / f"{number:04}").unlink()
    found += names_of(list_all(opened, SOME_ROOM))
    counts = Counter(found)
    assert all(counts[f"{number:04}".encode()] == 1 for number in range(1, MANY, 2))
    assert max(counts.values()) == 1


def test_what_stays_is_listed_once_while_others_come(full: Path, opened: int) -> None:
    found = names_of(getdents(opened, SOME_ROOM))
    for number in range(MANY):
        touch(full / f"{number:04}-new")
        touch(full / f"!{number:04}")
    found += names_of(list_all(opened, SOME_ROOM))
    counts = Counter(found)
    assert all(counts[f"{number:04}".encode()] == 1 for number in range(MANY))
    assert max(counts.values()) == 1


def test_a_directory_can_be_emptied_while_it_is_listed(full: Path, opened: int) -> None:
    while some := getdents(opened, SOME_ROOM):
        for each in some:
            if each.name not in (b".", b".."):
                os.unlink(os.fsencode(full) + b"/" + each.name)
    os.rmdir(full)


def test_a_listing_goes_on_from_a_place_it_has_told(full: Path, opened: int) -> None:
    first = getdents(opened, SOME_ROOM)
    rest = names_of(list_all(opened))
    for at in (len(first) - 1, 5, 2):
        os.lseek(opened, first[at].number, os.SEEK_SET)
        again = names_of(list_all(opened))
        assert again == names_of(first[at + 1 :]) + rest


def test_a_place_stays_valid_when_what_was_there_is_removed(full: Path, opened: int) -> None:
    first = getdents(opened, SOME_ROOM)
    list_all(opened)
    for each in first[2:10]:
        os.unlink(os.fsencode(full) + b"/" + each.name)
    os.lseek(opened, first[6].number, os.SEEK_SET)
    again = names_of(list_all(opened))
    gone = set(names_of(first[2:10]))
    assert len(again) == len(set(again)) and set(names_of(first[10:])) <= set(again) and not gone & set(again)


def test_a_listing_from_the_beginning_shows_what_has_changed(full: Path, opened: int) -> None:
    list_all(opened)
    touch(full / "new")
    (full / "0001").unlink()
    assert list_all(opened) == []
    os.lseek(opened, 0, os.SEEK_SET)
    again = names_of(list_all(opened))
    assert b"new" in again and b"0001" not in again and len(again) == MANY


def test_two_listings_of_a_directory_do_not_disturb_each_other(full: Path, opened: int) -> None:
    other = os.open(full, os.O_RDONLY)
    one, two = [], []
    while True:
        some, more = getdents(opened, SOME_ROOM), getdents(other, 2 * SOME_ROOM)
        one, two = one + names_of(some), two + names_of(more)
        if not some and not more:
            break
    os.close(other)
    assert sorted(one) == sorted(two) and len(set(one)) == len(one) == MANY + 2


def test_a_copy_of_a_descriptor_shares_its_place(full: Path, opened: int) -> None:
    copy = os.dup(opened)
    found = names_of(getdents(opened, SOME_ROOM)) + names_of(list_all(copy))
    os.close(copy)
    found = [each for each in found if each not in (b".", b"..")]
    assert len(found) == len(set(found)) == MANY and list_all(opened) == []


def test_a_listing_begun_in_the_middle_has_the_rest(full: Path, opened: int) -> None:
    first = getdents(opened, SOME_ROOM)
    rest = names_of(list_all(opened))
    other = os.open(full, os.O_RDONLY)
    os.lseek(other, first[-1].number, os.SEEK_SET)
    assert names_of(list_all(other)) == rest
    os.close(other)


def test_room_for_no_entry_is_einval(opened: int) -> None:
    with fails(errno.EINVAL):
        getdents(opened, 8)


def test_an_open_directory_that_was_removed_lists_nothing(folder: Path) -> None:
    (folder / "d").mkdir()
    descriptor = os.open(folder / "d", os.O_RDONLY)
    (folder / "d").rmdir()
    with fails(errno.ENOENT):
        getdents(descriptor, SOME_ROOM)
    os.close(descriptor)
