r"""Turn one verified day file (gzip, one JSON object a line) into typed Parquet.

The schema of a resource type never changes with the data: a field that is not in
:data:`SCHEMAS` goes, as JSON text, into the column ``_extra`` (``{"new_field": 1}``), which
is null where a record has none. A warehouse table therefore survives a field that Twilio adds.

A record with a malformed value is left out of the Parquet file and goes, whole and as it came,
to a side file with its line number, so rows and rejected records add up to the lines. What
counts as a value, per kind of column:

* a missing field, and null, is null in every column;
* string: a string, or a number, kept digit by digit (a short code);
* int64: a whole number, also as a string (``"1"``, ``1.0``);
* decimal128(18, 6): a number, also as a string; more digits than fit are never rounded;
* timestamp[us, tz=UTC]: ISO 8601 with a time and a zone. Other zones are converted. Without a
  zone, or as RFC 2822, a value is malformed: day files have neither, and no guess is made;
* bool: true or false.

Also malformed: a line that is not one JSON object, a blank one, one that is not UTF-8 or longer
than 16 MiB, a field given twice, half of a surrogate pair. ``\u0000`` in a string is kept.

Blocks of lines are read by pyarrow, with what it would let through checked afterwards. Where
that fails, the block is halved until few lines are left, and Python reads those one at a time
by the rules above: these decide, pyarrow is only the fast way to the same rows.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import re
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

from airflow_provider_bulkexports.api.errors import BadData, Fatal
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from concurrent.futures import Future
    from io import BufferedIOBase
    from pathlib import Path

__all__ = ["EXTRA", "SCHEMAS", "Kind", "ParquetResult", "require_engine", "write_parquet"]

EXTRA = "_extra"
"""Column with the fields that are not in the schema, as JSON text."""


class Kind(StrEnum):
    """Type of a column, in Arrow's words."""

    STRING = "string"
    INTEGER = "int64"
    DECIMAL = "decimal128(18, 6)"
    TIMESTAMP = "timestamp[us, tz=UTC]"
    BOOLEAN = "bool"


def _columns(names: str, **kinds: Kind) -> dict[str, Kind]:
    """Return the columns in the order of ``names``, strings where ``kinds`` does not say."""
    by_suffix = {"date_created", "date_sent", "date_updated", "start_time", "end_time"}
    known = dict.fromkeys(by_suffix, Kind.TIMESTAMP) | {"price": Kind.DECIMAL} | kinds
    return {name: known.get(name, Kind.STRING) for name in names.split()}


SCHEMAS: Mapping[ResourceType, Mapping[str, Kind]] = {
    ResourceType.MESSAGES: _columns(
        "sid account_sid messaging_service_sid from to body status direction num_segments "
        "num_media price error_code date_created date_sent date_updated flags start",
        num_segments=Kind.INTEGER,
        num_media=Kind.INTEGER,
        error_code=Kind.INTEGER,
        flags=Kind.INTEGER,
    ),
    ResourceType.CALLS: _columns(
        "sid date_created date_updated parent_call_sid account_sid to to_formatted from "
        "from_formatted phone_number_sid status start_time end_time duration price price_unit "
        "direction answered_by api_version forwarded_from group_sid caller_name queue_time "
        "trunk_sid",
        duration=Kind.INTEGER,
        queue_time=Kind.INTEGER,
    ),
    ResourceType.CONFERENCES: _columns(
        "account_sid date_created date_updated friendly_name region sid status "
        "reason_conference_ended call_sid_ending_conference"
    ),
    ResourceType.PARTICIPANTS: _columns(
        "account_sid call_sid call_sid_to_coach coaching conference_sid date_created "
        "date_updated end_conference_on_exit muted hold start_conference_on_enter status "
        "queue_time",
        coaching=Kind.BOOLEAN,
        end_conference_on_exit=Kind.BOOLEAN,
        muted=Kind.BOOLEAN,
        hold=Kind.BOOLEAN,
        start_conference_on_enter=Kind.BOOLEAN,
        queue_time=Kind.INTEGER,
    ),
}
"""Columns by resource type; each file has :data:`EXTRA` besides."""

_HARDLY_REPEATING = frozenset({"sid", "call_sid", "conference_sid", "from", "to", "body"})
_ROW_GROUP_ROWS = 2**18
_ROW_GROUP_BYTES = 96 * 2**20
_BLOCK_BYTES = 8 * 2**20
_READ_BYTES = 256 * 2**10
_PARSED_BYTES = 2**20
_FEW_BYTES = 64 * 2**10
_LONGEST_LINE = 16 * 2**20
_KEPT_OF_LONG_LINE = 64 * 2**10
_TOO_LONG = "is longer than 16 MiB; only its first 64 KiB are kept"
_BETWEEN = re.compile(rb"\n(?<=\}\n)(?=\{)")  # a quarter faster to find than bytes.count
_MOST_EXTRAS = 64
_MOST_WORKERS = 4
_BLOCKS_AHEAD = 4


