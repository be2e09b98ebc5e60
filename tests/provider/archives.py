"""A sandbox in a time of its own, a storage, and the tasks that fill it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from in_process import DagRun, TaskInstance, run_task

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.operators import (
    BulkExportsCreateJobOperator,
    BulkExportsMissingDaysOperator,
)
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST = date(2026, 1, 1)


def day(number: int) -> str:
    """Return the text of a day, the first being 0."""
    return (FIRST + timedelta(days=number)).isoformat()


def days_of(gap: dict[str, Any]) -> int:
    """Return how many days a range has."""
    first, last = (date.fromisoformat(gap[name]) for name in ("start_day", "end_day"))
    return (last - first).days + 1


def gap(first: int, last: int, kind: str = "Messages", **more: Any) -> dict[str, Any]:
    """Return a range as the operators pass it on."""
    return {"resource_type": kind, "start_day": day(first), "end_day": day(last)} | more


def to_export(first: int, last: int, kind: str = "Messages", since: int | None = None) -> dict:
    """Return a range that is to be exported."""
    return gap(first, last, kind, not_before=None if since is None else day(since))


@dataclass
class Archive:
    """
    A storage of one account.

    :param runs: how many daily runs there were; each is a DAG run of its own.
    """

    sandbox: Sandbox
    destination: str
    clock: list[float]
    runs: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def today(self) -> date:
        """The sandbox's UTC day."""
        return datetime.fromtimestamp(self.clock[0], UTC).date()

    def advance(self, **length: float) -> None:
        """Let the sandbox's time pass."""
        self.clock[0] += timedelta(**length).total_seconds()

    def charged(self) -> int:
        return self.sandbox.ledger()["charged_days"]

    def days_charged(self, kind: str = "Messages") -> list[str]:
        """Return each day that was ordered, as often as it was."""
        return sorted(
            f"{first + timedelta(days=number)}"
            for job in self.sandbox.jobs()
            if job["resource_type"] == kind
            for first in [date.fromisoformat(job["start_day"])]
            for number in range(days_of(job))
        )

    def fault(self, kind: str, route: str = "download", **fields: Any) -> None:
        self.sandbox.add_fault({"kind": kind, "route": route, **fields})

    def order(self, first: int, last: int, kind: str = "Messages", name: str = "people") -> str:
        """Create a job as somebody else does, and return its SID."""
        start = FIRST + timedelta(days=first)
        wish = ExportRequest(ResourceType(kind), start, FIRST + timedelta(days=last), name)
        account = self.sandbox.account_sid, self.sandbox.auth_token
        with Client(*account, base_url=self.sandbox.url) as client:
            return client.create_job(wish).sid

    def missing(self, first: int = 0, last: int = 9, **options: Any) -> dict[str, list[dict]]:
        """Run the operator that looks for missing days."""
        defaults = {
            "task_id": "missing_days",
            "destination": self.destination,
            "resource_types": ["Messages"],
            "start_day": day(first),
            "end_day": day(last),
        }
        return run_task(
            BulkExportsMissingDaysOperator(**defaults | self.options | options),
            dag_run=DagRun(data_interval_end=datetime.fromtimestamp(self.clock[0], UTC)),
        )

    def fetch(self, **what: Any) -> Any:
        """Transfer a range, or what a job has of it."""
        task = BulkExportsToObjectStorageOperator(
            task_id="fetch", destination=self.destination, **what
        )
        return run_task(task)

    def export(self, gap: dict[str, Any], run_id: str) -> str:
        """Have a range exported, as the task of a DAG run."""
        task = BulkExportsCreateJobOperator(task_id="export", reattach="range", **gap)
        return run_task(task, TaskInstance(run_id=run_id))

    def fill(self, first: int = 0, last: int = 9, **options: Any) -> list[str]:
        """Do what a run of the storage DAG does, and return the errors of its transfers."""
        self.runs += 1
        found, errors = self.missing(first, last, **options), []
        ready = [(gap, None) for gap in found["to_fetch"]]
        for each in found["to_export"]:
            sid = self.export(each, f"run_{self.runs}")
            ready.append(({k: each[k] for k in each if k != "not_before"}, sid))
        for each, sid in ready:
            try:
                self.fetch(**each, job_sid=sid)
            except Exception as error:  # noqa: BLE001 - one that fails keeps no other
                errors.append(str(error))
        return errors


@contextlib.contextmanager
def archive_in(
    folder: Path, monkeypatch: Any, *, today: date = date(2026, 2, 1), **settings: Any
) -> Iterator[Archive]:
    """Run a sandbox at noon of a day, as the default connection, and give an empty storage."""
    clock = [datetime(today.year, today.month, today.day, 12, tzinfo=UTC).timestamp()]
    given = {"job_seconds": 0, "records": 3, "empty_every": 0, "quota_days": 5000} | settings
    with Sandbox(now=lambda: clock[0], **given) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", sandbox.connection())
        yield Archive(sandbox, folder.as_uri(), clock)
