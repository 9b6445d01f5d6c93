"""The mount beside ext4 with a journal (a loop image) and beside the floor: a file system on pyfuse3 that does nothing.
Needs root, cc and mkfs.ext4. Drops the kernel's caches.

Parts: calls (single system calls), bulk (a large file), tools (tar, find, grep, git, rm), memory (of the daemon).
"""

import os
import random
import shutil
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

from tests.bench.measure import Bench, anonymous_memory, program, run, settle, timed
from tests.bench.peers import Ext4, Floor, Mount, Ours

FILES = 4000
FILE_BLOCKS = 1 << 16
RANDOM_BLOCKS = 1 << 13
SMALL_FILES = 20_000
LINE = b"a line of text that a search has to read, with a number in it: %08d\n"
NAMES_ALONE, ALSO_PAGES = "2", "3"

Step = tuple[str, Callable[[Mount], float | None], str]


def drop(what: str) -> None:
    """The kernel forgets: names and inodes, or pages as well. Daemons are told of it, and given the time to listen."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text(what)
    time.sleep(0.3)


def compare(bench: Bench, steps: list[Step], unit: str) -> None:
    with ExitStack() as stack:
        peers = {kind.name: stack.enter_context(kind(bench.folder)) for kind in (Ours, Floor, Ext4)}
        bench.among(steps, peers, unit)


class Calls:
    """Times system calls by a program of its own; microseconds a call."""

    def __init__(self, bench: Bench) -> None:
        self._program = bench.folder / "calls"
        run("cc", "-O2", "-o", self._program, Path(__file__).with_name("calls.c"))

    def time(self, act: str, place: Path, count: int) -> float:
        return float(run(self._program, act, place, str(count))) / 1000

    def of(self, act: str, where: str, count: int, dropped: str = "", warm: bool = False) -> Callable[[Mount], float]:
        def measure(peer: Mount) -> float:
            if dropped:
                drop(dropped)
            if warm:
                self.time(act, peer.work / where, count)
            return self.time(act, peer.work / where, count)

        return measure


def calls(bench: Bench) -> None:
    make = Calls(bench)

    def prepare(peer: Mount) -> None:
        for name in ("empty", "full"):
            (peer.work / name).mkdir(exist_ok=True)
        settle()

    def reread(peer: Mount) -> float:
        block = peer.work / "block"
        block.write_bytes(bytes(1 << 20))
        make.time("reread", block, 16)
        return make.time("reread", block, 200_000)

    compare(
        bench,
        [
            ("", prepare, ""),
            ("create", make.of("create", "empty", FILES), "floor x1.3"),
            ("create, write 4 KiB", make.of("create4k", "full", FILES), "floor x1.3"),
            ("stat, cold", make.of("stat", "full", FILES, NAMES_ALONE), "floor x1.3"),
            ("stat, warm", make.of("stat", "full", FILES, warm=True), "ext4 x1.1"),
            ("readdir, cold: each name", make.of("readdir", "full", FILES, NAMES_ALONE), "floor x1.3"),
            ("readdir, warm: each name", make.of("readdir", "full", FILES, warm=True), "floor x1.3"),
            ("read(2) of an open file, warm", reread, "ext4 x1.1"),
            ("unlink, empty", make.of("unlink", "empty", FILES), "floor x1.3"),
            ("unlink, 4 KiB", make.of("unlink", "full", FILES), "floor x1.3"),
        ],
        "us",
    )


def bulk(bench: Bench) -> None:
    make = Calls(bench)
    sizes = {"write": FILE_BLOCKS, "read": FILE_BLOCKS}

    def of(act: str, dropped: str = "", warm: bool = False) -> Callable[[Mount], float]:
        return make.of(act, "large", sizes.get(act, RANDOM_BLOCKS), dropped, warm)

    def remove(peer: Mount) -> None:
        (peer.work / "large").unlink(missing_ok=True)
        settle()

    compare(
        bench,
        [
            ("", remove, ""),
            ("write 256 MiB: each 4 KiB", of("write"), "floor x1.3"),
            ("read it, cold: each 4 KiB", of("read", ALSO_PAGES), "floor x1.3"),
            ("read it, warm: each 4 KiB", of("read", warm=True), "floor x1.3"),
            ("read blocks at random, cold", of("randread", ALSO_PAGES), "floor x1.3"),
            ("write blocks at random", of("randwrite"), "floor x1.3"),
        ],
        "us",
    )


def archive_of_small_files(place: Path) -> None:
    """20 000 files in 200 folders, 100 bytes to 8 KiB."""
    rng = random.Random(1)
    with tarfile.open(place, "w") as archive:
        for at in range(SMALL_FILES):
            data = b"".join(LINE % rng.randrange(1 << 26) for _ in range(rng.randrange(2, 120)))
            info = tarfile.TarInfo(f"tree/{at % 200:03}/{at:05}.txt")
            info.size, info.mode, info.mtime = len(data), 0o644, 1_700_000_000 + at
            archive.addfile(info, BytesIO(data))


def tools(bench: Bench) -> None:
    archive = bench.folder / "small.tar"
    archive_of_small_files(archive)

    def whole(*words: str, dropped: str = "", warm: bool = False) -> Callable[[Mount], float]:
        def measure(peer: Mount) -> float:
            if dropped:
                drop(dropped)
            here = [word.format(tree=peer.work / "tree") for word in words]
            if warm:
                run(*here)
            return timed(lambda: run(*here))

        return measure

    def unpack(peer: Mount) -> float:
        settle()
        return timed(lambda: run("tar", "xf", archive, "-C", peer.work))

    def into_git(peer: Mount) -> None:
        git = ["git", "-C", os.fspath(peer.work / "tree")]
        run(*git, "init", "-q")
        run(*git, "add", ".")
        run(*git, "status", "--short")

    status = ("git", "-C", "{tree}", "status", "--short")
    compare(
        bench,
        [
            ("tar x of 20 000 files", unpack, "floor x1.3"),
            ("find, cold", whole("find", "{tree}", dropped=NAMES_ALONE), "floor x1.3"),
            ("find -size, warm", whole("find", "{tree}", "-size", "+1M", warm=True), "floor x1.3"),
            ("grep -r, cold", whole("grep", "-rc", "text that", "{tree}", dropped=ALSO_PAGES), "floor x1.3"),
            ("grep -r, warm", whole("grep", "-rc", "text that", "{tree}", warm=True), "floor x1.3"),
            ("", into_git, ""),
            ("git status, warm", whole(*status, warm=True), "floor x1.3"),
            ("git status, cold", whole(*status, dropped=NAMES_ALONE), "floor x1.3"),
            ("rm -rf", whole("rm", "-rf", "{tree}"), "floor x1.3"),
        ],
        "s",
    )


def memory(bench: Bench) -> None:
    """RssAnon of the daemon: as it begins, with what the kernel holds, and after the kernel has forgotten it."""
    count = 200_000
    source = bench.folder / "source"
    for at in range(count // 1000):
        (source / f"{at:03}").mkdir(parents=True)
        for name in range(1000):
            (source / f"{at:03}" / f"some-file-{name:03}.txt").write_bytes(b"")
    ours = Ours(bench.folder)
    run(program(), "init", ours.folder)
    run(program(), "import", source, "--repo", ours.repository)
    shutil.rmtree(source)
    drop(ALSO_PAGES)
    with ours:
        after_mount = anonymous_memory(ours.pid)
        run("find", ours.work, "-size", "+1M")
        full = anonymous_memory(ours.pid)
        drop(NAMES_ALONE)
        run("stat", ours.work)  # what was forgotten has been heard of once this is answered
        left = anonymous_memory(ours.pid)
        first = ours.work / "changed"
        first.mkdir()
        for at in range(count // 4):
            (first / f"{at}").write_bytes(b"")
        changed = anonymous_memory(ours.pid)
        shutil.rmtree(first)
        ours.commit()
        drop(NAMES_ALONE)
        run("stat", ours.work)
        in_the_end = anonymous_memory(ours.pid)
    bench.note("RssAnon after the mount", f"{after_mount / 1e6:.1f} MB", "-", "-", "80 MB")
    each = (full - after_mount) / count
    bench.note("for each inode that the kernel holds", f"{each:.0f} bytes", f"{count} inodes", "-", "400 bytes")
    bench.note(
        "after it forgot them: more than after the mount", f"{(left - after_mount) / 1e6:.1f} MB", "-", "-", "20 MB"
    )
    bench.note("for each new file", f"{(changed - left) / (count / 4):.0f} bytes", f"{count // 4} files", "-", "-")
    bench.note(
        "after they were removed, and a commit: more than after the mount",
        f"{(in_the_end - after_mount) / 1e6:.1f} MB",
        "-",
        "-",
        "20 MB",
    )


PARTS = {"calls": calls, "bulk": bulk, "tools": tools, "memory": memory}
