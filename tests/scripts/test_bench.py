"""What a benchmark leaves behind when it is killed: nothing that the next one does not remove."""

import os
import subprocess
from pathlib import Path

from tests.bench.measure import Bench, mounts_below, remove_leftovers


def test_what_a_killed_benchmark_has_left_is_removed_and_what_is_on_stays(tmp_path: Path) -> None:
    killed, on = (Bench("bench", 1, tmp_path) for _ in range(2))
    place = killed.folder / "floor" / "work"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    (place / "file").write_text("left")
    assert killed._lock is not None
    os.close(killed._lock)  # as its death does
    assert remove_leftovers(tmp_path) == [killed.folder]
    assert not killed.folder.exists() and mounts_below(tmp_path) == []
    assert on.folder.exists()
    with on:
        pass
    assert not on.folder.exists()
