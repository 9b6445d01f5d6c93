"""What a crash leaves of a run, a hit, a checkout, an undo: at every step in turn, and at random (crashes.py)."""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
EXAMPLES = 10
EVERY = 10  # a checkout has no more moments
MOMENTS = 18


def crashing(disk: Path, *words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.run.crashes", *map(str, words)]
    environment = {**os.environ, "LD_PRELOAD": str(disk)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=TOP, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_no_crash_leaves_a_run_or_a_workspace_between_two_states(disk: Path) -> None:
    seed = int.from_bytes(os.urandom(3), "big")
    every, random = crashing(disk, "every", EVERY), crashing(disk, EXAMPLES, seed)
    said, complaint = every.communicate()
    assert every.returncode == 0, said + complaint
    assert len(said.splitlines()) == MOMENTS, said
    assert all(int(line.split()[-2]) >= 2 for line in said.splitlines()), said
    complaint = random.communicate()[1]
    assert random.returncode == 0, f"seed {seed}\n{complaint}"