@dataclass(frozen=True, slots=True)
class ParquetResult:
    """
    What came of a day file; rows and rejected add up to its lines.

    :param rows: records in the Parquet file.
    :param rejected: lines in the side file, which exists only if there are any.
    :param schema: name and type of each column, in order.
    """

    rows: int
    rejected: int
    schema: tuple[tuple[str, str], ...]


def write_parquet(
    source: Path,
    target: Path,
    rejected: Path,
    resource_type: ResourceType,
    *,
    row_group_rows: int = _ROW_GROUP_ROWS,
    block_bytes: int = _BLOCK_BYTES,
) -> ParquetResult:
    """
    Write the records of ``source`` to ``target``, the malformed ones to ``rejected``.

    Memory is bounded by the blocks under way and one row group, not by the day. Each file
    appears under its name when it is whole, ``target`` last. An empty day gives a Parquet file
    with no rows.

    :param source: a day file; empty, and a gzip of nothing, are empty days.
    :param rejected: JSON lines with ``line``, ``column``, ``reason`` and ``record``, the line as
        text, or ``record_base64`` where it is not UTF-8; gzip if the name ends in ``.gz``. Made
        only if needed; one left by an earlier run is removed.
    :param row_group_rows: rows from which a row group is closed; long records close it sooner.
    :param block_bytes: text that is parsed at once.
    :raises BadData: when ``source`` is not a whole gzip file.
    :raises Fatal: when the extra ``parquet`` is not installed.
    """
    require_engine()
    converter = _Converter(resource_type)
    parts = (path.with_name(path.name + ".part") for path in (target, rejected))
    with ExitStack() as cleanup:
        target_part, rejected_part = parts
        cleanup.callback(target_part.unlink, missing_ok=True)
        cleanup.callback(rejected_part.unlink, missing_ok=True)
        with (
            _Rows(target_part, converter.schema, row_group_rows) as rows,
            _Rejected(rejected_part, compress=rejected.suffix == ".gz") as refused,
            closing(converter.convert_all(source, block_bytes)) as done,
        ):
            for part in done:
                refused.write(part)
                rows.write(part.tables)
        if refused.count:
            rejected_part.replace(rejected)
        else:
            rejected.unlink(missing_ok=True)
        target_part.replace(target)
    schema = tuple((column.name, str(column.type)) for column in converter.schema)
    return ParquetResult(rows.count, refused.count, schema)


class _Malformed(Exception):
    """A record is refused: which column, if one can be named, and why."""

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Block(NamedTuple):
    """Whole lines: the first ``size`` bytes of a buffer; or the beginning of a too long one."""

    buffer: bytearray
    size: int
    is_cut: bool = False


class _Refusal(NamedTuple):
    """A refused line of a block. Not the exception: that would keep its frames alive."""

    line: int
    column: str | None
    reason: str
    raw: bytes


@dataclass(slots=True)
class _Part:
    """What a block became: tables in order, and refused lines counted from the block's first."""

    lines: int = 0
    tables: list[Any] = field(default_factory=list)
    rejected: list[_Refusal] = field(default_factory=list)


