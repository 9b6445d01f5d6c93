"""Commands beside each other."""

import subprocess

from tests.cli.calling import TIMEOUT, Place


def test_two_imports_at_once_both_come_to_the_head(place: Place) -> None:
    for name in ("one", "two"):
        (place.folder / name).mkdir()
        for number in range(50):
            (place.folder / name / f"file{number}").write_text(f"{name} {number}\n")
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [place.start("import", name, "-m", name, **how) for name in ("one", "two")]
    answers = [each.communicate(timeout=TIMEOUT) for each in both]
    assert [each.returncode for each in both] == [0, 0], answers
    messages = [each["message"] for each in place.ok("log", "--json").result]
    assert sorted(messages[:2]) == ["one", "two"]
    assert messages[2:] == ["second drop", "first drop"]


def test_a_tag_is_given_to_one_of_many(place: Place) -> None:
    first, second = (each["hash"] for each in place.ok("log", "--json").result)
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    racers = [place.start("tag", "mine", layer, **how) for layer in (first, second)]
    assert sorted(each.wait(TIMEOUT) for each in racers) == [0, 4]


def test_reading_goes_on_beside_a_gc(place: Place) -> None:
    collecting = place.start("gc", "--min-age", "0", stdout=subprocess.DEVNULL)
    assert len(place.ok("log").lines) == 2
    assert collecting.wait(TIMEOUT) == 0
    place.ok("verify")
