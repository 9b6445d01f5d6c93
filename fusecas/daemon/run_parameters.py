"""What `run.begin` and `run.end` are told, checked: commands, paths and variables, which may hold any byte but NUL."""

import os
from collections import Counter
from typing import Any

from fusecas.errors import UsageError
from fusecas.store.kinds import Program, is_program
from fusecas.workspace.calls import ID

LARGEST_MASK = 0o777
LARGEST_EXIT, LARGEST_SIGNAL = 255, 64


def number_of(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no run") from error


def path_given(name: str, given: dict[str, Any]) -> bytes:
    """[path], as the kernel tells it; nothing if it is left out."""
    parts = [bytes_of(each) for each in given[name]]
    path = b"".join(parts)
    if len(parts) > 1 or (path and (path[:1] != b"/" or {b".", b".."}.intersection(path.split(b"/")))):
        raise UsageError(f"the parameter {name} is [path], from / on and without . and ..")
    return path


def at_most(largest: int, name: str, given: dict[str, Any]) -> Any:
    if given[name] is not None and given[name] > largest:
        raise UsageError(f"the parameter {name} is a number from 0 to {largest}")
    return given[name]


def below(place: bytes, cwd: bytes) -> bytes:
    """Where that is in the workspace; its root if it is elsewhere."""
    return cwd[len(place) + 1 :] if cwd.startswith(place + b"/") else b""


def one_of(name: str, given: dict[str, Any], yes: str, no: str) -> bool:
    """Which of two words a parameter is."""
    if given[name] not in (yes, no):
        raise UsageError(f"the parameter {name} is {yes} or {no}")
    return bool(given[name] == yes)


def id_of(text: str) -> bytes:
    if not ID.fullmatch(text):
        raise UsageError("the parameter stdin is an id: 64 hex digits")
    return bytes.fromhex(text)


def program_of(given: dict[str, Any]) -> Program:
    """{shell: text} or {argv: words}; texts as lists of one, for what is not UTF-8."""
    found: dict[str, Any] = {}
    match given:
        case {"shell": [str(text)]}:
            found = {"shell": bytes_of(text)}
        case {"argv": list(words)}:
            found = {"argv": [bytes_of(word) for word in words]}
    if not found or not is_program(found) or len(given) != 1:
        raise UsageError("the parameter program is {shell: [text]} or {argv: [word…]}")
    return found


def pairs_of(given: list[Any]) -> list[tuple[bytes, bytes]]:
    if not all(isinstance(each, list) and len(each) == 2 for each in given):
        raise UsageError("the parameter env is a list of [name, value]")
    pairs = [(bytes_of(name), bytes_of(value)) for name, value in given]
    names = Counter(name for name, _ in pairs)
    wrong = next((name for name, count in names.items() if count > 1 or b"=" in name), None)
    if wrong is not None:
        why = "twice" if names[wrong] > 1 else "with = in its name"
        raise UsageError(f"the parameter env has {os.fsdecode(wrong)[:100]} {why}")
    return pairs


def bytes_of(text: Any) -> bytes:
    if not isinstance(text, str):
        raise UsageError(f"{str(text)[:100]!r} is no text")
    if "\0" in text:
        raise UsageError(f"{text[:100]!r} has a NUL in it")
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise UsageError(f"{text[:100]!r} has lone surrogates that stand for no byte") from error
