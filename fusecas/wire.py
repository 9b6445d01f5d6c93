"""What JSON of ours looks like, on stdout and on the socket: one document a line, paths that may not be UTF-8."""

from collections.abc import Mapping
from typing import Any

PROTOCOL = 1
LONGEST_REQUEST = 1 << 20
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


def without_surrogates(text: str) -> str:
    """Text that any reader of JSON takes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
