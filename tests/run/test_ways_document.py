"""docs/ways.md is held to its word: its blocks are executed, and print what it says."""

import re
import subprocess
from pathlib import Path

from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.run.conftest import Runner

PAGE = Path(__file__).parents[2] / "docs" / "ways.md"
BLOCK = re.compile("^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = "#> "


def test_every_block_of_the_page_does_what_it_says(runner: Runner) -> None:
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) > 8
    for block in blocks:
        expected = [line.removeprefix(SHOWN) for line in block.splitlines() if line.startswith(SHOWN)]
        done = subprocess.run(
            ["sh", "-euc", block],
            cwd=runner.folder,
            env={**ENVIRONMENT, "PATH": f"{PROGRAM.parent}:{ENVIRONMENT['PATH']}"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert (done.returncode, done.stdout.splitlines()) == (0, expected), f"{block}\n{done.stdout}{done.stderr}"
