"""Kills the daemon of a mounted workspace again and again while processes write in it and commit.

    python -m tests.crash.daemon FOLDER KILLS SEED

Every syscall that a writer was answered is there after each kill, every commit that was acknowledged verifies. A long
run is started by hand; tests/mount/test_failures.py does a few.
"""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fusecas.client import Client
from fusecas.errors import FusecasError
from fusecas.mount.device import detach, is_stale
from fusecas.store import heads, trees
from fusecas.store.ids import Kind
from fusecas.store.kinds import Layer
from fusecas.store.repository import Repository
from fusecas.store.verify import verify
from tests.crash.actors import become, say
from tests.store.making import noise

WRITERS = 3
NAMES = [f"f{at}" for at in range(8)]
LARGEST = 200_000
PATIENCE = 60

Files = dict[str, bytes]
Deed = list[Any]


# ---- what a writer does, in the file system and in a dict


def next_deed(files: Files, chance: random.Random) -> Deed:
    name, size = chance.choice(NAMES), 0
    if name not in files:
        return ["create", name]
    size = len(files[name])
    what = chance.choice(["write", "write", "append", "append", "truncate", "rename", "remove", "replace"])
    length = chance.choice([1, 100, 4096, 20_000, 65_536])
    if what in ("write", "append"):
        at = size if what == "append" else chance.randrange(size + 5_000)
        return ["write", name, at, chance.randrange(1 << 30), length] if at + length <= LARGEST else ["remove", name]
    if what == "truncate":
        return ["truncate", name, chance.randrange(size + 5_000)]
    if what in ("rename", "replace"):
        return ["rename", name, chance.choice(NAMES)]
    return ["remove", name]


def do_in_dict(files: Files, deed: Deed) -> Files:
    files = dict(files)
    match deed:
        case ["create", name]:
            files[name] = b""
        case ["write", name, at, seed, length]:
            old = files[name].ljust(at, b"\0")
            files[name] = old[:at] + noise(length, seed) + old[at + length :]
        case ["truncate", name, size]:
            files[name] = files[name][:size].ljust(size, b"\0")
        case ["rename", name, new]:
            files[new] = files.pop(name)
        case ["remove", name]:
            del files[name]
    return files


def do_in(folder: Path, deed: Deed) -> Deed | None:
    """Each is one system call that changes something, answered or not; or in part: then what of it was answered."""
    match deed:
        case ["create", name]:
            os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        case ["write", name, at, seed, length]:
            file = os.open(folder / name, os.O_WRONLY)
            try:
                written = os.pwrite(file, noise(length, seed)[:length], at)
            finally:
                with suppress(OSError):  # of a mount that has gone meanwhile
                    os.close(file)
            if written < length:
                return ["write", name, at, seed, written]
        case ["truncate", name, size]:
            os.truncate(folder / name, size)
        case ["rename", name, new]:
            os.rename(folder / name, folder / new)
        case ["remove", name]:
            os.unlink(folder / name)
    return None


def may_be(found: Files, before: Files, deed: Deed) -> bool:
    """Whether an unanswered deed can have left this: all or nothing. Of a write, any bytes that were there before may
    show what is new, and the kernel may have asked for it in parts, the first of which were done."""
    if found in (before, do_in_dict(before, deed)):
        return True
    if deed[0] != "write":
        return False
    name = deed[1]
    old, new = before[name], do_in_dict(before, deed)[name]
    if {**found, name: b""} != {**before, name: b""} or not len(old) <= len(found[name]) <= len(new):
        return False
    return all(byte == new[i] or (i < len(old) and byte == old[i]) for i, byte in enumerate(found[name]))


def write_until_it_dies(folder: Path, log: Path, files: Files, seed: int) -> None:
    chance = random.Random(seed)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        deed = next_deed(files, chance)
        os.write(out, json.dumps(["try", *deed]).encode() + b"\n")
        try:
            part = do_in(folder, deed)
        except OSError as error:
            os.write(out, json.dumps(["told", error.strerror]).encode() + b"\n")
            return
        if part is not None:
            os.write(out, json.dumps(["part", *part]).encode() + b"\n")
            return
        os.write(out, b'["done"]\n')
        files = do_in_dict(files, deed)


