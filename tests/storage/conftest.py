"""Day files on disk, and what Parquet was made of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from stand_ins.stores import Place, azure_server, google_server, s3_server

from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Outcome:
    """A result with its files read back."""

    result: object
    target: Path
    rejected: Path

    @property
    def table(self):
        from pyarrow import parquet

        return parquet.ParquetFile(self.target).read()

    @property
    def rows(self):
        return self.table.to_pylist()

    @property
    def refused(self):
        if not self.rejected.exists():
            return []
        return [json.loads(line) for line in self.rejected.read_bytes().splitlines()]


class Folder:
    """A folder in which day files are turned into Parquet."""

    def __init__(self, path: Path) -> None:
        self.source = path / "day.json.gz"
        self.target = path / "day.parquet"
        self.rejected = path / "day_rejected.jsonl"

    def convert_file(self, content: bytes, kind=ResourceType.MESSAGES, **options) -> Outcome:
        """Convert a file with just this content."""
        from airflow_provider_bulkexports.storage.parquet import write_parquet

        self.source.write_bytes(content)
        result = write_parquet(self.source, self.target, self.rejected, kind, **options)
        return Outcome(result, self.target, self.rejected)

    def convert(self, text: bytes, kind=ResourceType.MESSAGES, **options) -> Outcome:
        """Convert a file of these lines."""
        return self.convert_file(gzip.compress(text, 1), kind, **options)

    def convert_records(self, *records, kind=ResourceType.MESSAGES, **options) -> Outcome:
        """Convert a file of these records."""
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        return self.convert("".join(lines).encode(), kind, **options)


@pytest.fixture(scope="session")
def engine():
    """Skip where the extra is not installed."""
    for name in ("pyarrow", "isal"):
        pytest.importorskip(name, reason="needs airflow-provider-bulkexports[parquet]")


@pytest.fixture
def folder(engine, tmp_path):
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def shared_folder(engine, tmp_path_factory):
    """One folder for many examples: each conversion replaces the last."""
    return Folder(tmp_path_factory.mktemp("days"))


@pytest.fixture(scope="session")
def s3():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="session")
def azure():
    with azure_server() as server:
        yield server


@pytest.fixture(scope="session")
def google():
    with google_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3", "azure", "google"])
def place(request, tmp_path):
    """Return a new, empty place on each kind of storage."""
    if request.param == "folder":
        return Place("file", str(tmp_path / "days"))
    return request.getfixturevalue(request.param).place()
