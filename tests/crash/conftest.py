import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusecas.store.store import Store

TOP = Path(__file__).parents[2]


def command(name: str, *arguments: object) -> list[str]:
    plain = [str(each) if isinstance(each, Path) else each for each in arguments]
    return [sys.executable, "-m", "tests.crash.actors", name, json.dumps(plain)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a new store that no process has open."""
    Store.create(tmp_path).close()
    return tmp_path


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes writes fail (fault.c)."""
    built = tmp_path_factory.mktemp("shim") / "fault.so"
    source = Path(__file__).with_name("fault.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Any:
    """Start an actor; whatever still runs when the test ends is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(
        name: str, *arguments: object, before: tuple[str, ...] = (), preload: Path | None = None
    ) -> subprocess.Popen[str]:
        environment = {**os.environ, **({"LD_PRELOAD": str(preload)} if preload else {})}
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [*before, *command(name, *arguments)],
                cwd=TOP,
                env=environment,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def ended(actor: "subprocess.Popen[str]") -> Any:
    """What an actor said last, after it has ended well."""
    said, complaint = actor.communicate()
    assert actor.returncode == 0, complaint[-4000:]
    return json.loads(said.splitlines()[-1])
