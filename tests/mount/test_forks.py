"""Forks of what is uncommitted, which share it with their source until it is stored: whatever is done to one of them,
whoever dies, each has all that it had when it was made."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fusecas.client import Client
from fusecas.errors import DiskFull, FusecasError
from tests.mount.conftest import TIMEOUT, Mounted
from tests.mount.test_checkout import committed, tree
from tests.mount.test_failures import fill, pattern

FOLDERS, IN_EACH = 20, 100
CLIENTS = 8
DIGITS = 8
WRITER = """
import os, sys
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for at in range(10**7):
    name = f"{at:08}"
    with open(name, "wb") as file:
        file.write(name.encode() * 600)
    os.write(log, name.encode())
    if at == 100:
        print("ready", flush=True)
"""

Tree = dict[str, bytes | None]


def fork_at(mounted: Mounted, name: str) -> Path:
    return mounted.work / ".fusecas" / "ws" / name


@pytest.fixture
def full(mounted: Mounted) -> Tree:
    """A few thousand files, none of them committed but for some that were changed and removed since."""
    work = mounted.work
    (work / "gone").write_text("gone")
    (work / "changed").write_text("committed")
    committed(mounted, "first")
    for folder in range(FOLDERS):
        (work / f"{folder}").mkdir()
        for at in range(IN_EACH):
            (work / f"{folder}" / f"{at}").write_bytes(b"%d of %d\n" % (at, folder) * (at * 7))
    (work / "gone").unlink()
    (work / "changed").write_text("uncommitted")
    os.link(work / "0" / "1", work / "1" / "linked")
    return tree(work)


def changed(place: Path, text: str, before: Tree) -> Tree:
    """What is there after files that were shared are overwritten, truncated, removed and made."""
    (place / "0" / "7").write_text(text)
    with (place / "0" / "99").open("r+b") as file:
        file.seek(5000)
        file.write(text.encode())
    os.truncate(place / "1" / "50", 100)
    (place / "2" / "3").unlink()
    (place / "made").write_text(text)
    expected = dict(before)
    expected |= {"0/7": text.encode(), "made": text.encode(), "1/50": (before["1/50"] or b"")[:100]}
    long = before["0/99"] or b""
    expected["0/99"] = long[:5000] + text.encode() + long[5000 + len(text) :]
    del expected["2/3"]
    return expected


def test_a_kill_right_after_the_fork_loses_nothing(mounted: Mounted, full: Tree) -> None:
    mounted.ok("fork", "other")
    mounted.kill()
    mounted.mount()
    other = fork_at(mounted, "other")
    assert tree(mounted.work) == full and tree(other) == full
    mine, theirs = changed(mounted.work, "mine", full), changed(other, "theirs", full)
    mounted.kill()
    mounted.mount()
    assert tree(mounted.work) == mine and tree(other) == theirs
    mounted.ok("commit")
    mounted.ok("commit", "--ws", "other")
    assert mounted.changes() == {}
    assert tree(mounted.work) == mine and tree(other) == theirs
    mounted.ok("verify")


def test_a_commit_in_the_fork_leaves_the_source_uncommitted(mounted: Mounted, full: Tree) -> None:
    mounted.ok("fork", "other")
    other = fork_at(mounted, "other")
    mine, theirs = changed(mounted.work, "mine", full), changed(other, "theirs", full)
    layer = mounted.ok("commit", "--ws", "other", "--json").result["layer"]
    assert mounted.changes() | {"changed": "M", "gone": "D", "0": "A", "made": "A"} == mounted.changes()
    assert mounted.ok("status", "--ws", "other", "--json").result["changes"] == []
    assert tree(mounted.work) == mine and tree(other) == theirs
    assert len(mounted.ok("log", "--json").result) == 1
    mounted.ok("commit")
    assert mounted.changes() == {}
    assert tree(mounted.work) == mine and tree(other) == theirs
    assert tree(mounted.work / ".fusecas" / "at" / "@") == mine
    assert tree(mounted.work / ".fusecas" / "at" / layer) == theirs
    mounted.ok("verify")


def test_a_fork_of_a_fork_outlives_the_one_between(mounted: Mounted, full: Tree) -> None:
    mounted.ok("fork", "middle")
    middle = fork_at(mounted, "middle")
    theirs = changed(middle, "theirs", full)
    mounted.ok("fork", "last", "--ws", "middle")
    last = fork_at(mounted, "last")
    (middle / "3" / "3").write_text("later")
    mounted.ok("ws", "rm", "middle")
    assert not middle.exists()
    assert tree(last) == theirs and tree(mounted.work) == full
    (last / "3" / "3").write_text("last")
    theirs["3/3"] = b"last"
    mounted.kill()
    mounted.mount()
    assert tree(last) == theirs and tree(mounted.work) == full
    for name in ("last", "main"):
        mounted.ok("commit", "--ws", name)
    assert tree(last) == theirs and tree(mounted.work) == full
    mounted.ok("verify")


def test_a_fork_of_a_fork_that_shares_the_same_outlives_the_one_between(mounted: Mounted, full: Tree) -> None:
    """Nothing is written in between, so all three stand on what the first has frozen."""
    mounted.ok("fork", "middle")
    mounted.ok("fork", "last", "--ws", "middle")
    mounted.ok("ws", "rm", "middle")
    mounted.kill()
    mounted.mount()
    last = fork_at(mounted, "last")
    mine, theirs = changed(mounted.work, "mine", full), changed(last, "theirs", full)
    assert tree(last) == theirs and tree(mounted.work) == mine
    mounted.ok("commit", "--ws", "last")
    mounted.ok("commit")
    assert tree(last) == theirs and tree(mounted.work) == mine
    mounted.ok("verify")


def test_a_fork_to_a_taken_name_is_refused_and_loses_nothing(mounted: Mounted, full: Tree) -> None:
    mounted.ok("fork", "other")
    other = fork_at(mounted, "other")
    theirs = changed(other, "theirs", full)
    mine = changed(mounted.work, "mine", full)
    before = mounted.changes()
    for name in ("other", "main"):
        refused = mounted.run("fork", name)
        assert (refused.code, "is there already" in refused.stderr) == (4, True)
    assert mounted.changes() == before
    assert tree(mounted.work) == mine and tree(other) == theirs
    assert mounted.ok("ws", "list", "--json").result and sorted(os.listdir(other.parent)) == ["main", "other"]
    (mounted.work / "after").write_text("after")
    mine["after"] = b"after"
    mounted.kill()
    mounted.mount()
    assert tree(mounted.work) == mine and tree(other) == theirs
    mounted.ok("commit")
    mounted.ok("verify")


def test_undo_in_a_fork_takes_back_what_was_done_in_the_fork_and_no_more(mounted: Mounted, full: Tree) -> None:
    """A fork begins with what its source had not committed: that is the source's to undo."""
    mounted.ok("fork", "other")
    other = fork_at(mounted, "other")
    nothing = mounted.run("undo", "--ws", "other")
    assert (nothing.code, "nothing to undo" in nothing.stderr) == (4, True)
    theirs = changed(other, "theirs", full)
    mounted.ok("undo", "--ws", "other")
    assert tree(other) == full
    mounted.ok("redo", "--ws", "other")
    assert tree(other) == theirs
    mounted.ok("undo")
    assert tree(mounted.work) == {"gone": b"gone", "changed": b"committed"} and tree(other) == theirs
    mounted.ok("redo")
    assert tree(mounted.work) == full
    verbs = [each["verb"] for each in mounted.ok("op", "log", "ws:other", "--json").result]
    assert verbs == ["redo", "undo", "fork"]
    mounted.ok("verify")


