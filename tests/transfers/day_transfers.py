"""A sandbox, a storage, and the days that are transferred from one to the other."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import itertools
import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from in_process import connection, run_task

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.compat import object_storage_path
from airflow_provider_bulkexports.sandbox.records import FileKey, day_file, other_contents
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.storage.store import DayState, DayStore
from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = date(2026, 1, 1)
_NUMBERS = itertools.count(1)
PARTS = {"raw": "part-0.json.gz", "parquet": "part-0.parquet"}


def day(number: int) -> str:
    """Return the text of a day, the first being 0."""
    return (FIRST + timedelta(days=number)).isoformat()


def range_of(days: int, resource_type: str = "Messages") -> dict[str, str]:
    """Return the arguments that name the first days."""
    return {"resource_type": resource_type, "start_day": day(0), "end_day": day(days - 1)}


@dataclass
class Transfers:
    """A sandbox and a storage, of which operators know."""

    sandbox: Sandbox
    storage: Path
    settings: dict[str, Any]

    @property
    def destination(self) -> str:
        return self.storage.as_uri()

    def export(
        self,
        days: int = 3,
        resource_type: str = "Messages",
        first: int = 0,
        name: str | None = None,
    ) -> str:
        """Create a job, which is finished at once, and return its SID."""
        start = FIRST + timedelta(days=first)
        wish = ExportRequest(
            ResourceType(resource_type),
            start,
            start + timedelta(days=days - 1),
            name or f"export_{next(_NUMBERS)}",
        )
        with self.client() as client:
            return client.create_job(wish).sid

    def client(self) -> Client:
        sandbox = self.sandbox
        return Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url)

    def task(self, job_sid: str | None = None, **options: Any) -> Any:
        defaults = {"task_id": "transfer", "destination": self.destination, "job_sid": job_sid}
        return BulkExportsToObjectStorageOperator(**defaults | options)

    def transfer(self, job_sid: str | None = None, **options: Any) -> Any:
        """Run the transfer to its end and return what it returns."""
        return run_task(self.task(job_sid, **options))

    def transfer_range(self, days: int = 3, resource_type: str = "Messages", **options: Any) -> Any:
        """Transfer the first days, by type and range."""
        return self.transfer(**range_of(days, resource_type) | options)

    def missing(
        self,
        days: int = 3,
        resource_type: str = "Messages",
        destination: str | None = None,
        object_storage_conn_id: str | None = None,
    ) -> list[int]:
        """Return the numbers of the days that the storage's listing does not show as there."""
        root = object_storage_path(destination or self.destination, object_storage_conn_id)
        listed = DayStore(root.fs, root.path, ResourceType(resource_type)).list_days()
        there = {found.day for found in listed.values() if found.state is not DayState.LOCKED}
        return [number for number in range(days) if FIRST + timedelta(days=number) not in there]

    def folder(self, number: int, resource_type: str = "Messages") -> Path:
        return self.storage / resource_type / f"day={day(number)}"

    def names(self, number: int, resource_type: str = "Messages") -> list[str]:
        return sorted(path.name for path in self.folder(number, resource_type).iterdir())

    def manifest(self, number: int, resource_type: str = "Messages") -> dict[str, Any]:
        (path,) = self.folder(number, resource_type).glob("_manifest.*")
        return json.loads(path.read_text())

    def content(self, number: int, name: str = PARTS["raw"]) -> bytes:
        return (self.folder(number) / name).read_bytes()

    def served(
        self, number: int, resource_type: str = "Messages", contents: str | None = None
    ) -> bytes:
        """Return a day's file as the sandbox serves it, with other contents if those are named."""
        of_day = FIRST + timedelta(days=number)
        key = FileKey(self.sandbox.account_sid, ResourceType(resource_type), of_day)
        if contents is not None:
            key = other_contents(key, contents)
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
