"""What the program says of itself."""

import pytest

from fusecas.cli.program import SECTIONS, VERBS
from tests.cli.calling import Place

GROUPS = {"op": ["op log", "op revert"], "ws": ["ws list", "ws create", "ws rm"]}
CALLS = [call for verb in VERBS for call in GROUPS.get(verb, [verb])]


def test_help_groups_every_verb_by_what_people_do(empty: Place) -> None:
    said = empty.ok("--help").text
    assert sorted(verb for verbs in SECTIONS.values() for verb in verbs) == sorted(VERBS)
    assert all(f"\n{section}:\n" in said for section in SECTIONS)
    assert all(f"\n  {verb} " in said for verb in VERBS)


@pytest.mark.parametrize("call", CALLS)
def test_a_verb_has_a_summary_and_an_example(empty: Place, call: str) -> None:
    said = empty.ok(*call.split(), "-h").text
    assert f"Usage: fusecas {call}" in said
    assert f"Example: fusecas {call}" in " ".join(said.split()) or f"| fusecas {call}" in said
    assert all(option in said for option in ("--repo", "--json"))


@pytest.mark.parametrize("call", ["log", "history", "ls", "tags", "op log", "ws list", "closure", "refs"])
def test_lists_take_the_same_options(empty: Place, call: str) -> None:
    said = empty.ok(*call.split(), "--help").text
    assert all(option in said for option in ("--sort", "--desc", "--limit", "--offset"))


@pytest.mark.parametrize(("call", "code"), [("tag", 4), ("verify", 5), ("init", 4), ("has", 1)])
def test_unusual_exit_codes_are_told(empty: Place, call: str, code: int) -> None:
    assert f"xit {code}" in empty.ok(call, "-h").text or f", {code} if" in empty.ok(call, "-h").text


def test_version(empty: Place) -> None:
    assert empty.ok("--version").text.startswith("fusecas ")