# ---- at once


class Forker(threading.Thread):
    """A client that forks once, when all do; what the source's log was before and after."""

    def __init__(self, mounted: Mounted, name: str, barrier: threading.Barrier) -> None:
        super().__init__()
        self.place = fork_at(mounted, name)
        self._mounted, self._name, self._barrier = mounted, name, barrier
        self.problem: FusecasError | None = None

    def run(self) -> None:
        log = self._mounted.work / "log"
        try:
            with Client(self._mounted.repository) as client:
                self._barrier.wait(TIMEOUT)
                self.before = log.stat().st_size // DIGITS
                client.call("fork", name=self._name)
                self.after = log.stat().st_size // DIGITS
        except FusecasError as error:
            self.problem = error


def test_forks_by_many_at_once_each_have_all_up_to_a_moment(mounted: Mounted) -> None:
    words = [sys.executable, "-c", WRITER]
    with subprocess.Popen(words, cwd=mounted.work, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            barrier = threading.Barrier(CLIENTS)
            forkers = [Forker(mounted, f"fork{at}", barrier) for at in range(CLIENTS)]
            for each in forkers:
                each.start()
            for each in forkers:
                each.join(TIMEOUT)
        finally:
            writer.kill()
    assert [each.problem for each in forkers if each.problem] == []
    counts = [is_a_prefix(tree(each.place), each.before, each.after) for each in forkers]
    mounted.kill()
    mounted.mount()
    for each, count in zip(forkers, counts, strict=True):
        assert is_a_prefix(tree(each.place), count, count) == count
        mounted.ok("commit", "--ws", each.place.name)
    mounted.ok("verify")


def is_a_prefix(found: Tree, least: int, most: int) -> int:
    """How many files the writer had logged: all those are whole, and there may be one more, whole or begun."""
    log = found.pop("log") or b""
    count = len(log) // DIGITS
    names = [f"{at:0{DIGITS}}" for at in range(count + 1)]
    assert log == "".join(names[:count]).encode() and least <= count <= most
    last = found.pop(names[count], b"")
    assert last in (b"", names[count].encode() * 600)
    assert found == {name: name.encode() * 600 for name in names[:count]}
    return count


# ---- a full disk


def test_a_fork_on_a_full_disk_is_refused_and_the_source_goes_on(crowded: Mounted) -> None:
    ballast = crowded.folder / "ballast"
    ballast.write_bytes(bytes(40 << 20))
    (crowded.work / "before").write_bytes(pattern(0, 1 << 20))
    crowded.ok("fork", "early")
    written = fill(crowded.work / "large")
    made, problem = fork_until_refused(crowded)
    assert problem["exit"] == 6
    with (crowded.work / "before").open("r+b") as file:
        file.write(b"in place")
    expected = b"in place" + pattern(0, 1 << 20)[8:]
    assert (crowded.work / "before").read_bytes() == expected
    assert (crowded.work / "large").read_bytes() == pattern(0, written)
    ballast.unlink()
    names = ["early", *made, "main"]
    assert sorted(os.listdir(crowded.work / ".fusecas" / "ws")) == sorted(names)
    crowded.ok("fork", "late")
    for name in (*made, "late"):
        assert (fork_at(crowded, name) / "large").read_bytes() == pattern(0, written)
    for name in (*names, "late"):
        crowded.ok("commit", "--ws", name)
    assert (crowded.work / "before").read_bytes() == expected
    assert (fork_at(crowded, "early") / "before").read_bytes() == pattern(0, 1 << 20)
    crowded.ok("verify")


def fork_until_refused(crowded: Mounted) -> tuple[list[str], dict[str, Any]]:
    """The names of those that were made, and the refusal: a fork needs a few pages of the store, and may find some."""
    made: list[str] = []
    with Client(crowded.repository) as client:
        while True:
            name = f"fork{len(made)}"
            try:
                client.call("fork", name=name)
            except DiskFull as error:
                return made, {"exit": error.exit_code, "message": error.message}
            made.append(name)
            assert len(made) < 1000
