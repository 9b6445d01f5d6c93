"""An adopted folder while it is not mounted: what it says, and where its repository is found from."""

import os
import stat

from fusecas.mount.device import is_mounted
from tests.adopt.conftest import Project
from tests.cli.calling import NOT_UTF8


def test_it_says_what_to_do_and_that_works(project: Project) -> None:
    project.adopt()
    project.umount()
    assert os.listdir(project.work) == [".fusecas"]
    lines = (project.work / ".fusecas").read_text().splitlines()
    assert lines == ["Not mounted. Run: fusecas mount .", "../project.fusecas"]
    assert stat.S_IMODE(project.work.stat().st_mode) == 0o555
    project.ok("mount", ".", cwd=project.work)
    assert (project.work / "README").read_text() == "hello\n"
    project.umount()
    project.ok("run", "true", cwd=project.work)
    assert is_mounted(project.work)


def test_verbs_without_a_mount_work_in_it(project: Project) -> None:
    project.adopt()
    project.umount()
    assert project.ok("status", cwd=project.work).lines == ["not mounted", "nothing uncommitted"]
    assert len(project.ok("log", "--json", cwd=project.work).result) == 1
    assert len(project.ok("log", "--json", cwd=project.repository).result) == 1


def test_a_mount_whose_daemon_was_killed_is_found_and_mounted_again(project: Project) -> None:
    project.adopt()
    (project.work / "edited").write_text("by hand\n")
    kill = f"kill -9 {project.pid()}; while kill -0 {project.pid()} 2>/dev/null; do :; done"
    answer = project.sh(f'{kill}; ls; "$0" log -n 1; "$0" mount && cd "$PWD" && cat edited', cwd=project.work)
    assert "not connected" in answer.stderr and len(answer.lines) == 3 and answer.lines[-1] == "by hand", answer
    project.kill()
    project.release()
    assert (project.work / "edited").read_text() == "by hand\n"


def test_folder_and_repository_may_move_together(project: Project) -> None:
    project.adopt()
    project.umount()
    moved = project.folder.with_name("moved")
    project.folder.rename(moved)
    project.folder.mkdir()
    project.ok("run", "cp README copy", cwd=moved / "project")
    assert (moved / "project" / "copy").exists()
    assert os.listdir(project.folder) == []
    project.ok("release", str(moved / "project"))
    assert (moved / "project" / "copy").read_text() == "hello\n"


def test_a_folder_that_was_renamed_is_mounted_where_it_is_and_released_there(project: Project) -> None:
    project.adopt()
    project.umount()
    other = project.folder / "other"
    project.work.rename(other)
    answer = project.run("run", "true", cwd=other)
    assert answer.code == 125 and "fusecas mount DIR" in answer.stderr
    project.ok("mount", ".", cwd=other)
    project.ok("run", "cp README copy", cwd=other)
    project.ok("umount", "other")
    project.ok("release", "other")
    assert (other / "copy").read_text() == "hello\n"


def test_a_pointer_without_its_repository_says_what_is_missing(project: Project) -> None:
    project.adopt()
    project.umount()
    away = project.folder / "away"
    project.repository.rename(away)
    for call in (("status",), ("run", "true")):
        answer = project.run(*call, cwd=project.work)
        assert answer.code in (3, 125) and str(project.repository) in answer.stderr and "--repo" in answer.stderr
    assert os.listdir(project.work) == [".fusecas"]
    away.rename(project.repository)


def test_a_pointer_leads_nowhere_but_beside_its_folder(project: Project) -> None:
    project.ok("init")
    (project.work / ".fusecas").write_text("Not mounted. Run: fusecas mount .\n../../place/.fusecas\n")
    answer = project.run("status", cwd=project.work)
    assert answer.code == 3 and "was adopted" in answer.stderr


def test_a_name_may_have_any_bytes(project: Project) -> None:
    name = b" a\nb " + NOT_UTF8
    folder = os.path.join(os.fsencode(project.folder), name)
    os.rename(project.work, folder)
    fields = project.ok("adopt", name, "--json").result
    assert "folder_b64" in fields
    try:
        with open(os.path.join(folder, b"README")) as file:
            assert file.read() == "hello\n"
        project.ok("umount", name)
        project.ok("mount", ".", cwd=os.fsdecode(folder))
    finally:
        project.ok("umount", name)
    project.ok("release", name)
    assert sorted(os.listdir(folder)) == [b"README", b"src"]


def test_a_run_in_a_plain_folder_says_where_it_works_and_adopt_takes_that_over(project: Project) -> None:
    answer = project.ok("run", "echo made > by-run", cwd=project.work)
    said = "working in .fusecas/work (empty), not in this folder; fusecas adopt . takes it over"
    assert said in answer.stderr
    project.ok("adopt", ".", cwd=project.work)
    assert sorted(os.listdir(project.work)) == ["README", "src"]
    assert [each["kind"] for each in project.ok("log", "--json", cwd=project.work).result] == ["import", "run"]
    assert project.names == ["project", "project.before-fusecas", "project.fusecas"]
    assert sorted(os.listdir(project.before)) == ["README", "src"]
    project.release()
    answer = project.run("run", "true", cwd=project.work)
    assert answer.code == 125 and "fusecas adopt . goes on with it" in answer.stderr


def test_doctor_tells_of_it(project: Project) -> None:
    def said() -> tuple[str, str]:
        answer = project.run("doctor", "--json", "--repo", str(project.repository))
        checks = answer.result["checks"] if answer.code == 0 else answer.error["details"]["checks"]
        return next((each["outcome"], each["said"]) for each in checks if each["name"] == "adopted")

    project.adopt()
    assert said() == ("ok", f"{project.work} is the workspace")
    project.umount()
    assert said() == ("ok", f"{project.work} is the workspace, not mounted now")
    (project.work / "more").touch()
    assert said()[0] == "problem"
    (project.work / "more").unlink()
    project.work.rename(project.folder / "away")
    assert said() == ("warning", f"{project.work}, which was adopted, is not there")
