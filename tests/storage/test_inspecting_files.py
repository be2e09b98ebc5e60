"""What a published file is found to hold."""

import gzip
import hashlib
import io

import pytest

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.storage.inspection import Inspection, inspect

LINES = b'{"sid":"a"}\n{"sid":"b"}\n{"sid":"c"}'


def test_a_raw_file_is_counted_to_its_last_line():
    """Records are lines, over all gzip members, with the last one that has no line break."""
    content = gzip.compress(LINES[:15]) + gzip.compress(LINES[15:])
    digest = hashlib.sha256(content).hexdigest()
    assert inspect(io.BytesIO(content), "raw") == Inspection(3, (), digest, len(content))


def test_a_parquet_file_is_counted_with_its_columns(folder):
    """Rows and columns are those that the writer says."""
    outcome = folder.convert(LINES)
    content = outcome.target.read_bytes()
    found = inspect(io.BytesIO(content), "parquet")
    assert (found.records, found.schema) == (3, outcome.result.schema)
    assert (found.bytes, found.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("file_format", ["raw", "parquet"])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "nothing", "zeroed end"])
def test_a_file_that_is_not_whole_is_bad_data(folder, file_format, damage):
    """Neither half a file nor zeros are counted."""
    is_raw = file_format == "raw"
    whole = gzip.compress(LINES) if is_raw else folder.convert(LINES).target.read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "zeroed": bytes(len(whole)),
        "nothing": b"",
        "zeroed end": whole[:-40] + bytes(40),
    }[damage]
    with pytest.raises(BadData):
        inspect(io.BytesIO(content), file_format)
