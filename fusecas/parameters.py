"""What a call is given by name, as JSON had it."""

from collections.abc import Mapping
from typing import Any

from fusecas.errors import UsageError

LARGEST = 1 << 63
REQUIRED = ...
"""The default of what must be given."""


def checked(params: Mapping[str, Any], **known: tuple[type, Any]) -> dict[str, Any]:
    """The parameters by name, each (type, default): UsageError for one of another type, or that nobody knows.

    A number is not negative. What defaults to None may be null.
    """
    for name in params:
        if name not in known:
            raise UsageError(f"no parameter {name!r}", hint=f"there are: {', '.join(known) or 'none'}")
    return {name: _checked(name, params.get(name, default), kind, default) for name, (kind, default) in known.items()}


def _checked(name: str, value: Any, kind: type, default: Any) -> Any:
    if value is REQUIRED:
        raise UsageError(f"the parameter {name} is missing")
    if value is None and default is None:
        return None
    if type(value) is not kind:
        raise UsageError(f"the parameter {name} is a {kind.__name__}")
    if isinstance(value, int) and not 0 <= value < LARGEST:
        raise UsageError(f"the parameter {name} is a number from 0 to 2^63")
    if isinstance(value, str) and not _can_be_encoded(value, "strict"):
        raise UsageError(f"the parameter {name} is no text: it has lone surrogates")
    if isinstance(value, list) and not all(_can_be_encoded(str(each), "surrogateescape") for each in value):
        raise UsageError(f"the parameter {name} has an element that is no text")
    return value


def _can_be_encoded(text: str, errors: str) -> bool:
    """Elements of lists may hold bytes that aren't UTF-8, as Python's surrogates."""
    try:
        text.encode(errors=errors)
    except UnicodeEncodeError:
        return False
    return True
