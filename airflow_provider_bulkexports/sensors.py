"""Sensors: a job has finished; days can be had."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.calendar import days_between, parse_range, show_days
from airflow_provider_bulkexports.api.errors import BulkExportsError, Fatal
from airflow_provider_bulkexports.api.job import JobState, available_days, parse_job_sid
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    conf,
)
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from airflow.sdk import Context

    from airflow_provider_bulkexports.api.job import Job

__all__ = ["BulkExportsDaysSensor", "BulkExportsJobSensor"]


class _BulkExportsSensor(BaseSensorOperator):
    """What both sensors share: poking through outages, and deferring."""

    bulkexports_conn_id: str
    deferrable: bool

    def poke(self, context: Context) -> bool:  # noqa: ARG002
        """Look once; an outage is no answer, so the sensor goes on until its timeout."""
        with airflow_errors(self.bulkexports_conn_id):
            try:
                return self._look()
            except Fatal:
                raise
            except BulkExportsError as error:
                self.log.warning("Could not look, trying on: %s", error)
                return False

    def execute(self, context: Context) -> Any:
        """Wait, in the triggerer if deferrable."""
        if not self.deferrable:
            return super().execute(context)
        try:
            return self._defer_unless_done(context, time.time() + self.timeout)
        except (AirflowFailException, AirflowSensorTimeout) as error:
            # As Airflow itself does for a poke and on resuming.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipping instead of failing: {error}") from error
            raise

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Look again after waiting: what woke the task is only a hint."""
        try:
            deadline = float(event["deadline"])
        except (TypeError, KeyError, ValueError):
            deadline = time.time() + self.timeout
        self._defer_unless_done(context, deadline)

    def _defer_unless_done(self, context: Context, deadline: float) -> None:
        if self.poke(context):
            return
        if time.time() >= deadline:
            raise AirflowSensorTimeout(f"Not done within {self.timeout:.0f} s.")
        self._defer(deadline)

    def _look(self) -> bool:
        raise NotImplementedError

    def _defer(self, deadline: float) -> None:
        raise NotImplementedError


class BulkExportsJobSensor(_BulkExportsSensor):
    """
    Wait until every day of a job is final; fail if one was not exported.

    :param job_sid: the job's SID. (templated)
    :param bulkexports_conn_id: the connection's id. (templated)
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :raises AirflowFailException: when the job failed, with its days by status; for an unknown job
        or refused credentials.
    """

    template_fields: Sequence[str] = ("job_sid", "bulkexports_conn_id")
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        job_sid: str,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_sid = job_sid
        self.bulkexports_conn_id = bulkexports_conn_id
        self.deferrable = deferrable
        self._job: Job | None = None

    def _look(self) -> bool:
        sid = parse_job_sid(self.job_sid)
        with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
            self._job = client.fetch_job(sid)
        state = self._job.state()
        if state is JobState.FAILED:
            raise AirflowFailException(
                f"Job {self._job.sid} failed: not every day was exported. Days by status:\n"
                f"{self._job.report()}"
            )
        return state is JobState.COMPLETED

    def _defer(self, deadline: float) -> None:
        from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

        kind = self._job.resource_type if self._job else None
        self.defer(
            trigger=BulkExportsJobTrigger(
                bulkexports_conn_id=self.bulkexports_conn_id,
                resource_type=kind.value if kind else None,
                job_sid=self.job_sid,
                start_day=None,
                end_day=None,
                started_at=time.time(),
                deadline=deadline,
            ),
            method_name="execute_complete",
        )


class BulkExportsDaysSensor(_BulkExportsSensor):
    """
    Wait until every day of a range can be had, whoever had it exported.

    A day can be had when its file is listed, or when a listed job says that it is done: an empty
    day may have no file.

    :param resource_type: ``Messages``, ``Calls``, ``Conferences`` or ``Participants``. (templated)
    :param start_day: first UTC day, ``YYYY-MM-DD`` or a date. (templated)
    :param end_day: last UTC day, inclusive. (templated)
    :param bulkexports_conn_id: the connection's id. (templated)
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :raises AirflowFailException: for a wrong range or refused credentials.
    """

    template_fields: Sequence[str] = (
        "resource_type",
        "start_day",
        "end_day",
        "bulkexports_conn_id",
    )
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        resource_type: str,
        start_day: str | date,
        end_day: str | date,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resource_type = resource_type
        self.start_day = start_day
        self.end_day = end_day
        self.bulkexports_conn_id = bulkexports_conn_id
        self.deferrable = deferrable

    def _range(self) -> tuple[ResourceType, date, date]:
        return ResourceType.parse(self.resource_type), *parse_range(self.start_day, self.end_day)

    def _look(self) -> bool:
        kind, start, end = self._range()
        with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
            found = available_days(client.list_days(kind), client.list_jobs(kind))
        missing = set(days_between(start, end)) - found
        if missing:
            self.log.info("%s not there yet: %s.", kind, show_days(missing))
        return not missing

    def _defer(self, deadline: float) -> None:
        from airflow_provider_bulkexports.triggers import BulkExportsDaysTrigger

        kind, start, end = self._range()
        self.defer(
            trigger=BulkExportsDaysTrigger(
                bulkexports_conn_id=self.bulkexports_conn_id,
                resource_type=kind.value,
                start_day=start.isoformat(),
                end_day=end.isoformat(),
                started_at=time.time(),
                deadline=deadline,
            ),
            method_name="execute_complete",
        )
