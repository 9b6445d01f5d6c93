"""A workspace to run commands in, through the real program; how often they really ran is counted outside of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.calling import Answer
from tests.mount.conftest import Mounted, end


class Runner(Mounted):
    """Nothing is there at first: the first run makes the repository, and mounts it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.work = self.repository / "work"
        self.counter = folder / "counter"

    def counted(self, text: str) -> str:
        """The same command, which counts how often it was executed."""
        return f"echo x >> {self.counter}; {text}"

    @property
    def executions(self) -> int:
        return len(self.counter.read_text().splitlines()) if self.counter.exists() else 0

    def json(self, *words: str, code: int = 0, **how: object) -> dict[str, object]:
        answer: Answer = self.run("run", "--json", *words, **how)  # type: ignore[arg-type]
        assert answer.code == code, answer
        result: dict[str, object] = answer.result
        return result


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    place = Runner(tmp_path)
    yield place
    end(place)
    log = place.repository / "run" / "log"
    complaints = [line for line in log.read_text().splitlines() if " ERROR " in line] if log.exists() else []
    assert complaints == [], "\n".join(complaints)
