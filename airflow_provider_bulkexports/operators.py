"""Operators: create a BulkExport job once and wait for it; delete one; find missing days."""

from __future__ import annotations

import json
import math
import random
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.calendar import (
    MAX_DAYS,
    days_between,
    parse_day,
    parse_range,
    show_days,
)
from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    InvalidRequest,
    NotExportableYet,
    QuotaExceeded,
    Unsettled,
)
from airflow_provider_bulkexports.api.job import JobState, parse_job_sid
from airflow_provider_bulkexports.api.request import (
    ExportRequest,
    Reattach,
    ResourceType,
    check_name,
    check_webhook_method,
)
from airflow_provider_bulkexports.api.watch import JobReader, JobWatch, Over, follow
from airflow_provider_bulkexports.arguments import check_literals, check_seconds
from airflow_provider_bulkexports.compat import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    conf,
    date_time_trigger,
)
from airflow_provider_bulkexports.days import export_day
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors
from airflow_provider_bulkexports.kill_switch import KillSwitch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import Job
    from airflow_provider_bulkexports.api.submit import Submission
    from airflow_provider_bulkexports.storage.gaps import Gap, Gaps
    from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

__all__ = [
    "BulkExportsCreateJobOperator",
    "BulkExportsDeleteJobOperator",
    "BulkExportsMissingDaysOperator",
]

DEFAULT_TIMEOUT = timedelta(hours=24)
DEFAULT_MAX_DAYS = 31
"""Days a run may have exported of a type: a month, and less than a tenth of the daily quota."""


@dataclass(frozen=True, slots=True)
class _Run:
    """
    One execution of the task: what Airflow knows of it, and Twilio as it sees it.

    :param deadline: when the job must be done, in seconds since the epoch.
    """

    context: Context
    client: Client
    submission: Submission
    deadline: float

    def limit_client(self) -> None:
        """Let no answer that trickles keep the task past its deadline."""
        pace = pace_module.PACE
        self.client.ends_at = max(pace.now(), self.deadline) + pace.late


@dataclass(frozen=True, slots=True)
class _Awaited:
    """
    The job that the task waits for.

    :param owned: whether it is the task's own, which it may delete.
    :param job: the job as last read, None if it could not be read.
    """

    job_sid: str
    owned: bool
    job: Job | None


