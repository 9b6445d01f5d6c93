"""docs/api.md held to its word: its examples in a row, in one session, against a real mount."""

import doctest
import os
import re
from pathlib import Path

import pytest

import fusecas
from tests.api.conftest import Project

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_examples_give_what_they_show(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    project.repository = project.folder / "project" / ".fusecas"
    project.work = project.repository / "work"
    mask = os.umask(0o022)
    try:
        failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    finally:
        os.umask(mask)
    assert failed == 0 and tried >= 30


def test_the_page_has_every_call_and_every_field() -> None:
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`]*)`", PAGE.read_text()))))
    for kind in (fusecas.Repo, fusecas.Workspace):
        assert {name for name in vars(kind) if not name.startswith("_")} <= told
    for kind in (fusecas.RunResult, fusecas.Status, fusecas.Diff, fusecas.Moved, fusecas.LayerInfo, fusecas.Committed):
        fields = {name for each in kind.__mro__[:-1] for name in vars(each) if not name.startswith("_")}
        assert fields - {"new_objects", "stored_bytes"} <= told, kind
