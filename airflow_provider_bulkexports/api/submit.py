"""Submit once, whatever breaks.

Twilio offers no idempotency key, but a job bears a name of the caller's choice and jobs can be
listed. So every job's name ends in a key that only this submission has, and no POST is sent
before the listing has shown that no job bears it. The listing is the truth: an answer that never
came, a worker that died after the POST, two workers at once all end in the same look.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    InvalidRequest,
    KeyConflict,
    OutcomeUnknown,
    Retryable,
)
from airflow_provider_bulkexports.api.job import JobState
from airflow_provider_bulkexports.api.request import MAX_NAME
from airflow_provider_bulkexports.api.retry import LONGEST_WAIT, backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import Job
    from airflow_provider_bulkexports.api.request import ExportRequest

__all__ = ["MAX_PREFIX", "SETTLE_SECONDS", "job_key", "job_name", "jobs_of", "submit_once"]

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
"""How long a job may take to show up in the listing after its POST. A POST whose answer was lost
is repeated only after two looks this far apart found nothing."""

POSTS = 4
"""POSTs of one submission before its last error is raised."""

_KEY = re.compile(r"_([0-9a-f]{20})(?:g[0-9]+)?\Z")
MAX_PREFIX = MAX_NAME - len("_") - 20 - len("g99")
"""Longest readable part of a job's name."""


def job_key(*identity: object) -> str:
    """Return the 20 hexadecimal digits that stand for a submission's identity."""
    return hashlib.sha256("\x1f".join(map(str, identity)).encode()).hexdigest()[:20]


def job_name(prefix: str, key: str) -> str:
    """
    Return a job's name: a readable prefix and the key.

    :raises InvalidRequest: for a prefix that would make the name too long.
    """
    if len(prefix) > MAX_PREFIX:
        raise InvalidRequest(
            f"friendly_name {prefix[:50]!a} has {len(prefix)} characters; at most "
            f"{MAX_PREFIX} are allowed, since a key is appended."
        )
    return f"{prefix}_{key}"


def submit_once(
    client: Client,
    request: ExportRequest,
    *,
    any_covering: bool = False,
    cautious: bool = False,
    settle: float = SETTLE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
    check: Callable[[], None] = lambda: None,
) -> Job:
    """
    Return the one job of this request, created if the listing has none.

    A failed or deleted job of the same key is followed by one of the next generation (``g2``,
    ``g3``...), by counting, so that racing retries agree on the name.

    :param client: where to submit.
    :param request: what to submit; its name must end in a key, see :func:`job_name`.
    :param any_covering: also adopt a usable job that covers the range, whoever made it.
    :param cautious: an earlier attempt may have sent a POST just now, so look twice.
    :param settle: seconds between two looks that must both find nothing.
    :param sleep: how to wait; it may raise to give up.
    :param check: called right before and right after the POST; it may raise to give up.
    :raises NotExportableYet: before any traffic.
    :raises BulkExportsError: when the listing fails (then nothing was submitted), or as
        :meth:`Client.create_job` does.
    """
    request.require_exportable(pendulum.now("UTC"))
    search = _Search(request, _key_of(request.friendly_name), any_covering)
    empty_looks_needed = 2 if cautious else 1
    posts = 0
    while True:
        found = search.best(client.list_jobs(request.resource_type))
        if found.winner is not None:
            _delete_rivals(client, found.rivals)
            log.info("Adopting job %s (%s).", found.winner.sid, found.winner.friendly_name)
            return found.winner
        empty_looks_needed -= 1
        if empty_looks_needed > 0:
            sleep(settle)
            continue
        posts += 1
        check()
        try:
            made = client.create_job(found.next_request)
        except Retryable as error:
            if posts == POSTS or (error.retry_after or 0) > LONGEST_WAIT:
                raise
            log.warning("The job was not created; trying again. %s", error)
            empty_looks_needed = 1
            sleep(backoff(posts, error.retry_after))
        except OutcomeUnknown as error:
            if posts == POSTS:
                raise
            log.warning("Whether the job was created is unknown; looking for it. %s", error)
            empty_looks_needed = 2
            sleep(settle)
        else:
            log.info("Created job %s (%s).", made.sid, found.next_request.friendly_name)
            check()
            return _reconcile(client, search, made)


