"""Blocks of lines to typed tables.

pyarrow reads a block at once, and what it would let through is checked afterwards. Lines that it
refuses are found and left out of the block; Python reads these one at a time by the rules of
:mod:`.records`. Those decide; pyarrow is only the fast way to the same rows.
"""

from __future__ import annotations

import os
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_bulkexports.storage.blocks import blocks, day_text
from airflow_provider_bulkexports.storage.columns import EXTRA, SCHEMAS, ColumnType
from airflow_provider_bulkexports.storage.extras import extra_column
from airflow_provider_bulkexports.storage.reading import Reading
from airflow_provider_bulkexports.storage.records import (
    DATES,
    INSTANTS,
    LONGEST_LINE,
    TOO_LONG,
    Malformed,
    RecordReader,
    is_value,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.storage.blocks import Block
    from airflow_provider_bulkexports.storage.records import Record

__all__ = ["Converter", "Part", "Refusal"]

_PARSED_BYTES = 2**20
_PIECE_BYTES = 64 * 2**10
"""Pieces in which a block is read when it cannot be read at once."""
_MOST_TRIES = 4
_FEWEST_LINES_TO_ONE = 16
"""Lines to one that pyarrow refuses; if it refuses more, all of a piece are read singly."""
_ROW = re.compile(r" in row (\d+)$")
_VALUE = re.compile(
    r"couldn't parse:(.+)$|^The string '(.+)' is not|: (\S+) requires scale", re.DOTALL
)
_TIMES = {ColumnType.TIMESTAMP: INSTANTS, ColumnType.DATE: DATES}
_PLAIN_DATE = r"^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])"
_PLAIN_TIMES = {
    ColumnType.TIMESTAMP: _PLAIN_DATE + r"T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ$",
    ColumnType.DATE: _PLAIN_DATE + "$",
}
"""Those that are right without a closer look."""
_MOST_WORKERS = 4
_BLOCKS_AHEAD = 3


class Refusal(NamedTuple):
    """A refused line of a block. Not the exception: that would keep its frames alive."""

    line: int
    column: str | None
    reason: str
    raw: bytes


@dataclass(slots=True)
class Part:
    """What a block became: tables in order, and refused lines counted from the block's first."""

    lines: int = 0
    tables: list[Any] = field(default_factory=list)
    rejected: list[Refusal] = field(default_factory=list)


class Converter:
    """
    Turns blocks of lines into tables; blocks may be converted at the same time.

    :param resource_type: what the lines are records of.
    :param has_extra: whether the tables have the column :data:`~.columns.EXTRA`.
    """

    def __init__(self, resource_type: ResourceType, *, has_extra: bool = True) -> None:
        import pyarrow as pa

        types = {
            ColumnType.STRING: pa.string(),
            ColumnType.INTEGER: pa.int64(),
            ColumnType.DECIMAL: pa.decimal128(18, 6),
            ColumnType.TIMESTAMP: pa.timestamp("us", "UTC"),
            ColumnType.DATE: pa.date32(),
            ColumnType.BOOLEAN: pa.bool_(),
        }
        # pyarrow's own pool gives memory back and has the kernel clear it again: 8 % more time.
        self._memory = pa.system_memory_pool()
        self._columns = SCHEMAS[resource_type]
        self._reading = Reading(self._columns)
        self._records = RecordReader(self._columns)
        self._known = pa.schema([(name, types[column]) for name, column in self._columns.items()])
        self._has_extra = has_extra
        extra = [pa.field(EXTRA, pa.string())] if has_extra else []
        self.schema = pa.schema([*self._known, *extra])

    def convert_all(self, source: Path, block_bytes: int) -> Generator[Part, None, None]:
        """Yield the parts of a day file in order, a few blocks ahead of the reader."""
        workers = min(os.cpu_count() or 1, _MOST_WORKERS)
        under_way: deque[Any] = deque()
        spare: deque[bytearray] = deque()

        def converted(block: Block) -> Part:
            try:
                return self.convert(block)
            finally:
                if len(block.buffer) == block_bytes:
                    spare.append(block.buffer)

        with day_text(source) as file, ThreadPoolExecutor(workers, "parquet") as pool:
            try:
                for block in blocks(file, block_bytes, spare):
                    under_way.append(pool.submit(converted, block))
                    if len(under_way) >= workers + _BLOCKS_AHEAD:
                        yield under_way.popleft().result()
                while under_way:
                    yield under_way.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def convert(self, block: Block) -> Part:
        """Return what the lines of ``block`` become, which nothing of it refers to any more."""
        import pyarrow as pa

        part = Part()
        if block.is_cut:
            line = bytes(block.buffer[: block.size])
            return Part(1, [], [Refusal(1, None, TOO_LONG, line)])
        begin, tried = 0, 0
        reading = None
        text = memoryview(block.buffer)[: block.size]
        while begin < block.size:
            if self._reading is not reading and tried < _MOST_TRIES:
                # At once, at first and where single lines have shown how to read the rest.
                reading, tried = self._reading, tried + 1
                if self._read_at_once(text[begin:], part):
                    break
            end = min(begin + _PIECE_BYTES, block.size)
            end = block.buffer.find(b"\n", end - 1, block.size) + 1 or block.size
            self._read_piece(bytes(text[begin:end]), part)
            begin = end
        if len(part.tables) > 1:
            # Many small tables hold far more memory than their values.
            part.tables = [pa.concat_tables(part.tables).combine_chunks()]
        return part

    def _read_at_once(self, text: memoryview, part: Part) -> bool:
        """Add the lines to ``part`` if pyarrow reads all of them."""
        import pyarrow as pa

        if len(text) > LONGEST_LINE:
            return False
        reading = self._reading
        try:
            read = self._parse(text, reading, _PARSED_BYTES)
            table, wrong = self._checked(read, text, reading)
        except pa.ArrowInvalid:
            return False
        if wrong:
            self._merge(bytes(text).removesuffix(b"\n").split(b"\n"), wrong, table, part)
        elif table is not None:
            part.lines += table.num_rows
            part.tables.append(table)
        return table is not None

    def _read_piece(self, text: bytes, part: Part) -> None:
        """Add the lines of a piece to ``part``: those that pyarrow refuses singly."""
        import pyarrow as pa

        lines = text.removesuffix(b"\n").split(b"\n")
        single = {number for number, line in enumerate(lines) if not line.startswith(b"{")}
        most = len(lines) // _FEWEST_LINES_TO_ONE
        reading, table = self._reading, None
        while table is None and len(single) <= most:
            numbers = [number for number in range(len(lines)) if number not in single]
            joined = memoryview(b"".join([lines[number] + b"\n" for number in numbers]))
            try:
                read = self._parse(joined, reading, LONGEST_LINE)
                table, wrong = self._checked(read, joined, reading)
            except pa.ArrowInvalid as error:
                found = _blamed([lines[number] for number in numbers], str(error))
            else:
                found = wrong
            single |= {numbers[row] for row in found}
            if not found:
                break
        if table is None:
            single = set(range(len(lines)))
        self._merge(lines, single, table, part)

    def _merge(self, lines: list[bytes], single: set[int], table: Any, part: Part) -> None:
        """Add a piece to ``part``: the rows of ``table``, and between them the single lines."""
        import pyarrow as pa

        taken = 0
        waiting: list[Record] = []

        def add_waiting() -> None:
            if waiting:
                rows = [record.row for record in waiting]
                part.tables.append(pa.Table.from_pylist(rows, self.schema))
                waiting.clear()

        records = []
        for count, number in enumerate(sorted(single)):
            if before := number - count - taken:
                add_waiting()
                part.tables.append(table.slice(taken, before))
                taken += before
            try:
                record = self._records.read(lines[number])
            except Malformed as error:
                line = part.lines + number + 1
                part.rejected.append(Refusal(line, error.column, error.reason, lines[number]))
            else:
                waiting.append(record)
                records.append(record)
        add_waiting()
        if table is not None and taken < table.num_rows:
            part.tables.append(table.slice(taken))
        part.lines += len(lines)
        self._reading = self._reading.learned(records)

    def _parse(self, text: memoryview, reading: Reading, block_bytes: int) -> Any:
        """Return the records of ``text`` as pyarrow's JSON reader understands them."""
        import pyarrow as pa
        from pyarrow import json as arrow_json

        text = reading.without_blanks(text)
        return arrow_json.read_json(
            pa.BufferReader(text),
            read_options=arrow_json.ReadOptions(
                use_threads=False, block_size=min(block_bytes, len(text) + 1)
            ),
            parse_options=reading.parse_options,
            memory_pool=self._memory,
        )

    def _checked(self, read: Any, text: memoryview, reading: Reading) -> tuple[Any, set[int]]:
        """
        Return what pyarrow read as a typed table, and the lines with wrong times, which it lacks.

        :return: None for the table unless each of its rows is surely right.
        :raises pyarrow.ArrowInvalid: likewise.
        """
        lines = _lines(text)
        if not _is_one_a_line(lines, read.num_rows):
            return None, set()
        read.validate(full=True)  # UTF-8, and the digits of decimals
        table = read.select(self._columns)
        if self._has_extra:
            extra = extra_column(read, reading.extras, lines)
            if extra is None:
                return None, set()
            table = table.append_column(EXTRA, extra)
        typed_table = self._cast(table)
        if typed_table is not None:
            return typed_table, set()
        wrong = self._wrong_times(table)
        return self._cast(table.filter(_mask(table.num_rows, wrong))), wrong

    def _cast(self, table: Any) -> Any:
        """Return a table with its columns' types; None if an instant or a date is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            table = table.cast(self.schema)
        except pa.ArrowInvalid:
            return None
        for name, column in self._columns.items():
            if column in _TIMES:
                bounds = pc.min_max(table.column(name))
                first, last = _TIMES[column]
                if bounds["min"].is_valid and (
                    bounds["min"].value < first or bounds["max"].value > last
                ):
                    return None
        return table

    def _wrong_times(self, table: Any) -> set[int]:
        """Return the rows with an instant or a date, still text, that is none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wrong: set[int] = set()
        for name, column in self._columns.items():
            if column in _TIMES:
                texts = table.column(name)
                is_plain = pc.match_substring_regex(texts, _PLAIN_TIMES[column])
                doubtful = pc.unique(texts.filter(pc.invert(is_plain)))
                refused = [text for text in doubtful.to_pylist() if not is_value(column, text)]
                if refused:
                    is_wrong = pc.is_in(texts, pa.array(refused, pa.string()))
                    wrong.update(pc.indices_nonzero(is_wrong).to_pylist())
        return wrong


def _lines(text: memoryview) -> Any:
    """Return an array of the lines of ``text``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = pa.array([0, len(text)], pa.int64()).buffers()[1]
    whole = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(text)])
    lines = pc.split_pattern(whole, b"\n").values
    return lines[: len(lines) - (bytes(text[-1:]) == b"\n")]


def _is_one_a_line(lines: Any, rows: int) -> bool:
    """
    Say whether each line begins a record, and no line more than one.

    pyarrow takes records that share a line or span several, and passes over blank lines. All fields
    are scalars and no string holds a line break, so a brace at the beginning of a line begins a
    record: where all lines have one, and are as many as the records, each line is a record.
    """
    import pyarrow.compute as pc

    return len(lines) == rows and bool(pc.all(pc.starts_with(lines, b"{")).as_py())


def _mask(rows: int, wrong: set[int]) -> Any:
    """Return what filters the wrong rows out."""
    import pyarrow as pa

    return pa.array([row not in wrong for row in range(rows)], pa.bool_())


def _blamed(lines: list[bytes], message: str) -> set[int]:
    """
    Return the numbers of the lines that pyarrow's error may be about.

    This need not be right: a line that is read singly for nothing costs microseconds.
    """
    if row := _ROW.search(message):
        return {int(row[1])} & set(range(len(lines)))
    if not (value := _VALUE.search(message)):
        return set()
    text = next(filter(None, value.groups())).encode()
    quoted, bare = b'"' + text + b'"', b":" + text
    return {number for number, line in enumerate(lines) if quoted in line or bare in line}
