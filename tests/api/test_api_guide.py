"""docs/api.md and docs/from-statekit.md held to their word: their examples in a row, against a real mount."""

import doctest
import os
import re
from pathlib import Path

import pytest

import fusecas
from tests.api.conftest import Project

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "api.md"


@pytest.mark.parametrize(("page", "place", "examples"), [("api.md", "project", 30), ("from-statekit.md", "kit", 9)])
def test_the_examples_give_what_they_show(
    page: str, place: str, examples: int, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    project.repository = project.folder / place / ".fusecas"
    project.work = project.repository / "work"
    mask = os.umask(0o022)
    try:
        failed, tried = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    finally:
        os.umask(mask)
    assert failed == 0 and tried >= examples


def test_the_page_has_every_call_and_every_field() -> None:
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", PAGE.read_text()))))
    for kind in (fusecas.Repo, fusecas.Workspace):
        assert {name for name in vars(kind) if not name.startswith("_")} <= told
    for kind in (fusecas.RunResult, fusecas.Status, fusecas.Diff, fusecas.Moved, fusecas.LayerInfo, fusecas.Committed):
        fields = {name for each in kind.__mro__[:-1] for name in vars(each) if not name.startswith("_")}
        assert fields - {"new_objects", "stored_bytes"} <= told, kind