class BulkExportsCreateJobOperator(BaseOperator):
    """
    Create a custom export job, exactly once, and wait until its days are final.

    A retry of the task, or a second copy of it, adopts the job that the first made: its name
    ends in a key that stands for this task instance, and no job is created before Twilio's list
    of jobs has shown that none has it. A task that is cleared while its job runs adopts it too;
    once the job has finished, a cleared task creates a new one.

    The return value is the job's SID, which is also the XCom ``job_sid`` as soon as there is a job.
    The XCom ``job`` holds its range and its days by status.

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
        ``range``: also any usable job of the type that covers the range, whoever created it, so
        that no day is charged twice; a job of which only some days failed is not tried again.
        ``never``: none, each try creates a new one. (templated)
    :param not_before: with ``reattach="range"``: first UTC day on which the files of somebody
        else's job may be created, for an export that is to be newer than an earlier one. None
        allows any. (templated)
    :param wait_for_completion: False returns the SID as soon as the job exists.
    :param wait_until_exportable: wait for days that Twilio does not export yet, instead of failing.
    :param wait_for_quota: on a used-up quota wait for the next UTC midnight, instead of failing;
        at the longest until the timeout.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param timeout: longest time from the task's start to the job's end, in seconds or as a
        timedelta, also bounded by the task's ``execution_timeout``. A wait for days that cannot be
        exported yet does not count. Default: 24 hours.
    :param cancel_on_kill: delete the task's own job when a person stops the task, or at the
        timeout. By default it stays: a retry adopts it, and its days are charged anyway.
    :raises AirflowFailException: for what a retry cannot mend: a wrong argument, a missing
        connection, a job that somebody deleted.
    :raises AirflowException: when the job failed or took too long, or Twilio did not answer or
        refused the credentials.
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
        "not_before",
    )
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
        not_before: str | date | None = None,
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
        self.not_before = not_before
        self.wait_for_completion = wait_for_completion
        self.wait_until_exportable = wait_until_exportable
        self.wait_for_quota = wait_for_quota
        self.deferrable = deferrable
        self.timeout = timeout
        self.cancel_on_kill = cancel_on_kill
        self._kill_switch = KillSwitch(deletes=cancel_on_kill)
        self._lineage_sid: str | None = None
        check_seconds("timeout", timeout)
        check_literals(ResourceType.parse, resource_type)
        check_literals(Reattach.parse, reattach)
        check_literals(check_name, friendly_name)
        check_literals(check_webhook_method, webhook_method)
        check_literals(lambda day: parse_day(day, "start_day"), start_day)
        check_literals(lambda day: parse_day(day, "end_day"), end_day)
        check_literals(parse_range, start_day, end_day)
        check_literals(lambda day: parse_day(day, "not_before"), not_before)

    def execute(self, context: Context) -> str:
        """Create or adopt the job, wait for it if asked to, and return its SID."""
        ti = context["ti"]
        # The try before this one may have been killed with its POST on the way.
        shares_job = ti.try_number > 1 and self.reattach != Reattach.NEVER
        not_before = _started_at(ti) + pace_module.PACE.settle if shares_job else 0.0
        return self._submit_and_wait(context, not_before=not_before)

    def resume(
        self,
        context: Context,
        event: Any = None,  # noqa: ARG002
        deadline: float | None = None,
        not_before: float = 0.0,
        posts: int = 0,
    ) -> str:
        """Go on after waiting for a day, for the quota, or for a POST that might still act."""
        return self._submit_and_wait(context, deadline=deadline, not_before=not_before, posts=posts)

    def execute_complete(
        self, context: Context, event: Any = None, deadline: float | None = None
    ) -> str:
        """Read the job again after waiting: what woke the task is only a hint."""
        try:
            awaited = _Awaited(parse_job_sid(event["job_sid"]), event["owned"] is True, None)
            over, trouble = Over(event["over"]), str(event["trouble"])
        except (InvalidRequest, TypeError, KeyError, ValueError):
            # The job's name leads back to it.
            return self._submit_and_wait(context, deadline=deadline)
        with self._started(context, deadline) as run:
            return self._wait(run, self._after_waiting(run, awaited, over, trouble))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """Tell OpenLineage what the job exported, without asking Twilio."""
        from airflow_provider_bulkexports.lineage import export_lineage

        return export_lineage(self.resource_type, self._lineage_sid)

    def on_kill(self) -> None:
        """Stop waiting; delete the job if ``cancel_on_kill`` says so."""
        self._kill_switch.pull()

    def _submit_and_wait(
        self,
        context: Context,
        *,
        deadline: float | None = None,
        not_before: float = 0.0,
        posts: int = 0,
    ) -> str:
        with self._started(context, deadline) as run:
            # What could still fail must fail before there is a job.
            nothing_yet = _Awaited("JS" + "0" * 32, owned=True, job=None)
            json.dumps(self._trigger(run, nothing_yet).serialize())
            return self._wait(run, self._submit(run, not_before, posts))

    @contextmanager
    def _started(self, context: Context, deadline: float | None) -> Iterator[_Run]:
        with airflow_errors(self.bulkexports_conn_id):
            connection = BulkExportsHook(self.bulkexports_conn_id).read_connection()
            submission = self._submission(context, connection.namespace)
            with connection.client() as client:
                self._kill_switch.guard(client, None)
                if deadline is None:
                    deadline = self._deadline(context, submission)
                run = _Run(context, client, submission, deadline)
                run.limit_client()
                yield run

    def _submission(self, context: Context, namespace: str) -> Submission:
        from airflow_provider_bulkexports.api.submit import MAX_PREFIX, Submission

        if (self.start_day is None) != (self.end_day is None):
            raise InvalidRequest("Give both start_day and end_day, or neither.")
        if self.friendly_name == "":
            raise InvalidRequest("friendly_name is empty; give the job a name, or leave it out.")
        ti, start, end = context["ti"], self.start_day, self.end_day
        if start is None:
            start = end = export_day(context["dag_run"])
        request = ExportRequest.parse(
            resource_type=self.resource_type,
            start_day=start,
            end_day=end,
            friendly_name=self.friendly_name
            or re.sub(r"[^A-Za-z0-9_]", "_", ti.task_id)[:MAX_PREFIX],
            webhook_url=self.webhook_url,
            webhook_method=self.webhook_method,
            email=self.completion_email,
        )
        reattach = Reattach.parse(self.reattach)
        return Submission.of(
            request,
            namespace,
            ti.dag_id,
            ti.task_id,
            ti.run_id,
            ti.map_index,
            # Airflow raises max_tries when a finished task is cleared, and only then.
            cycle=(ti.max_tries, ti.try_number if reattach is Reattach.NEVER else None),
            reattach=reattach,
            created_since=None
            if self.not_before is None
            else parse_day(self.not_before, "not_before"),
        )

    def _deadline(self, context: Context, submission: Submission) -> float:
        """Return when the wait ends; before its days can be exported it has not begun."""
        seconds = check_seconds("timeout", self.timeout)
        if self.execution_timeout is not None:
            # Airflow does not apply it while a task is deferred.
            seconds = min(seconds, self.execution_timeout.total_seconds())
        possible = submission.request.exportable_from.timestamp()
        return max(_started_at(context["ti"]), possible) + seconds

    def _submit(self, run: _Run, not_before: float = 0.0, posts: int = 0) -> _Awaited:
        from airflow_provider_bulkexports.api.submit import submit

        while True:
            try:
                submitted = submit(
                    run.client,
                    run.submission,
                    may_have_posted=run.context["ti"].try_number > 1,
                    not_before=not_before,
                    posts=posts,
                    pause=lambda seconds: self._pause(run, seconds),
                    check=self._kill_switch.check,
                )
                return _Awaited(submitted.job.sid, submitted.owned, submitted.job)
            except Unsettled as error:
                not_before, posts = error.not_before, error.posts
                self._pause_until(run, not_before, str(error), not_before=not_before, posts=posts)
            except NotExportableYet as error:
                if not self.wait_until_exportable:
                    raise InvalidRequest(
                        f"{error} Ask for an earlier end_day, or set wait_until_exportable=True."
                    ) from None
                self._pause_until(run, _spread(error.available_at), str(error))
            except QuotaExceeded as error:
                if not self.wait_for_quota:
                    raise
                self._pause_until(run, _spread(error.resets_at), str(error))
            except BaseException:
                # On Airflow 2 a kill breaks off the POST itself, whose job would be left behind.
                self._kill_switch.delete_unseen(run.client, run.submission)
                raise

    def _pause(self, run: _Run, seconds: float) -> None:
        if pace_module.PACE.now() + seconds >= run.deadline:
            raise AirflowException("Whether there is a job is not known when the timeout ends.")
        self._kill_switch.sleep(seconds)

    def _pause_until(
        self, run: _Run, moment: float, reason: str, *, not_before: float = 0.0, posts: int = 0
    ) -> None:
        """Wait to submit, in the triggerer if deferrable; the task starts over from the list."""
        from pendulum import from_timestamp

        pace = pace_module.PACE
        if moment >= run.deadline:
            raise AirflowException(
                "The job could not be created within the timeout, which ends at "
                f"{from_timestamp(run.deadline).to_iso8601_string()}. {reason}"
            )
        # Airflow's trigger may cut the fraction of a second off.
        moment = math.ceil(max(moment, pace.now() + pace.shortest_poll))
        until = from_timestamp(moment).start_of("second").to_iso8601_string()
        self.log.info("%s Waiting until %s.", reason, until)
        if self.deferrable:
            facts = {"deadline": run.deadline, "not_before": not_before, "posts": posts}
            trigger = date_time_trigger(from_timestamp(moment))
            self.defer(trigger=trigger, method_name="resume", kwargs=facts)
        self._kill_switch.sleep(moment - pace.now())

    def _wait(self, run: _Run, awaited: _Awaited) -> str:
        request = run.submission.request
        days = request.start_day, request.end_day
        while True:
            self._note(run, awaited)
            job, now = awaited.job, pace_module.PACE.now()
            if job is not None and (
                not self.wait_for_completion or job.state(*days) is not JobState.ACTIVE
            ):
                return self._finish(run, job, job.state(*days))
            if now >= run.deadline:
                raise AirflowException(
                    f"Job {awaited.job_sid} was not done within the timeout. {self._fate()} "
                    f"Days by status:\n{job.report() if job else '  (not known)'}"
                )
            if self.deferrable:
                self.log.info("Waiting in the triggerer for job %s.", awaited.job_sid)
                self.defer(
                    trigger=self._trigger(run, awaited),
                    method_name="execute_complete",
                    kwargs={"deadline": run.deadline},
                )
            watch = JobWatch(now, run.deadline, start_day=days[0], end_day=days[1])
            over = follow(
                watch,
                JobReader(request.resource_type).reading(run.client, awaited.job_sid),
                sleep=self._kill_switch.sleep,
                say=lambda line: self.log.log(line.level, "%s", line.text),
            )
            awaited = self._after_waiting(run, awaited, over, watch.trouble)

    def _after_waiting(self, run: _Run, awaited: _Awaited, over: Over, trouble: str) -> _Awaited:
        """Return what to go on with: the awaited job, its twin, or a new one in its place."""
        from airflow_provider_bulkexports.api.submit import reread

        sid, pace = awaited.job_sid, pace_module.PACE
        if over is Over.REFUSED:
            raise AirflowException(
                f"Connection {self.bulkexports_conn_id!r}: Twilio refused its credentials for "
                f"{pace.refused / 60:.0f} min ({trouble}). Job {sid} goes on; mend the "
                "connection, a retry or clear adopts it."
            )
        run.limit_client()
        # One listing may leave a twin out, so a job of ours is not given up before several agree.
        looks = pace.looks if over is Over.GONE and awaited.owned else ()
        try:
            job = reread(run.client, run.submission, sid, owned=awaited.owned)
            for seconds in looks:
                if job is not None:
                    break
                self._kill_switch.sleep(seconds)
                job = reread(run.client, run.submission, sid, owned=awaited.owned)
        except Fatal:
            raise
        except BulkExportsError as error:
            if pace.now() >= run.deadline:
                self._note(run, awaited)
                raise AirflowException(
                    f"Job {sid} was not done within the timeout as far as is known. "
                    f"{self._fate()} {error}"
                ) from None
            self.log.warning("Could not read job %s, waiting on: %s", sid, error)
            return replace(awaited, job=None)
        if job is not None:
            return _Awaited(job.sid, awaited.owned, job)
        if not awaited.owned:
            self.log.warning("Job %s, which is not this task's own, is gone.", sid)
            return self._submit(run)
        if over is not Over.GONE:
            return replace(awaited, job=None)
        raise AirflowFailException(
            f"Twilio no longer knows job {sid}: deleted there, expired after 7 days, or another "
            "account's connection. A retry would pay for its days again; clear the task to do so."
        )

    def _fate(self) -> str:
        """Delete the job that the timeout has overtaken, if jobs are deleted, and say so."""
        return "It was deleted." if self._kill_switch.delete() else "It keeps running."

    def _note(self, run: _Run, awaited: _Awaited) -> None:
        """Tell everybody which job it is: a kill, lineage, and whoever reads XComs."""
        self._kill_switch.guard(run.client, awaited.job_sid if awaited.owned else None)
        # Before any XCom, which Airflow may refuse of a task that was stopped.
        self._kill_switch.check()
        self._lineage_sid = awaited.job_sid
        self._push(run, "job_sid", awaited.job_sid)

    def _finish(self, run: _Run, job: Job, state: JobState) -> str:
        self._push(run, "job", job.as_xcom())
        if state is JobState.FAILED:
            message = f"Job {job.sid} failed: not every day was exported."
            report = f"Days by status:\n{job.report()}"
            request = run.submission.request
            counts = job.count_by_status(request.start_day, request.end_day)
            if self.reattach == "range" and any(status.is_complete for status in counts):
                # A new job for the range would have its good days paid for again.
                raise AirflowFailException(
                    f"{message} It is not tried again, so that no day is paid for twice: export "
                    f"the failed days by themselves. {report}"
                )
            raise AirflowException(
                f"{message} A retry creates a new job for the whole range. {report}"
            )
        if state is JobState.COMPLETED:
            self.log.info("Job %s is complete:\n%s", job.sid, job.report())
        return job.sid

    def _trigger(self, run: _Run, awaited: _Awaited) -> BulkExportsJobTrigger:
        from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

        request = run.submission.request
        return BulkExportsJobTrigger(
            bulkexports_conn_id=self.bulkexports_conn_id,
            resource_type=request.resource_type.value,
            job_sid=awaited.job_sid,
            start_day=request.start_day.isoformat(),
            end_day=request.end_day.isoformat(),
            started_at=pace_module.PACE.now(),
            deadline=run.deadline,
            owned=awaited.owned,
            cancel_on_kill=self.cancel_on_kill,
        )

    def _push(self, run: _Run, key: str, value: Any) -> None:
        if self.do_xcom_push:
            run.context["ti"].xcom_push(key=key, value=value)


def _started_at(ti: Any) -> float:
    """Return when this try started, before any deferral; ``dag.test`` of 2.11 does not say."""
    return ti.start_date.timestamp() if ti.start_date else pace_module.PACE.now()


def _spread(moment: datetime) -> float:
    """Return an instant a little later, so that not all come at once at midnight."""
    return moment.timestamp() + random.uniform(*pace_module.PACE.spread)


class BulkExportsDeleteJobOperator(BaseOperator):
    """
    Delete a job that has not finished; one that Twilio no longer knows is left in peace.

    :param job_sid: the job's SID. (templated)
    :param bulkexports_conn_id: the connection's id. (templated)
    :raises AirflowFailException: for a malformed SID or a missing connection.
    :raises AirflowException: when Twilio did not answer or refused the credentials.
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
        check_literals(parse_job_sid, job_sid)

    def execute(self, context: Context) -> None:  # noqa: ARG002
        """Delete the job."""
        with airflow_errors(self.bulkexports_conn_id):
            sid = parse_job_sid(self.job_sid)
            with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
                if client.delete_job(sid):
                    self.log.info("Deleted job %s.", sid)
                else:
                    self.log.warning(
                        "Twilio knows no job %s: finished, deleted or never created.", sid
                    )


