"""What JSON of ours looks like, on stdout and on the socket: one document a line, paths that may not be UTF-8."""

from collections.abc import Mapping
from typing import Any

PROTOCOL = 2
RUN_VARIABLE = "FUSECAS_RUN"
"""By which what runs in a run knows its number."""
LONGEST_REQUEST = 1 << 23
"""What a kernel takes as words and variables of a command fits: they are in it, and what was typed."""
LONGEST_ANSWER = 1 << 26


def line_of(document: Mapping[str, Any]) -> bytes:
    """One document, in ASCII. Bytes that aren't UTF-8 are lone surrogates in it, if nobody made them `_b64`."""
    import json

    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def path_fields(path: bytes, name: str = "path") -> dict[str, str]:
    """A path in JSON; if it is not UTF-8, its bytes as well."""
    try:
        return {name: path.decode()}
    except UnicodeDecodeError:
        import base64

        return {name: path.decode(errors="replace"), f"{name}_b64": base64.b64encode(path).decode()}


def path_of(fields: Mapping[str, Any], name: str = "path") -> bytes:
    """The path that `path_fields` has told."""
    exact = fields.get(f"{name}_b64")
    if exact is None:
        return str(fields[name]).encode()
    import base64

    return base64.b64decode(exact)


def instruction_fields(instruction: str) -> dict[str, str]:
    return path_fields(instruction.encode(errors="surrogateescape"), "instruction")


def time_fields(time: int | None, name: str = "time") -> dict[str, Any]:
    """A moment (ns), in milliseconds and exactly."""
    if time is None:
        return {name: None, f"{name}_ns": None}
    return {name: time // 1_000_000, f"{name}_ns": str(time)}


def hex_or_none(object_id: bytes | None) -> str | None:
    return None if object_id is None else object_id.hex()


def without_surrogates(text: str) -> str:
    """Text that any reader of JSON takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
