"""What a workspace's calls cost while it is mounted, among a million files and among a thousand; and a recovery.

Parts: calls (on the daemon's socket), recovery (of a journal of a million records). Needs root.
"""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from fusecas.client import Client
from tests.bench.measure import Bench, program, run, settle, timed
from tests.bench.peers import Ours

MANY, FEW, IN_A_FOLDER = 1_000_000, 1000, 1000
RECORDS = 1_000_000


def fill(folder: Path, count: int) -> None:
    for at in range(count // IN_A_FOLDER):
        (folder / f"dir{at:06}").mkdir(parents=True)
        for number in range(IN_A_FOLDER):
            (folder / f"dir{at:06}" / f"file{number:03}").write_bytes(b"%d\n" % (at * IN_A_FOLDER + number))


class Workspace(Ours):
    """A mounted workspace that was imported with that many files."""

    def __init__(self, folder: Path, count: int) -> None:
        self.name = f"of-{count}"
        self.count = count
        self.at = 0
        super().__init__(folder)

    def start(self) -> None:
        source = self.folder / "source"
        fill(source, self.count)
        run(program(), "init", self.folder)
        run(program(), "import", source, "--repo", self.repository)
        shutil.rmtree(source)
        super().start()
        self.client = Client(self.repository)

    def stop(self) -> None:
        self.client.close()
        super().stop()

    def change_one(self) -> None:
        self.at += 7919
        number = self.at % self.count
        path = self.work / f"dir{number // IN_A_FOLDER:06}" / f"file{number % IN_A_FOLDER:03}"
        path.write_bytes(b"%d\n" % -self.at)

    def milliseconds(self, method: str, **params: object) -> float:
        return timed(lambda: self.client.call(method, **params)) * 1000

    def status(self) -> float:
        self.change_one()
        return self.milliseconds("status")

    def commit(self) -> float:
        self.change_one()
        return self.milliseconds("commit", message="bench")

    def checkout(self) -> float:
        """Of a layer that differs in one file, and back."""
        taken = self.milliseconds("checkout", ref="@~1")
        self.client.call("undo")
        return taken

    def fork(self) -> float:
        taken = self.milliseconds("fork", name="other")
        self.client.call("ws.rm", name="other")
        return taken

    def clean(self) -> None:
        self.client.call("commit", message="clean")


def calls(bench: Bench) -> None:
    bench.rounds *= 9
    with ExitStack() as stack:
        many, few = (stack.enter_context(Workspace(bench.folder, count)) for count in (MANY, FEW))
        settle()
        bench.among(
            [
                ("status of one changed file", Workspace.status, "10 ms, x1.5"),
                ("", Workspace.clean, ""),
                ("commit of one changed file", Workspace.commit, "10 ms, x1.5"),
                ("checkout of one changed file", Workspace.checkout, "10 ms, x1.5"),
                ("fork", Workspace.fork, "10 ms, x1.5"),
            ],
            {"of 1 000 000": many, "of 1 000": few},
            "ms",
        )


def recovery(bench: Bench) -> None:
    """In processes of their own: one does things and dies, one opens what it left."""
    bench.folder.joinpath("repository").mkdir()
    repository = bench.folder / "repository" / ".fusecas"
    run(program(), "init", repository.parent)
    run(sys.executable, "-m", "tests.bench.recovery", "write", repository, str(RECORDS))
    seconds, processor = [], []
    for _ in range(bench.rounds):
        copy = bench.fresh("copy")
        shutil.copytree(repository, copy)
        settle()
        taken, used = run(sys.executable, "-m", "tests.bench.recovery", "open", copy).split()
        seconds.append(float(taken))
        processor.append(float(used))
    seconds.sort()
    journal = sum(path.stat().st_size for path in repository.rglob("j-*"))
    bench.note(
        f"opening a workspace with {RECORDS} records",
        f"{seconds[len(seconds) // 2]:.2f} s",
        f"{journal / 1e6:.0f} MB of journal",
        f"({seconds[0]:.2f}-{seconds[-1]:.2f}), of the processor {median(processor):.2f}",
        "1 s",
    )


PARTS = {"calls": calls, "recovery": recovery}