class BulkExportsMissingDaysOperator(BaseOperator):
    """
    Say which days the storage lacks: what can be fetched for nothing, and what must be exported.

    The return value is ``{"to_fetch": [...], "to_export": [...]}``, each a list of ranges
    ``{"resource_type", "start_day", "end_day"}``, ready for ``expand_kwargs`` of the transfer and,
    with a ``not_before`` more, of the create operator. Both lists are XComs of their own, too.

    A day is stored if one listing of the storage shows it whole; what a publisher that died left
    of a day is mended first. A day that Twilio has on offer is in ``to_fetch``, so that a transfer
    that failed is repeated and not paid for again. A day that a listed job is exporting is in
    neither list; the log names the job, and a later run stores the day. All other days, and those
    that failed, are in ``to_export``.

    :param destination: the storage, as given to the transfer. (templated)
    :param resource_types: the types, a list or one of them. (templated)
    :param start_day: first UTC day that should be there. (templated)
    :param end_day: last UTC day that should be there, inclusive. Default: the newest day that
        Twilio could export when the run was due, or the partition's day. One before ``start_day``
        means that nothing is missing yet. (templated)
    :param refresh_after_days: export each day once more when it is this many days old, since
        Twilio goes on to change prices and statuses. **This doubles the days that are charged.**
        What was missed is made up for during 30 days. None, the default, never does. (templated)
    :param max_days: days of a type that a run may have exported. More missing days fail the task,
        so that an empty or a wrong destination does not use up the quota; a refresh takes what
        they leave, and goes on in the next run. (templated)
    :param bulkexports_conn_id: the connection to Twilio. (templated)
    :param object_storage_conn_id: the connection to the storage, if it needs one. (templated)
    :raises AirflowFailException: for a wrong argument, more than ``max_days``, or a refresh whose
        transfer does not replace days that are there.
    :raises AirflowException: when the storage or Twilio does not answer. Then nothing is missing
        for all that is known, and nothing is exported.
    """

    template_fields: Sequence[str] = (
        "destination",
        "resource_types",
        "start_day",
        "end_day",
        "refresh_after_days",
        "max_days",
        "bulkexports_conn_id",
        "object_storage_conn_id",
    )
    ui_color = "#f9d7da"

    def __init__(
        self,
        *,
        destination: str,
        resource_types: str | Sequence[str],
        start_day: str | date,
        end_day: str | date | None = None,
        refresh_after_days: int | str | None = None,
        max_days: int | str = DEFAULT_MAX_DAYS,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        object_storage_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"multiple_outputs": True} | kwargs)
        self.destination = destination
        self.resource_types = resource_types
        self.start_day = start_day
        self.end_day = end_day
        self.refresh_after_days = refresh_after_days
        self.max_days = max_days
        self.bulkexports_conn_id = bulkexports_conn_id
        self.object_storage_conn_id = object_storage_conn_id
        for each in _listed(resource_types):
            check_literals(ResourceType.parse, each)
        check_literals(lambda day: parse_day(day, "start_day"), start_day)
        check_literals(lambda day: parse_day(day, "end_day"), end_day)

    def prepare_template(self) -> None:
        """Refuse a refresh that its transfer would not store as soon as the whole DAG is known."""
        super().prepare_template()
        with airflow_errors():
            self._require_replace()

    def execute(self, context: Context) -> dict[str, list[dict[str, str | None]]]:
        """Compare the storage and Twilio's lists with the range."""
        from airflow_provider_bulkexports.destinations import open_destination
        from airflow_provider_bulkexports.storage.gaps import find_gaps
        from airflow_provider_bulkexports.storage.store import DayStore

        with airflow_errors(self.bulkexports_conn_id):
            self._require_replace()
            types = [ResourceType.parse(each) for each in _listed(self.resource_types)]
            if not types:
                raise InvalidRequest(
                    f"resource_types is {self.resource_types!r}; give a list of one type or more."
                )
            first = parse_day(self.start_day, "start_day")
            last = (
                export_day(context["dag_run"])
                if self.end_day is None
                else parse_day(self.end_day, "end_day")
            )
            refresh = (
                None
                if self.refresh_after_days is None
                else _whole_number("refresh_after_days", self.refresh_after_days)
            )
            most = _whole_number("max_days", self.max_days)
            if last < first:
                self.log.info("%s is not due before %s: nothing is missing yet.", first, last)
                return {"to_fetch": [], "to_export": []}
            root = open_destination(self.destination, self.object_storage_conn_id)
            found = []
            with BulkExportsHook(self.bulkexports_conn_id).get_conn() as client:
                for each in dict.fromkeys(types):
                    store = DayStore(root.fs, root.path, each)
                    gaps = find_gaps(
                        client, store, first, last, refresh_after_days=refresh, max_days=most
                    )
                    self.log.info("%s in %s:\n%s", each, store.address(), gaps.coverage.table())
                    found.append(gaps)
            _refuse_too_many(found, most)
        return {
            "to_fetch": [_range(gap) for gaps in found for gap in gaps.to_fetch],
            "to_export": [
                _range(gap) | {"not_before": f"{gap.not_before}" if gap.not_before else None}
                for gaps in found
                for gap in gaps.to_export
            ],
        }

    def _require_replace(self) -> None:
        """Refuse a refresh whose days would be paid for and then not be stored."""
        if not _is_whole(self.refresh_after_days) or not self.has_dag():  # type: ignore[no-untyped-call]
            return
        for task in self.get_flat_relatives(upstream=False):
            given = getattr(task, "partial_kwargs", None) or vars(task)
            if_exists = given.get("if_exists", "replace")
            if (
                task.task_type == "BulkExportsToObjectStorageOperator"
                and if_exists != "replace"
                and "{" not in str(if_exists)
            ):
                raise InvalidRequest(
                    f"{self.task_id} has refresh_after_days={self.refresh_after_days}, but "
                    f"{task.task_id} has if_exists={if_exists!r}: days would be paid for again and "
                    'not be stored. Give if_exists="replace" there, or leave refresh_after_days '
                    "out."
                )


