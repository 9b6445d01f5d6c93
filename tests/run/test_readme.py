"""The README's tour is typed line by line, and what comes must be what it shows, but for what each run has its own."""

import re
import subprocess
from pathlib import Path

from fusecas.mount.device import detach, is_mounted
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT

PAGE = Path(__file__).parents[2] / "README.md"
INDENT, PROMPT = "    ", "    $ "
HOME = "/home/ada"
MASKS = (
    (re.compile(r"\b[0-9a-f]{12}\b"), "LAYER"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "WHEN"),
    (re.compile(r"in \d[\d.]* (ms|s)\b"), "in TIME"),
    (re.compile(r"\d[\d.]* (B|KiB|MiB)"), "SIZE"),
)
MARK = "@@@"


def tour() -> list[tuple[str, str]]:
    """(what is typed, what is shown)."""
    section = PAGE.read_text().split("## Two minutes with it\n", 1)[1]
    steps: list[tuple[str, str]] = []
    for line in section.splitlines():
        if line.startswith(PROMPT):
            steps.append((line.removeprefix(PROMPT), ""))
        elif line.startswith(INDENT):
            typed, shown = steps[-1]
            steps[-1] = (typed, shown + line.removeprefix(INDENT) + "\n")
        elif line and steps:
            return steps
    raise AssertionError("the tour has no end")


def masked(text: str) -> str:
    for pattern, name in MASKS:
        text = pattern.sub(name, text)
    return text


def test_the_tour_shows_what_comes(tmp_path: Path) -> None:
    steps = tour()
    assert len(steps) > 15
    script = "exec 2>&1\n" + "".join(f"{typed}\nprintf '\\n{MARK}%s\\n' $?\n" for typed, _ in steps)
    try:
        done = subprocess.run(
            ["sh", "-u", "-c", script],
            cwd=tmp_path,
            env={**ENVIRONMENT, "PATH": f"{PROGRAM.parent}:{ENVIRONMENT['PATH']}"},
            capture_output=True,
            text=True,
            timeout=4 * TIMEOUT,
        )
    finally:
        if is_mounted(tmp_path / "project"):
            detach(tmp_path / "project")
    came = re.split(rf"\n{MARK}(\d+)\n", done.stdout.replace(str(tmp_path), HOME))
    for (typed, shown), said, code in zip(steps, came[::2], came[1::2], strict=False):
        assert (masked(said), code) == (masked(shown), "0"), typed
    assert len(came) == 2 * len(steps) + 1
