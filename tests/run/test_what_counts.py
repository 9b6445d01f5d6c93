"""What is in the key of a run and what is not; what a command sees of its caller."""

import subprocess
from pathlib import Path
from uuid import UUID

from fusecas.run.environment import SESSION_NOISE
from tests.cli.calling import ENVIRONMENT, PROGRAM, TIMEOUT
from tests.run.conftest import Runner


def again(runner: Runner, *words: str, **how: object) -> bool:
    """Whether it is served, on what was there before it."""
    came = runner.json(*words, **how)
    runner.ok("undo")
    return came["cached"] is True


def test_what_an_earlier_run_left_is_part_of_the_tree(runner: Runner) -> None:
    text = runner.counted("ls > names")
    runner.json(text)
    assert runner.json(text)["cached"] is False and runner.executions == 2


def test_files_at_home_and_the_clock_are_not_seen(runner: Runner) -> None:
    """As the promise says: a limit that people are told."""
    home = runner.folder / "home"
    home.mkdir()
    (home / "settings").write_text("one")
    text = runner.counted("cat ~/settings > copy; date >> copy")
    assert not again(runner, text, env={"HOME": str(home)})
    (home / "settings").write_text("two")
    assert again(runner, text, env={"HOME": str(home)})


def test_every_hit_says_how_old_it_is(runner: Runner) -> None:
    text = "echo made > made"
    runner.json(text)
    runner.ok("undo")
    said = runner.ok("run", text).stderr
    assert "cached: " in said and ("just now" in said or " s ago" in said), said
    runner.ok("undo")
    age = runner.json(text)["age"]
    assert isinstance(age, float) and 0 < age < TIMEOUT


def test_a_text_and_its_words_do_not_share_and_the_help_says_so(runner: Runner) -> None:
    assert not again(runner, "touch made")
    assert not again(runner, "--", "touch", "made")
    assert again(runner, "touch made") and again(runner, "--", "touch", "made")
    assert "They don't share results" in runner.ok("run", "--help").text


def test_options_end_at_the_first_word(runner: Runner) -> None:
    assert runner.run("run", "--", "printf", "%s ", "--json", "--no-cache").text == "--json --no-cache "
    refused = runner.run("run", "echo x", "--json")
    assert refused.code == 125 and not refused.text


def test_whatever_two_sessions_differ_in_costs_no_hit_and_is_documented(runner: Runner) -> None:
    names = [pattern.replace("*", "X") for pattern in SESSION_NOISE if pattern not in ("PWD", "_", "SHLVL", "HOME")]
    names += ["FUSECAS_ACTOR", "API_TOKEN", "my_secret_2", "DB_PASSWORD"]
    text = runner.counted("env > all")
    assert not again(runner, text, env=dict.fromkeys(names, "one"))
    assert again(runner, text, env=dict.fromkeys(names, "two"))
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [each for each in SESSION_NOISE if f"`{each}`" not in page] == []


def test_a_variable_that_holds_the_path_of_the_workspace_costs_no_hit_in_a_fork(runner: Runner) -> None:
    runner.json("echo base > base")
    runner.ok("fork", "other")
    text = runner.counted("cat $WHERE/base > copy")
    for at, (words, place) in enumerate((((), runner.work), (("--ws", "other"), runner.work / ".fusecas/ws/other"))):
        came = runner.json(*words, text, env={"WHERE": str(place), "LIST": f"/usr:{place}/x:{place}"})
        assert came["cached"] is (at == 1)
    assert runner.json("--ws", "other", text, env={"WHERE": str(runner.work)})["cached"] is False


def test_a_command_reads_nothing_and_has_the_usual_umask_whatever_the_caller_has(runner: Runner) -> None:
    runner.ok("run", "true")
    text = f"{PROGRAM} run --json 'readlink /proc/self/fd/0 > what; umask >> what; test ! -t 1 && test ! -t 2'"
    done = subprocess.run(
        ["sh", "-c", f"umask 077; {text}"],
        cwd=runner.folder,
        env=ENVIRONMENT,
        input=b"lost",
        capture_output=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    assert (runner.work / "what").read_text() == "/dev/null\n0022\n"
    assert (runner.work / "what").stat().st_mode & 0o777 == 0o644
    assert "(1 added)" in runner.on_terminal("run", "test ! -t 0 && test ! -t 1 && test ! -t 2 && echo x > made")


def test_home_is_the_users_and_whose_it_is_counts_where_it_was_chosen(runner: Runner) -> None:
    text = runner.counted("echo $HOME > home")
    runner.json(text, env={"HOME": "/nowhere"})
    assert (runner.work / "home").read_text() == "/nowhere\n"
    runner.ok("undo")
    (runner.repository / "config.toml").write_text('[run]\nhome = "workspace"\n')
    assert runner.json(text, env={"HOME": "/nowhere"})["cached"] is False
    assert (runner.work / "home").read_text() == f"{runner.work}\n"


def test_it_runs_where_the_caller_is_or_at_the_root(runner: Runner) -> None:
    runner.json("mkdir d")
    assert runner.json("pwd", cwd=runner.work / "d")["stdout"] == f"{runner.work}/d\n"
    assert runner.json("pwd", cwd=runner.folder)["stdout"] == f"{runner.work}\n"


def test_git_does_not_find_a_project_around_the_workspace(runner: Runner) -> None:
    """Neither what is run, nor what a shell or exec is; though git be told to look beyond a mount."""
    subprocess.run(["git", "init", "-q", str(runner.folder)], check=True)
    runner.ok("run", "true")
    look = "git rev-parse --show-toplevel"
    across = {"GIT_DISCOVERY_ACROSS_FILESYSTEM": "1"}
    for verb in ("run", "exec"):
        assert runner.run(verb, look, env=across).code == 128
    said = runner.run("shell", input=look.encode(), env={"SHELL": "/bin/sh", **across})
    assert "not a git repository" in said.stderr


def test_a_record_is_numbered_by_time_and_a_hit_counts_in_it(runner: Runner) -> None:
    text = runner.counted("echo made > made")
    first = runner.json(text)
    runner.ok("undo")
    served = runner.json(text)
    listed = runner.ok("runs", "--json").result
    assert len(listed) == 1 and listed[0]["hits"] == 1 and served["run"] == first["run"]
    assert UUID(str(first["run"])).version == 7