class _Converter:
    """Turns blocks of lines into tables; blocks may be converted at the same time."""

    def __init__(self, resource_type: ResourceType) -> None:
        import pyarrow as pa

        types = {
            Kind.STRING: pa.string(),
            Kind.INTEGER: pa.int64(),
            Kind.DECIMAL: pa.decimal128(18, 6),
            Kind.TIMESTAMP: pa.timestamp("us", "UTC"),
            Kind.BOOLEAN: pa.bool_(),
        }
        # As strings, timestamps can be refused for want of a zone, which pyarrow's JSON reader
        # would make UTC.
        read = types | {Kind.TIMESTAMP: pa.string()}
        # pyarrow's own pool gives memory back and has the kernel clear it again: 8 % more time.
        self._memory = pa.system_memory_pool()
        self._columns = SCHEMAS[resource_type]
        self._read = {name: read[kind] for name, kind in self._columns.items()}
        self._known = pa.schema([(name, types[kind]) for name, kind in self._columns.items()])
        self.schema = self._known.append(pa.field(EXTRA, pa.string()))

    def convert_all(self, source: Path, block_bytes: int) -> Generator[_Part, None, None]:
        """Yield the parts of a day file in order, a few blocks ahead of the reader."""
        workers = min(os.cpu_count() or 1, _MOST_WORKERS)
        under_way: deque[Any] = deque()
        spare: deque[bytearray] = deque()

        def converted(block: _Block) -> _Part:
            try:
                return self.convert(block)
            finally:
                if len(block.buffer) == block_bytes:
                    spare.append(block.buffer)

        with _day_file(source) as file, ThreadPoolExecutor(workers, "parquet") as pool:
            for block in _blocks(file, block_bytes, spare):
                under_way.append(pool.submit(converted, block))
                if len(under_way) >= workers + _BLOCKS_AHEAD:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    def convert(self, block: _Block) -> _Part:
        """Return what the lines of ``block`` become, which nothing of it refers to any more."""
        import pyarrow as pa

        part = _Part()
        if block.is_cut:
            line = bytes(block.buffer[: block.size])
            return _Part(1, [], [_Refusal(1, None, _TOO_LONG, line)])
        self._convert(block.buffer, 0, block.size, part)
        if len(part.tables) > 1:
            # Many small tables hold far more memory than their values.
            part.tables = [pa.concat_tables(part.tables).combine_chunks()]
        return part

    def _convert(self, buffer: bytearray, begin: int, end: int, part: _Part) -> None:
        size = end - begin
        table = self._fast(memoryview(buffer)[begin:end]) if size <= _LONGEST_LINE else None
        if table is not None:
            part.lines += table.num_rows
            part.tables.append(table)
            return
        half = begin + size // 2
        middle = buffer.rfind(b"\n", begin, half) + 1 or buffer.find(b"\n", half, end) + 1
        if size > _FEW_BYTES and begin < middle < end:
            self._convert(buffer, begin, middle, part)
            self._convert(buffer, middle, end, part)
        else:
            self._slow(bytes(buffer[begin:end]), part)

    def _fast(self, block: memoryview) -> Any:
        """Return the block as a table, or None unless each line is surely a right record."""
        import pyarrow as pa
        from pyarrow import json as arrow_json

        # pyarrow takes records that share a line or span several. All fields are scalars, so
        # a line break between braces is between records; as many records as lines are then one
        # on each.
        if bytes(block[:1]) != b"{" or not bytes(block[-2:]).endswith((b"}\n", b"}")):
            return None
        read = self._read
        try:
            table = arrow_json.read_json(
                pa.BufferReader(block),
                read_options=arrow_json.ReadOptions(
                    use_threads=False, block_size=min(_PARSED_BYTES, len(block) + 1)
                ),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=pa.schema(read),
                    unexpected_field_behavior="error",
                ),
                memory_pool=self._memory,
            )
            if table.num_rows != len(_BETWEEN.findall(block)) + 1:
                return None
            table.validate(full=True)  # UTF-8, and the digits of decimals
            known = table.select(self._known.names).cast(self._known)
        except pa.ArrowInvalid:
            return None
        if not self._in_calendar(known):
            return None
        extras = sorted(read.keys() - self._columns.keys())
        return known.append_column(self.schema.field(EXTRA), _extra_column(table, extras))

    def _in_calendar(self, table: Any) -> bool:
        """Say whether all instants are within the years 1 to 9999, as Python's must be."""
        import pyarrow.compute as pc

        for name, kind in self._columns.items():
            if kind is Kind.TIMESTAMP:
                bounds = pc.min_max(table.column(name))
                first, last = bounds["min"].value, bounds["max"].value
                if first is not None and (first < _FIRST_INSTANT or last > _LAST_INSTANT):
                    return False
        return True

    def _slow(self, block: bytes, part: _Part) -> None:
        """Read the block a line at a time."""
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        for line in block.removesuffix(b"\n").split(b"\n"):
            part.lines += 1
            try:
                rows.append(self._row(_record(line)))
            except _Malformed as error:
                part.rejected.append(_Refusal(part.lines, error.column, error.reason, line))
        if rows:
            part.tables.append(pa.Table.from_pylist(rows, self.schema))

    def _row(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record's typed values, with its unknown fields as JSON text."""
        row: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        odd: set[str] = set()
        for name, value in record.items():
            if (kind := self._columns.get(name)) is None:
                extra[name] = value
                continue
            if value is None:
                continue
            try:
                row[name] = _READERS[kind](value)
            except (ValueError, ArithmeticError):
                raise _Malformed(name, f"is not {_WORDS[kind]}") from None
            if kind is Kind.INTEGER and not (type(value) is _Number and value.isdigit()):
                odd.add(name)
        if extra or odd:
            self._learn(extra, odd)
        if extra:
            known = {name: value for name, value in extra.items() if value is not None}
            row[EXTRA] = _extra_text(known) if known else None
        return row

    def _learn(self, extra: dict[str, Any], odd: set[str]) -> None:
        """
        Remember how pyarrow can read such records exactly, so that later blocks are fast.

        :param extra: unknown fields.
        :param odd: columns of integers written in other ways, as in ``"1"`` and ``1.0``, which
            pyarrow takes for decimals only; reading all integers so takes 4 % more time.
        """
        import pyarrow as pa

        types = {str: pa.string(), bool: pa.bool_(), _Number: pa.int64()}
        nulls = {name: pa.null() for name, value in extra.items() if value is None}
        learned = {
            name: types[type(value)] for name, value in extra.items() if type(value) in types
        }
        # Replaced, never changed: other threads are reading it.
        merged = nulls | self._read | learned | dict.fromkeys(odd, pa.decimal128(38, 0))
        if len(merged) <= len(self._columns) + _MOST_EXTRAS:
            self._read = merged


class _Rows:
    """The Parquet file. A row group is written while the next one is parsed."""

    def __init__(self, path: Path, schema: Any, row_group_rows: int) -> None:
        from pyarrow import parquet

        self._schema = schema
        # A dictionary of values that hardly repeat costs time and saves nothing.
        repeating = [name for name in schema.names if name not in _HARDLY_REPEATING]
        self._writer = parquet.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=repeating
        )
        self._thread = ThreadPoolExecutor(1, "parquet-writer")
        self._writing: Future[None] | None = None
        self._group_rows = row_group_rows
        self._waiting: list[Any] = []
        self._waiting_bytes = self._waiting_rows = 0
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._writer, self._thread:
            if kind is None:
                self._close_group()
                if self.count == 0:
                    # pyarrow 18 and older cannot read a file without any row group.
                    self._writer.write_table(self._schema.empty_table())
                self._await_writing()

    def write(self, tables: Iterable[Any]) -> None:
        for table in tables:
            self._waiting.append(table)
            self._waiting_bytes += table.get_total_buffer_size()
            self._waiting_rows += table.num_rows
            if self._waiting_rows >= self._group_rows or self._waiting_bytes >= _ROW_GROUP_BYTES:
                self._close_group()

    def _close_group(self) -> None:
        import pyarrow as pa

        if self._waiting:
            table = pa.concat_tables(self._waiting)
            self._await_writing()
            self._writing = self._thread.submit(
                self._writer.write_table, table, row_group_size=table.num_rows
            )
            self.count += table.num_rows
            self._waiting.clear()
            self._waiting_bytes = self._waiting_rows = 0

    def _await_writing(self) -> None:
        if self._writing:
            self._writing.result()


