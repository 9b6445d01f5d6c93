"""Killed after any step, the next call goes on or back; a whole copy is there all the time (docs/dev/adopt.md)."""

import os
import signal
from pathlib import Path

import pytest

from fusecas.mount.device import is_mounted
from tests.adopt import hostile
from tests.adopt.conftest import Project, project_in, start_steps
from tests.cli.calling import TIMEOUT

MOST_STEPS = 60
Call = tuple[str, ...]


def do_steps(project: Project, steps: Path, call: Call, kill_after: int = 0) -> tuple[list[str], bool]:
    """What is done, up to a step after which the process is killed; and whether it was."""
    log = project.folder.parent / "steps.log"
    log.unlink(missing_ok=True)
    process = start_steps(project, steps, call, log, STEPS_KILL=str(kill_after))
    said = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (0, -signal.SIGKILL), said
    return log.read_text().splitlines(), process.returncode != 0


def plain(folder: Path) -> hostile.Seen | None:
    """What is in a folder that is no mount and no pointer; a repository in it does not count."""
    if not folder.exists() or is_mounted(folder) or (folder / ".fusecas").is_file():
        return None
    seen = hostile.look(folder)
    return {name: each for name, each in seen.items() if not name.startswith(b".fusecas")}


def without_own_time(seen: hostile.Seen | None) -> hostile.Seen | None:
    """A repository that moves out of a folder changes that for a moment."""
    return None if seen is None else {name: each for name, each in seen.items() if name}


@pytest.mark.parametrize("is_within", [False, True], ids=["new", "with a repository within"])
def test_adopt_killed_after_any_step(tmp_path: Path, steps: Path, is_within: bool) -> None:
    for at in range(1, MOST_STEPS):
        next_call = ("adopt", "mount", "run")[at % 3]
        with project_in(tmp_path / f"{at}") as project:
            if is_within:
                project.ok("init", "project")
            was = plain(project.work)
            done, was_killed = do_steps(project, steps, ("adopt", "project"), at)
            copies = [plain(each) for each in (project.work, project.before, project.new)]
            assert without_own_time(was) in map(without_own_time, copies), done
            if not was_killed:
                assert at > 10
                return
            if next_call == "mount":
                assert project.run("mount", cwd=project.work).code in (0, 3, 4), done
            elif next_call == "run" and project.run("run", "--no-cache", "true", cwd=project.work).code == 125:
                assert plain(project.work) == was, done
            if not is_mounted(project.work):
                project.adopt()
            assert hostile.look(project.work) == was, done
            assert plain(project.before) == was, done
            assert project.names == ["project", "project.before-fusecas", "project.fusecas"], done
            assert len(project.ok("log", "--json", cwd=project.work).result) == 1
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("is_live", [True, False], ids=["mounted", "not mounted"])
def test_release_killed_after_any_step(tmp_path: Path, steps: Path, is_live: bool) -> None:
    for at in range(1, MOST_STEPS):
        next_call = ("release", "mount", "adopt")[at % 3]
        with project_in(tmp_path / f"{at}") as project:
            project.adopt()
            (project.work / "edited").write_text("by hand\n")
            expected = hostile.look(project.work)
            if not is_live:
                project.umount()
            done, was_killed = do_steps(project, steps, ("release", "project"), at)
            if not was_killed:
                assert at > 10 and plain(project.work) == expected
                return
            assert plain(project.before) is not None
            if next_call == "mount":
                assert project.run("mount", cwd=project.work).code in (0, 3, 4)
                assert hostile.look(project.work) == expected, done
            elif next_call == "adopt":
                project.before.rename(project.folder / "old")
                assert project.run("adopt", "project").code in (0, 4)
                assert hostile.look(project.work) == expected, done
            if (project.repository / "adopted").exists():
                project.release()
            assert plain(project.work) == expected, done
            assert not project.released.exists() and not project.new.exists()
    raise AssertionError("it does not come to an end")


def test_what_a_power_cut_must_not_take_is_synced_before_each_exchange_and_at_the_end(
    project: Project, steps: Path
) -> None:
    project.ok("init", "project")
    for call, exchanged in (("adopt", "project.new"), ("release", "project.released-new")):
        done, _ = do_steps(project, steps, (call, "project"))
        at = done.index(f"renameat2 {exchanged}")
        assert unsynced(done[:at]) == set()
        assert unsynced(done[: at + 2]) == set(), "the exchange itself comes first"
        assert unsynced(done) == set()


def unsynced(done: list[str]) -> set[str]:
    """Folders in which names were changed, and new files, since they were synced."""
    dirty: set[str] = set()
    for each in done:
        what, _, path = each.partition(" ")
        if what == "syncfs":
            dirty.clear()
        elif what == "fsync":
            dirty.discard(path)
        elif what != "chmod":
            dirty.add(os.path.dirname(path) or ".")
            if what == "create":
                dirty.add(path)
            elif what in ("unlink", "rmdir", "rename"):
                dirty -= {path, path + ".new"}
    return dirty
