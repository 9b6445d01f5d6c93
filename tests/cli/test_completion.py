"""completion: a shell completes our words."""

import shutil
import subprocess

import pytest

from tests.cli.calling import ENVIRONMENT, PROGRAM, Place


def completed(place: Place, line: str) -> list[str]:
    """What bash would be offered for the last word."""
    words = line.split(" ")
    env = {"_FUSECAS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return [each.split(",", 1)[1] for each in place.ok(env=env).lines]


def test_verbs_and_options_are_completed(empty: Place) -> None:
    assert completed(empty, "fusecas che") == ["checkout"]
    assert completed(empty, "fusecas op re") == ["revert"]
    assert completed(empty, "fusecas status --po") == ["--porcelain"]
    assert completed(empty, "fusecas completion z") == ["zsh"]


def test_bash_completes_with_what_is_printed(empty: Place) -> None:
    script = empty.ok("completion", "bash").text
    text = f"{script}\nCOMP_WORDS=(fusecas comm); COMP_CWORD=1; _fusecas_completion fusecas; echo ${{COMPREPLY[@]}}"
    path = f"{PROGRAM.parent}:{ENVIRONMENT['PATH']}"
    done = subprocess.run(["bash", "-c", text], env={**ENVIRONMENT, "PATH": path}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("commit\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_takes_its_script(empty: Place, shell: str) -> None:
    script = empty.ok("completion", shell).stdout
    assert b"_FUSECAS_COMPLETE" in script
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, capture_output=True).stderr == b""


def test_another_shell_is_not_known(empty: Place) -> None:
    assert empty.run("completion", "tcsh").code == 2
