"""The service behind the sandbox: jobs, day files and links, without HTTP."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.job import JobState, Status
from airflow_provider_bulkexports.sandbox.accounts import Accounts, Configuration
from airflow_provider_bulkexports.sandbox.deliveries import Deliveries
from airflow_provider_bulkexports.sandbox.forms import JobForm, check_webhook
from airflow_provider_bulkexports.sandbox.jobs import CustomJob, plan_days
from airflow_provider_bulkexports.sandbox.ledger import Ledger
from airflow_provider_bulkexports.sandbox.records import (
    Archive,
    FileKey,
    is_empty_day,
    other_contents,
)
from airflow_provider_bulkexports.sandbox.refusal import Refusal
from airflow_provider_bulkexports.sandbox.view import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.sandbox.clock import Clock
    from airflow_provider_bulkexports.sandbox.faults.stages import Scripting
    from airflow_provider_bulkexports.sandbox.settings import Settings

__all__ = ["Link", "ProducedFile", "Service"]

_DAY = 86_400
_RETENTION = 7 * _DAY
_STOPPING = 5.0


@dataclass(frozen=True, slots=True)
class ProducedFile:
    """A day file as one job created it."""

    job: CustomJob
    day: date
    created_at: float

    @property
    def listed(self) -> bool:
        """Whether the Days list names it."""
        return self.job.plans[self.day].empty != "absent"

    @property
    def fetchable(self) -> bool:
        """Whether there is a file to fetch."""
        return self.job.plans[self.day].empty not in ("absent", "not_found")

    @property
    def key(self) -> FileKey:
        """What decides the file's bytes."""
        plan = self.job.plans[self.day]
        key = FileKey(
            self.job.account_sid, self.job.resource_type, self.day, plan.empty or "records"
        )
        return other_contents(key, plan.contents) if plan.contents else key


@dataclass(slots=True)
class Link:
    """A signed link to a file, good for one use."""

    file: ProducedFile
    expires_at: float
    used: bool = False


