"""Submit once, whatever breaks, and repair what was done twice all the same.

Twilio offers no idempotency key, but a job has a name of the caller's choice and jobs can be
listed. So every job's name ends in a key that only this submission has, and no POST is sent
before a whole listing has shown that no job has it. The listing is the truth: an answer that
never came, a worker that died after the POST, two workers at once all end in the same look.

A POST whose answer was lost may act minutes later, and a middlebox may deliver one twice. So
nothing is sent again for :attr:`Pace.settle` seconds, and each later look deletes what is one
too many, by an order that every worker agrees on.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_bulkexports.api.calendar import days_between
from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    InvalidRequest,
    KeyConflict,
    NotFound,
    OutcomeUnknown,
    Retryable,
    Unauthorized,
    Unsettled,
)
from airflow_provider_bulkexports.api.job import JobState, Status
from airflow_provider_bulkexports.api.redact import shown
from airflow_provider_bulkexports.api.request import MAX_NAME, Reattach
from airflow_provider_bulkexports.api.retry import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import Job, JobListing
    from airflow_provider_bulkexports.api.request import ExportRequest

__all__ = ["MAX_PREFIX", "Found", "Submission", "Submitted", "reread", "submit"]

log = logging.getLogger(__name__)

_KEY = re.compile(r"_([0-9a-f]{16})([0-9a-f]{4})(?:g([0-9]{1,9}))?\Z")

MAX_PREFIX = MAX_NAME - len("_") - 20 - len("g99")
"""Longest readable part of a job's name, in characters."""


@dataclass(frozen=True, slots=True)
class Found:
    """
    What a listing shows of a submission.

    :param job: the job to wait for, None if there is none yet.
    :param surplus: unfinished jobs that another of the same key makes superfluous.
    :param spent: jobs beside ``job`` that are finished or stay: their days were charged twice.
    :param failed: jobs of the newest generation with a failed day, which nobody deleted.
    :param next_request: what to create if ``job`` is None.
    """

    job: Job | None
    surplus: tuple[Job, ...]
    spent: tuple[Job, ...]
    failed: tuple[Job, ...]
    next_request: ExportRequest


