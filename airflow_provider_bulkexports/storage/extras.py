"""Fields that are no columns, as JSON text, made by pyarrow's own kernels."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.storage.reading import Extra
from airflow_provider_bulkexports.storage.records import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["extra_column"]

_ESCAPED = r'["\\\x00-\x1f]'
_NUMBER = rb"(-?[0-9.eE+-]+)"
_ESCAPED_BYTES = bytes(range(0x20)) + b'"\\'


def extra_column(table: Any, extras: Mapping[str, Extra], lines: Any) -> Any:
    """
    Return the extra fields of each row as :func:`.records.json_text` writes them.

    :param table: what pyarrow read.
    :param extras: the fields; all values are scalars.
    :param lines: what it read that from, an array with a record in each.
    :return: a column of strings; None when the text of a number was not found.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces: list[Any] = []
    """What follows each other in a row; null is nothing."""
    starts_alike = False
    numbers = _Numbers(table, extras, lines)
    for name in sorted(extras):
        column = table.column(name)
        if column.null_count == table.num_rows:
            continue
        values, quote = _json_values(name, column, extras[name], numbers)
        if values is None:
            return None
        is_full = values.null_count == 0
        starts_alike |= is_full and not pieces
        before = f"{'{' if starts_alike and not pieces else ','}{encode(name)}:{quote}"
        if is_full:
            pieces += [pa.scalar(before), values, *([pa.scalar(quote)] if quote else [])]
        else:
            pieces.append(
                pc.binary_join_element_wise(pa.scalar(before), values, pa.scalar(quote), "")
            )
    if not pieces:
        return pa.nulls(table.num_rows, pa.string())
    joined = pc.binary_join_element_wise(
        *pieces, pa.scalar("}"), "", null_handling="replace", null_replacement=""
    )
    if starts_alike:
        return joined
    # Now "}" where there is no field, and a comma at the beginning of all others.
    is_empty = pc.equal(joined, "}")
    opened = pc.binary_replace_slice(joined.cast(pa.binary()), 0, 1, b"{").cast(pa.string())
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), opened)


def _json_values(name: str, column: Any, extra: Extra, numbers: _Numbers) -> tuple[Any, str]:
    """Return values as JSON has them, and the quotes that they lack at both ends."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if extra is Extra.NUMBER:
        return numbers.column(name), ""
    if extra is not Extra.STRING:
        return column.cast(pa.string()), ""
    if not _has_escaped(column):
        return column, '"'
    is_escaped = pc.match_substring_regex(column, _ESCAPED)
    is_escaped = pc.fill_null(is_escaped, fill_value=False)
    escaped = [encode(value)[1:-1] for value in column.filter(is_escaped).to_pylist()]
    return pc.replace_with_mask(column, is_escaped, pa.array(escaped, pa.string())), '"'


def _has_escaped(column: Any) -> bool:
    """Say whether text may have a character that JSON escapes; much faster than a search."""
    for chunk in column.chunks:
        data = bytes(chunk.buffers()[2] or b"")
        if len(data.translate(None, _ESCAPED_BYTES)) < len(data):
            return True
    return False


class _Numbers:
    """
    Numbers as they are written in the lines.

    Within a string, quotes have backslashes before them, so what looks like a field is one, if no
    name has a quote. All values are scalars and no name comes twice in a line, so if as many are
    found as there are values, they are the values in their order.
    """

    def __init__(self, table: Any, extras: Mapping[str, Extra], lines: Any) -> None:
        self._table = table
        self._lines = lines
        self._keys = {
            name: encode(name).encode() + b":"
            for name, extra in extras.items()
            if extra is Extra.NUMBER
        }
        self._is_sure = not any('"' in name for name in table.column_names)

    def column(self, name: str) -> Any:
        """Return the text of a field's numbers, None if that is not sure for each."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._table.column(name)
        count = len(column) - column.null_count
        found = self._neighbours.get(name)
        if found is None:
            found = re.findall(re.escape(self._keys[name]) + _NUMBER, self._ends)
        if len(found) != count:
            key = re.escape(self._keys[name][:-1]) + rb"\s*:\s*"
            found = re.findall(key + _NUMBER, self._whole)
        if len(found) != count or not self._is_sure:
            return None
        numbers = pa.array(found, pa.binary()).cast(pa.string())
        numbers = pc.if_else(pc.equal(numbers, "-0"), "0", numbers)
        if count == len(column):
            return numbers
        is_there = pc.is_valid(column).combine_chunks()
        return pc.replace_with_mask(pa.nulls(len(column), pa.string()), is_there, numbers)

    @cached_property
    def _neighbours(self) -> dict[str, list[bytes]]:
        """The numbers of fields that follow each other in every line: one search for all."""
        first = self._lines[0].as_py()
        begins = {name: first.find(key) for name, key in self._keys.items()}
        full = [name for name in begins if not self._table.column(name).null_count]
        runs: list[list[str]] = []
        for name in sorted(full, key=begins.__getitem__):
            before = runs and runs[-1][-1]
            begin = before and begins[before] + len(self._keys[before])
            if before and re.fullmatch(_NUMBER + b",", first[begin : begins[name]]):
                runs[-1].append(name)
            else:
                runs.append([name])
        found: dict[str, list[bytes]] = {}
        for run in (run for run in runs if len(run) > 1):
            pattern = b",".join(re.escape(self._keys[name]) + _NUMBER for name in run)
            matches = re.findall(pattern, self._ends)
            if len(matches) == len(self._lines):
                found |= dict(zip(run, map(list, zip(*matches, strict=True)), strict=True))
        return found

    @cached_property
    def _ends(self) -> memoryview:
        """
        The ends of all lines from where the first line has its first number.

        There new fields are, mostly, so that there is less to search; else all of the lines.
        """
        import pyarrow.compute as pc

        first = self._lines[0].as_py()
        begin = min(first.find(key) for key in self._keys.values())
        length = (len(first) - begin) * 5 // 4 + 32
        if begin < 0 or 2 * length > len(first):
            return self._whole
        return memoryview(pc.binary_slice(self._lines, -length).buffers()[2])

    @cached_property
    def _whole(self) -> memoryview:
        """All lines."""
        return memoryview(self._lines.buffers()[2])
