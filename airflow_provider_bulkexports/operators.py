"""Operators: create a BulkExport job exactly once and wait for it; delete one."""

from __future__ import annotations

import json
import random
import re
import time
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    InvalidRequest,
    NotExportableYet,
    NotFound,
    QuotaExceeded,
)
from airflow_provider_bulkexports.api.job import Job, JobState, parse_job_sid
from airflow_provider_bulkexports.api.polling import SHORTEST_WAIT, next_wait
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.compat import (
    AirflowException,
    BaseOperator,
    conf,
    date_time_trigger,
)
from airflow_provider_bulkexports.days import export_day
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors
from airflow_provider_bulkexports.links import BulkExportsJobLink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

__all__ = ["BulkExportsCreateJobOperator", "BulkExportsDeleteJobOperator"]

REATTACH = ("run", "range", "never")
DEFAULT_TIMEOUT = timedelta(hours=24)


class BulkExportsCreateJobOperator(BaseOperator):
    """
    Create a custom export job, exactly once, and wait until its days are final.

    A retry of the task, or a second copy of it, adopts the job that the first made: its name
    ends in a key that stands for this task instance, and no job is created before Twilio's list
    of jobs has shown that none bears it. A cleared task makes a new job.

    The return value is the job's SID. The XCom ``job`` holds its range and its days by status.

    :param resource_type: ``Messages``, ``Calls``, ``Conferences`` or ``Participants``. (templated)
    :param start_day: first UTC day, ``YYYY-MM-DD`` or a date. (templated)
    :param end_day: last UTC day, inclusive. Leave both days out for the newest day that Twilio
        could export when the run was due, or the partition's day. (templated)
    :param friendly_name: readable start of the job's name: letters, digits and underscores, at
        most 40. Default: the task's id. (templated)
    :param webhook_url: https URL that Twilio calls on completion. (templated)
    :param webhook_method: ``GET`` or ``POST``, required with ``webhook_url``. (templated)
    :param completion_email: address that Twilio mails on completion, its ``Email``; an operator's
        ``email`` is Airflow's own. (templated)
    :param bulkexports_conn_id: the connection's id. (templated)
    :param reattach: which job to adopt instead of creating one. ``run``: this task instance's.
        ``range``: also any usable job of the type that covers the range, whoever made it, so that
        no day is charged twice. ``never``: none, each try makes a new one. (templated)
    :param wait_for_completion: False returns the SID as soon as the job exists.
    :param wait_until_exportable: wait for days that Twilio does not export yet, instead of failing.
    :param wait_for_quota: on a used-up quota wait for the next UTC midnight, instead of failing.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param timeout: longest wait for the job, in seconds or as a timedelta, also bounded by the
        task's ``execution_timeout``. Default: 24 hours.
    :param cancel_on_kill: delete the task's own job when a person ends the task, or at the
        timeout. By default it stays: a retry adopts it, and its days are charged anyway.
    :raises AirflowFailException: for what a retry cannot mend, such as a wrong range or token.
    :raises AirflowException: when the job failed or took too long, or Twilio did not answer.
    """

    template_fields: Sequence[str] = (
        "resource_type",
        "start_day",
        "end_day",
        "friendly_name",
        "webhook_url",
        "webhook_method",
        "completion_email",
        "bulkexports_conn_id",
        "reattach",
    )
    operator_extra_links = (BulkExportsJobLink(),)
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        resource_type: str,
        start_day: str | date | None = None,
        end_day: str | date | None = None,
        friendly_name: str | None = None,
        webhook_url: str | None = None,
        webhook_method: str | None = None,
        completion_email: str | None = None,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        reattach: str = "run",
        wait_for_completion: bool = True,
        wait_until_exportable: bool = False,
        wait_for_quota: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        timeout: timedelta | float = DEFAULT_TIMEOUT,
        cancel_on_kill: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resource_type = resource_type
        self.start_day = start_day
        self.end_day = end_day
        self.friendly_name = friendly_name
        self.webhook_url = webhook_url
        self.webhook_method = webhook_method
        self.completion_email = completion_email
        self.bulkexports_conn_id = bulkexports_conn_id
        self.reattach = reattach
        self.wait_for_completion = wait_for_completion
        self.wait_until_exportable = wait_until_exportable
        self.wait_for_quota = wait_for_quota
        self.deferrable = deferrable
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self._killed = False
        self._client: Client | None = None
        self._job_sid: str | None = None
        self._lineage_sid: str | None = None

    def execute(self, context: Context) -> str:
        """Create or adopt the job, wait for it if asked to, and return its SID."""
        return self._run(context)

    def resume(self, context: Context, event: Any = None) -> str:  # noqa: ARG002
        """Go on after waiting for a day or the quota."""
        return self._run(context)

    def execute_complete(self, context: Context, event: Any = None) -> str:
        """Read the job again after waiting: what woke the task is only a hint."""
        from airflow_provider_bulkexports.api.submit import jobs_of

        try:
            sid, deadline = parse_job_sid(event["job_sid"]), float(event["deadline"])
        except (InvalidRequest, TypeError, KeyError, ValueError):
            # The job's name leads back to it.
            return self._run(context)
        # Another's job, which only this mode adopts, is never deleted.
        self._job_sid = sid if self.reattach != "range" else None
        with airflow_errors(self.bulkexports_conn_id), self._connect() as client:
            request = self._request(context)
            try:
                job = client.fetch_job(sid)
            except NotFound:
                if not jobs_of(request, client.list_jobs(request.resource_type)):
                    raise
                return self._run(context)
            except Fatal:
                raise
            except BulkExportsError as error:
                if time.time() >= deadline:
                    raise
                self.log.warning("Could not read job %s, waiting on: %s", sid, error)
                self.defer(
                    trigger=self._trigger(request, sid, deadline), method_name="execute_complete"
                )
            self._note(request, job)
            return self._wait(context, client, request, job, deadline)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage which exports the job made, without asking Twilio."""
        from airflow_provider_bulkexports.lineage import export_lineage

        return export_lineage(self.resource_type, self._lineage_sid)

    def on_kill(self) -> None:
        """Stop waiting; delete the job if ``cancel_on_kill`` says so."""
        # Airflow 3 lets the task run on for 5 s after this, so it is marked first.
        self._killed = True
        if self.cancel_on_kill and self._client is not None and self._job_sid is not None:
            self._cancel(self._client, self._job_sid)

    def _run(self, context: Context) -> str:
        with airflow_errors(self.bulkexports_conn_id), self._connect() as client:
            request = self._request(context)
            deadline = time.time() + self._timeout_seconds()
            # What could still fail must fail before there is a job.
            json.dumps(self._trigger(request, "JS" + "0" * 32, deadline).serialize())
            job = self._submit(context, client, request)
            deadline = time.time() + self._timeout_seconds()
            self._note(request, job)
            # Before any XCom, which Airflow may refuse of a task that was ended.
            self._stop_if_killed(client)
            self._announce(context, client, job)
            if not self.wait_for_completion:
                self._push(context, "job", job.as_xcom())
                return job.sid
            return self._wait(context, client, request, job, deadline)

    def _connect(self) -> Client:
        self._client = BulkExportsHook(self.bulkexports_conn_id).get_conn()
        return self._client

    def _request(self, context: Context) -> ExportRequest:
        from airflow_provider_bulkexports.api.submit import MAX_PREFIX, job_key, job_name

        if (self.start_day is None) != (self.end_day is None):
            raise InvalidRequest("Give both start_day and end_day, or neither.")
        if self.reattach not in REATTACH:
            allowed = ", ".join(REATTACH)
            raise InvalidRequest(f"reattach is {self.reattach!r}; allowed are {allowed}.")
        if self.friendly_name == "":
            raise InvalidRequest("friendly_name is empty; give the job a name, or leave it out.")
        ti = context["ti"]
        start, end = self.start_day, self.end_day
        if start is None:
            start = end = export_day(context["dag_run"])
        # Airflow raises max_tries when a finished task is cleared, so that this number stays the
        # same over retries and is new after a clear.
        cycle = (ti.max_tries or 0) - (self.retries or 0)
        attempt = ti.try_number if self.reattach == "never" else 0
        key = job_key(
            self.resource_type,
            start,
            end,
            ti.dag_id,
            ti.task_id,
            ti.run_id,
            ti.map_index,
            cycle,
            attempt,
        )
        prefix = self.friendly_name or re.sub(r"[^A-Za-z0-9_]", "_", ti.task_id)[:MAX_PREFIX]
        return ExportRequest.parse(
            resource_type=self.resource_type,
            start_day=start,
            end_day=end,
            friendly_name=job_name(prefix, key),
            webhook_url=self.webhook_url,
            webhook_method=self.webhook_method,
            email=self.completion_email,
        )

    def _submit(self, context: Context, client: Client, request: ExportRequest) -> Job:
        from airflow_provider_bulkexports.api.submit import submit_once

        while True:
            try:
                return submit_once(
                    client,
                    request,
                    any_covering=self.reattach == "range",
                    # The try before this one may have been killed with its POST on the way.
                    cautious=context["ti"].try_number > 1,
                    sleep=lambda seconds: self._pause(client, seconds),
                    check=lambda: self._stop_if_killed(client),
                )
            except NotExportableYet as error:
                if not self.wait_until_exportable:
                    raise
                self.log.info("%s", error)
                self.log.info("Waiting until %s.", error.available_at)
                self._wait_until(client, error.available_at)
            except QuotaExceeded as error:
                if not self.wait_for_quota:
                    raise
                self.log.warning("%s Waiting until then.", error)
                self._wait_until(client, error.resets_at)
            except BaseException:
                # On Airflow 2 a kill breaks off the POST itself, whose job would be left behind.
                if self._killed and self.cancel_on_kill:
                    self._cancel_unseen(client, request)
                raise

    def _wait(
        self, context: Context, client: Client, request: ExportRequest, job: Job, deadline: float
    ) -> str:
        started = time.time()
        while (state := job.state(request.start_day, request.end_day)) is JobState.ACTIVE:
            now = time.time()
            if now >= deadline:
                fate = "It goes on; a retry adopts it"
                if self.cancel_on_kill and self._job_sid is not None:
                    self._cancel(client, self._job_sid)
                    fate = "It was deleted"
                raise AirflowException(
                    f"Job {job.sid} was not done within its timeout. {fate}. "
                    f"Days by status:\n{job.report()}"
                )
            if self.deferrable:
                self.log.info("Waiting in the triggerer for job %s.", job.sid)
                self.defer(
                    trigger=self._trigger(request, job.sid, deadline),
                    method_name="execute_complete",
                )
            estimate = job.estimated_completion
            remaining = estimate.timestamp() - now if estimate else None
            self._pause(client, min(next_wait(now - started, remaining), deadline - now))
            try:
                job = client.fetch_job(job.sid)
            except Fatal:
                raise
            except BulkExportsError as error:
                self.log.warning("Could not read job %s, trying on: %s", job.sid, error)
        self._push(context, "job", job.as_xcom())
        if state is JobState.FAILED:
            raise AirflowException(
                f"Job {job.sid} failed: not every day was exported. A retry creates a new job for "
                f"the whole range. Days by status:\n{job.report()}"
            )
        self.log.info("Job %s is complete:\n%s", job.sid, job.report())
        return job.sid

    def _trigger(
        self, request: ExportRequest, job_sid: str, deadline: float
    ) -> BulkExportsJobTrigger:
        from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

        return BulkExportsJobTrigger(
            bulkexports_conn_id=self.bulkexports_conn_id,
            resource_type=request.resource_type.value,
            job_sid=job_sid,
            start_day=request.start_day.isoformat(),
            end_day=request.end_day.isoformat(),
            started_at=time.time(),
            deadline=deadline,
            cancel_on_kill=self.cancel_on_kill and self._job_sid is not None,
        )

    def _wait_until(self, client: Client, moment: datetime) -> None:
        # Spread: tasks that wait for the same midnight should not all come at once.
        delay = max(moment.timestamp() - time.time(), SHORTEST_WAIT) + random.uniform(1, 60)
        if self.deferrable:
            from pendulum import from_timestamp

            self.defer(
                trigger=date_time_trigger(from_timestamp(time.time() + delay)), method_name="resume"
            )
        self._pause(client, delay)

    def _timeout_seconds(self) -> float:
        timeout = self.timeout
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
        if self.execution_timeout is not None:
            # Airflow does not apply it while a task is deferred.
            seconds = min(seconds, self.execution_timeout.total_seconds())
        return seconds

    def _pause(self, client: Client, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._stop_if_killed(client)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.5))

    def _stop_if_killed(self, client: Client) -> None:
        if not self._killed:
            return
        if self.cancel_on_kill and self._job_sid is not None:
            self._cancel(client, self._job_sid)
        raise AirflowException("The task was ended from outside.")

    def _note(self, request: ExportRequest, job: Job) -> None:
        """Remember the job that a kill may delete: this task's own."""
        from airflow_provider_bulkexports.api.submit import jobs_of

        self._job_sid = job.sid if jobs_of(request, [job]) else None
        self._lineage_sid = job.sid

    def _cancel(self, client: Client, sid: str) -> None:
        self._job_sid = None
        try:
            with client.hurried() as quick:
                quick.delete_job(sid)
            self.log.info("Deleted job %s.", sid)
        except BulkExportsError as error:
            self.log.warning("Could not delete job %s: %s", sid, error)

    def _cancel_unseen(self, client: Client, request: ExportRequest) -> None:
        from airflow_provider_bulkexports.api.submit import jobs_of

        time.sleep(1)  # the request may still be on its way
        try:
            with client.hurried() as quick:
                jobs = jobs_of(request, quick.list_jobs(request.resource_type))
        except BulkExportsError as error:
            self.log.warning("Could not look for a job to delete: %s", error)
            return
        for job in jobs:
            self._cancel(client, job.sid)

    def _announce(self, context: Context, client: Client, job: Job) -> None:
        link = f"{client.base_url}/v1/Exports/Jobs/{job.sid}"
        context["ti"].xcom_push(key=BulkExportsJobLink.XCOM_KEY, value=link)

    def _push(self, context: Context, key: str, value: Any) -> None:
        if self.do_xcom_push:
            context["ti"].xcom_push(key=key, value=value)


class BulkExportsDeleteJobOperator(BaseOperator):
    """
    Delete a job that has not finished; one that Twilio no longer knows is left in peace.

    :param job_sid: the job's SID. (templated)
    :param bulkexports_conn_id: the connection's id. (templated)
    :raises AirflowFailException: for a malformed SID or refused credentials.
    """

    template_fields: Sequence[str] = ("job_sid", "bulkexports_conn_id")
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        job_sid: str,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_sid = job_sid
        self.bulkexports_conn_id = bulkexports_conn_id

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Delete the job."""
        with airflow_errors(self.bulkexports_conn_id):
            sid = parse_job_sid(self.job_sid)
            with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
                if client.delete_job(sid):
                    self.log.info("Deleted job %s.", sid)
                else:
                    self.log.warning(
                        "Twilio knows no job %s: finished, deleted or never made.", sid
                    )
