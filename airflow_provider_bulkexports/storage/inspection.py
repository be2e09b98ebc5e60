"""What a stored file really holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import IO

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.gzip_check import DayFileCheck

__all__ = ["Inspection", "inspect"]

_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Inspection:
    """
    What a file holds.

    :param records: rows of a Parquet file, lines of another.
    :param schema: name and type of each column of a Parquet file.
    :param sha256: hexadecimal digest of the file.
    :param bytes: its size.
    """

    records: int
    schema: tuple[tuple[str, str], ...]
    sha256: str
    bytes: int


def inspect(file: IO[bytes], file_format: str) -> Inspection:
    """
    Read a published file from its beginning to its end, a MiB at a time.

    :param file: open for reading bytes, at its beginning; for Parquet it must be seekable.
    :param file_format: ``raw`` (gzip, one record a line), ``parquet``, or ``lines`` (one record a
        line, each with a line break).
    :raises BadData: when it is not a whole file of that format.
    :raises Fatal: when the extra ``parquet`` is needed and not installed.
    """
    check = DayFileCheck() if file_format == "raw" else None
    digest, size, records = hashlib.sha256(), 0, 0
    while block := file.read(_READ_BYTES):
        digest.update(block)
        size += len(block)
        records += block.count(b"\n")
        if check:
            check.feed(block)
    schema: tuple[tuple[str, str], ...] = ()
    if check:
        check.finish()
        records = check.records
    elif file_format == "parquet":
        records, schema = _parquet(file)
    return Inspection(records, schema, digest.hexdigest(), size)


def _parquet(file: IO[bytes]) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return the rows and the columns that a Parquet file's footer tells."""
    from airflow_provider_bulkexports.storage.parquet import require_engine

    require_engine()
    import pyarrow as pa
    from pyarrow import parquet

    file.seek(0)
    try:
        whole = parquet.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise BadData(f"the file is not a whole Parquet file: {error}") from None
    schema = tuple((column.name, str(column.type)) for column in whole.schema_arrow)
    return whole.metadata.num_rows, schema
