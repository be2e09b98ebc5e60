"""Day files to object storage, verified; and which days are missing there."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.calendar import days_between, parse_range, show_days
from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest
from airflow_provider_bulkexports.api.job import JobState, Status, parse_job_sid
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    BaseOperator,
    object_storage_path,
)
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors
from airflow_provider_bulkexports.storage.store import DayStore, Manifest, StoredFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.download import DayFile
    from airflow_provider_bulkexports.api.job import Job

__all__ = ["BulkExportsMissingDaysOperator", "BulkExportsToObjectStorageOperator"]

IF_EXISTS = ("replace", "skip", "fail")
FORMATS = ("raw", "parquet")
LIST_LIMIT = 31
"""Days whose results are returned one by one; more go to a file, to keep the XCom small."""
PROGRESS_SECONDS = 20.0
SPOOL = "bulkexports-spool-"
SPOOL_SECONDS = 60.0
"""Age from which an unlocked spool is abandoned; a younger one may be about to be locked."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A day to bring home: who exported it, and what it may look like."""

    day: date
    job_sid: str | None
    may_be_empty: bool
    listed_size: int | None


class BulkExportsToObjectStorageOperator(BaseOperator):
    """
    Bring the files of exported days into object storage, each verified and published whole.

    A day lies at ``<destination>/<ResourceType>/day=YYYY-MM-DD/``, as ``part-0.json.gz`` or
    ``part-0.parquet``, with a ``_manifest.json`` that is written last. A rerun leaves alone the
    days that are there. One broken day does not keep the others: what could be had is published,
    and the error names the rest.

    Files pass through this machine's temporary folder. What a killed worker leaves there goes with
    the next transfer on the same machine.

    The return value is a list of ``{"day", "path", "records", "bytes"}``. For more than 31 days
    that list is written beside the days, as ``_manifest_<first>_<last>.json``, and what is returned
    is ``{"manifest", "days", "records", "bytes"}``: its path, and the sums. Paths hold the
    storage's connection, as ObjectStoragePath takes them.

    Outlets get the type, the range, the records and the SIDs as their events' ``extra``, and up to
    31 days one by one. In a DAG that is ``PartitionedAtRuntime``, each day is a partition.

    :param destination: where to: any address that Airflow's ObjectStoragePath takes. (templated)
    :param job_sid: the finished job whose days to fetch. (templated)
    :param resource_type: with the days, instead of ``job_sid``: what to fetch. (templated)
    :param start_day: first UTC day, ``YYYY-MM-DD``. (templated)
    :param end_day: last UTC day, inclusive. (templated)
    :param output_format: ``raw`` for Twilio's own gzipped JSON lines, or ``parquet`` for typed
        columns, which needs the extra ``parquet``. (templated)
    :param if_exists: for a day that is there from another job and has other content: ``replace``
        it, ``skip`` it, or ``fail``. (templated)
    :param max_parallel_days: days fetched at once.
    :param bulkexports_conn_id: the connection to Twilio. (templated)
    :param object_storage_conn_id: the connection to the storage, if it needs one. (templated)
    :raises AirflowFailException: for what a retry cannot mend, such as a wrong argument.
    :raises AirflowException: when a day could not be brought home; it names them.
    """

    template_fields: Sequence[str] = (
        "destination",
        "job_sid",
        "resource_type",
        "start_day",
        "end_day",
        "output_format",
        "if_exists",
        "bulkexports_conn_id",
        "object_storage_conn_id",
    )
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        destination: str,
        job_sid: str | None = None,
        resource_type: str | None = None,
        start_day: str | date | None = None,
        end_day: str | date | None = None,
        output_format: str = "raw",
        if_exists: str = "replace",
        max_parallel_days: int = 4,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        object_storage_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.job_sid = job_sid
        self.resource_type = resource_type
        self.start_day = start_day
        self.end_day = end_day
        self.output_format = output_format
        self.if_exists = if_exists
        self.max_parallel_days = max_parallel_days
        self.bulkexports_conn_id = bulkexports_conn_id
        self.object_storage_conn_id = object_storage_conn_id
        self.killed = False
        self._brought: tuple[ResourceType, Any, dict[date, Manifest]] | None = None

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """Bring the days home."""
        with airflow_errors(self.bulkexports_conn_id):
            self._check_arguments()
            root = _storage_root(self.destination, self.object_storage_conn_id)
            with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
                kind, wanted = self._wanted(client)
                store = DayStore(root, kind)
                self.log.info("%d days of %s to %s.", len(wanted), kind, root)
                manifests = _Run(self, client, store, kind, wanted).run()
        self._brought = kind, root / kind.value, manifests
        results = [self._result(store, day, manifests[day]) for day in sorted(manifests)]
        self._emit_events(context, kind, manifests)
        if len(results) <= LIST_LIMIT:
            return results
        return {
            "manifest": store.write_index(results),
            "days": len(results),
            "records": sum(result["records"] for result in results),
            "bytes": sum(result["bytes"] for result in results),
        }

    def get_openlineage_facets_on_complete(
        self,
        task_instance: Any,  # noqa: ARG002
    ) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage what went where, without asking Twilio or the storage."""
        from airflow_provider_bulkexports.lineage import storage_lineage

        if self._brought is None:
            return None
        kind, folder, manifests = self._brought
        return storage_lineage(kind.value, folder, manifests.values())

    def on_kill(self) -> None:
        """Let the days in work be given up; what is published stays."""
        self.killed = True

    def sleep(self, seconds: float) -> None:
        """Wait between two tries of a day, unless the task was stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.killed:
                raise BadData("the task was stopped")
            time.sleep(min(left, 0.5))

    def _check_arguments(self) -> None:
        given = [part is not None for part in (self.resource_type, self.start_day, self.end_day)]
        if any(given) if self.job_sid is not None else not all(given):
            raise InvalidRequest(
                "Give either job_sid, or all of resource_type, start_day and end_day."
            )
        for name, allowed in (("output_format", FORMATS), ("if_exists", IF_EXISTS)):
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidRequest(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
        if self.output_format == "parquet":
            from airflow_provider_bulkexports.storage.parquet import require_engine

            require_engine()
        if self.max_parallel_days < 1:
            raise InvalidRequest(f"max_parallel_days is {self.max_parallel_days}; give 1 or more.")

    def _wanted(self, client: Client) -> tuple[ResourceType, list[_Wanted]]:
        jobs: Sequence[Job]
        if self.job_sid is not None:
            job = client.fetch_job(parse_job_sid(self.job_sid))
            if job.resource_type is None or job.start_day is None or job.end_day is None:
                raise InvalidRequest(
                    f"Twilio does not say what job {job.sid} exports; give resource_type, "
                    "start_day and end_day instead of job_sid."
                )
            if job.state() is not JobState.COMPLETED:
                raise InvalidRequest(
                    f"Job {job.sid} is not complete. Wait for it with BulkExportsJobSensor. "
                    f"Days by status:\n{job.report()}"
                )
            kind, start, end, jobs = job.resource_type, job.start_day, job.end_day, (job,)
        else:
            kind = ResourceType.parse(self.resource_type)
            start, end = parse_range(self.start_day, self.end_day)
            jobs = client.list_jobs(kind).jobs
        sizes = {day.day: day.size for day in client.list_days(kind)}
        wanted = []
        for day in days_between(start, end):
            source, status = _source(jobs, day)
            # Days that are unlisted and of no job are asked for all the same: the answer tells.
            wanted.append(
                _Wanted(
                    day=day,
                    job_sid=source,
                    may_be_empty=status is Status.COMPLETED_EMPTY_RECORDS,
                    listed_size=sizes.get(day),
                )
            )
        return kind, wanted

    def _result(self, store: DayStore, day: date, manifest: Manifest) -> dict[str, Any]:
        return {
            "day": day.isoformat(),
            "path": store.path(day, manifest.files[0].name) if manifest.files else None,
            "records": manifest.records,
            "bytes": sum(file.bytes for file in manifest.files),
        }

    def _emit_events(
        self, context: Context, kind: ResourceType, manifests: dict[date, Manifest]
    ) -> None:
        days = [
            {"day": f"{day}", "records": manifest.records, "job_sid": manifest.job_sid}
            for day, manifest in sorted(manifests.items())
        ]
        extra: dict[str, Any] = {
            "resource_type": kind.value,
            "start_day": days[0]["day"],
            "end_day": days[-1]["day"],
            "records": sum(manifest.records for manifest in manifests.values()),
            "job_sids": sorted({m.job_sid for m in manifests.values() if m.job_sid}),
        }
        if len(days) <= LIST_LIMIT:
            extra["days"] = days
        # An event with a partition starts no DAG that has none, so only where this one has. A
        # partitioned run's own key is added by Airflow.
        timetable = getattr(context.get("dag"), "timetable", None)
        for outlet in self.outlets or ():
            event = context["outlet_events"][outlet]
            event.extra = extra
            if getattr(timetable, "partitioned_at_runtime", False):
                event.add_partitions([f"{day}" for day in sorted(manifests)])


class _Run:
    """One execution: several days at once, each by itself."""

    def __init__(
        self,
        operator: BulkExportsToObjectStorageOperator,
        client: Client,
        store: DayStore,
        kind: ResourceType,
        wanted: list[_Wanted],
    ) -> None:
        self._operator = operator
        self._client = client
        self._store = store
        self._kind = kind
        self._wanted = wanted
        self._log = operator.log
        self._bytes = 0
        self._lock = threading.Lock()

    def run(self) -> dict[date, Manifest]:
        """Return all days' manifests, or raise naming the days that could not be had."""
        _remove_abandoned_spools()
        first, last = self._wanted[0].day, self._wanted[-1].day
        stored = self._store.manifests(first, last)
        done: dict[date, Manifest] = {}
        failed: dict[date, str] = {}
        pending = []
        for wanted in self._wanted:
            manifest = stored.get(wanted.day)
            if manifest is not None and self._is_settled(wanted, manifest):
                done[wanted.day] = manifest
            else:
                pending.append(wanted)
        if done:
            self._log.info("Already there: %s.", show_days(done))
        began = told = time.monotonic()
        with ThreadPoolExecutor(self._operator.max_parallel_days, "bulkexports-day") as pool:
            futures = {
                pool.submit(self._bring, wanted, stored.get(wanted.day)): wanted.day
                for wanted in pending
            }
            waiting = set(futures)
            while waiting:
                finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    day = futures[future]
                    try:
                        done[day] = future.result()
                    except Exception as error:  # noqa: BLE001 - each storage has its own errors
                        failed[day] = f"{type(error).__name__}: {error}"
                        self._log.error("%s was not brought home: %s", day, failed[day])
                if time.monotonic() - told > PROGRESS_SECONDS or not waiting:
                    told = time.monotonic()
                    rate = self._bytes / max(told - began, 0.001) / 1e6
                    self._log.info(
                        "%d of %d days done, %d failed; %.1f MB, %.1f MB/s.",
                        len(done), len(self._wanted), len(failed), self._bytes / 1e6, rate,
                    )  # fmt: skip
        if failed:
            table = "\n".join(f"  {day}  {failed[day]}" for day in sorted(failed))
            raise AirflowException(
                f"{len(failed)} of {len(self._wanted)} days of {self._kind} were not brought home; "
                f"the others are published, and a retry leaves them alone:\n{table}"
            )
        return done

    def _is_settled(self, wanted: _Wanted, manifest: Manifest) -> bool:
        if manifest.format != self._operator.output_format:
            return False
        if self._operator.if_exists == "skip":
            return True
        return wanted.job_sid is not None and manifest.job_sid == wanted.job_sid

    def _bring(self, wanted: _Wanted, stored: Manifest | None) -> Manifest:
        from airflow_provider_bulkexports.api.download import fetch_day_file

        if self._operator.killed:
            raise BadData("the task was stopped")
        # A copy: Airflow up to 3.1 must not be asked for its connection by several threads at once.
        with _spool_folder() as folder, self._client.copy() as client:
            spool = folder / "part-0.json.gz"
            with spool.open("wb") as target:
                fetched = fetch_day_file(
                    client,
                    self._kind,
                    wanted.day,
                    target,
                    may_be_empty=wanted.may_be_empty,
                    listed_size=wanted.listed_size,
                    sleep=self._operator.sleep,
                )
            with self._lock:
                self._bytes += fetched.size
            same_format = stored is not None and stored.format == self._operator.output_format
            if stored is not None and same_format and stored.source_sha256 == fetched.sha256:
                return stored
            if stored is not None and same_format and self._operator.if_exists == "fail":
                raise InvalidRequest(
                    f"{self._store.path(wanted.day)} holds other content, of job {stored.job_sid}; "
                    'allow it to be overwritten with if_exists="replace".'
                )
            files, manifest = self._prepare(wanted, fetched, spool)
            self._store.publish(wanted.day, files, manifest)
            return manifest

    def _prepare(
        self, wanted: _Wanted, fetched: DayFile, spool: Path
    ) -> tuple[dict[str, Path], Manifest]:
        files: dict[str, Path] = {}
        records, rejected = fetched.records, 0
        schema: tuple[tuple[str, str], ...] = ()
        if fetched.records and self._operator.output_format == "parquet":
            from airflow_provider_bulkexports.storage.parquet import write_parquet

            target, aside = spool.with_name("part-0.parquet"), spool.with_name("_rejected-0.json")
            written = write_parquet(spool, target, aside, self._kind)
            records, rejected, schema = written.rows, written.rejected, written.schema
            files = {path.name: path for path in (target, aside) if path.exists()}
        elif fetched.records:
            files = {spool.name: spool}
        return files, Manifest(
            resource_type=self._kind.value,
            day=wanted.day.isoformat(),
            job_sid=wanted.job_sid,
            account_sid=_account_of(spool) if fetched.records else None,
            format=self._operator.output_format,
            records=records,
            rejected=rejected,
            source_bytes=fetched.size,
            source_sha256=fetched.sha256,
            schema=schema,
            files=tuple(
                StoredFile(name, path.stat().st_size, _digest(path)) for name, path in files.items()
            ),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


class BulkExportsMissingDaysOperator(BaseOperator):
    """
    Return which days of a range are not in the storage, as ranges for the create operator.

    The return value is a list of ``{"resource_type", "start_day", "end_day"}``, ready for
    ``BulkExportsCreateJobOperator.partial(...).expand_kwargs(...)``. A day is there when its
    manifest is, and the files that it names. Nothing is asked of Twilio.

    :param destination: the storage, as given to the transfer. (templated)
    :param resource_type: the type. (templated)
    :param start_day: first UTC day that should be there. (templated)
    :param end_day: last UTC day that should be there, inclusive. (templated)
    :param object_storage_conn_id: the connection to the storage, if it needs one. (templated)
    :raises AirflowFailException: for a wrong type or range.
    """

    template_fields: Sequence[str] = (
        "destination",
        "resource_type",
        "start_day",
        "end_day",
        "object_storage_conn_id",
    )
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        destination: str,
        resource_type: str,
        start_day: str | date,
        end_day: str | date,
        object_storage_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.destination = destination
        self.resource_type = resource_type
        self.start_day = start_day
        self.end_day = end_day
        self.object_storage_conn_id = object_storage_conn_id

    def execute(self, context: Context) -> list[dict[str, str]]:  # noqa: ARG002
        """Compare the storage's manifests with the range."""
        try:
            root = _storage_root(self.destination, self.object_storage_conn_id)
            gaps = BulkExportsHook.missing_days(
                root, self.resource_type, self.start_day, self.end_day
            )
        except (InvalidRequest, AirflowNotFoundException) as error:
            raise AirflowFailException(str(error)) from None
        ranges = ", ".join(f"{gap['start_day']} to {gap['end_day']}" for gap in gaps)
        self.log.info("%s missing in %s: %s.", self.resource_type, root, ranges or "nothing")
        return gaps


def _storage_root(destination: str, conn_id: str | None) -> Any:
    """Return a destination as Airflow's path; refuse what no retry can make a storage."""
    try:
        root = object_storage_path(destination, conn_id)
        root.fs  # noqa: B018 - an unknown scheme is found out only here
    except (ValueError, ImportError) as error:
        raise InvalidRequest(
            f"destination is {destination!r}, which this Airflow cannot open: {error}. Check the "
            "address, and that the provider of that storage is installed."
        ) from None
    return root


def _source(jobs: Sequence[Job], day: date) -> tuple[str | None, Status | None]:
    """Return the newest listed job that exported a day, and the day's status in it."""
    # The list is oldest first, and Twilio serves the newest file of a day.
    for job in reversed(jobs):
        status = (job.day_statuses() or {}).get(day)
        if status is not None and status.is_complete:
            return job.sid, status
    return None, None


@contextlib.contextmanager
def _spool_folder() -> Iterator[Path]:
    """Make a folder that its owner alone can read, as the records are personal, and lock it."""
    with tempfile.TemporaryDirectory(prefix=SPOOL) as name, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # where nothing can be locked, nothing is removed
            stack.enter_context(_locked(name))
        yield Path(name)


def _remove_abandoned_spools() -> None:
    """Remove what workers that were killed have left on this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SPOOL}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > SPOOL_SECONDS:
                with _locked(folder):
                    shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path | str) -> Iterator[None]:
    """Lock a folder, at the longest until this process is gone, or raise OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _account_of(spool: Path) -> str | None:
    with gzip.open(spool, "rb") as lines:
        try:
            first = json.loads(lines.readline(1 << 20))
        except ValueError:
            return None
    account = first.get("account_sid") if isinstance(first, dict) else None
    return account if isinstance(account, str) and len(account) == 34 else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