class _Rejected:
    """The side file, made when the first line is refused."""

    def __init__(self, path: Path, *, compress: bool) -> None:
        self._path, self._compress = path, compress
        self._file: IO[bytes] | None = None
        self._lines_before = 0
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def write(self, part: _Part) -> None:
        for line, column, reason, raw in part.rejected:
            if self._file is None:
                self._file = self._open()
            entry = {
                "line": self._lines_before + line,
                "column": column,
                "reason": reason,
                **_verbatim(raw[:_KEPT_OF_LONG_LINE] if len(raw) > _LONGEST_LINE else raw),
            }
            self._file.write(json.dumps(entry).encode() + b"\n")
        self.count += len(part.rejected)
        self._lines_before += part.lines

    def _open(self) -> IO[bytes]:
        if self._compress:
            # No time in the header: the same day gives the same bytes.
            return cast("IO[bytes]", gzip.GzipFile(self._path, "wb", mtime=0))
        return self._path.open("wb")


@contextmanager
def _day_file(source: Path) -> Iterator[BufferedIOBase]:
    """Open a day file for reading its text."""
    from isal import igzip, isal_zlib

    opener: Any = igzip.open
    broken: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error)
    try:
        with opener(source, "rb") as file:
            yield file
    except broken as error:
        raise BadData(
            f"{source} is not a whole gzip file ({error}); fetch the day again."
        ) from error