def jobs_of(request: ExportRequest, jobs: Iterable[Job]) -> list[Job]:
    """Return those of the listed jobs that were made for this request."""
    search = _Search(request, _key_of(request.friendly_name), any_covering=False)
    return [job for job in jobs if search.is_ours(job)]


@dataclass(frozen=True)
class _Found:
    winner: Job | None
    rivals: list[Job]
    next_request: ExportRequest


@dataclass(frozen=True)
class _Search:
    """Which listed jobs stand for a request."""

    request: ExportRequest
    key: str
    any_covering: bool

    def best(self, jobs: list[Job]) -> _Found:
        own = [job for job in jobs if self.is_ours(job)]
        dead = [job for job in own if job.state() is JobState.FAILED or job.is_being_deleted]
        alive = sorted((job for job in own if job not in dead), key=lambda job: job.sid)
        if alive:
            rivals = [job for job in alive[1:] if job.state() is JobState.ACTIVE]
            return _Found(alive[0], rivals, self.request)
        name = self.request.friendly_name + (f"g{len(dead) + 1}" if dead else "")
        return _Found(self.covering(jobs), [], replace(self.request, friendly_name=name))

    def covering(self, jobs: list[Job]) -> Job | None:
        """Return the usable job that covers the range: a finished one, else the smallest SID."""
        if not self.any_covering:
            return None
        start, end = self.request.start_day, self.request.end_day
        usable = [
            job
            for job in jobs
            if job.start_day and job.end_day and job.start_day <= start and end <= job.end_day
            if not job.is_doomed(start, end)
        ]
        finished = [job for job in usable if job.state(start, end) is JobState.COMPLETED]
        return min(finished or usable, key=lambda job: job.sid, default=None)

    def is_ours(self, job: Job) -> bool:
        if job.friendly_name is None or _key_of(job.friendly_name, default="") != self.key:
            return False
        # The key stands for type and range too, so where the listing leaves one out it is enough.
        listed = (job.resource_type, job.start_day, job.end_day)
        wanted = (self.request.resource_type, self.request.start_day, self.request.end_day)
        if any(has is not None and has != want for has, want in zip(listed, wanted, strict=True)):
            raise KeyConflict(
                f"Job {job.sid} bears the key {self.key} but exports {listed[0]} of {listed[1]} to "
                f"{listed[2]}, not {wanted[0]} of {wanted[1]} to {wanted[2]}. Give this task "
                "another friendly_name or task_id."
            )
        return True


def _reconcile(client: Client, search: _Search, made: Job) -> Job:
    """Keep one job where two workers created one each; the larger SID gives way."""
    try:
        jobs = client.list_jobs(search.request.resource_type)
    except BulkExportsError as error:
        log.warning("Could not look for a second job after creating %s: %s", made.sid, error)
        return made
    jobs = [*(job for job in jobs if job.sid != made.sid), made]
    found = search.best(jobs)
    winner = search.covering(jobs) or found.winner or made
    extra = [job for job in (*found.rivals, made) if job.sid != winner.sid]
    _delete_rivals(client, extra)
    return winner


def _delete_rivals(client: Client, rivals: Iterable[Job]) -> None:
    for sid in sorted({job.sid for job in rivals}):
        log.warning("Deleting job %s: another worker made the same job.", sid)
        try:
            client.delete_job(sid)
        except BulkExportsError as error:
            log.warning("Could not delete job %s: %s", sid, error)


def _key_of(name: str, default: str | None = None) -> str:
    # A backslash has been seen before punctuation in names that Twilio gives back.
    match = _KEY.search(name.replace("\\", ""))
    if match is not None:
        return match[1]
    if default is None:
        raise InvalidRequest(f"The name {name[:80]!a} does not end in a key; use job_name().")
    return default
