"""How answers are printed: one JSON document, or text for people: aligned, coloured on a terminal, plain when piped."""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fusecas.errors import FusecasError, RefNotFound
from fusecas.wire import hex_or_none as hex_or_none
from fusecas.wire import instruction_fields as instruction_fields
from fusecas.wire import path_fields as path_fields
from fusecas.wire import time_fields as time_fields

if TYPE_CHECKING:
    from fusecas.cli.call import Call

VERSION = 1
COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "dim": 2, "bold": 1}
PAINTED = re.compile("\033\\[[0-9]*m")
PAINTED_OR_NOT = re.compile("(\033\\[[0-9]*m)")
MOST_NAMES = 6
MINUTE, HOUR, DAY = 60, 3600, 86400


def print_json(call: "Call", result: Any) -> None:
    _print_document({**_beginning(call, ok=True), "result": result})


def _beginning(call: "Call", *, ok: bool) -> dict[str, Any]:
    event = {"event": "end"} if call.json_lines else {}
    return {"v": VERSION, "verb": call.verb, **event, "ok": ok}


def report_error(call: "Call", error: FusecasError) -> None:
    """Say what went wrong and what to do next."""
    if call.as_json:
        _print_document({**_beginning(call, ok=False), "error": problem_fields(error)})
    else:
        say_error(error)


def problem_fields(error: FusecasError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint or _nearest_name(error),
        "exit": error.exit_code,
        "details": error.details,
    }


def say_error(error: FusecasError) -> None:
    sys.stdout.flush()
    print(f"{paint('fusecas:', 'red', sys.stderr)} {printable(error.message)}", file=sys.stderr)
    if hint := error.hint or _nearest_name(error):
        print(f"  {printable(hint)}", file=sys.stderr)


def _print_document(document: dict[str, Any]) -> None:
    import json

    # Arguments that are not UTF-8 may be in it, as lone surrogates, at which readers of JSON would choke.
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    write_bytes(text.encode() + b"\n")


def _nearest_name(error: FusecasError) -> str | None:
    known = error.details.get("known")
    if not isinstance(error, RefNotFound) or not isinstance(known, list):
        return None
    names = [str(each) for each in known]
    return nearest(str(error.details.get("name")), names) or _some_of(names)


def _some_of(names: Sequence[str]) -> str | None:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"there are: {', '.join(names[:MOST_NAMES])}{more}" if names else None


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint, if something like this word is known."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else None


# ---- text


def is_terminal(stream: Any = None) -> bool:
    return bool((stream or sys.stdout).isatty())


def is_coloured(stream: Any = None) -> bool:
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def never_fail_to_encode() -> None:
    """What a terminal's encoding lacks is escaped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def paint(text: str, colour: str, stream: Any = None) -> str:
    if not is_coloured(stream):
        return text
    return f"\033[{COLOURS[colour]}m{text}\033[0m"


def printable(text: str) -> str:
    """Without what would move a terminal's cursor or not encode."""
    return "".join(
        each
        if each.isprintable()
        else each.encode(errors="surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        for each in text
    )


def path_text(path: bytes) -> str:
    """A path for people: what is not UTF-8 or not printable is escaped."""
    return printable(path.decode(errors="surrogateescape"))


def short(object_id: bytes | None) -> str:
    return "" if object_id is None else object_id.hex()[:12]


def first_line(text: str) -> str:
    """The first line of a message or a command, for a list."""
    line, _, rest = text.strip().partition("\n")
    return printable(line) + (" …" if rest else "")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_text(size: int) -> str:
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"


def time_text(time: int | None) -> str:
    """A moment (ns): how long ago on a terminal, if no date is asked for; ISO 8601 when piped."""
    if time is None:
        return "-"
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(time // 1_000_000_000, UTC)
    if not is_terminal():
        return moment.isoformat().replace("+00:00", "Z")
    return moment.astimezone().isoformat(" ") if _wants_dates() else age_text(time)


def _wants_dates() -> bool:
    import click

    from fusecas.cli.call import Call

    context = click.get_current_context(silent=True)
    return context is not None and Call.of(context).wants_dates


def age_text(time: int) -> str:
    from time import time_ns

    seconds = (time_ns() - time) // 1_000_000_000
    if seconds < 10:
        return "just now"
    for limit, unit, name in ((MINUTE, 1, "s"), (HOUR, MINUTE, "min"), (DAY, HOUR, "h")):
        if seconds < limit:
            return f"{seconds // unit} {name} ago"
    days = seconds // DAY
    if days < 60:
        return f"{count(days, 'day')} ago"
    from datetime import datetime

    return datetime.fromtimestamp(time // 1_000_000_000).astimezone().date().isoformat()


def print_table(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Columns as wide as they must be; those in `right` to the right."""
    lines = [list(row) for row in rows]
    if not lines:
        return
    widths = [max(visible(line[at]) for line in lines) for at in range(len(lines[0]))]
    for line in lines:
        cells = []
        for at, cell in enumerate(line):
            space = " " * (widths[at] - visible(cell))
            cells.append(space + cell if at in right else cell + space)
        print("  ".join(cells).rstrip())


def visible(text: str) -> int:
    """How many columns a cell takes, colours left out."""
    plain = PAINTED.sub("", text)
    if plain.isascii():
        return len(plain)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in plain)


def note(message: str) -> None:
    """What is not the answer goes to stderr."""
    plain = "".join(each if PAINTED.fullmatch(each) else printable(each) for each in PAINTED_OR_NOT.split(message))
    print(f"{paint('fusecas:', 'dim', sys.stderr)} {plain}", file=sys.stderr)


def write_bytes(data: bytes) -> None:
    """Between lines that were printed, in order."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