def _listed(types: str | Sequence[str]) -> Iterable[str]:
    """Return one or several types as several; what is not resolved yet as none."""
    if isinstance(types, str):
        return [types]
    return types if isinstance(types, list | tuple | set) else []


def _is_whole(value: object) -> bool:
    text = value if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return re.fullmatch(r"[1-9][0-9]{0,5}", str(text)) is not None


def _whole_number(name: str, value: Any) -> int:
    if not _is_whole(value):
        raise InvalidRequest(f"{name} is {value!r}; give a whole number, 1 or more.")
    return int(value)


def _refuse_too_many(found: list[Gaps], max_days: int) -> None:
    costs = {
        gaps.coverage.resource_type: sum(gap.day_count for gap in gaps.to_export) for gaps in found
    }
    if all(cost <= max_days for cost in costs.values()):
        return
    lines = [
        f"  {gaps.coverage.resource_type}: {costs[gaps.coverage.resource_type]} days, "
        + show_days(
            day for gap in gaps.to_export for day in days_between(gap.start_day, gap.end_day)
        )
        for gaps in found
        if gaps.to_export
    ]
    total = sum(costs.values())
    raise InvalidRequest(
        f"{total} days would be exported and charged, of the {MAX_DAYS} that an account has a day; "
        f"max_days allows {max_days} of a type. If that is what you want, set "
        f"max_days={max(costs.values())}; else check destination and start_day.\n"
        + "\n".join(lines)
    )


def _range(gap: Gap) -> dict[str, str | None]:
    return {
        "resource_type": gap.resource_type.value,
        "start_day": f"{gap.start_day}",
        "end_day": f"{gap.end_day}",
    }
