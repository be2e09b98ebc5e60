"""A sandbox, a storage, and the days that are brought from one to the other."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from in_process import connection, run_task

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.sandbox.records import FileKey, day_file
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.transfers import (
    BulkExportsMissingDaysOperator,
    BulkExportsToObjectStorageOperator,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = date(2026, 1, 1)
PARTS = {"raw": "part-0.json.gz", "parquet": "part-0.parquet"}


def day(number: int) -> str:
    """Return the text of a day, the first being 0."""
    return (FIRST + timedelta(days=number)).isoformat()


@dataclass
class Transfers:
    """A sandbox and a storage, of which operators know."""

    sandbox: Sandbox
    storage: Path
    settings: dict[str, Any]

    @property
    def destination(self) -> str:
        return self.storage.as_uri()

    def export(self, days: int = 3, kind: str = "Messages", first: int = 0) -> str:
        """Make a job, which is finished at once, and return its SID."""
        start = FIRST + timedelta(days=first)
        wish = ExportRequest(
            ResourceType(kind), start, start + timedelta(days=days - 1), "made_by_a_test"
        )
        with Client(
            self.sandbox.account_sid, self.sandbox.auth_token, base_url=self.sandbox.url
        ) as client:
            return client.create_job(wish).sid

    def task(self, job_sid: str | None = None, **options: Any) -> Any:
        defaults = {"task_id": "bring", "destination": self.destination, "job_sid": job_sid}
        return BulkExportsToObjectStorageOperator(**defaults | options)

    def bring(self, job_sid: str | None = None, **options: Any) -> Any:
        """Run the transfer to its end and return what it returns."""
        return run_task(self.task(job_sid, **options))

    def missing(self, days: int = 3, kind: str = "Messages", **options: Any) -> list[dict]:
        """Run the operator that looks for missing days."""
        defaults = {
            "task_id": "look",
            "destination": self.destination,
            "resource_type": kind,
            "start_day": FIRST,
            "end_day": FIRST + timedelta(days=days - 1),
        }
        return run_task(BulkExportsMissingDaysOperator(**defaults | options))

    def folder(self, number: int, kind: str = "Messages") -> Path:
        return self.storage / kind / f"day={day(number)}"

    def names(self, number: int, kind: str = "Messages") -> list[str]:
        return sorted(path.name for path in self.folder(number, kind).iterdir())

    def manifest(self, number: int, kind: str = "Messages") -> dict[str, Any]:
        return json.loads((self.folder(number, kind) / "_manifest.json").read_text())

    def served(self, number: int, kind: str = "Messages") -> bytes:
        """Return a day's file as the sandbox serves it."""
        key = FileKey(self.sandbox.account_sid, ResourceType(kind), FIRST + timedelta(days=number))
        settings = self.settings
        return b"".join(
            day_file(
                settings.get("seed", 0),
                key,
                settings["records"],
                settings.get("repeated_rows", 0),
            )
        )

    def downloads(self) -> list[str]:
        """Return the days of the files that the sandbox served, as often as it did."""
        return sorted(item["day"] for item in self.sandbox.ledger()["downloads"])

    def requests(self) -> int:
        """Return how many requests the sandbox has seen."""
        return self.sandbox.requests()

    def fault(self, kind: str, route: str = "download", **fields: Any) -> None:
        self.sandbox.add_fault({"kind": kind, "route": route, **fields})


@contextlib.contextmanager
def transfers_from(storage: Path, monkeypatch: Any, **settings: Any) -> Iterator[Transfers]:
    """Run a sandbox whose jobs are finished at once, as the default connection."""
    options = {"job_seconds": 0, "records": 3, "empty_every": 0, "quota_days": 5000} | settings
    with Sandbox(**options) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(sandbox))
        yield Transfers(sandbox, storage, options)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lines_of(path: Path) -> int:
    """Count a raw file's records."""
    with gzip.open(path) as lines:
        return sum(1 for _ in lines)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and time of change of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
