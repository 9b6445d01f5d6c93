"""Others at work meanwhile: they are named, or what they did is there; nothing is lost in between."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusecas.mount.device import is_mounted
from tests.adopt import hostile
from tests.adopt.conftest import Project, stopped_after


@contextmanager
def somebody(project: Project, text: str) -> Iterator[int]:
    """A shell that says when it is ready, and stays."""
    words = ["sh", "-euc", f"{text}; echo ready; exec cat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=project.folder, stdin=pipe, stdout=pipe, start_new_session=True) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()


@pytest.mark.parametrize(
    ("text", "does"),
    [
        ("exec 3>>project/README", "has {work}/README open for writing"),
        ("cd project/src", "is in it"),
    ],
)
def test_who_is_in_the_folder_is_named_and_nothing_is_done(project: Project, text: str, does: str) -> None:
    was = hostile.look(project.work)
    with somebody(project, text) as pid:
        answer = project.run("adopt", "project")
        assert answer.code == 4 and f"process {pid} (" in answer.stderr
        assert does.format(work=project.work) in answer.stderr and "--force" in answer.stderr
        assert hostile.look(project.work) == was and project.names == ["project"]
        project.adopt("--force")


def test_who_maps_a_file_to_write_is_named(project: Project) -> None:
    text = "import mmap, os; f = os.open('project/README', os.O_RDWR); m = mmap.mmap(f, 0); os.close(f)"
    with somebody(project, f"exec python3 -c \"{text}; print('ready', flush=True); input()\"") as pid:
        answer = project.run("adopt", "project")
        assert answer.code == 4 and f"process {pid} (" in answer.stderr and "open for writing" in answer.stderr


def test_the_shell_that_it_is_called_from_may_be_in_it_and_is_told(project: Project) -> None:
    script = 'fusecas() { "$0" "$@"; }; fusecas adopt . && pwd -P && fusecas status; cd . && fusecas status && pwd -P'
    answer = project.sh(script, cwd=project.work)
    assert "cd . goes into the workspace" in answer.stderr
    assert f"{project.before} is {project.work} as it was before it was adopted" in answer.stderr
    assert answer.lines[-2:] == ["nothing uncommitted", str(project.work)]


def test_what_it_is_piped_to_may_be_in_it(project: Project) -> None:
    answer = project.sh('set -o pipefail; "$0" adopt . | cat', cwd=project.work)
    assert answer.code == 0 and "is a workspace" in answer.text, answer


def test_a_folder_that_keeps_changing_stays_as_it_is(project: Project) -> None:
    text = "(while :; do echo x > project/busy; done) & trap 'kill $!' EXIT; while ! [ -e project/busy ]; do :; done"
    words = ["sh", "-euc", f"{text}; echo ready; cat"]
    with subprocess.Popen(words, cwd=project.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        answer = project.run("adopt", "project", "--force")
        process.communicate()
    assert answer.code == 4 and "kept changing" in answer.stderr
    assert project.names == ["project"] and not is_mounted(project.work)


def test_what_is_written_until_the_exchange_is_in_the_workspace(project: Project, steps: Path) -> None:
    open_before = os.open(project.work / "src" / "main.c", os.O_WRONLY | os.O_APPEND)
    with stopped_after(project, steps, ("adopt", "project", "--force"), "rename project.fusecas/adopted"):
        (project.work / "late").write_text("after it was read\n")
        (project.work / "README").unlink()
    with open(open_before, "w") as file:
        file.write("too late: this goes to the folder as it was\n")
    assert sorted(os.listdir(project.work)) == ["late", "src"]
    assert (project.work / "late").read_text() == "after it was read\n"
    assert (project.work / "src" / "main.c").read_text() == "int main(void) { return 0; }\n"
    assert (project.before / "late").exists()


def test_what_is_written_through_an_open_file_right_after_the_exchange_is_in_the_workspace(
    project: Project, steps: Path
) -> None:
    with open(project.work / "src" / "main.c", "a") as file:
        with stopped_after(project, steps, ("adopt", "project", "--force"), "renameat2 project.new"):
            file.write("/* more */\n")
            file.flush()
        assert "more" in (project.work / "src" / "main.c").read_text()


def test_two_at_once_are_one_after_the_other(project: Project) -> None:
    was = hostile.look(project.work)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [project.start("adopt", "project", **pipes) for _ in range(3)]
    ends = [(each.communicate(timeout=60), each.returncode) for each in started]
    assert sorted(code for _, code in ends)[0] == 0 and all(code in (0, 4) for _, code in ends), ends
    assert hostile.look(project.work) == was and hostile.look(project.before) == was


# ---- release


def test_who_is_in_the_workspace_keeps_it_from_being_released(project: Project) -> None:
    project.adopt()
    with somebody(project, "cd project/src") as pid:
        answer = project.run("release", "project")
        assert answer.code == 4 and f"process {pid} (" in answer.stderr
        assert is_mounted(project.work) and not project.released.exists()
        assert (project.work / "README").read_text() == "hello\n"
    project.release()


def test_it_can_not_be_released_from_within(project: Project) -> None:
    project.adopt()
    answer = project.run("release", cwd=project.work)
    assert answer.code == 4 and f"fusecas release {project.work}" in answer.stderr
    assert is_mounted(project.work)


def test_what_is_written_during_the_export_is_released(project: Project, steps: Path) -> None:
    project.adopt()
    with stopped_after(project, steps, ("release", "project"), "mkdirat project.released-new/src"):
        (project.work / "src" / "late").write_text("late\n")
        (project.work / "README").unlink()
    assert not is_mounted(project.work)
    assert (project.work / "src" / "late").read_text() == "late\n"
    assert sorted(os.listdir(project.work)) == ["src"]


def test_what_is_damaged_is_not_released(project: Project) -> None:
    (project.work / "src" / "noise").write_bytes(os.urandom(100_000))
    project.adopt()
    project.umount()
    data = project.repository / "store" / "data.mdb"
    sample = (project.before / "src" / "noise").read_bytes()[50_000:50_100]
    whole = data.read_bytes()
    assert whole.count(sample) == 1
    data.write_bytes(whole.replace(sample, bytes(100)))
    answer = project.run("release", "project")
    assert answer.code == 5, answer
    assert not project.released.exists() and (project.work / ".fusecas").is_file()
