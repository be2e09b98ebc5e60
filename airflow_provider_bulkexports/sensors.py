"""Sensors: a job has finished; days are available."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.calendar import days_between, parse_day, parse_range
from airflow_provider_bulkexports.api.errors import BulkExportsError, Fatal
from airflow_provider_bulkexports.api.job import Job, JobState, available_days, parse_job_sid
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.watch import (
    MISSING,
    DaysWatch,
    JobReader,
    JobWatch,
    Over,
)
from airflow_provider_bulkexports.arguments import check_literals
from airflow_provider_bulkexports.compat import (
    AirflowException,
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

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.watch import Answer, Watch
    from airflow_provider_bulkexports.compat import BaseTrigger

__all__ = ["BulkExportsDaysSensor", "BulkExportsJobSensor"]


class _BulkExportsSensor(BaseSensorOperator):
    """What both sensors share: poking through outages, and deferring."""

    bulkexports_conn_id: str
    deferrable: bool
    _watch: Watch | None = None

    def poke(self, context: Context) -> bool:  # noqa: ARG002
        """Look; an outage is no answer, so the sensor goes on until its timeout."""
        pace = pace_module.PACE
        while True:
            answer, done = self._look()
            # A job counts as gone only when two looks agree, and a later poke may know nothing
            # of this one: with mode="reschedule" it is another process.
            if answer is not MISSING:
                return done
            assert self._watch is not None  # noqa: S101 - the look has made it
            pace.sleep(max(0.0, self._watch.next_look(pace.now()) - pace.now()))

    def execute(self, context: Context) -> Any:
        """Wait, in the triggerer if deferrable."""
        if not self.deferrable:
            return super().execute(context)
        try:
            return self._defer_unless_done(pace_module.PACE.now() + self.timeout)
        except (AirflowFailException, AirflowSensorTimeout) as error:
            # As Airflow itself does for a poke and on resuming.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipping instead of failing: {error}") from error
            raise

    def execute_complete(
        self,
        context: Context,  # noqa: ARG002
        event: Any = None,
        deadline: float | None = None,
    ) -> None:
        """Look again after waiting: what woke the task is only a hint."""
        try:
            over, trouble = Over(event["over"]), str(event["trouble"])
        except (TypeError, KeyError, ValueError):
            over, trouble = Over.DONE, ""
        if over in (Over.GONE, Over.REFUSED):
            raise self._failure(over, trouble)
        late = over is Over.LATE
        self._defer_unless_done(deadline or pace_module.PACE.now() + self.timeout, late=late)

    def _defer_unless_done(self, deadline: float, *, late: bool = False) -> None:
        _, done = self._look()
        if done:
            return
        if late or pace_module.PACE.now() >= deadline:
            raise AirflowSensorTimeout(f"Not done within {self.timeout:.0f} s.")
        self.defer(
            trigger=self._trigger(deadline),
            method_name="execute_complete",
            kwargs={"deadline": deadline},
        )

    def _look(self) -> tuple[Answer, bool]:
        """Return what one reading says, and whether the wait is over."""
        with airflow_errors(self.bulkexports_conn_id):
            if self._watch is None:
                self._watch = self._new_watch()
            try:
                with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
                    answer = self._read(client)
            except Fatal:
                raise
            except BulkExportsError as error:
                answer = error
        over, lines = self._watch.see(answer, pace_module.PACE.now())
        for line in lines:
            self.log.log(line.level, "%s", line.text)
        if over in (Over.GONE, Over.REFUSED):
            raise self._failure(over, self._watch.trouble)
        return answer, over is Over.DONE

    def _failure(self, over: Over, trouble: str) -> Exception:
        if over is Over.REFUSED:
            return AirflowException(
                f"Connection {self.bulkexports_conn_id!r}: Twilio refused its credentials for "
                f"{pace_module.PACE.refused / 60:.0f} min ({trouble})."
            )
        return AirflowFailException(
            f"Twilio no longer knows job {getattr(self, 'job_sid', '')}: deleted there, expired "
            "after 7 days, or another account's connection."
        )

    def _new_watch(self) -> Watch:
        raise NotImplementedError

    def _read(self, client: Client) -> Answer:
        raise NotImplementedError

    def _trigger(self, deadline: float) -> BaseTrigger:
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
        check_literals(parse_job_sid, job_sid)

    def _new_watch(self) -> Watch:
        return JobWatch(pace_module.PACE.now(), math.inf)

    def _read(self, client: Client) -> Answer:
        sid = parse_job_sid(self.job_sid)
        answer = JobReader(None).read(client, [sid])[sid]
        self._job = answer if isinstance(answer, Job) else None
        if self._job is not None and self._job.state() is JobState.FAILED:
            raise AirflowFailException(
                f"Job {self._job.sid} failed: not every day was exported. Days by status:\n"
                f"{self._job.report()}"
            )
        return answer

    def _trigger(self, deadline: float) -> BaseTrigger:
        from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

        resource_type = self._job.resource_type if self._job else None
        return BulkExportsJobTrigger(
            bulkexports_conn_id=self.bulkexports_conn_id,
            resource_type=resource_type.value if resource_type else None,
            job_sid=parse_job_sid(self.job_sid),
            start_day=None,
            end_day=None,
            started_at=pace_module.PACE.now(),
            deadline=deadline,
        )


class BulkExportsDaysSensor(_BulkExportsSensor):
    """
    Wait until every day of a range is available, whoever had it exported.

    A day is available when its file is listed, or when a listed job says that it is done: an empty
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
        check_literals(ResourceType.parse, resource_type)
        check_literals(lambda day: parse_day(day, "start_day"), start_day)
        check_literals(lambda day: parse_day(day, "end_day"), end_day)
        check_literals(parse_range, start_day, end_day)

    def _range(self) -> tuple[ResourceType, date, date]:
        return ResourceType.parse(self.resource_type), *parse_range(self.start_day, self.end_day)

    def _new_watch(self) -> Watch:
        _, start, end = self._range()
        wanted = frozenset(days_between(start, end))
        return DaysWatch(pace_module.PACE.now(), math.inf, wanted=wanted)

    def _read(self, client: Client) -> Answer:
        resource_type, _, _ = self._range()
        return frozenset(
            available_days(client.list_days(resource_type), client.list_jobs(resource_type).jobs)
        )

    def _trigger(self, deadline: float) -> BaseTrigger:
        from airflow_provider_bulkexports.triggers import BulkExportsDaysTrigger

        resource_type, start, end = self._range()
        return BulkExportsDaysTrigger(
            bulkexports_conn_id=self.bulkexports_conn_id,
            resource_type=resource_type.value,
            start_day=start.isoformat(),
            end_day=end.isoformat(),
            started_at=pace_module.PACE.now(),
            deadline=deadline,
        )
