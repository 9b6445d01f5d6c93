"""What the API's functions answer, through a real mount."""

import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import fusecas
from tests.api.conftest import Project
from tests.cli.calling import ENVIRONMENT, NOT_UTF8


def test_a_run_makes_a_layer_and_the_next_one_is_served(project: Project, work: fusecas.Workspace) -> None:
    text = project.counted("echo hello > hello.txt; echo said; echo complained >&2")
    first = work.run(text)
    assert (first.stdout, first.stderr, first.exit_code, first.ok) == ("said\n", "complained\n", 0, True)
    assert (first.cached, first.empty, first.age, first.added) == (False, False, None, 1)
    assert first.hash == work.head() and first.hash is not None and first.short == first.hash[:12]
    assert (work.path / "hello.txt").read_text() == "hello\n"
    undone = work.undo()
    assert (undone.moved, undone.removed, undone.hash) == (True, 1, None)
    again = work.run(text)
    assert again.cached and again.age is not None and 0 <= again.age < 60
    assert (again.stdout, again.stderr, again.state) == (first.stdout, first.stderr, first.state)
    assert (again.hash, again.run, project.executions) == (first.hash, first.run, 1)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("echo a > a; echo said; echo worse >&2", {}, ()),
        ("echo b > b; exit 3", {"on_failure": "rollback"}, ("--on-failure", "rollback")),
        ("exec sleep 60", {"timeout": 0.2}, ("--timeout", "0.2")),
        ("kill -9 $$", {}, ()),
        ("echo c > c", {"cache": False}, ("--no-cache",)),
    ],
)
def test_a_run_is_told_alike_by_the_api_and_by_the_program(
    project: Project, work: fusecas.Workspace, text: str, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    work.run("echo first > first")
    by_api = work.run(text, **options)
    if by_api.hash is not None:
        work.undo()
    told = project.run("run", "--json", *words, text)
    by_program = told.result if told.code == 0 else json.loads(told.stdout)["result"]
    fields = {each: getattr(by_api, each) for each in by_program}
    not_in_json = {"stdout_bytes", "stderr_bytes"}
    assert set(by_program) == {each.name for each in dataclasses.fields(by_api)} - not_in_json | {"short", "empty"}
    of_each_alone = {"run", "age", "cached", "missed"}
    alike = [{**each, "killed": list(each["killed"])} for each in (fields, by_program)]
    for each in alike:
        for name in of_each_alone:
            del each[name]
    assert alike[0] == alike[1]


def test_what_changes_nothing_is_empty_and_stays_where_it_was(project: Project, work: fusecas.Workspace) -> None:
    layer = work.run("echo x > x").hash
    came = work.run(project.counted("cat x"))
    assert (came.empty, came.hash, came.short, came.stdout) == (True, None, None, "x\n")
    assert work.head() == layer and came.state == work.inspect().state
    assert not work.run(project.counted("cat x")).cached and project.executions == 2
    assert [work.run("cat x", pure=True).cached for _ in range(2)] == [False, True]


def test_a_command_that_fails_says_so_and_raises_only_if_it_is_asked_to(work: fusecas.Workspace) -> None:
    failed = work.run("echo half > half; echo why >&2; exit 3")
    assert (failed.exit_code, failed.ok, failed.hash) == (3, False, None)
    assert work.status().added == ("half",)
    with pytest.raises(fusecas.CommandFailed, match="exit code 4: no way") as raised:
        work.run("echo no way >&2; exit 4", check=True)
    assert raised.value.result.exit_code == 4
    with pytest.raises(fusecas.CommandFailed):
        work.exec("exit 1", check=True)


def test_a_signal_a_timeout_and_a_program_that_is_not_there(work: fusecas.Workspace) -> None:
    died = work.run("kill -9 $$")
    assert (died.exit_code, died.signal) == (137, 9)
    late = work.run("sleep 60", timeout=0.2)
    assert (late.exit_code, late.timed_out) == (124, True)
    missing = work.run(["no-such-program"])
    assert missing.exit_code == 127 and "no-such-program" in missing.stderr
    assert [work.exec(each, timeout=0.2).exit_code for each in ("sleep 60", "kill -9 $$", ["no-such-program"])] == [
        124,
        137,
        127,
    ]


def test_words_are_run_as_they_are(work: fusecas.Workspace) -> None:
    assert work.run(["printf", "%s|", "a b", "$HOME", "*"]).stdout == "a b|$HOME|*|"
    with pytest.raises(fusecas.UsageError):
        work.run([])


def test_where_it_runs_and_with_which_variables(work: fusecas.Workspace) -> None:
    work.run("mkdir -p a/b")
    assert work.run("pwd", cwd="a/b").stdout == f"{work.path}/a/b\n"
    assert work.exec("pwd", cwd=work.path / "a").stdout == f"{work.path}/a\n"
    for outside in ("..", "/tmp", "a/../../x"):
        with pytest.raises(fusecas.UsageError, match="not in the workspace"):
            work.run("true", cwd=outside)
    seen = work.run("env", env={"ONLY": "this", "PATH": os.environ["PATH"]}).stdout.splitlines()
    ours = {"GIT_CEILING_DIRECTORIES", "PWD", "SHLVL", "_"}
    names = {each.partition("=")[0] for each in seen} - ours
    assert {each for each in names if not each.startswith("FUSECAS_RUN")} == {"ONLY", "PATH"}


def test_a_run_reads_nothing_and_has_no_terminal(work: fusecas.Workspace) -> None:
    assert work.run("cat; tty; (: < /dev/tty) 2>/dev/null || echo none").stdout == "not a tty\nnone\n"


def test_cache_refresh_and_max_age(project: Project, work: fusecas.Workspace) -> None:
    text = project.counted("date +%N > now")

    def runs(**options: object) -> fusecas.RunResult:
        came = work.run(text, **options)  # type: ignore[arg-type]
        work.undo()
        return came

    runs(cache=False)
    first = runs()
    refreshed = runs(refresh=True)
    assert project.executions == 3 and first.hash != refreshed.hash
    served = runs()
    assert served.cached and served.hash == refreshed.hash
    assert not runs(max_age=0).cached


def test_output_that_is_no_text_comes_back_as_it_was(work: fusecas.Workspace) -> None:
    text = "printf '\\377\\000x'; head -c 300000 /dev/zero >&2; touch made"
    for _ in range(2):
        came = work.run(text)
        assert (came.stdout, came.stdout_bytes) == ("\ufffd\0x", b"\xff\0x")
        assert came.stderr_bytes == bytes(300_000)
        work.undo()


def test_what_it_leaves_running_is_ended_and_named(work: fusecas.Workspace) -> None:
    is_there = 'until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done'  # not the shell that it was forked from
    came = work.run(f"sleep 600 & {is_there}; setsid sleep 601 & {is_there}; echo x > x")
    assert sorted(each.partition(" ")[0] for each in came.killed) == ["sleep", "sleep"] and came.hash


def test_exec_makes_no_layer_and_waits_for_nobody_else(work: fusecas.Workspace) -> None:
    layer = work.run("echo x > x").hash
    done = work.exec("echo y > y; cat x; sleep 1 & exit 5")
    assert (done.exit_code, done.stdout, work.head()) == (5, "x\n", layer)
    assert work.status().added == ("y",)


def test_a_batch_stops_at_the_first_failure(work: fusecas.Workspace) -> None:
    assert [each.exit_code for each in work.batch(["echo 1 > 1", "exit 2", "echo 3 > 3"])] == [0, 2]
    assert [each.exit_code for each in work.batch(["exit 2", ["true"]], keep_going=True)] == [2, 0]


def test_status_and_diff_say_what_is_there_now(work: fusecas.Workspace) -> None:
    work.run("echo a > a; echo b > b; echo c > c; chmod 644 c")
    assert work.status().clean and work.diff().same
    place = work.path
    (place / "a").write_text("changed")
    (place / "b").unlink()
    (place / "c").chmod(0o755)
    (place / "d").write_text("new")
    for _ in range(2):  # what is live only, and what is sealed already
        found, diff = work.status(), work.diff()
        assert (found.added, found.modified, found.deleted) == (("d",), ("a", "c"), ("b",))
        assert (diff.added, diff.modified, diff.deleted, found.clean) == (("d",), ("a", "c"), ("b",), False)
    (place / "d").rename(place / "e")
    work.commit()
    assert work.diff(paths=["a"]).same
    (place / "e").rename(place / "f")
    assert work.diff().renamed == (fusecas.Renamed("e", "f"),)
    assert work.diff(renames=False).added == ("f",)
    assert work.diff("@~1", "@").added == ("e",) and work.diff("@", "@~1").deleted == ("e",)


def test_a_path_that_is_not_utf8_is_one_for_python(work: fusecas.Workspace) -> None:
    name = os.fsdecode(NOT_UTF8)
    (work.path / name).write_text("x")
    assert work.status().added == work.diff().added == (name,)
    assert work.run(["cat", name]).stdout == "x"
    assert work.run(f"echo more >> {name}").hash
    assert work.history()[0].instruction == "(edits)"
    assert work.inspect().instruction == f"echo more >> {name}"


def test_commit_checkout_undo_and_redo(work: fusecas.Workspace) -> None:
    (work.path / "one").write_text("1")
    first = work.commit("by hand")
    assert first.hash == work.head() and first.short == first.hash[:12]
    assert work.commit().hash is None
    (work.path / "one").write_text("2")
    second = work.commit()
    (work.path / "dirty").write_text("x")
    at = work.checkout("@~1")
    assert (at.hash, at.aside, at.moved) == (first.hash, True, True)
    assert (work.path / "one").read_text() == "1" and not (work.path / "dirty").exists()
    back = work.undo()
    assert (back.hash, back.uncommitted) == (second.hash, True) and (work.path / "dirty").read_text() == "x"
    assert work.redo().hash == first.hash
    assert work.checkout(second.hash or "").hash == second.hash


def test_checkout_of_paths_is_uncommitted(work: fusecas.Workspace) -> None:
    work.run("echo 1 > a; echo 1 > b")
    head = work.run("echo 2 > a; echo 2 > b").hash
    moved = work.checkout("@~1", paths=["a"])
    assert (moved.changed, moved.hash, work.status().modified) == (1, head, ("a",))
    with pytest.raises(fusecas.NotFound):
        work.checkout("@", paths=["nothing"])
    assert work.checkout("@", paths=["a"]).changed == 1 and work.status().clean


def test_what_is_only_touched_is_clean(work: fusecas.Workspace) -> None:
    work.run("echo x > x")
    os.utime(work.path / "x")
    assert work.status() == fusecas.Status((), (), (), ("x",)) and work.status().clean


def test_rebuild_says_what_it_has_read(repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    work.run("echo 1 > a")
    work.run("echo 2 > a")
    assert work.rebuild().layers == 2
    (work.path / "a").write_text("dirty")
    repo.umount()
    done = work.rebuild()
    assert (done.layers, done.repaired, done.aside, work.status().modified) == (2, (), None, ("a",))


def test_history_and_inspect_have_the_fields_that_people_know(work: fusecas.Workspace) -> None:
    work.run("echo 12345 > five", message="the first")
    (work.path / "edit").write_text("x")
    work.run(["touch", "a b"])
    first, edits, last = work.history()
    assert [each.instruction for each in (first, edits, last)] == ["echo 12345 > five", "(edits)", "touch 'a b'"]
    assert (first.parent, first.parent_short, first.message) == (None, None, "the first")
    assert (last.parent, last.parent_short) == (edits.hash, edits.short) and edits.parent == first.hash
    assert last.time is not None and last.time.microsecond == (last.time_ns or 0) // 1000 % 1_000_000
    assert timedelta(0) <= datetime.now(UTC) - last.time < timedelta(minutes=1)
    assert [each.hash for each in work.history(runs=True)] == [first.hash, last.hash]
    assert [each.hash for each in work.history("@~1")] == [first.hash, edits.hash]
    found = work.inspect("@~2")
    assert (found.hash, found.size, found.changes, found.exit_code, found.cwd) == (first.hash, 6, 1, 0, "")
    assert (found.entries, found.bytes) == (1, 6)
    assert work.inspect().hash == last.hash == work.head()


def test_live_is_no_layer_as_long_as_something_is_uncommitted(work: fusecas.Workspace) -> None:
    layer = work.run("echo x > x").hash
    assert work.inspect("@live").hash == work.tag("now", "@live") == layer
    for ask in (work.inspect, lambda ref: work.tag("now", ref, force=True)):
        (work.path / "edit").write_text("x")
        with pytest.raises(fusecas.RefNotFound, match="something is uncommitted"):
            ask("@live")
        work.undo()
    (work.path / "edit").write_text("x")
    assert work.tags() == {"now": layer} and work.history("@live") == []


def test_tags_are_a_dict_and_moving_one_needs_force(work: fusecas.Workspace) -> None:
    one, two = (work.run(f"echo {each} > x").hash for each in (1, 2))
    assert work.tag("v1", "@~1") == one and work.tag("release/constructor") == two
    assert work.tags() == {"v1": one, "release/constructor": two}
    with pytest.raises(fusecas.AlreadyExists):
        work.tag("v1")
    assert work.tag("v1", force=True) == two and work.history()[1].tags == ("release/constructor", "v1")
    work.untag("v1")
    assert work.tags() == {"release/constructor": two}
    for bad in ("../x", "a..b/..", "@", "-f"):
        with pytest.raises(fusecas.BadName):
            work.tag(bad)
    with pytest.raises(fusecas.RefNotFound):
        work.untag("v1")


def test_a_fork_has_all_that_is_here_and_goes_its_own_way(repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    work.run("echo base > base")
    (work.path / "dirty").write_text("x")
    fork = work.fork("attempt")
    assert fork.status().added == ("dirty",) and fork.path != work.path and repo.workspaces() == ("attempt", "main")
    fork.run("echo there > there")
    assert work.status().added == ("dirty",) and work.head() != fork.head()
    assert fork.diff("@~1", "@").added == ("there",) and fork.history()[-1].time is not None
    fork.remove()
    assert repo.workspaces() == ("main",)
    with pytest.raises(fusecas.RefNotFound):
        repo.workspace("attempt")


def test_what_needs_no_live_directory_mounts_nothing(project: Project, repo: fusecas.Repo) -> None:
    work = repo.workspace()
    assert work.status().clean and work.head() is None and work.history() == [] and work.diff().same
    assert work.commit().hash is None and work.fork("other").status().clean
    assert not repo.umount() and not (project.repository / "run" / "socket").exists()
    assert repo.mount() == project.work and repo.umount() and not repo.umount()


def test_what_is_uncommitted_outlives_the_mount(repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    (work.path / "file").write_text("x")
    repo.umount()
    assert work.status().added == work.diff().added == ("file",)
    assert work.commit().hash == work.head()
    assert (work.path / "file").read_text() == "x"


def test_the_mount_is_where_it_is_asked_to_be(tmp_path: Path, project: Project) -> None:
    with fusecas.init(project.folder, workdir=tmp_path / "elsewhere") as repo:
        work = repo.workspace()
        assert work.path == tmp_path / "elsewhere" and work.run("pwd").stdout == f"{tmp_path}/elsewhere\n"
        with fusecas.open(project.folder, workdir=tmp_path / "third") as other:
            with pytest.raises(fusecas.InUse, match="elsewhere"):
                other.workspace().run("true")
            assert other.workspace().status().clean
        with fusecas.open(tmp_path / "elsewhere") as inside:  # from within its own mount
            assert inside.folder == repo.folder
        repo.umount()
    with fusecas.open(project.folder) as again:
        assert again.mount() == tmp_path / "elsewhere"
        again.umount()


def test_who_did_it_is_written_down(project: Project, repo: fusecas.Repo, work: fusecas.Workspace) -> None:
    work.run("echo x > x")
    work.tag("v1")
    work.undo()
    done = project.ok("op", "log", "--json").result
    assert [(each["verb"], each["actor"]) for each in done] == [
        (verb, "tester") for verb in ("undo", "tag", "run", "init")
    ]


def test_the_command_line_and_the_api_see_the_same(project: Project, work: fusecas.Workspace) -> None:
    work.run("echo x > x")
    listed = project.ok("history", "--json").result
    (entry,) = work.history()
    assert listed[0]["hash"] == entry.hash and listed[0]["time_ns"] == str(entry.time_ns)
    text = project.counted("cp x y")
    project.ok("run", text)
    work.undo()
    again = work.run(text, env=ENVIRONMENT)
    assert again.cached and project.executions == 1


def test_a_run_in_a_run_is_part_of_it(project: Project, work: fusecas.Workspace) -> None:
    script = (
        f"import fusecas\nwith fusecas.open({str(project.folder)!r}) as repo:\n"
        "    came = repo.workspace().run('echo inner > inner; echo said')\n"
        "    print(came.nested, came.hash, came.stdout.strip(), came.run)\n"
    )
    outer = work.run([sys.executable, "-c", script])
    assert outer.stdout == f"True None said {outer.run}\n" and outer.added == 1
    assert [each.kind for each in work.history()] == ["run"] and (work.path / "inner").exists()


def test_a_run_in_a_run_is_found_without_its_variable_too(project: Project, work: fusecas.Workspace) -> None:
    script = (
        f"import fusecas\nwith fusecas.open({str(project.folder)!r}) as repo:\n"
        "    print(repo.workspace().run('echo inner > inner').nested)\n"
    )
    assert work.run(["env", "-i", sys.executable, "-c", script]).stdout == "True\n"


def test_what_it_reads_is_part_of_the_key(project: Project, work: fusecas.Workspace) -> None:
    text = project.counted("wc -c > size")
    sizes = []
    for stdin in (b"12345", bytes(2_000_000), b"12345", None):
        came = work.run(text, stdin=stdin)
        sizes.append(((work.path / "size").read_text().strip(), came.cached))
        work.undo()
    assert sizes == [("5", False), ("2000000", False), ("5", True), ("0", False)]
    assert work.exec("cat", stdin=b"\xff").stdout_bytes == b"\xff"


def test_a_near_miss_says_what_it_was(work: fusecas.Workspace) -> None:
    path = {"PATH": os.environ["PATH"]}
    work.run("echo x > x", env={**path, "CFLAGS": "-O1"})
    work.undo()
    missed = work.run("echo x > x", env={**path, "CFLAGS": "-O3"}).missed
    assert missed is not None and missed.env == ("CFLAGS",)


def test_what_becomes_of_dirty_work_and_of_what_a_failure_leaves(work: fusecas.Workspace) -> None:
    work.run("echo base > base")
    (work.path / "dirty").write_text("x")
    with pytest.raises(fusecas.Refused):
        work.run("echo x > x", dirty="fail")
    work.commit()
    work.run("echo half > half; exit 1", on_failure="rollback")
    assert work.status().clean and not (work.path / "half").exists()
    work.run("test ! -e half || exit 2; echo half > half; exit 1")
    assert work.run("test ! -e half || exit 2; echo half > half; exit 1", retry=True).exit_code == 1


def test_importing_it_loads_next_to_nothing() -> None:
    text = (
        "import sys, fusecas; print([each for each in ('lmdb', 'click', 'trio', 'dataclasses') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert fusecas.RefNotFound.__module__ == "fusecas.errors"
    with pytest.raises(AttributeError, match="nothing_here"):
        fusecas.nothing_here  # noqa: B018
