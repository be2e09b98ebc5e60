"""What the arguments of a fault may be."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import MISSING, dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BASE64",
    "DAYS",
    "FIELDS",
    "FLAG",
    "HEADERS",
    "JSON",
    "NUMBER",
    "OUTCOME",
    "POSITIVE",
    "SECONDS",
    "SHARE",
    "STATUS",
    "TEXT",
    "WHOLE",
    "Argument",
    "argument",
    "one_of",
]


@dataclass(frozen=True, slots=True)
class Argument:
    """
    What an argument may be.

    :param allowed: says it, for errors and for the list of faults.
    :param allows: decides it.
    """

    allowed: str
    allows: Callable[[object], bool]


def argument(what: Argument, *, default: Any = MISSING) -> Any:
    """
    Return a dataclass field for an argument of a fault.

    :param default: its value where it is not given; without one, it must be given.
    """
    return field(default=default, metadata={"argument": what})


def one_of(*values: object) -> Argument:
    """Return an argument that is one of a few values."""
    return Argument(
        f"one of {', '.join(map(repr, values))}",
        lambda value: any(type(value) is type(other) and value == other for other in values),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_base64(value: object) -> bool:
    try:
        base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        return False
    return isinstance(value, str)


def _is_day(value: object) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_outcome(value: object) -> bool:
    words = value if isinstance(value, list) else [value]
    return bool(words) and all(isinstance(word, str) for word in words)


def _is_headers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(part, str) for item in value.items() for part in item
    )


FLAG = Argument("true or false", lambda value: isinstance(value, bool))
WHOLE = Argument("a whole number from 0", lambda value: type(value) is int and value >= 0)
POSITIVE = Argument("a whole number from 1", lambda value: type(value) is int and value >= 1)
NUMBER = Argument("a number", _is_number)
SECONDS = Argument(
    "a number of seconds from 0", lambda value: _is_number(value) and float(str(value)) >= 0
)
SHARE = Argument(
    "a share from 0 to 1", lambda value: _is_number(value) and 0 <= float(str(value)) <= 1
)
STATUS = Argument(
    "an HTTP status from 200 to 599", lambda value: type(value) is int and 200 <= value <= 599
)
TEXT = Argument("a text", lambda value: isinstance(value, str))
BASE64 = Argument("base64", _is_base64)
DAYS = Argument(
    "a list of days, yyyy-mm-dd", lambda value: isinstance(value, list) and all(map(_is_day, value))
)
OUTCOME = Argument("a status word, or a list of them that follow each other", _is_outcome)
HEADERS = Argument("an object of texts", _is_headers)
FIELDS = Argument("an object", lambda value: isinstance(value, dict))
JSON = Argument("any JSON", lambda _: True)
