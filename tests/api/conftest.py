"""A repository through the API, really mounted where that is needed; nothing of it is left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import fusecas
from tests.mount.conftest import Mounted, end


class Project(Mounted):
    """A folder for a repository; how often a command really ran is counted outside of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.work = self.repository / "work"
        self.counter = folder / "counter"

    def counted(self, text: str) -> str:
        return f"echo x >> {self.counter}; {text}"

    @property
    def executions(self) -> int:
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    place = Project(tmp_path)
    yield place
    end(place)
    log = place.repository / "run" / "log"
    complaints = [line for line in log.read_text().splitlines() if " ERROR " in line] if log.exists() else []
    assert complaints == [], "\n".join(complaints)


@pytest.fixture
def repo(project: Project) -> Iterator[fusecas.Repo]:
    with fusecas.init(project.folder, actor="tester") as repo:
        yield repo


@pytest.fixture
def work(repo: fusecas.Repo) -> fusecas.Workspace:
    return repo.workspace()
