"""What is deterministic by itself makes the same layers on every machine, for every user, on every day."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.mount.conftest import end
from tests.run.conftest import Runner

COMMANDS = (
    "printf 'int twice(int x) { return 2 * x; }\\n' > twice.c",
    "gcc -O2 -c twice.c -o twice.o",
    "ar rcD libtwice.a twice.o",
    "chmod 750 twice.c",
    "ln twice.o same.o; ln -s twice.c link",
    "mkdir -p a/b; mv libtwice.a a/b/",
    "rm twice.o",
    "exit 3",
    "true",
    "python3 -c \"print(sorted({'x', 'y', 'z'}))\" > sorted",
    "rm -r a && printf now-a-file > a",
    "printf '\\377' > \"$(printf 'not-utf8-\\377')\"; mkfifo pipe; : > @odd",
)


def layers(runner: Runner, env: dict[str, str]) -> list[object]:
    found = []
    for text in COMMANDS:
        came = runner.run("run", "--json", text, env=env)
        assert came.code == (3 if text == "exit 3" else 0), came
        found.append(came.result["hash"])
    return found


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Another repository, at a path of another length."""
    other = Runner(tmp_path_factory.mktemp("a longer name"))
    yield other
    end(other)


def test_two_repositories_have_the_same_layers(runner: Runner, elsewhere: Runner) -> None:
    assert shutil.which("gcc")
    here = layers(runner, {**os.environ, "TZ": "UTC", "PYTHONHASHSEED": "1"})
    moved = {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "2", "USER": "somebody", "LOGNAME": "somebody"}
    there = layers(elsewhere, {**os.environ, **moved, "HOME": str(elsewhere.folder)})
    assert here == there
    made = [each for each in here if each is not None]
    assert len(made) == len(set(made)) == len(COMMANDS) - 2, "but for the failing one and the empty one"
    listed = [subprocess.run(["find", "."], cwd=each.work, capture_output=True).stdout for each in (runner, elsewhere)]
    assert sorted(listed[0].split(b"\n")) == sorted(listed[1].split(b"\n"))
