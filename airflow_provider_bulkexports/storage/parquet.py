r"""Turn one verified day file (gzip, one JSON object a line) into typed Parquet.

The schema of a resource type never changes with the data: a field that is not in its columns goes,
as JSON text, into the column ``_extra`` (``{"new_field": 1}``), which is null where a record has
none. A warehouse table therefore survives a field that Twilio adds.

A record with a malformed value (:mod:`.records` says what that is) is left out of the Parquet file
and goes, whole and as it came, to a side file with its line number, so records and rejected lines
add up to the lines. With a privacy option the side file has no text of the line: whatever the
option hides could be in it.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Self, cast

from airflow_provider_bulkexports.api.errors import Fatal
from airflow_provider_bulkexports.storage.blocks import KEPT_OF_LONG_LINE
from airflow_provider_bulkexports.storage.columns import EXTRA, SCHEMAS
from airflow_provider_bulkexports.storage.records import LONGEST_LINE
from airflow_provider_bulkexports.storage.tables import Converter
from airflow_provider_bulkexports.storage.treatment import Treatment

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.api.stop import Stop
    from airflow_provider_bulkexports.storage.columns import Privacy
    from airflow_provider_bulkexports.storage.tables import Part, Refusal

__all__ = ["ParquetResult", "require_engine", "write_parquet"]

_HARDLY_REPEATING = frozenset({"sid", "call_sid", "conference_sid", "from", "to", "body", EXTRA})
_ROW_GROUP_ROWS = 2**17
_ROW_GROUP_BYTES = 48 * 2**20
_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class ParquetResult:
    """
    What came of a day file; records and rejected add up to its lines.

    :param records: records in the Parquet file.
    :param rejected: lines in the side file, which exists only if there are any.
    :param schema: name and type of each column, in order.
    """

    records: int
    rejected: int
    schema: tuple[tuple[str, str], ...]


def write_parquet(
    source: Path,
    target: Path,
    rejected: Path,
    resource_type: ResourceType,
    *,
    privacy: Privacy | None = None,
    look: Callable[[Any], None] | None = None,
    stop: Stop | None = None,
    row_group_rows: int = _ROW_GROUP_ROWS,
    block_bytes: int = _BLOCK_BYTES,
) -> ParquetResult:
    """
    Write the records of ``source`` to ``target``, the malformed ones to ``rejected``.

    Memory is bounded by the blocks under way and one row group, not by the day. Each file
    appears under its name when it is whole, ``target`` last. An empty day gives a Parquet file
    with no rows.

    :param source: a day file; empty, and a gzip of nothing, are empty days.
    :param rejected: JSON lines with ``line``, ``column`` and ``reason``, and unless there is a
        privacy option with ``record``, the line as text, or ``record_base64`` where it is not
        UTF-8; gzip if the name ends in ``.gz``. Written only if needed; one left by an earlier
        run is removed.
    :param privacy: columns that are left out or hashed.
    :param look: gets each ``pyarrow.Table`` in order, before its columns are left out or hashed.
    :param stop: the signal to give up, looked at between blocks.
    :param row_group_rows: rows from which a row group is closed; long records close it sooner.
    :param block_bytes: text that is parsed at once.
    :raises BadData: when ``source`` is not a whole gzip file.
    :raises Fatal: when the extra ``parquet`` is not installed.
    :raises Stopped: when ``stop`` says so; nothing is left behind.
    """
    require_engine()
    converter = Converter(resource_type, has_extra=privacy is None)
    treatment = Treatment(converter.schema, privacy) if privacy else None
    schema = treatment.schema if treatment else converter.schema
    parts = (path.with_name(path.name + ".part") for path in (target, rejected))
    with ExitStack() as cleanup:
        target_part, rejected_part = parts
        cleanup.callback(target_part.unlink, missing_ok=True)
        cleanup.callback(rejected_part.unlink, missing_ok=True)
        refused = _Rejected(rejected_part, resource_type, rejected.suffix == ".gz", privacy is None)
        with (
            _Rows(target_part, schema, row_group_rows) as rows,
            refused,
            closing(converter.convert_all(source, block_bytes)) as done,
        ):
            for part in done:
                if stop:
                    stop.check()
                refused.write(part)
                for table in part.tables:
                    if look:
                        look(table)
                    rows.write(treatment.apply(table) if treatment else table)
        if refused.count:
            rejected_part.replace(rejected)
        else:
            rejected.unlink(missing_ok=True)
        target_part.replace(target)
    columns = tuple((column.name, str(column.type)) for column in schema)
    return ParquetResult(rows.count, refused.count, columns)


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

    def write(self, table: Any) -> None:
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
    """
    The side file, created when the first line is refused.

    :param is_verbatim: whether it has the lines' text, and the names of fields that are no columns.
    """

    def __init__(
        self, path: Path, resource_type: ResourceType, is_gzip: bool, is_verbatim: bool
    ) -> None:
        self._path = path
        self._columns = SCHEMAS[resource_type]
        self._is_gzip = is_gzip
        self._is_verbatim = is_verbatim
        self._file: IO[bytes] | None = None
        self._lines_before = 0
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def write(self, part: Part) -> None:
        for refusal in part.rejected:
            if self._file is None:
                self._file = self._open()
            self._file.write(json.dumps(self._entry(refusal)).encode() + b"\n")
        self.count += len(part.rejected)
        self._lines_before += part.lines

    def _entry(self, refusal: Refusal) -> dict[str, Any]:
        column = refusal.column
        if not self._is_verbatim and column not in self._columns:
            column = None  # a name is text of the line too
        entry = {
            "line": self._lines_before + refusal.line,
            "column": column,
            "reason": refusal.reason,
        }
        raw = refusal.raw
        kept = raw[:KEPT_OF_LONG_LINE] if len(raw) > LONGEST_LINE else raw
        return entry | (_verbatim(kept) if self._is_verbatim else {})

    def _open(self) -> IO[bytes]:
        if self._is_gzip:
            # No time in the header: the same day gives the same bytes.
            return cast("IO[bytes]", gzip.GzipFile(self._path, "wb", mtime=0))
        return self._path.open("wb")


def _verbatim(raw: bytes) -> dict[str, str]:
    try:
        return {"record": raw.decode()}
    except UnicodeDecodeError:
        return {"record_base64": base64.b64encode(raw).decode()}


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
