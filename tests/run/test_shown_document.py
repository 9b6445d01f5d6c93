"""docs/dev/runs-shown.md names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "dev" / "runs-shown.md"
ROW = re.compile(r"^\| (?!sentence).* \| (.*) \|$", re.MULTILINE)
NAMED = re.compile(r"(?:tests/)?([\w/]+): (.*)")


def test_each_test_that_the_page_names_is_there() -> None:
    missing = []
    cells = ROW.findall(PAGE.read_text())
    for part in (part for cell in cells for part in cell.split("; ")):
        file, names = NAMED.fullmatch(part).groups()  # type: ignore[union-attr]
        place = TESTS / f"{file if '/' in file else f'run/{file}'}.py"
        known = re.findall(r"^def (test_\w+)", place.read_text(), re.MULTILINE)
        missing += [(part, name) for name in names.split(", ") if not any(name in each for each in known)]
    assert len(cells) > 80 and missing == []
