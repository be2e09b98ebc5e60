"""Day files to object storage, verified."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.calendar import days_between, parse_range
from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.job import parse_job_sid
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.arguments import check_literals
from airflow_provider_bulkexports.compat import (
    AirflowException,
    BaseOperator,
)
from airflow_provider_bulkexports.destinations import open_destination
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.storage.manifest import Manifest
    from airflow_provider_bulkexports.storage.transfer import Options, Outcome, Progress

__all__ = ["BulkExportsToObjectStorageOperator"]

LIST_LIMIT = 31
"""Days whose results are returned one by one; more go to a file, to keep the XCom small."""
PROGRESS_SECONDS = 20.0


class BulkExportsToObjectStorageOperator(BaseOperator):
    """
    Transfer the files of exported days to object storage, each verified and published whole.

    A day lies at ``<destination>/<ResourceType>/day=YYYY-MM-DD/``, as ``part-0.json.gz`` or
    ``part-0.parquet``, with a ``_manifest.json``; a day on which nothing happened has
    ``_manifest.empty.json`` alone. Days that are there and settled are left alone, also when
    Twilio no longer has their files. One broken day does not keep the others: what could be had is
    published, and the error names the rest.

    One destination holds the days of one account in one format, with one choice of columns. Files
    pass through this machine's temporary folder. What a killed worker leaves there goes with the
    next transfer on the same machine.

    The return value is a list of ``{"day", "path", "records", "rejected", "bytes"}``. For more
    than 31 days that list is written beside the days, as ``_manifest_<first>_<last>.json``, and
    what is returned is ``{"manifest", "days", "records", "rejected", "bytes"}``: its path, and the
    sums. Paths hold the storage's connection, as ObjectStoragePath takes them.

    Outlets get the type, the range, the records and the SIDs as their events' ``extra``, how many
    days were stored, replaced, renewed, left unchanged and refused, and up to 31 days one by one.
    In a DAG that is ``PartitionedAtRuntime``, each day is a partition.

    :param destination: where to: an absolute address that Airflow's ObjectStoragePath takes.
        (templated)
    :param job_sid: the finished job whose days to fetch; with days, the job that must have
        completed them. (templated)
    :param resource_type: with the days: what to fetch. (templated)
    :param start_day: first UTC day, ``YYYY-MM-DD``. (templated)
    :param end_day: last UTC day, inclusive. (templated)
    :param output_format: ``raw`` for Twilio's own gzipped JSON lines, or ``parquet`` for typed
        columns, which needs the extra ``parquet``. (templated)
    :param if_exists: for a day that is there and that a newer export has with other content:
        ``replace`` it, ``skip`` it, or ``fail``. (templated)
    :param allow_fewer_records: whether a day may be replaced by one with fewer records, or none.
        Without it such a day stays as it is, with a warning.
    :param max_rejected: share of a day's records that may be malformed; ten always may.
    :param drop_columns: columns that are not stored (Parquet). One choice serves all types:
        columns that only others have are passed over.
    :param hash_columns: string columns of which a digest is stored, keyed with the Twilio
        connection's ``hash_secret`` (Parquet).
    :param max_parallel_days: days fetched at once.
    :param bulkexports_conn_id: the connection to Twilio. (templated)
    :param object_storage_conn_id: the connection to the storage, if it needs one. (templated)
    :raises AirflowFailException: for what a retry cannot mend, such as a wrong argument.
    :raises AirflowException: when a day could not be transferred; it names them.
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
        allow_fewer_records: bool = False,
        max_rejected: float = 0.01,
        drop_columns: Sequence[str] = (),
        hash_columns: Sequence[str] = (),
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
        self.allow_fewer_records = allow_fewer_records
        self.max_rejected = max_rejected
        self.drop_columns = drop_columns
        self.hash_columns = hash_columns
        self.max_parallel_days = max_parallel_days
        self.bulkexports_conn_id = bulkexports_conn_id
        self.object_storage_conn_id = object_storage_conn_id
        self._stop = Stop()
        self._transferred: tuple[ResourceType, Any, dict[date, Manifest]] | None = None
        check_literals(_check_destination, destination)
        check_literals(ResourceType.parse, resource_type)
        check_literals(parse_range, start_day, end_day)
        check_literals(self._options_of, output_format, if_exists)

    def execute(self, context: Context) -> list[dict[str, Any]] | dict[str, Any]:
        """Transfer the days."""
        from airflow_provider_bulkexports.storage.store import DayStore
        from airflow_provider_bulkexports.storage.transfer import transfer

        with airflow_errors(self.bulkexports_conn_id):
            hook = BulkExportsHook(self.bulkexports_conn_id)
            options = self._options(hook)
            root = open_destination(self.destination, self.object_storage_conn_id)
            with hook.get_conn() as client:
                resource_type, days = self._wanted(client)
                store = DayStore(root.fs, root.path, resource_type)
                self.log.info("%d days of %s to %s.", len(days), resource_type, root)
                outcome = transfer(
                    client,
                    store,
                    days,
                    options,
                    job_sid=self.job_sid,
                    stop=self._stop,
                    progress=_ProgressLog(self.log),
                )
            if outcome.failed:
                table = "\n".join(
                    f"  {day}  {outcome.failed[day]}" for day in sorted(outcome.failed)
                )
                raise AirflowException(
                    f"{len(outcome.failed)} of {len(days)} days of {resource_type} were not "
                    "transferred; the others are published, and a retry leaves them alone:\n"
                    f"{table}"
                )
            folder = root / resource_type.value
            self._transferred = resource_type, folder, outcome.manifests
            self._emit_events(context, resource_type, outcome)
            results = [_result(folder, day, outcome.manifests[day]) for day in days]
            if len(results) <= LIST_LIMIT:
                return results
            return {
                "manifest": str(folder / store.write_index(results).rpartition("/")[2]),
                "days": len(results),
            } | _sums(outcome.manifests)

    def get_openlineage_facets_on_complete(
        self,
        task_instance: Any,  # noqa: ARG002
    ) -> OperatorLineage[Any, Any] | None:
        """Report to OpenLineage what went where, without asking Twilio or the storage."""
        from airflow_provider_bulkexports.lineage import storage_lineage

        if self._transferred is None:
            return None
        resource_type, folder, manifests = self._transferred
        return storage_lineage(resource_type.value, folder, manifests.values())

    def on_kill(self) -> None:
        """Stop the transfer of days that are under way; what is published stays."""
        self._stop.set()

    def _options(self, hook: BulkExportsHook) -> Options:
        given = [part is not None for part in (self.resource_type, self.start_day, self.end_day)]
        if any(given) != all(given) or not (all(given) or self.job_sid is not None):
            raise InvalidRequest(
                "Give job_sid, or all of resource_type, start_day and end_day, or all four."
            )
        if self.job_sid is not None:
            parse_job_sid(self.job_sid)
        if self.output_format == "parquet":
            from airflow_provider_bulkexports.storage.parquet import require_engine

            require_engine()
        secret = hook.read_connection().hash_secret if self.hash_columns else ""
        return self._options_of(self.output_format, self.if_exists, secret.encode())

    def _options_of(
        self, output_format: str, if_exists: str, hash_secret: bytes | None = None
    ) -> Options:
        from airflow_provider_bulkexports.storage.transfer import Options

        return Options(
            format=output_format,
            if_exists=if_exists,
            allow_fewer_records=self.allow_fewer_records,
            max_rejected=self.max_rejected,
            max_parallel_days=self.max_parallel_days,
            drop_columns=self.drop_columns,
            hash_columns=self.hash_columns,
            hash_secret=hash_secret,
        )

    def _wanted(self, client: Client) -> tuple[ResourceType, list[date]]:
        from airflow_provider_bulkexports.storage.transfer import days_of_job

        if self.resource_type is None:
            return days_of_job(client, parse_job_sid(self.job_sid))
        resource_type = ResourceType.parse(self.resource_type)
        return resource_type, list(days_between(*parse_range(self.start_day, self.end_day)))

    def _emit_events(self, context: Context, resource_type: ResourceType, outcome: Outcome) -> None:
        manifests = sorted(outcome.manifests.items())
        counts = outcome.counts()
        self.log.info("Days: %s.", ", ".join(f"{count} {what}" for what, count in counts.items()))
        extra: dict[str, Any] = {
            "resource_type": resource_type.value,
            "start_day": f"{manifests[0][0]}",
            "end_day": f"{manifests[-1][0]}",
            "records": sum(manifest.records for _, manifest in manifests),
            "rejected": sum(manifest.rejected for _, manifest in manifests),
            "job_sids": sorted({m.job_sid for _, m in manifests if m.job_sid}),
            "changes": counts,
        }
        if len(manifests) <= LIST_LIMIT:
            extra["days"] = [
                {
                    "day": f"{day}",
                    "records": manifest.records,
                    "rejected": manifest.rejected,
                    "job_sid": manifest.job_sid,
                    "change": outcome.actions[day].value,
                }
                for day, manifest in manifests
            ]
        # An event with a partition starts no DAG that has none, so only where this one has. A
        # partitioned run's own key is added by Airflow.
        timetable = getattr(context.get("dag"), "timetable", None)
        for outlet in self.outlets or ():
            event = context["outlet_events"][outlet]
            event.extra = extra
            if getattr(timetable, "partitioned_at_runtime", False):
                event.add_partitions([f"{day}" for day, _ in manifests])