@dataclass(frozen=True, slots=True)
class Submitted:
    """
    A job that stands for a submission.

    :param owned: whether it is the submission's own, which may be deleted; another deployment's
        or another task's is not.
    """

    job: Job
    owned: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """
    An export that is to exist once: it knows which listed jobs are its own, and which one wins.

    :param request: what to export; its name is the readable start of the jobs' names.
    :param stem: 16 hexadecimal digits that stand for what is asked, and by whom.
    :param cycle: 4 more, which differ when a finished task is cleared.
    :param reattach: which other jobs to adopt.
    :param created_since: first UTC day whose files are new enough, None for any: what somebody
        else exported earlier does not stand for this submission.
    """

    request: ExportRequest
    stem: str
    cycle: str
    reattach: Reattach
    created_since: date | None = None

    @classmethod
    def of(
        cls,
        request: ExportRequest,
        *identity: object,
        cycle: object = "",
        reattach: Reattach = Reattach.RUN,
        created_since: date | None = None,
    ) -> Submission:
        """
        Return the submission of a request by somebody.

        :param request: what to export.
        :param identity: who asks; type and days are added.
        :param cycle: what tells one life of the asker from the next.
        :param reattach: which other jobs to adopt.
        :param created_since: first UTC day on which an adopted job's files may be created.
        :raises InvalidRequest: for a name that leaves no room for the key.
        """
        name = request.friendly_name
        if len(name) > MAX_PREFIX:
            raise InvalidRequest(
                f"friendly_name {shown(name)} has {len(name)} characters; at most {MAX_PREFIX} "
                "are allowed, since a key is appended."
            )
        asked = (request.resource_type, request.start_day, request.end_day)
        stem = _digits(16, *asked, *identity)
        return cls(request, stem, _digits(4, cycle), reattach, created_since)

    @property
    def key(self) -> str:
        """What the names of this submission's jobs have, and no others."""
        return self.stem + self.cycle

    def find(self, listing: JobListing) -> Found:
        """
        Say what a listing shows of this submission.

        :raises KeyConflict: if a job has the key but exports something else.
        :raises BadData: if an item that may be this submission's cannot be read.
        """
        for item in listing.odd:
            if item.friendly_name is None or self.stem in item.friendly_name:
                raise BadData(
                    f"An item of the job list may be this export's, but cannot be read, so that "
                    f"nothing is created: {item.reason}"
                )
        for nameless in listing.jobs:
            if nameless.friendly_name is None and self._may_be(nameless):
                raise BadData(
                    f"Job {nameless.sid} has no name and may be this export's, so that nothing is "
                    "created. Look at it in Twilio's list."
                )
        cycles = self._own(listing.jobs)
        own = cycles.pop(self.cycle, [])
        job, surplus, spent = _ranked(own)
        if job is None and self.reattach is not Reattach.NEVER:
            for _, older in sorted(cycles.items()):
                live = _in_order(older)
                if live and live[0].state() is JobState.ACTIVE:
                    job, surplus = live[0], _unfinished(live[1:])
                    break
        newest = max((_parts(job)[2] for job in own), default=0)
        failed = tuple(
            job
            for job in own
            if _parts(job)[2] == newest and job.is_doomed() and not job.is_deleted()
        )
        generation = newest + 1
        name = f"{self.request.friendly_name}_{self.key}"
        name += f"g{generation}" if generation > 1 else ""
        request = replace(self.request, friendly_name=name)
        return Found(job, tuple(surplus), tuple(spent), failed, request)

    def covering(self, listing: JobListing) -> list[Job]:
        """
        Return the jobs, whoever created them, that export all days asked for, the best first.

        Only under :attr:`Reattach.RANGE`. Only the days that are asked for are judged.
        """
        if self.reattach is not Reattach.RANGE:
            return []
        start, end = self.request.start_day, self.request.end_day
        usable = [
            job
            for job in listing.jobs
            if job.start_day and job.end_day and job.start_day <= start and end <= job.end_day
            if not job.is_doomed(start, end)
        ]
        return sorted(usable, key=lambda j: (j.state(start, end) is JobState.ACTIVE, j.sid))

    def _may_be(self, job: Job) -> bool:
        """Say whether a job may export what is asked for, by what the listing shows of it."""
        wanted = (self.request.resource_type, self.request.start_day, self.request.end_day)
        shows = (job.resource_type, job.start_day, job.end_day)
        return all(has in (None, want) for has, want in zip(shows, wanted, strict=True))

    def _own(self, jobs: Iterable[Job]) -> dict[str, list[Job]]:
        """Return the jobs of this stem by their cycle."""
        cycles: dict[str, list[Job]] = {}
        request = self.request
        for job in jobs:
            stem, cycle, _ = _parts(job)
            if stem != self.stem:
                continue
            # The stem stands for type and range too: where the listing leaves one out it is enough.
            if not self._may_be(job):
                raise KeyConflict(
                    f"Job {job.sid} has the key {stem}{cycle} but exports {job.resource_type} of "
                    f"{job.start_day} to {job.end_day}, not {request.resource_type} of "
                    f"{request.start_day} to {request.end_day}. Give this task another task_id, "
                    "or the connection a namespace."
                )
            cycles.setdefault(cycle, []).append(job)
        return cycles


