"""JSON-RPC 2.0: what a line asks for, and the lines that answer it. No connection, no waiting."""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fusecas.errors import FusecasError, InternalError, TooLarge, UsageError
from fusecas.wire import LONGEST_ANSWER, line_of, without_surrogates

PARSE_ERROR, INVALID_REQUEST, NO_SUCH_METHOD, BAD_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
FAILED, BUSY = -32000, -32001
LARGEST_NUMBER = 1 << 63
MOST_DIGITS = 20
LONGEST_ID = 256

Id = int | str | None


class Request(NamedTuple):
    method: str
    params: dict[str, Any]
    id: Id
    is_answered: bool


class Malformed(Exception):
    """A line that asks for nothing: why, and whom to tell."""

    def __init__(self, code: int, message: str, number: Id = None) -> None:
        super().__init__(message)
        self.code, self.message, self.id = code, message, number


def parse(line: bytes) -> Request:
    document = _document(line)
    if isinstance(document, list):
        raise Malformed(INVALID_REQUEST, "batches are not served: one request a line")
    if not isinstance(document, dict):
        raise Malformed(INVALID_REQUEST, "a request is an object")
    number = document.get("id")
    if not _is_id(number):
        raise Malformed(INVALID_REQUEST, f"an id is a whole number, a text up to {LONGEST_ID} long, or null")
    method, params = document.get("method"), document.get("params", {})
    if document.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise Malformed(INVALID_REQUEST, 'a request has "jsonrpc": "2.0" and a method', number)
    if not isinstance(params, dict):
        raise Malformed(BAD_PARAMS, "params are an object, by name", number)
    return Request(method, params, number, "id" in document)


def _document(line: bytes) -> Any:
    try:
        text = line.decode()
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise Malformed(PARSE_ERROR, "nested too deeply") from None
    except ValueError as error:
        raise Malformed(PARSE_ERROR, f"no JSON: {error}") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:MOST_DIGITS]} is no number")
    return number


def _is_id(number: Any) -> bool:
    if isinstance(number, str):
        return len(number) <= LONGEST_ID and _is_text(number)
    return number is None or (type(number) is int and abs(number) < LARGEST_NUMBER)


def _is_text(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


# ---- answers


def answer(number: Id, result: Any) -> bytes:
    """The line of an answer; TooLarge if no client would read it."""
    line = line_of({"jsonrpc": "2.0", "id": number, "result": result})
    if len(line) > LONGEST_ANSWER:
        raise TooLarge(f"the answer has {len(line)} bytes", hint=f"at most {LONGEST_ANSWER} fit in one")
    return line


def refusal(number: Id, code: int, error: FusecasError) -> bytes:
    return line_of({"jsonrpc": "2.0", "id": number, "error": problem(code, error)})


def failure(number: Id, error: FusecasError) -> bytes:
    """The line of what a method could not do."""
    code = BAD_PARAMS if isinstance(error, UsageError) else INTERNAL if isinstance(error, InternalError) else FAILED
    return refusal(number, code, error)


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    return line_of({"jsonrpc": "2.0", "method": method, "params": params})


def problem(code: int, error: FusecasError) -> dict[str, Any]:
    message = without_surrogates(error.message)
    details = {
        "code": error.code,
        "message": message,
        "hint": None if error.hint is None else without_surrogates(error.hint),
        "exit": error.exit_code,
        "details": error.details,
    }
    return {"code": code, "message": message, "data": details}
