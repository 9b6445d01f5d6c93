"""Measuring beside a reference: interleaved rounds, medians, a table."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

Measure = Callable[[], float]
PREFIX = "fusecas-bench-"


def locked(folder: Path) -> int | None:
    """A lock on a folder, which goes with the process; None if another one has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def remove_leftovers(scratch: Path) -> list[Path]:
    """What benchmarks that were killed have left there: their mounts, then their folders."""
    removed = []
    for folder in sorted(scratch.glob(f"{PREFIX}*")):
        lock = locked(folder)
        if lock is None:
            continue  # one that is on
        try:
            for place in reversed(mounts_below(folder)):
                subprocess.run(["umount", "--lazy", place], check=True)
            shutil.rmtree(folder)
            removed.append(folder)
        finally:
            os.close(lock)
    return removed


def mounts_below(folder: Path) -> list[str]:
    """In the order in which they were made."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if Path(place).is_relative_to(folder)]


class Bench:
    """One part of a benchmark: a scratch folder, and the figures that it has found."""

    def __init__(self, title: str, rounds: int, scratch: Path) -> None:
        self.title = title
        self.rounds = rounds
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=scratch))
        self._lock = locked(self.folder)
        self.figures: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        print(f"\n{self.title}", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def compare(self, what: str, ours: Measure, reference: Measure, name: str, goal: str, unit: str = "s") -> None:
        """Measure both in turn, as often as there are rounds; the ratio is ours / reference, round by round."""
        pairs = []
        for at in range(self.rounds):
            order = (ours, reference) if at % 2 == 0 else (reference, ours)
            values = [measure() for measure in order]
            pairs.append(tuple(values) if at % 2 == 0 else tuple(reversed(values)))
        ratios = sorted(a / b for a, b in pairs)
        self.note(
            what,
            f"{median(a for a, _ in pairs):.4g} {unit}",
            f"{name} {median(b for _, b in pairs):.4g} {unit}",
            f"x{median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})",
            goal,
        )

    def among(
        self,
        steps: Sequence[tuple[str, Callable[[Any], float | None], str]],
        peers: Mapping[str, Any],
        unit: str,
    ) -> None:
        """Do each step (what, how, goal) to each of the peers in turn, as often as there are rounds. The first peer is
        ours: its ratios to the others, round by round, are what is told. A step that answers None is preparation."""
        found: dict[str, dict[str, list[float]]] = {what: {name: [] for name in peers} for what, _, _ in steps}
        names = list(peers)
        for at in range(self.rounds):
            turn = at % len(names)
            for what, how, _ in steps:
                for name in names[turn:] + names[:turn]:
                    value = how(peers[name])
                    if value is not None:
                        found[what][name].append(value)
        ours, *others = names
        for what, _, goal in steps:
            values = found[what]
            if not values[ours]:
                continue
            ratios = {name: sorted(a / b for a, b in zip(values[ours], values[name], strict=True)) for name in others}
            self.note(
                what,
                f"{median(values[ours]):.4g} {unit}",
                ", ".join(f"{name} {median(values[name]):.4g} {unit}" for name in others),
                ", ".join(f"x{median(each):.2f} ({each[0]:.2f}-{each[-1]:.2f})" for each in ratios.values()),
                goal,
            )

    def note(self, what: str, ours: str, reference: str, ratio: str, goal: str) -> None:
        self.figures.append({"what": what, "ours": ours, "reference": reference, "ratio": ratio, "goal": goal})
        print(f"  {what:44} {ours:>14}  {reference:>24}  {ratio:26} goal {goal}", flush=True)

    def fresh(self, name: str) -> Path:
        """A folder of that name that is not there."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        return place


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*words: str | Path, **variables: str) -> str:
    """A whole process; its stdout."""
    done = subprocess.run(
        [os.fspath(word) for word in words], env={**os.environ, **variables}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{words} failed: {done.stderr}")
    return done.stdout


def program() -> str:
    """The command `fusecas` of this environment."""
    return os.fspath(Path(sys.executable).parent / "fusecas")


def size_of(place: Path) -> int:
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def written_bytes() -> int:
    """What this process has passed to write() and its kind so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["wchar"])


def anonymous_memory(pid: int | str = "self") -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


class Watch:
    """The most anonymous memory that this process has while it is watched."""

    def __enter__(self) -> Self:
        self.most = anonymous_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, anonymous_memory())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()


def settle() -> None:
    """What others wrote must not be paid for by who comes next."""
    os.sync()