def submit(
    client: Client,
    submission: Submission,
    *,
    may_have_posted: bool = False,
    not_before: float = 0.0,
    posts: int = 0,
    pause: Callable[[float], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Submitted:
    """
    Return the one job of a submission, created if no listing has it.

    A job that failed or was deleted is followed by one of the next generation (``g2``, ``g3``...),
    so that racing retries agree on the name.

    :param client: where to submit.
    :param submission: what to submit.
    :param may_have_posted: an earlier try may have sent a POST. Without this, a job that is there
        before the first POST was created by somebody with the same identity.
    :param not_before: when the first POST may be sent, in seconds since the epoch.
    :param posts: POSTs that this try has sent already.
    :param pause: how to wait some seconds; it may raise to give up.
    :param check: called right before and right after the POST; it may raise to give up.
    :raises NotExportableYet: far too early: before any traffic; else by the service's clock.
    :raises Unsettled: nothing shows whether a POST acted; come back then, with its facts.
    :raises BulkExportsError: when the listing fails (then nothing was submitted), or as
        :meth:`Client.create_job` does.
    """
    pace, request = client.pace, submission.request
    # A worker's clock may be off; by how much, the service's first answer tells.
    if pace.now() + pace.clock < request.exportable_from.timestamp():
        request.require_exportable(pendulum.from_timestamp(pace.now()))
    pause = pause or pace.sleep
    attempt = _Attempt(
        client, submission, pause, check, not_before, posts, may_have_posted or posts > 0
    )
    while True:
        found, guest = attempt.look()
        if found.job is not None:
            return _adopt(client, found, owned=attempt.may_have_posted)
        if guest is not None:
            log.info("Adopting job %s (%s).", guest.sid, shown(guest.friendly_name))
            return Submitted(guest, owned=False)
        if attempt.waited():
            continue
        created = attempt.post(found.next_request)
        if created is not None:
            return _reconcile(client, submission, created)


def reread(client: Client, submission: Submission, job_sid: str, *, owned: bool) -> Job | None:
    """
    Read a submission's job again, and repair.

    :param client: with which to ask.
    :param submission: the submission.
    :param job_sid: the job that was awaited.
    :param owned: whether that job is the submission's own; nothing is deleted otherwise.
    :return: the job to wait for from now on: it, or the twin that wins, also if that has failed
        since; None if both are gone.
    :raises BulkExportsError: when neither list nor job can be read.
    """
    job, unread = None, None
    failed: tuple[Job, ...] = ()
    if owned:
        try:
            listing = client.list_jobs(submission.request.resource_type)
            found = submission.find(listing)
        except KeyConflict:
            raise
        except BulkExportsError as error:
            unread = error
            log.warning("Could not look for a second job; reading only %s. %s", job_sid, error)
        else:
            _repair(client, found)
            job, failed = found.job or listing.get(job_sid), found.failed
    try:
        job = job or client.fetch_job(job_sid)
    except NotFound:
        job = None
    request = submission.request
    if job is not None and not job.is_deleted(request.start_day, request.end_day):
        return job
    if unread is not None:
        # A twin may be there: to take both for gone would fail the task for good.
        raise unread
    # Nobody deleted a job that has a twin but a repair, and what the twin came to is the task's.
    return next(iter(failed), None)


@dataclass(slots=True)
class _Attempt:
    """One try at a submission: when it may POST, how often it has, and its patience."""

    client: Client
    submission: Submission
    pause: Callable[[float], None]
    check: Callable[[], None]
    not_before: float
    posts: int
    may_have_posted: bool
    refusals: int = 0

    def look(self) -> tuple[Found, Job | None]:
        """Return what the listing shows, and a foreign job that serves as well."""
        while True:
            try:
                listing = self.client.list_jobs(self.submission.request.resource_type)
                found = self.submission.find(listing)
                guests = self.submission.covering(listing) if found.job is None else []
                return found, self._usable(guests)
            except Unauthorized as error:
                self._bear(error)

    def waited(self) -> bool:
        """Wait for the next look if a POST may still act; False if none may."""
        pace, now = self.client.pace, self.client.pace.now()
        if now >= self.not_before:
            return False
        lost = self.not_before - pace.settle
        due = next((lost + look for look in pace.looks if lost + look > now), None)
        if due is None:
            raise Unsettled(
                "A POST may still be on its way, so that no other is sent before "
                f"{pendulum.from_timestamp(self.not_before).format('HH:mm:ss')} UTC.",
                not_before=self.not_before,
                posts=self.posts,
            )
        self.pause(due - now)
        return True

    def post(self, request: ExportRequest) -> Job | None:
        """Send one POST; None if the listing has to tell what became of it."""
        pace = self.client.pace
        request.require_exportable(pendulum.from_timestamp(self.client.now()))
        self.check()
        self.posts += 1
        try:
            job = self.client.create_job(request)
        except Unauthorized as error:
            self._bear(error)
        except OutcomeUnknown as error:
            if self.posts >= pace.posts:
                raise
            log.warning("Whether the job was created is not known; looking for it. %s", error)
            self.may_have_posted = True
            self.not_before = pace.now() + pace.settle
            self.pause(pace.looks[0])
        except Retryable as error:
            if self.posts >= pace.posts or (error.retry_after or 0) > pace.longest_pause:
                raise
            log.warning("The job was not created; trying again. %s", error)
            self.pause(backoff(self.posts, error.retry_after))
        else:
            log.info("Created job %s (%s).", job.sid, request.friendly_name)
            self.check()
            return job
        return None

    def _bear(self, error: Unauthorized) -> None:
        waits = self.client.pace.credentials
        if self.refusals >= len(waits):
            raise error
        log.warning("Asking again in %.0f s. %s", waits[self.refusals], error)
        self.refusals += 1
        self.pause(waits[self.refusals - 1])

    def _usable(self, guests: list[Job]) -> Job | None:
        """Return the first foreign job whose files of the wanted days still exist, or will."""
        request, since = self.submission.request, self.submission.created_since
        days = list(days_between(request.start_day, request.end_day))
        files: set[date] | None = None
        for job in guests:
            counts = job.count_by_status(days[0], days[-1])
            # How old an empty day is only its file tells, so that without one it counts as old.
            done = [s for s in counts if s is Status.COMPLETED or (since and s.is_complete)]
            if not any(counts[status] for status in done):
                return job
            if files is None:
                files = {
                    file.day
                    for file in self.client.list_days(request.resource_type)
                    if since is None or (file.create_date and file.create_date >= since)
                }
            statuses = job.day_statuses()
            if files.issuperset(
                day for day in days if statuses is None or statuses.get(day) in done
            ):
                return job
        return None


def _reconcile(client: Client, submission: Submission, created: Job) -> Submitted:
    """Look once more after a POST: another worker may have created the same job."""
    try:
        listing = client.list_jobs(submission.request.resource_type)
        jobs = (*(job for job in listing.jobs if job.sid != created.sid), created)
        found = submission.find(replace(listing, jobs=jobs))
    except BulkExportsError as error:
        log.warning("Could not look for a second job after creating %s: %s", created.sid, error)
        return Submitted(created, owned=True)
    _repair(client, found)
    return Submitted(found.job or created, owned=True)


def _adopt(client: Client, found: Found, *, owned: bool) -> Submitted:
    job = found.job
    assert job is not None  # noqa: S101 - the caller has looked
    log.info("Adopting job %s (%s).", job.sid, shown(job.friendly_name))
    if owned:
        _repair(client, found)
    else:
        log.warning(
            "This task's first try has found job %s, which it did not create. If another "
            "deployment uses this account with the same DAG and run ids, give each one's "
            "connection a namespace of its own. This task does not delete the job.",
            job.sid,
        )
    return Submitted(job, owned)


def _repair(client: Client, found: Found) -> None:
    """Delete what is one too many, and report what cost its days for nothing."""
    for job in found.spent:
        log.warning(
            "Job %s exports the same as %s and stays: its days were charged twice.",
            job.sid,
            found.job.sid if found.job else "another",
        )
    for job in found.surplus:
        log.warning("Deleting job %s: another job exports the same.", job.sid)
        try:
            client.delete_job(job.sid)
        except BulkExportsError as error:
            log.warning("Could not delete job %s: %s", job.sid, error)


def _ranked(jobs: Iterable[Job]) -> tuple[Job | None, Sequence[Job], Sequence[Job]]:
    """Return the job to wait for, those to delete, and those that cost their days for nothing."""
    live = _in_order(jobs)
    if not live:
        return None, (), ()
    finished = [job for job in live if job.state() is JobState.COMPLETED]
    winner = finished[0] if finished else live[0]
    surplus = _unfinished(live[1:])
    return winner, surplus, [job for job in live if job not in (winner, *surplus)]


def _in_order(jobs: Iterable[Job]) -> list[Job]:
    # The order is the same in every worker's eyes, whatever state each sees: so of several
    # workers none deletes what another keeps. To prefer a finished job here could delete all.
    live = [job for job in jobs if not job.is_doomed()]
    return sorted(live, key=lambda job: (-_parts(job)[2], job.sid))


def _unfinished(jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if job.state() is JobState.ACTIVE]


def _parts(job: Job) -> tuple[str, str, int]:
    """Return a job's stem, cycle and generation as its name has them; empty and 0 without."""
    # A backslash has been seen before punctuation in names that Twilio gives back.
    match = _KEY.search((job.friendly_name or "").replace("\\", ""))
    return (match[1], match[2], int(match[3] or 1)) if match else ("", "", 0)


def _digits(count: int, *parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:count]
