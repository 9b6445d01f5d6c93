"""The scripts find their checkout however they are called, and notice when it is another one."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SAY = """#!/usr/bin/env bash
self=${BASH_SOURCE[0]}
[ ! -L "$self" ] || self=$(readlink -f "$self")
case $self in */*) ;; *) self=./$self ;; esac
. "${self%/*}/common.sh"
printf '%s\\n' "$top" "$venv"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return made(tmp_path / "a check out")


def made(place: Path) -> Path:
    """The scripts in a folder of that name, with one that says what they know."""
    (place / "native" / "src").mkdir(parents=True)
    (place / "native" / "src" / "lib.rs").write_text("// native")
    (place / "pyproject.toml").write_text("")
    shutil.copytree(SCRIPTS, place / "scripts")
    (place / "scripts" / "say").write_text(SAY)
    (place / "scripts" / "say").chmod(0o755)
    return place


def said(*words: object, cwd: Path = Path("/"), **variables: str) -> list[str]:
    environment = {**os.environ, **variables}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_way_to_call_a_script_leads_to_one_place(checkout: Path, tmp_path: Path) -> None:
    script = checkout / "scripts" / "say"
    (tmp_path / "link").symlink_to(checkout)
    (tmp_path / "say").symlink_to(script)
    expected = said(script)
    assert expected[0] == str(checkout)
    assert said(tmp_path / "link" / "scripts" / "say") == expected
    assert said(tmp_path / "say") == expected
    assert said("./say", cwd=checkout / "scripts") == expected
    assert said("bash", "say", cwd=checkout / "scripts") == expected
    assert said("../scripts/say", cwd=checkout / "native") == expected
    assert said(script, CDPATH=str(tmp_path)) == expected


def test_two_checkouts_never_share_an_environment(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a-b"), made(tmp_path / "a" / "b")
    assert said(one / "scripts" / "say")[1] != said(other / "scripts" / "say")[1]


def test_without_a_home_the_users_own_is_used(checkout: Path) -> None:
    script = f'unset HOME XDG_CACHE_HOME; exec "{checkout}/scripts/say"'
    assert said("sh", "-c", script)[1].startswith(os.path.expanduser("~root" if os.getuid() == 0 else "~"))


def is_fresh(checkout: Path, cache: Path) -> bool:
    script = f'self={str(checkout)!r}/scripts/x; . "$self/../common.sh"; up_to_date fresh && echo yes || echo no'
    return said("bash", "-c", script.replace("$self/..", f"{checkout}/scripts"), XDG_CACHE_HOME=str(cache)) == ["yes"]


def test_a_changed_source_shows_whatever_its_time_says(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = Path(said(checkout / "scripts" / "say", XDG_CACHE_HOME=str(cache))[1])
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "fusecas").write_text("#!/bin/sh")
    (environment / "bin" / "fusecas").chmod(0o755)
    assert not is_fresh(checkout, cache)
    script = f'self="{checkout}/scripts/x"; . "{checkout}/scripts/common.sh"; sources >"$venv/fresh"'
    said("bash", "-c", script, XDG_CACHE_HOME=str(cache))
    assert is_fresh(checkout, cache)
    source = checkout / "native" / "src" / "lib.rs"
    (tmp_path / "older").write_text("// nativo")
    os.utime(tmp_path / "older", (1, 1))
    (tmp_path / "older").rename(source)
    assert not is_fresh(checkout, cache)
