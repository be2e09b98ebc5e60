r"""One line of a day file, read exactly, a value at a time.

These rules decide what a value is; the fast way in :mod:`.tables` gives the same rows.

* a missing field and null are null in every column; so is an empty string, except in a column of
  strings, since that is how some of Twilio's interfaces write "nothing";
* string: a string, or a number, kept digit by digit (a short code);
* int64: a whole number, also as a string (``"1"``, ``1.0``);
* decimal128(18, 6): a number, also as a string; more digits than fit are never rounded;
* timestamp[us, tz=UTC]: ISO 8601 with a time and a zone. Other zones are converted. Without a
  zone, or as RFC 2822, a value is malformed: day files have neither, and no guess is made;
* date32[day]: YYYY-MM-DD;
* bool: true or false.

Also malformed: a line that is not one JSON object, a blank one, one that is not UTF-8, longer than
16 MiB or nested deeper than 100 levels, a field given twice, half of a surrogate pair. ``\u0000``
in a string is kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.storage.columns import EXTRA, ColumnType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DATES",
    "INSTANTS",
    "LONGEST_LINE",
    "TOO_LONG",
    "Malformed",
    "Number",
    "Record",
    "RecordReader",
    "encode",
    "is_value",
    "json_text",
    "read_line",
]

LONGEST_LINE = 16 * 2**20
"""Bytes of the longest line that is read."""
TOO_LONG = "is longer than 16 MiB"
_DEEPEST = 100
"""Levels of nesting; far fewer than Python can recurse into, so that its limit decides nothing."""


class Malformed(Exception):
    """A record is refused: which column, if one can be named, and why, without any value."""

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Record:
    """
    A record with typed values.

    :param row: its values by column, without the nulls.
    :param extra: its fields that are no columns, as JSON has them.
    :param blank: columns of other types than string that it has as empty strings.
    :param unusual: columns of integers that it has in another form than digits.
    """

    row: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    blank: set[str] = field(default_factory=set)
    unusual: set[str] = field(default_factory=set)


def read_line(line: bytes) -> dict[str, Any]:
    """
    Return the JSON object on a line, its numbers as :class:`Number`.

    :raises Malformed: when there is not one, or a field is given twice.
    """
    if len(line) > LONGEST_LINE:
        raise Malformed(None, TOO_LONG)
    if not line.strip():
        raise Malformed(None, "is blank")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise Malformed(None, "is not UTF-8") from None
    try:
        record = _DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed(None, "has half of a surrogate pair") from None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise Malformed(None, "is not one JSON object")
    return record


class RecordReader:
    """
    Reads lines as records of a resource type.

    :param columns: the type's columns.
    """

    def __init__(self, columns: Mapping[str, ColumnType]) -> None:
        # Looked up by name: an enumeration's hash is slow.
        self._readers = {
            name: (_READERS[column], column is ColumnType.STRING, column is ColumnType.INTEGER)
            for name, column in columns.items()
        }
        self._columns = columns

    def read(self, line: bytes) -> Record:
        """
        Return the record on a line.

        :raises Malformed: when there is not one, or a value is none of its column's type.
        """
        found = Record({})
        for name, value in read_line(line).items():
            if name not in self._readers:
                found.extra[name] = value
                continue
            if value is None:
                continue
            reader, is_string, is_integer = self._readers[name]
            if value == "" and not is_string:
                found.blank.add(name)
                continue
            try:
                found.row[name] = reader(value)
            except (ValueError, ArithmeticError):
                raise Malformed(name, f"is not {_WORDS[self._columns[name]]}") from None
            if is_integer and not (type(value) is Number and value.isdigit()):
                found.unusual.add(name)
        known = {name: value for name, value in found.extra.items() if value is not None}
        if known:
            found.row[EXTRA] = json_text(known)
        return found


def is_value(column: ColumnType, text: str) -> bool:
    """Say whether a text of JSON is a value of a column."""
    try:
        _READERS[column](text)
    except (ValueError, ArithmeticError):
        return False
    return True


def json_text(value: Any, level: int = 1) -> str:
    """
    Return a value as JSON: names sorted, numbers as they were written.

    :raises Malformed: when it is nested too deep.
    """
    if level > _DEEPEST and isinstance(value, dict | list):
        raise Malformed(None, f"is nested deeper than {_DEEPEST} levels")
    if isinstance(value, dict):
        items = [f"{encode(name)}:{json_text(value[name], level + 1)}" for name in sorted(value)]
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ",".join([json_text(item, level + 1) for item in value]) + "]"
    if isinstance(value, Number):
        return "0" if value == "-0" else value
    return encode(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(twice, "is given twice")
    return record


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_no_constant,
)
encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Return a scalar as JSON, and text as text: what need not be escaped is not."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[ T]([01]\d|2[0-3])(:\d\d(:\d\d(\.\d{1,6})?)?)?"
    r"(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)",
    re.ASCII,
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = date(1970, 1, 1)
DATES = ((date.min - _EPOCH).days, (date.max - _EPOCH).days)
"""The first and the last date that Python can express, in days since 1970."""
_DAY = 24 * 60 * 60 * 1_000_000
INSTANTS = (DATES[0] * _DAY, (DATES[1] + 1) * _DAY - 1)
"""The first and the last instant, in microseconds since then."""


def _exactly(value: Any, digits: int, unit: Decimal) -> Decimal:
    """Return the number that ``value`` writes, if ``digits`` digits in units hold all of it."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise ValueError
    context = Context(prec=digits, traps=[Inexact, InvalidOperation])
    return context.quantize(Decimal(value), unit)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - malformed data, not a wrong call
    return str(value)


def _integer(value: Any) -> int:
    if isinstance(value, str) and len(value) < 19 and value.isascii() and value.isdigit():
        return int(value)  # nearly all of them, and quickly
    number = int(_exactly(value, 19, Decimal(1)))
    if not -(2**63) <= number < 2**63:
        raise ValueError
    return number


def _decimal(value: Any) -> Decimal:
    return _exactly(value, 18, Decimal("0.000001"))


def _instant(value: Any) -> datetime:
    if isinstance(value, Number) or not _INSTANT.fullmatch(_string(value)):
        raise ValueError
    return datetime.fromisoformat(value).astimezone(UTC)


def _date(value: Any) -> date:
    if isinstance(value, Number) or not _DATE.fullmatch(_string(value)):
        raise ValueError
    return date.fromisoformat(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - malformed data, not a wrong call
    return value


_READERS = {
    ColumnType.STRING: _string,
    ColumnType.INTEGER: _integer,
    ColumnType.DECIMAL: _decimal,
    ColumnType.TIMESTAMP: _instant,
    ColumnType.DATE: _date,
    ColumnType.BOOLEAN: _boolean,
}
_WORDS = {
    ColumnType.STRING: "a string",
    ColumnType.INTEGER: "a whole number of 64 bits",
    ColumnType.DECIMAL: "a number with at most 12 digits before the point and 6 after",
    ColumnType.TIMESTAMP: "an ISO 8601 instant with a zone",
    ColumnType.DATE: "a date as YYYY-MM-DD",
    ColumnType.BOOLEAN: "true or false",
}
