"""What is said in fusecas.toml and config.toml, and that a near miss names what made it one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fusecas.run import host as host_module
from fusecas.run.policy import Policy
from tests.run.conftest import Runner


@pytest.fixture
def local(runner: Runner) -> Runner:
    """A repository is there, so that its configuration can be written."""
    runner.json("true")
    return runner


def configure(runner: Runner, text: str) -> None:
    (runner.repository / "config.toml").write_text(f"[run]\n{text}\n")


def with_variables(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}


@pytest.mark.parametrize(("name", "values"), [("CFLAGS", ("-O2", "-O3")), ("NODE_ENV", ("", "production"))])
def test_another_value_of_a_variable_is_a_miss_and_is_named(local: Runner, name: str, values: tuple[str, str]) -> None:
    text = local.counted(f"echo ${name} > value")
    first, second = (with_variables(**{name: value}) for value in values)
    local.json(text, env=first)
    local.ok("undo")
    came = local.json(text, env=second)
    assert came["cached"] is False and came["missed"] == {"env": [name], "host": [], "touched": [], "other": []}
    local.ok("undo")
    said = local.run("run", text, env=with_variables(**{name: "third"})).stderr
    assert f'missed only by {name} (fusecas.toml: [run] ignore_env = ["{name}"])' in said
    assert (local.work / "value").read_text() == "third\n"


def test_another_path_is_a_miss_and_a_changed_package_database_too(
    local: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = local.counted("date +%N > now")
    local.json(text, env=with_variables())
    local.ok("undo")
    came = local.json(text, env=with_variables(PATH=os.environ["PATH"] + ":/nowhere"))
    assert came["missed"] == {"env": ["PATH"], "host": [], "touched": [], "other": []}
    database = tmp_path / "packages"
    database.write_text("gcc 12.1")
    monkeypatch.setattr(host_module, "PACKAGES", (os.fsencode(database),))
    host = host_module.Host()
    before = host.of(None, b"/nowhere", "auto", b"")
    database.write_text("gcc 12.2")
    assert host.of(None, b"/nowhere", "auto", b"") != before


def test_a_variable_that_is_ignored_costs_no_hit(local: Runner) -> None:
    text = local.counted("echo made > made")
    (local.work / "fusecas.toml").write_text('[run]\nignore_env = ["BUILD_*"]\n')
    local.json(text, env=with_variables(BUILD_NUMBER="1"))
    local.ok("undo")
    assert local.json(text, env=with_variables(BUILD_NUMBER="2"))["cached"] is True
    local.ok("undo")
    configure(local, 'ignore_env = ["!BUILD_*"]')
    assert local.json(text, env=with_variables(BUILD_NUMBER="2"))["cached"] is False


def test_what_may_be_ignored_by_itself_can_be_made_to_count(local: Runner) -> None:
    configure(local, 'ignore_env = ["!TERM*"]')
    text = local.counted("echo $TERM > term")
    local.json(text, env=with_variables(TERM="dumb"))
    local.ok("undo")
    assert local.json(text, env=with_variables(TERM="vt100"))["missed"]["env"] == ["TERM"]  # type: ignore[index]


def test_a_command_that_is_marked_pure_is_served_though_it_changes_nothing(local: Runner) -> None:
    program = local.repository.parent / "check"
    program.write_text(f"#!/bin/sh\necho x >> {local.counter}\necho passed\n")
    program.chmod(0o755)
    assert "not marked pure" in local.run("run", f"{program} --all").stderr
    refused = local.run("run", f"{program} --all")
    assert "run again: it changed nothing, and is not marked pure" in refused.stderr and local.executions == 2
    configure(local, f'pure = ["{program}*"]')
    assert local.json(f"{program} --all")["cached"] is True
    assert local.json(f"{program}  ; true")["cached"] is False, "a pattern is not for what a shell takes apart"
    assert local.executions == 3


def test_a_push_that_changes_nothing_here_pushes_twice(local: Runner, tmp_path: Path) -> None:
    outside = tmp_path / "outside.git"
    log = tmp_path / "pushes"
    local.shell(f"git init -q --bare {outside}; git init -q .; git config user.email a@b; git config user.name a")
    hook = outside / "hooks" / "pre-receive"
    hook.write_text(f"#!/bin/sh\necho pushed >> {log}\n")
    hook.chmod(0o755)
    local.shell("echo 1 > file; git add -A; git commit -qm first")
    text = f"git push -q {outside} +HEAD:refs/heads/main"
    for _ in range(2):
        came = local.json(text)
        assert came["cached"] is False and came["empty"] is True
        local.shell(f"git --git-dir={outside} update-ref -d refs/heads/main")
    assert log.read_text().split() == ["pushed"] * 2


def test_a_program_that_may_write_beside_a_run_does_not_mix_it(local: Runner, tmp_path: Path) -> None:
    server = tmp_path / "devserver"
    shutil.copy(shutil.which("bash") or "/bin/bash", server)
    text = f"touch {tmp_path}/begun; until [ -e served ]; do :; done; echo made > made"
    for configured in (False, True):
        if configured:
            configure(local, 'writers = ["devserv*"]')
        writing = f"until [ -e {tmp_path}/begun ]; do :; done; echo x > {local.work}/served"
        beside = subprocess.Popen([server, "-c", writing])
        came = local.json(text)
        beside.wait()
        assert (came["mixed"] is None) is configured, came
        (tmp_path / "begun").unlink()
        local.ok("undo")


def test_the_home_of_a_command_can_be_the_workspace(local: Runner) -> None:
    configure(local, 'home = "workspace"')
    assert local.json("echo $HOME; echo x > ~/in-home")["stdout"] == f"{local.work}\n"
    assert (local.work / "in-home").exists()


def test_what_counts_of_the_machine_can_be_said(local: Runner, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("1")
    configure(local, f'host = ["{tool}", "sh"]')
    text = local.counted(f"cat {tool} > tool")
    local.json(text)
    local.ok("undo")
    assert local.json(text)["cached"] is True
    local.ok("undo")
    tool.write_text("2")
    assert local.json(text)["missed"]["host"] == ["chosen"]  # type: ignore[index]
    local.ok("undo")
    configure(local, 'host = "none"')
    local.json(text)


def test_how_much_output_is_kept_can_be_said(local: Runner) -> None:
    configure(local, "output_limit = 10")
    text = local.counted("echo 0123456789abcdef; echo x > x")
    assert local.json(text)["truncated"] is True
    local.ok("undo")
    assert local.json(text)["cached"] is False and local.executions == 2
    assert "said more than 10 B" in local.run("run", "echo 0123456789abcdef").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\npures = []", "there is no [run] pures"),
        ("[rum]\npure = []", "there is no [rum]"),
        ("[run]\npure = 'make'", "pure = 'make'"),
        ("[run]\ntimes = 'sometimes'", "times = 'sometimes'"),
        ("[run", "fusecas.toml: "),
        ("[hooks]\nx = 1", "there is no [hooks]"),
    ],
)
def test_what_can_not_be_is_refused_and_named(local: Runner, text: str, said: str) -> None:
    (local.work / "fusecas.toml").write_text(text)
    refused = local.run("run", "true")
    assert refused.code == 125 and said in refused.stderr, refused.stderr
    assert "did you mean" in refused.stderr or "pures" not in text
    (local.work / "fusecas.toml").unlink()
    assert local.run("run", "true").code == 0


def test_a_pattern_is_for_one_command() -> None:
    policy = Policy(pure=("pytest*", "make; make check"))
    assert [policy.is_pure(each) for each in (" pytest -q ", "make; make check")] == [True, True]
    for more in ("; git push", " && x", " | tee x", " > x", " `x`", " $(x)", "\nx"):
        assert not policy.is_pure("pytest" + more)


def test_other_options_are_named_as_well(local: Runner) -> None:
    text = local.counted("date +%N > now")
    local.json("--umask", "077", text)
    local.ok("undo")
    assert local.json(text)["missed"] == {"env": [], "host": [], "touched": [], "other": ["umask"]}
    local.ok("undo")
    assert local.json(f"{sys.executable} -c 0")["missed"] is None


def test_a_run_that_changes_what_is_said_of_runs(local: Runner) -> None:
    """Its own key is by what was said when it began."""
    pure = local.counted("true")
    (local.work / "fusecas.toml").write_text(f"[run]\npure = ['{pure}']\n")
    for cached in (False, True):
        assert local.json(pure)["cached"] is cached
    text = local.counted("rm fusecas.toml")
    local.json(text)
    assert [local.json(pure)["cached"] for _ in range(2)] == [False, False]
    local.ok("undo", "1")
    assert local.json(pure)["cached"] is True
    assert local.json(text)["cached"] is True
    assert local.executions == 4
    local.ok("verify")


def test_a_configuration_that_is_no_file_is_refused(local: Runner) -> None:
    local.shell("mkdir conf; printf '[run]\\nnever = [\"*\"]\\n' > conf/real; ln -s conf/real fusecas.toml")
    refused = local.run("run", "true")
    assert refused.code == 125 and "fusecas.toml is no file" in refused.stderr
    local.shell("rm fusecas.toml; head -c 2000000 /dev/zero > fusecas.toml")
    assert "larger than" in local.run("run", "true").stderr
    local.shell("rm fusecas.toml")
