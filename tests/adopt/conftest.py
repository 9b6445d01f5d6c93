"""A project in a folder of its own, to be adopted by the real program; nothing of it is left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adopt import hostile
from tests.cli.calling import Answer
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
    yield place
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
