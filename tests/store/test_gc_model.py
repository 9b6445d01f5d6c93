"""The protocol of gc loses nothing, whatever the order of events; without any one of its rules it does."""

from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest

from tests.store.gc_model import SCENARIOS, WHOLE, Exploration, Protocol, Rules, explore

PAGE = Path(__file__).parents[2] / "docs" / "dev" / "gc.md"
RULES = [each.name for each in fields(Rules)]

NEEDED = "is needed and not there"
ACKNOWLEDGED = "was acknowledged to a session and is not there"
STAYS = "is garbage and stays"

MUTANTS = [
    ("test_the_target", "commit, hit and undo", NEEDED),
    ("test_the_target", "commit and hit", NEEDED),
    ("look_again", "commit and hit", NEEDED),
    ("look_again", "two imports", NEEDED),
    ("condemned_is_absent", "commit, hit and undo", NEEDED),
    ("condemned_is_absent", "two imports", NEEDED),
    ("fresh_number", "two imports", NEEDED),
    ("number_from_a_counter", "two imports", NEEDED),
    ("rows_go_along", "times", NEEDED),
    ("new_serial", "edit, and tag what was left", NEEDED),
    ("children_first", "parent first", NEEDED),
    ("session_row", "locks lie", NEEDED),
    ("hold_puts", "import and node put", ACKNOWLEDGED),
    ("hold_hits", "two imports", ACKNOWLEDGED),
    ("needs_first", "mounted workspace", NEEDED),
    ("needs_in_the_row", "mounted workspace", NEEDED),
    ("forks_take_needs", "mounted workspace", NEEDED),
    ("hold_what_is_open", "mounted workspace", NEEDED),
    ("operations_are_roots", "commit, hit and undo", NEEDED),
    ("lock", "two imports", ACKNOWLEDGED),
    ("min_age", "print, then refer to it", ACKNOWLEDGED),
    ("walk_holds", "import and node put", NEEDED),
    ("serial_first", "commit, hit and undo", NEEDED),
    ("roots_again", "commit, hit and undo", NEEDED),
    ("roots_again", "two imports", NEEDED),
    ("same_number", "two gcs", NEEDED),
    ("condemn_the_young", "edit, and tag what was left", NEEDED),
    ("test_the_row", "two imports", NEEDED),
    ("sweep_all", "two imports", STAYS),
]

# So many worlds at least: a scenario that ends early because somebody can't go on would pass for want of trying.
WORLDS = {
    "import, commit, hit and undo": 100_000,
    "import and node put": 25_000,
    "two imports": 30_000,
    "commit, hit and undo": 7_500,
    "commit and hit": 750,
    "commit beside what was seen": 1_000,
    "edit, and tag what was left": 2_000,
    "parent first": 1_000,
    "print, then refer to it": 15_000,
    "locks lie": 1_500,
    "times": 7_500,
    "mounted workspace": 10_000,
    "two gcs": 15_000,
}

HAPPENINGS = [
    "begins a session",
    "publishes b",
    "prints and ends",
    "commits c",
    "commits d",
    "puts the result c in place",
    "sets the times of b",
    "hits b",
    "puts c",
    "sees that k has moved",
    "is told that its session is lost",
    "is told that what it names is not there",
    "is told that what b refers to is not there",
    "is told that c is not there any more",
    "is told that the layer is not there",
    "is no longer young",
    "undo or tag: the head is set to b",
    "undo or tag: the head is set to c",
    "a ref to b goes",
    "the grace time of b ends",
    "daemon: the live row lists b",
    "daemon: a journal record refers to b",
    "daemon: a fork waits for the layer",
    "daemon: the workspace is removed",
    "daemon: seals c and moves the head to it",
    "daemon: a program opens a file of the head",
    "daemon: lets go of what was open",
    "daemon: dies",
    "drops the session of writer 1",
    "reads holds",
    "T2: goes back to marking",
    "T2: gives up, k has moved",
    "T2: condemns a b c",
    "deletes a",
    "a is condemned no more",
    "is done",
]


@cache
def whole(scenario: str) -> Exploration:
    return explore(SCENARIOS[scenario])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_promise_is_kept_whatever_the_order_and_whoever_dies(scenario: str) -> None:
    assert whole(scenario).complaint is None, str(whole(scenario))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_many_worlds_are_reached_and_all_die_in_some(scenario: str) -> None:
    found = whole(scenario)
    assert found.worlds >= WORLDS[scenario]
    assert found.steps > 4 * found.worlds
    writers = [f"writer {index + 1} dies" for index in range(len(SCENARIOS[scenario].scripts))]
    # Setting times is one transaction: a death before or after it is no event.
    expected = {*writers, "gc 1: dies"} - ({"writer 2 dies"} if scenario == "times" else set())
    assert expected <= found.taken


@pytest.mark.parametrize("happening", HAPPENINGS)
def test_the_scenarios_go_through_every_turn_of_the_protocol(happening: str) -> None:
    assert any(each.endswith(happening) for scenario in SCENARIOS for each in whole(scenario).taken)


@pytest.mark.parametrize(("rule", "scenario", "loss"), MUTANTS, ids=[f"{rule}-{name}" for rule, name, _ in MUTANTS])
def test_without_a_rule_something_is_lost(rule: str, scenario: str, loss: str) -> None:
    found = explore(SCENARIOS[scenario], replace(WHOLE, **{rule: False}))
    assert found.complaint is not None and loss in found.complaint, str(found)
    assert any("T2: condemns" in each for each in found.way)


@pytest.mark.parametrize(("rule", "scenario"), [("look_again", "commit and hit"), ("same_number", "two gcs")])
def test_the_way_to_a_loss_can_be_walked(rule: str, scenario: str) -> None:
    rules = replace(WHOLE, **{rule: False})
    found = explore(SCENARIOS[scenario], rules)
    protocol = Protocol(SCENARIOS[scenario], rules)
    worlds = {protocol.start()}
    for step in found.way:
        assert not any(protocol.complaint(world) for world in worlds)
        worlds = {after for world in worlds for what, after in protocol.steps(world) if what == step}
    assert found.complaint in {protocol.complaint(world) for world in worlds}


def test_every_rule_has_a_mutant() -> None:
    assert {rule for rule, _, _ in MUTANTS} == set(RULES)


def test_the_page_says_what_is_lost_without_each_rule() -> None:
    page = PAGE.read_text()
    assert [rule for rule in RULES if f"| `{rule}` |" not in page] == []
