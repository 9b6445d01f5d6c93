"""Which stretches of which journals a live row names. A place is (stream, position)."""

from collections.abc import Iterable

from fusecas.errors import DamagedEnvironment
from fusecas.store.rows import Range

Place = tuple[int, int]
Ranges = tuple[Range, ...]


def own(ranges: Iterable[Range]) -> Ranges:
    return tuple(each for each in ranges if each.source is None)


def shared(ranges: Iterable[Range]) -> Ranges:
    """Those of the source's journal, which come first."""
    return tuple(each for each in ranges if each.source is not None)


def end_of_shared(ranges: Iterable[Range]) -> Place:
    last = shared(ranges)[-1]
    if last.end is None:
        raise DamagedEnvironment("a fork's live row that shares a journal without end")
    return last.stream, last.end


def up_to(ranges: Ranges, end: Place, source: bytes) -> Ranges:
    """What a fork's row names of its source's journal, whose own row names `ranges`."""
    at = _index(ranges, end)
    before = (*ranges[:at], ranges[at]._replace(end=end[1]))
    return tuple(each._replace(source=source) for each in before if each.start != each.end)


def after(ranges: Ranges, end: Place) -> Ranges:
    """What is left when all up to there is in the store."""
    at = _index(ranges, end)
    rest = (ranges[at]._replace(start=end[1]), *ranges[at + 1 :])
    return tuple(each for each in rest if each.start != each.end)


def _index(ranges: Ranges, end: Place) -> int:
    for at, each in enumerate(ranges):
        if each.stream == end[0]:
            return at
    raise DamagedEnvironment(f"a live row that does not name stream {end[0]} of its journal")
