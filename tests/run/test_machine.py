"""What of the machine counts, through the real program: it is changed in a mount namespace of the test's own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecas.run.host import PACKAGES, SYSTEM
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.mount.conftest import end
from tests.mount.ordinary import IS_ROOT, quoted
from tests.run.conftest import Runner

DATABASE = next((Path(os.fsdecode(each)) for each in PACKAGES if os.path.isfile(each)), None)
CHANGED = {
    "packages": DATABASE,
    "system": next((Path(os.fsdecode(each)).resolve() for each in SYSTEM if os.path.exists(each)), None),
    "program": Path("/bin/sh").resolve(),
}


class Machine(Runner):
    """What counts of it are copies, in place of the real ones; they may be changed. It goes with its last process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        lines = ["set -e", "mount --make-rprivate /"]
        for name, place in CHANGED.items():
            if place is not None:
                copy = quoted(folder / name)
                lines += [f"cp -p {quoted(place)} {copy}", f"mount --bind {copy} {quoted(place)}"]
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", "\n".join([*lines, "echo ready; exec cat"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"ready\n"

    def start(self, *words: str | bytes, env: dict[str, str] | None = None, **how: Any) -> "subprocess.Popen[bytes]":
        within = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "env", "-C", str(self.folder)]
        return subprocess.Popen([*within, PROGRAM, *words], env={**ENVIRONMENT, **(env or {})}, **how)

    def changes_its(self, name: str) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(b"\n")

    def close(self) -> None:
        self._holder.communicate(timeout=TIMEOUT)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    assert IS_ROOT, "what counts of a machine can be changed by root alone"
    made = Machine(tmp_path)
    yield made
    end(made)
    made.close()


def test_a_changed_machine_is_a_miss_and_what_has_changed_is_named(machine: Machine) -> None:
    text = machine.counted("echo made > made")
    machine.json(text)
    for number, (name, place) in enumerate(CHANGED.items()):
        if place is None:
            continue
        machine.ok("undo")
        assert machine.json(text)["cached"] is True
        machine.ok("undo")
        machine.changes_its(name)
        came = machine.json(text)
        assert came["cached"] is False, name
        assert came["missed"] == {"env": [], "host": [name], "touched": [], "other": []}
        assert machine.executions == number + 2


@pytest.mark.skipif(DATABASE is None, reason="no package database that is a file")
def test_a_person_is_told_of_packages_and_where_the_machine_does_not_count_it_is_a_hit(machine: Machine) -> None:
    text = machine.counted("echo made > made")
    machine.json(text)
    machine.ok("undo")
    machine.changes_its("packages")
    assert "missed only by installed packages" in machine.ok("run", text).stderr
    machine.ok("undo")
    (machine.repository / "config.toml").write_text('[run]\nhost = "none"\n')
    machine.json(text)
    machine.ok("undo")
    machine.changes_its("packages")
    assert machine.json(text)["cached"] is True and machine.executions == 3