class _ProgressLog:
    """Writes a transfer's progress to a task's log, now and then."""

    def __init__(self, log: Any) -> None:
        self._log, self._reported = log, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        is_over = progress.done + progress.failed == progress.days
        if is_over or time.monotonic() - self._reported > PROGRESS_SECONDS:
            self._reported = time.monotonic()
            megabytes = progress.bytes / 1e6
            self._log.info(
                "%d of %d days done, %d failed; %.1f MB, %.1f MB/s.",
                progress.done, progress.days, progress.failed, megabytes,
                megabytes / max(progress.seconds, 0.001),
            )  # fmt: skip


def _result(folder: Any, day: date, manifest: Manifest) -> dict[str, Any]:
    part = manifest.files[0].name if manifest.files else None
    return {
        "day": f"{day}",
        "path": str(folder / f"day={day}" / part) if part else None,
        **_sums({day: manifest}),
    }


def _sums(manifests: dict[date, Manifest]) -> dict[str, int]:
    return {
        "records": sum(manifest.records for manifest in manifests.values()),
        "rejected": sum(manifest.rejected for manifest in manifests.values()),
        "bytes": sum(file.bytes for manifest in manifests.values() for file in manifest.files),
    }


def _check_destination(destination: str) -> None:
    from airflow_provider_bulkexports.storage.store import check_destination

    check_destination(destination)