def _blocks(file: BufferedIOBase, size: int, spare: deque[bytearray]) -> Iterator[_Block]:
    """
    Yield blocks of whole lines, of ``size`` bytes or less unless a line is longer.

    :param spare: buffers of ``size`` bytes to use again: the kernel clears fresh memory.
    """
    buffer, begun = bytearray(size), 0
    while (filled := _fill(file, buffer, begun)) > begun:
        end = buffer.rfind(b"\n", 0, filled) + 1
        if end:
            yield _Block(buffer, end)
        elif filled > _LONGEST_LINE:
            yield _Block(buffer[:_KEPT_OF_LONG_LINE], _KEPT_OF_LONG_LINE, is_cut=True)
            while not end and (filled := _fill(file, buffer, 0)):
                end = buffer.find(b"\n", 0, filled) + 1
        begun = filled - end
        if spare and begun < size:
            following = spare.pop()
        else:
            following = bytearray(max(size, min(2 * begun, _LONGEST_LINE + 1)))
        following[:begun] = buffer[end:filled]
        buffer = following
    if begun:
        yield _Block(buffer, begun)


def _fill(file: BufferedIOBase, buffer: bytearray, begin: int) -> int:
    """Read into ``buffer`` from ``begin`` on until it is full; return where the text ends."""
    view = memoryview(buffer)
    # A gzip file's readinto makes a copy on the way; a small one stays in the cache.
    while count := file.readinto(view[begin : begin + _READ_BYTES]):
        begin += count
    return begin


def _record(line: bytes) -> dict[str, Any]:
    """Return the JSON object on a line, numbers as they are written."""
    if len(line) > _LONGEST_LINE:
        raise _Malformed(None, _TOO_LONG)
    if not line.strip():
        raise _Malformed(None, "is blank")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise _Malformed(None, "is not UTF-8") from None
    try:
        record = _DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Malformed(None, "has half of a surrogate pair") from None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise _Malformed(None, "is not one JSON object")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Malformed(twice, "is given twice")
    return record


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_Number,
    parse_float=_Number,
    parse_constant=_no_constant,
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def _verbatim(raw: bytes) -> dict[str, str]:
    try:
        return {"record": raw.decode()}
    except UnicodeDecodeError:
        return {"record_base64": base64.b64encode(raw).decode()}


def _extra_text(value: Any) -> str:
    """Return unknown fields as JSON, names sorted, numbers as they were written."""
    if isinstance(value, dict):
        items = (f"{_ENCODER.encode(name)}:{_extra_text(value[name])}" for name in sorted(value))
        return "{" + ",".join(items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_extra_text, value)) + "]"
    if isinstance(value, _Number):
        return "0" if value == "-0" else value
    return _ENCODER.encode(value)


def _extra_column(table: Any, names: list[str]) -> Any:
    """Return the column of unknown fields, which ``names`` sorts, of a table that pyarrow read."""
    import pyarrow as pa

    if not names:
        return pa.nulls(table.num_rows, pa.string())
    rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    found = (
        {name: value for name, value in zip(names, row, strict=True) if value is not None}
        for row in rows
    )
    return pa.array([_ENCODER.encode(extra) if extra else None for extra in found], pa.string())


_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INSTANT = re.compile(
    r"\d{4}-\d\d-\d\d[ T]([01]\d|2[0-3])(:\d\d(:\d\d(\.\d{1,6})?)?)?"
    r"(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_INSTANT = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_INSTANT = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _exactly(value: Any, digits: int, unit: Decimal) -> Decimal:
    """Return the number that ``value`` writes, if ``digits`` digits in units hold all of it."""
    if not isinstance(value, str) or not _EXPONENT.fullmatch(value):
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
    if isinstance(value, _Number) or not _INSTANT.fullmatch(_string(value)):
        raise ValueError
    return datetime.fromisoformat(value).astimezone(UTC)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - malformed data, not a wrong call
    return value


_READERS = {
    Kind.STRING: _string,
    Kind.INTEGER: _integer,
    Kind.DECIMAL: _decimal,
    Kind.TIMESTAMP: _instant,
    Kind.BOOLEAN: _boolean,
}
_WORDS = {
    Kind.STRING: "a string",
    Kind.INTEGER: "a whole number of 64 bits",
    Kind.DECIMAL: "a number with at most 12 digits before the point and 6 after",
    Kind.TIMESTAMP: "an ISO 8601 instant with a zone",
    Kind.BOOLEAN: "true or false",
}


def require_engine() -> None:
    """
    Refuse to go on without the packages that Parquet needs.

    :raises Fatal: naming those that are missing and how to install them.
    """
    missing = [name for name in ("pyarrow", "isal") if importlib.util.find_spec(name) is None]
    if missing:
        raise Fatal(
            f"Parquet needs {' and '.join(missing)}: install airflow-provider-bulkexports[parquet]."
        )