class Service:
    """
    All state of a sandbox, computed from the clock when it is asked for.

    Whoever looks calls :meth:`catch_up` first.

    :param settings: how it behaves.
    :param clock: its time.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.deliveries = Deliveries()
        self.ledger = Ledger()
        self.archive = Archive(settings.seed, settings.records, settings.repeated_rows)
        self.accounts = Accounts(settings)
        self._jobs: dict[str, CustomJob] = {}
        self._links: dict[str, Link] = {}

    def catch_up(self) -> None:
        """Let in what has been on its way until now."""
        self.deliveries.arrive(self.clock.now())

    def create_job(
        self,
        account_sid: str,
        resource_type: ResourceType,
        form: Mapping[str, str],
        now: float,
        scripts: Iterable[Scripting] = (),
    ) -> CustomJob:
        """
        Create a job and charge its days.

        :param now: when, in seconds since 1970 by the sandbox's clock.
        :param scripts: faults that stick to it; looked at when it is sure to be created.
        :raises Refusal: with status 400, or as the settings say over the quota.
        """
        today = datetime.fromtimestamp(now, UTC).date()
        fields = JobForm.parse(form, today)
        days = fields.days()
        self.accounts.charge(account_sid, len(days), today)
        self.ledger.charged_days += len(days)
        seconds = self.settings.seconds_for(len(days))
        number = len(self._jobs)
        plans = plan_days(days, now, seconds, random.Random(f"{self.settings.seed}/job/{number}"))
        for day, plan in plans.items():
            if is_empty_day(self.settings.seed, resource_type, day, self.settings.empty_every):
                plan.walk = (Status.RUNNING, Status.COMPLETED_EMPTY_RECORDS)
                plan.empty = self.settings.empty_form
            if plan.ends_at < _midnight_after(day) + self.settings.settle_days * _DAY:
                plan.contents = "early"
        job = CustomJob(
            sid=f"JS{secrets.token_hex(16)}",
            number=number,
            account_sid=account_sid,
            resource_type=resource_type,
            start_day=fields.start_day,
            end_day=fields.end_day,
            friendly_name=fields.friendly_name,
            created_at=now,
            plans=plans,
            grace=min(_STOPPING / self.settings.speed, seconds / 5),
            webhook_url=fields.webhook_url,
            webhook_method=fields.webhook_method,
            email=fields.email,
        )
        for fault in scripts:
            fault.script(job, self.settings.empty_form)
        self._jobs[job.sid] = job
        self.accounts[account_sid].jobs[resource_type].append(job)
        return job

    def jobs(self, account_sid: str, resource_type: ResourceType, view: View) -> list[CustomJob]:
        """Return the jobs of a type that are still listed, oldest first."""
        jobs = self.accounts[account_sid].jobs[resource_type]
        return [job for job in jobs if self._shown(job, view)]

    def job(self, account_sid: str, sid: str, view: View) -> CustomJob:
        """
        Return a job.

        :raises Refusal: with status 404 for a foreign, unknown, hidden or expired one.
        """
        job = self._jobs.get(sid)
        if job is None or job.account_sid != account_sid or not self._shown(job, view):
            raise Refusal.not_found(f"/v1/Exports/Jobs/{sid}")
        return job

    def every_job(self) -> Iterable[CustomJob]:
        """Return every job ever created."""
        return self._jobs.values()

    def delete_job(self, account_sid: str, sid: str) -> None:
        """
        Delete an unfinished job; no day is given back.

        :raises Refusal: with status 404, also for a finished one unless the settings say other.
        """
        now = self.clock.now()
        job = self.job(account_sid, sid, View.of(now))
        if job.deleted_at is None and job.state(now) is JobState.ACTIVE:
            job.deleted_at = now
            if self.settings.deleted_jobs == "gone":
                job.removed_at = now
        elif self.settings.delete_finished == "removes":
            job.removed_at = now
        elif self.settings.delete_finished == "404":
            raise Refusal.not_found(f"/v1/Exports/Jobs/{sid}")

    def describe(self, job: CustomJob, moment: float, *, created: bool = False) -> dict[str, Any]:
        """
        Return a job as JSON.

        :param moment: the time whose state is shown.
        :param created: leaves the details null, as in the answer to a creation.
        """
        details = None if created else job.details(moment)
        return job.as_json(self._position(job, moment), details)

    def files(
        self, account_sid: str, resource_type: ResourceType, view: View
    ) -> list[ProducedFile]:
        """Return the newest file of each day, in the order in which they were created."""
        now, lag = view.moment, self.settings.file_lag
        newest: dict[date, ProducedFile] = {}
        for job in self.accounts[account_sid].jobs[resource_type]:
            if job.created_at > now or job.ends_at + _RETENTION <= now:
                continue
            for day in job.plans:
                created_at = job.file_created_at(day)
                if created_at is None or not now < created_at + _RETENTION:
                    continue
                name = f"{self.settings.seed}/omit/{resource_type}/{day}"
                if not view.shows(created_at + lag, name):
                    continue
                if day not in newest or newest[day].created_at <= created_at:
                    newest[day] = ProducedFile(job, day, created_at)
        return sorted(
            newest.values(), key=lambda file: (file.created_at, file.job.number, file.day)
        )

    def sign(
        self, account_sid: str, resource_type: ResourceType, day: date, view: View
    ) -> tuple[str, Link]:
        """
        Return a new signature and link for a day file.

        :raises Refusal: with status 404 for a day without a file.
        """
        for file in self.files(account_sid, resource_type, view):
            if file.day == day and file.fetchable:
                signature = secrets.token_hex(32)
                link = Link(file, self.clock.now() + self.settings.link_seconds)
                self._links[signature] = link
                return signature, link
        raise Refusal.not_found(f"/v1/Exports/{resource_type}/Days/{day}")

    def open_link(self, signature: str) -> ProducedFile:
        """
        Use a link up and return its file.

        :raises Refusal: with status 403 for an unknown, used or expired one.
        """
        link = self._links.get(signature)
        if link is None:
            raise Refusal(403, 0, "SignatureDoesNotMatch: The signature does not match")
        if link.used or self.clock.now() >= link.expires_at:
            raise Refusal(403, 0, "AccessDenied: Request has expired")
        link.used = True
        return link.file

    def configuration(self, account_sid: str, resource_type: ResourceType) -> Configuration:
        """Return the daily export of a type."""
        return self.accounts[account_sid].configurations[resource_type]

    def configure(
        self, account_sid: str, resource_type: ResourceType, form: Mapping[str, str]
    ) -> Configuration:
        """
        Change the daily export of a type; what is not given stays.

        :raises Refusal: with status 403 without an Editions plan, 400 for wrong fields.
        """
        if not self.settings.editions:
            raise Refusal(403, 20006, "Daily exports are available with Twilio Editions only")
        known = self.configuration(account_sid, resource_type)
        enabled = form.get("Enabled")
        if enabled is not None and enabled.lower() not in ("true", "false"):
            raise Refusal.invalid("Enabled must be true or false")
        url = form["WebhookUrl"] or None if "WebhookUrl" in form else known.webhook_url
        method = form["WebhookMethod"] or None if "WebhookMethod" in form else known.webhook_method
        check_webhook(url, method)
        known.webhook_url, known.webhook_method = url, method
        if enabled is not None:
            known.enabled = enabled.lower() == "true"
        return known

    def ledger_json(self) -> dict[str, Any]:
        """Return the ledger as JSON."""
        self.catch_up()
        now = self.clock.now()
        return self.ledger.as_json([_ledger_entry(job, now) for job in self._jobs.values()])

    def _position(self, job: CustomJob, now: float) -> int:
        # "0" finished, "1" running, "2" new: as seen; it can only go down.
        if job.state(now) is not JobState.ACTIVE:
            return 0
        if any(word != Status.SUBMITTED for word in (job.word(day, now) for day in job.plans)):
            return 1
        older = (other for other in self._jobs.values() if other.number < job.number)
        return 2 + sum(_waiting(other, now) for other in older)

    def _shown(self, job: CustomJob, view: View) -> bool:
        finished, removed = job.finished_at, job.removed_at
        return (
            (finished is None or view.moment < finished + _RETENTION)
            and (removed is None or view.moment < removed)
            and view.shows(job.created_at, f"{self.settings.seed}/omit/{job.number}")
        )


def _midnight_after(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY


def _waiting(job: CustomJob, now: float) -> bool:
    return (job.deleted_at is None or now < job.deleted_at) and all(
        plan.runs_at > now for plan in job.plans.values()
    )


def _ledger_entry(job: CustomJob, now: float) -> dict[str, Any]:
    finished = job.finished_at if job.finished_at is not None and job.finished_at <= now else None
    return {
        "job_sid": job.sid,
        "account_sid": job.account_sid,
        "resource_type": str(job.resource_type),
        "start_day": job.start_day.isoformat(),
        "end_day": job.end_day.isoformat(),
        "days": len(job.plans),
        "friendly_name": job.friendly_name,
        "created_at": _iso(job.created_at),
        "deleted_at": _iso(job.deleted_at),
        "finished_at": _iso(finished),
        "deleted": job.deleted_at is not None,
        "state": job.state(now).value,
    }


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
