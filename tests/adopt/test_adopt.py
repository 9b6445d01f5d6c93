"""A folder is taken over and given back: nothing of it is lost, and nothing is moved that can't be kept."""

import os

from fusecas.mount.device import is_mounted
from tests.adopt import hostile
from tests.adopt.conftest import Project


def test_all_that_a_folder_has_is_in_the_workspace_and_in_what_is_released(full: Project) -> None:
    was = hostile.look(full.work)
    full.adopt()
    assert hostile.look(full.before) == was
    assert hostile.look(full.work, is_mounted=True) == {
        name: (*seen[:6], [each for each in seen[6] if not each[0].startswith("trusted.")])
        for name, seen in was.items()
    }
    full.release()
    assert hostile.look(full.work) == was
    assert full.names == ["project", "project.before-fusecas", "project.fusecas"]


def test_it_is_worked_in_and_what_is_released_has_the_work(project: Project) -> None:
    answer = project.adopt("-m", "as it was")
    assert "3 files, 41 B" in answer.text and str(project.before) in answer.text
    assert is_mounted(project.work)
    project.ok("run", "cp README copy", cwd=project.work)
    assert [each["instruction"] for each in project.ok("log", "--json", cwd=project.work / "src").result] == [
        "cp README copy",
        "as it was",
    ]
    (project.work / "edited").write_text("by hand")
    answer = project.release()
    assert "what was uncommitted is layer" in answer.stderr
    assert sorted(os.listdir(project.work)) == ["README", "copy", "edited", "src"]
    assert not is_mounted(project.work)
    project.before.rename(project.folder / "old")
    assert project.ok("adopt", "project", "--json").result["layer"] is None, "the repository goes on where it was"
    assert len(project.ok("log", "--json", cwd=project.work).result) == 3
