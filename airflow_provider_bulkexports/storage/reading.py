"""How pyarrow is to read the lines of a day, as far as its lines have shown it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.storage.columns import ColumnType
from airflow_provider_bulkexports.storage.records import Number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_bulkexports.storage.records import Record

__all__ = ["Extra", "Reading"]

_MOST_EXTRAS = 256
_LONGEST_INTEGER = 18
"""Digits, with the sign, that surely fit 64 bits."""


class Extra(StrEnum):
    """What values a field that is no column has had so far."""

    NULL = "null"
    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"


@dataclass(frozen=True)
class Reading:
    """
    How to read the next lines; never changed, since several threads use it, but replaced.

    :param columns: the resource type's columns.
    :param extras: fields besides these.
    :param blank: columns that are not strings and have had empty strings.
    :param unusual: columns of integers that have been written otherwise, as in ``"1"`` and
        ``1.0``, which pyarrow takes for decimals only; reading all integers so takes 4 % more time.
    """

    columns: Mapping[str, ColumnType]
    extras: Mapping[str, Extra] = field(default_factory=dict)
    blank: frozenset[str] = frozenset()
    unusual: frozenset[str] = frozenset()

    @cached_property
    def parse_options(self) -> Any:
        """What tells pyarrow's JSON reader the types of all fields, and to accept no other."""
        import pyarrow as pa
        from pyarrow import json as arrow_json

        # As strings, instants can be refused for want of a zone, which the reader would make UTC.
        types: dict[str, Any] = {
            ColumnType.STRING: pa.string(),
            ColumnType.INTEGER: pa.int64(),
            ColumnType.DECIMAL: pa.decimal128(18, 6),
            ColumnType.TIMESTAMP: pa.string(),
            ColumnType.DATE: pa.string(),
            ColumnType.BOOLEAN: pa.bool_(),
            Extra.NULL: pa.null(),
            Extra.BOOLEAN: pa.bool_(),
            Extra.STRING: pa.string(),
            Extra.INTEGER: pa.int64(),
            Extra.NUMBER: pa.float64(),  # of these, the text is taken from the line
        }
        fields = {name: types[column] for name, column in self.columns.items()}
        fields |= dict.fromkeys(self.unusual, pa.decimal128(38, 0))
        fields |= {name: types[extra] for name, extra in self.extras.items()}
        return arrow_json.ParseOptions(
            explicit_schema=pa.schema(list(fields.items())), unexpected_field_behavior="error"
        )

    def without_blanks(self, text: memoryview) -> memoryview:
        """Return lines with null for the empty strings that stand for it."""
        if not self.blank:
            return text
        changed = bytes(text)
        for name in self.blank:
            # No string holds this: its quotes would have backslashes before them.
            changed = changed.replace(f'"{name}":""'.encode(), f'"{name}":null'.encode())
        return memoryview(changed)

    def learned(self, records: Iterable[Record]) -> Reading:
        """Return how to read such records too."""
        extras = dict(self.extras)
        blank, unusual = set(self.blank), set(self.unusual)
        for record in records:
            blank |= record.blank
            unusual |= record.unusual
            for name, value in record.extra.items():
                extra = _extra_of(value)
                if extra is not None:
                    extras[name] = _both(extras.get(name, Extra.NULL), extra)
        if len(extras) > _MOST_EXTRAS:
            extras = dict(self.extras)
        found = Reading(self.columns, extras, frozenset(blank), frozenset(unusual))
        return self if found == self else found


def _extra_of(value: Any) -> Extra | None:
    """Return what a value is; None for lists and objects, which are read a line at a time."""
    if value is None:
        return Extra.NULL
    if isinstance(value, Number):
        is_short = len(value) <= _LONGEST_INTEGER and value.removeprefix("-").isdigit()
        return Extra.INTEGER if is_short else Extra.NUMBER
    return {bool: Extra.BOOLEAN, str: Extra.STRING}.get(type(value))


def _both(known: Extra, new: Extra) -> Extra:
    """Return what takes both, if anything does, and else the new one."""
    if new is Extra.NULL or {known, new} == {Extra.INTEGER, Extra.NUMBER}:
        return known if new is Extra.NULL else Extra.NUMBER
    return new