def commit_until_it_dies(repository: Path, log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        try:
            with Client(repository) as client:
                done = client.call("commit", message="beside the writers")
        except (FusecasError, OSError, ValueError):
            return
        os.write(out, json.dumps(done["layer"]).encode() + b"\n")


# ---- the one who kills


class Killer:
    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.repository = folder / ".fusecas"
        self.work = folder / "work"
        self.work.mkdir()
        Repository.create(self.repository).close()
        (self.repository / "run").mkdir(mode=0o700)
        self.files: list[Files] = [{} for _ in range(WRITERS)]
        self.read_so_far = [0] * WRITERS
        self.daemon: subprocess.Popen[bytes] | None = None
        self.figures = dict.fromkeys(("kills", "in start", "answered", "unanswered", "commits", "slowest start ms"), 0)

    def log(self, name: object) -> Path:
        return self.folder / f"{name}.log"

    def start(self) -> int:
        """The daemon; the descriptor on which it says that it is ready."""
        answer, say_ready = os.pipe()
        words = [sys.executable, "-m", "fusecas.daemon.serve", self.repository, "main", self.work, "0", str(say_ready)]
        with (self.repository / "run" / "log").open("ab") as log:
            self.daemon = subprocess.Popen(words, stdout=log, stderr=log, pass_fds=(say_ready,), start_new_session=True)
        os.close(say_ready)
        return answer

    def ready(self, answer: int) -> None:
        begun = time.monotonic()
        assert select.select([answer], [], [], PATIENCE)[0], "the daemon is not ready"
        said = os.read(answer, 1 << 16)
        os.close(answer)
        assert said == b"{}\n", said
        took = int((time.monotonic() - begun) * 1000)
        self.figures["slowest start ms"] = max(self.figures["slowest start ms"], took)

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        self.figures["kills"] += 1

    def round(self) -> None:
        if self.chance.random() < 0.3:
            answer = self.start()
            select.select([answer], [], [], self.chance.uniform(0, 0.8))  # killed at once if it is ready earlier
            self.kill()
            os.close(answer)
            self.figures["in start"] += 1
        self.ready(self.start())
        for at in range(WRITERS):
            self.check(at)
        children = [forked(self.writer(at, self.chance.randrange(1 << 30))) for at in range(WRITERS)] + [
            forked(lambda: commit_until_it_dies(self.repository, self.log("commits")))
        ]
        time.sleep(self.chance.uniform(0.01, 0.5))
        self.kill()
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def writer(self, at: int, seed: int) -> Callable[[], None]:
        (self.work / f"w{at}").mkdir(exist_ok=True)
        return lambda: write_until_it_dies(self.work / f"w{at}", self.log(at), self.files[at], seed)

    def check(self, at: int) -> None:
        """What is in a writer's folder is what it was answered."""
        if not self.log(at).exists():
            return
        with self.log(at).open("rb") as log:
            log.seek(self.read_so_far[at])
            lines = [json.loads(line) for line in log]
            self.read_so_far[at] = log.tell()
        pending: Deed | None = None
        for line in lines:
            if line[0] == "try":
                pending = line[1:]
            elif line[0] == "done" and pending is not None:
                self.files[at] = do_in_dict(self.files[at], pending)
                self.figures["answered"] += 1
                pending = None
            elif line[0] == "part":
                self.files[at] = do_in_dict(self.files[at], line[1:])  # and of the rest, anything
        found = {each.name: each.read_bytes() for each in (self.work / f"w{at}").iterdir()}
        if pending is None:
            assert found == self.files[at], self.difference(at, found)
        else:
            self.figures["unanswered"] += 1
            assert may_be(found, self.files[at], pending), (pending, self.difference(at, found))
        self.files[at] = found

    def difference(self, at: int, found: Files) -> str:
        expected = self.files[at]
        names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        sizes = [(name, len(found.get(name, b"")), len(expected.get(name, b""))) for name in names]
        return f"writer {at}: names {sorted(found)} for {sorted(expected)}; differ (name, size, expected): {sizes}"

    def check_layers(self) -> None:
        """Nobody has it open: every commit that was acknowledged is there, and the last one has all files."""
        with Repository.open(self.repository) as repository:
            report = verify(repository.store)
            assert report.clean, report
            with repository.store.read() as snapshot:
                layers = [bytes.fromhex(line) for line in map(json.loads, self.log("commits").open()) if line]
                for layer in layers:
                    state = Layer.decode(snapshot.read_node(layer, Kind.LAYER)).state
                    trees.read_state(snapshot, state)
                self.figures["commits"] = len(layers)
                head = heads.read_head(snapshot)
                tree = trees.read_state(snapshot, head.live.state).tree
                found = {
                    each.path.decode(): b"" if each.entry.target is None else snapshot.read_content(each.entry.target)
                    for each in trees.walk(snapshot, tree)
                    if not each.entry.is_directory
                }
        assert found == {f"w{at}/{name}": data for at, files in enumerate(self.files) for name, data in files.items()}

    def run(self, kills: int) -> None:
        checked = 0
        while self.figures["kills"] < kills:
            self.round()
            if self.figures["kills"] - checked >= 25:
                checked = self.figures["kills"]
                print(f"{self.figures}", file=sys.stderr, flush=True)
        self.ready(self.start())
        for at in range(WRITERS):
            self.check(at)
        with Client(self.repository) as client:
            client.call("commit", message="the last")
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(PATIENCE) == 0
        self.check_layers()
        say(**self.figures)

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
        if is_stale(self.work):
            detach(self.work)


def forked(act: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        become(act)
    return child


if __name__ == "__main__":
    killer = Killer(Path(sys.argv[1]).absolute(), int(sys.argv[3]))
    try:
        killer.run(int(sys.argv[2]))
    finally:
        killer.close()
