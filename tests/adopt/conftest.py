"""A project in a folder of its own, to be adopted by the real program; nothing of it is left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adopt import hostile
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT, Answer
from tests.mount.conftest import Mounted, end


class Project(Mounted):
    """`work` is the folder, `repository` where its repository is once it is adopted."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.work = folder / "project"
        self.repository = folder / "project.fusecas"
        self.before = folder / "project.before-fusecas"
        self.new = folder / "project.new"
        self.released = folder / "project.released-new"

    def adopt(self, *options: str) -> Answer:
        return self.ok("adopt", "project", *options)

    def release(self, *options: str) -> Answer:
        return self.ok("release", "project", *options)

    def sh(self, text: str, cwd: Path | None = None) -> Answer:
        """By a shell, which stays while the program runs; `"$0"` is the program."""
        words = ["bash", "-c", text, os.fspath(PROGRAM)]
        done = subprocess.run(words, cwd=cwd or self.folder, env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT)
        return Answer(done.returncode, done.stdout, done.stderr.decode())

    def umount(self) -> None:
        self.ok("umount", "project")

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@contextmanager
def project_in(folder: Path) -> Iterator[Project]:
    """A few files, and nothing left behind."""
    place = Project(folder)
    (place.work / "src").mkdir(parents=True)
    (place.work / "src" / "main.c").write_text("int main(void) { return 0; }\n")
    (place.work / "README").write_text("hello\n")
    os.link(place.work / "README", place.work / "src" / "README")
    try:
        yield place
    finally:
        if place.repository.is_dir():
            end(place)
    log = place.repository / "run" / "log"
    complaints = [line for line in log.read_text().splitlines() if " ERROR " in line] if log.exists() else []
    assert complaints == [], "\n".join(complaints)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with project_in(tmp_path / "place") as project:
        yield project


@pytest.fixture
def full(project: Project) -> Project:
    """All that folders can have."""
    hostile.make(project.work)
    return project


@pytest.fixture(scope="session")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that kills or stops after a step (steps.c)."""
    built = tmp_path_factory.mktemp("steps") / "steps.so"
    source = Path(__file__).with_name("steps.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, source, "-ldl"], check=True)
    return built


def start_steps(
    project: Project, steps: Path, call: tuple[str, ...], log: Path, **when: str
) -> "subprocess.Popen[bytes]":
    """`when`: STEPS_KILL or STEPS_STOP."""
    words = [sys.executable, "-m", "fusecas", *call]  # not the script: that may start another process first
    env = {"LD_PRELOAD": str(steps), "STEPS_IN": str(project.folder), "STEPS_LOG": str(log), **when}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=project.folder, env={**ENVIRONMENT, **env}, stdout=pipe, stderr=pipe)


@contextmanager
def stopped_after(project: Project, steps: Path, call: tuple[str, ...], step: str) -> Iterator[None]:
    """The call stands still after this step, while something is done; then it goes on to its end."""
    process = start_steps(project, steps, call, project.folder.parent / "steps.log", STEPS_STOP=step)
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None and found.si_code == os.CLD_STOPPED, process.communicate()
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
        stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, (stdout, stderr)
