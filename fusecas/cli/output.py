"""How answers are printed: one JSON document, or text for people: aligned, coloured on a terminal, plain when piped."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from fusecas.errors import FusecasError, RefNotFound

VERSION = 1
COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36, "dim": 2, "bold": 1}
MINUTE, HOUR, DAY = 60, 3600, 86400


def wants_json(words: Sequence[str]) -> bool:
    before_paths = words[: words.index("--")] if "--" in words else words
    return "--json" in before_paths


def print_json(verb: str, result: Any) -> None:
    import json

    print(json.dumps({"v": VERSION, "verb": verb, "ok": True, "result": result}))


def report_error(error: FusecasError, words: Sequence[str], as_json: bool) -> int:
    """Say what went wrong and what to do next; returns the exit code."""
    hint = error.hint or _nearest(error)
    if as_json:
        import json

        problem = {
            "code": error.code,
            "message": error.message,
            "hint": hint,
            "exit": error.exit_code,
            "details": error.details,
        }
        verb = next((word for word in words if not word.startswith("-")), None)
        print(json.dumps({"v": VERSION, "verb": verb, "ok": False, "error": problem}))
    else:
        print(f"{paint('fusecas:', 'red', sys.stderr)} {printable(error.message)}", file=sys.stderr)
        if hint:
            print(f"  {printable(hint)}", file=sys.stderr)
    return error.exit_code


def _nearest(error: FusecasError) -> str | None:
    known = error.details.get("known")
    if not isinstance(error, RefNotFound) or not isinstance(known, list):
        return None
    from difflib import get_close_matches

    near = get_close_matches(str(error.details.get("name")), known, 1)
    return f"did you mean {near[0]}?" if near else None


# ---- text


def is_terminal(stream: Any = None) -> bool:
    return bool((stream or sys.stdout).isatty())


def paint(text: str, colour: str, stream: Any = None) -> str:
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
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


def path_fields(path: bytes, name: str = "path") -> dict[str, str]:
    """A path in JSON; if it is not UTF-8, its bytes as well."""
    try:
        return {name: path.decode()}
    except UnicodeDecodeError:
        import base64

        return {name: path.decode(errors="replace"), f"{name}_b64": base64.b64encode(path).decode()}


def short(object_id: bytes | None) -> str:
    return "" if object_id is None else object_id.hex()[:12]


def hex_or_none(object_id: bytes | None) -> str | None:
    return None if object_id is None else object_id.hex()


def size_text(size: int) -> str:
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{size} B" if unit == "B" else f"{number:.1f} {unit}"


def time_text(time: int | None) -> str:
    """A moment (ns): how long ago on a terminal, ISO 8601 when piped."""
    if time is None:
        return "-"
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(time // 1_000_000_000, UTC)
    if not is_terminal():
        return moment.isoformat().replace("+00:00", "Z")
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 10:
        return "just now"
    for limit, unit, name in ((MINUTE, 1, "second"), (HOUR, MINUTE, "minute"), (DAY, HOUR, "hour")):
        if seconds < limit:
            number = int(seconds // unit)
            return f"{number} {name}{'s' * (number != 1)} ago"
    days = int(seconds // DAY)
    return f"{days} day{'s' * (days != 1)} ago" if days < 60 else moment.date().isoformat()


def time_fields(time: int | None) -> dict[str, Any]:
    if time is None:
        return {"time": None, "time_ns": None}
    return {"time": time // 1_000_000, "time_ns": str(time)}


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
    length, inside = 0, False
    for each in text:
        if each == "\033":
            inside = True
        elif inside:
            inside = each != "m"
        else:
            length += 1
    return length


def note(message: str) -> None:
    """What is not the answer goes to stderr."""
    print(f"{paint('fusecas:', 'dim', sys.stderr)} {printable(message)}", file=sys.stderr)


def write_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)
