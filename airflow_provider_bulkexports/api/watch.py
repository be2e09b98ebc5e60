"""Waiting for a job or for days: when to look next, what an answer means, when it is over.

A watch is pure: it is told the time and the answers. A worker, the triggerer and a sensor each
drive one in their own way of sleeping and reading.
"""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.calendar import show_days
from airflow_provider_bulkexports.api.errors import BulkExportsError, NotFound, Unauthorized
from airflow_provider_bulkexports.api.job import Job, JobListing, JobState, Status
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable
    from datetime import date

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.pace import Pace

__all__ = [
    "MISSING",
    "Answer",
    "DaysWatch",
    "JobReader",
    "JobWatch",
    "Line",
    "Missing",
    "Over",
    "Watch",
    "follow",
]

ESTIMATE_MOVED = 300.0
"""Seconds by which Twilio's estimate must move to be worth a line of its own."""

PAGES_KNOWN_FOR = 3600.0
"""Seconds for which the length of a list is believed."""

HALF_A_DAY = 43_200.0


class Over(StrEnum):
    """Why a wait is over."""

    DONE = "done"
    LATE = "late"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Missing:
    """Neither the whole listing nor a request for the job itself knows it."""


MISSING = Missing()

Answer = Job | Missing | frozenset["date"] | BulkExportsError
"""What one reading says: of a job, of the days that are available, or why it failed."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something worth a line in the task's log."""

    text: str
    is_warning: bool = False

    @property
    def level(self) -> int:
        """The level to log it at."""
        return logging.WARNING if self.is_warning else logging.INFO


@dataclass(slots=True)
class Watch:
    """
    One wait: what has been seen of it so far, and so when to look next.

    An outage is no verdict: any error is ridden out until the deadline. Refused credentials are
    ridden out for :attr:`Pace.refused` seconds.

    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends, in seconds since the epoch.
    :param pace: waits and limits.
    """

    started_at: float
    deadline: float
    pace: Pace = field(default_factory=lambda: pace_module.PACE)
    trouble: str = ""
    """What the last reading failed with, empty if it did not."""
    _remaining: float | None = None
    _not_before: float = 0.0
    _refused_since: float | None = None
    _gone_since: float | None = None

    def see(self, answer: Answer, now: float) -> tuple[Over | None, list[Line]]:
        """
        Take an answer in.

        :param answer: what a reading says.
        :param now: when it came, in seconds since the epoch.
        :return: why the wait is over, None if it is not, and what is worth a line.
        """
        if isinstance(answer, BulkExportsError):
            over, lines = self._fail(answer, now), self._trouble_lines(str(answer))
            if over is Over.REFUSED and answer.status:
                self.trouble = f"HTTP {answer.status}, {answer.code or 'no code'}"
        else:
            lines = self._trouble_lines("")
            self._refused_since, self._not_before, self._remaining = None, 0.0, None
            found, more = self._judge(answer, now)
            over, lines = found, lines + more
        if over is None and now >= self.deadline:
            over = Over.LATE
        return over, lines

    def next_look(self, now: float) -> float:
        """
        Return when to look next, in seconds since the epoch, at the latest the deadline.

        Half of what is left by Twilio's estimate, so that looks become denser towards the end;
        without one, or past it, a twentieth of the time waited so far, which keeps the delay
        within 5 %. Jitter spreads the looks of jobs that were created together.
        """
        if self._remaining is not None and self._remaining > 0:
            wait, longest = self._remaining / 2, self.pace.longest_poll
        else:
            wait, longest = (now - self.started_at) / 20, self.pace.longest_poll_blind
        wait = min(max(wait * random.uniform(0.9, 1.1), self.pace.shortest_poll), longest)
        due = now + wait
        if self._gone_since is not None:
            due = min(due, max(self._gone_since + self.pace.gone, now + self.pace.shortest_poll))
        if self._refused_since is not None:
            due = min(due, max(self._refused_since + self.pace.refused, now))
        return min(max(due, self._not_before), self.deadline)

    def _fail(self, error: BulkExportsError, now: float) -> Over | None:
        advice = getattr(error, "retry_after", None) or 0.0
        self._not_before = now + advice
        if not isinstance(error, Unauthorized):
            self._refused_since = None
            return None
        if self._refused_since is None:
            self._refused_since = now
        return Over.REFUSED if now - self._refused_since >= self.pace.refused else None

    def _trouble_lines(self, trouble: str) -> list[Line]:
        before, self.trouble = self.trouble, trouble
        if trouble and not before:
            return [Line(f"Could not look, trying on: {trouble}", is_warning=True)]
        if before and not trouble:
            return [Line("Twilio answers again.")]
        return []

    def _judge(self, answer: Answer, now: float) -> tuple[Over | None, list[Line]]:
        raise NotImplementedError


@dataclass(slots=True)
class JobWatch(Watch):
    """
    Wait until a job's days are final.

    A job that is missing or deleted counts as gone only when two readings, :attr:`Pace.gone`
    seconds apart, agree, and not in its first moments: reads and lists may lag.

    :param start_day: first day that must be final; None for all days of the job.
    :param end_day: last day that must be final.
    """

    start_day: date | None = None
    end_day: date | None = None
    _reported: tuple[object, ...] = ()
    _reported_estimate: float = -math.inf

    def _judge(self, answer: Answer, now: float) -> tuple[Over | None, list[Line]]:
        job = answer if isinstance(answer, Job) else None
        if job is None or job.is_deleted(self.start_day, self.end_day):
            if self._gone_since is None:
                self._gone_since = now
            gone = now - self._gone_since >= self.pace.gone
            what = "Twilio does not list the job" if job is None else "The job is being deleted"
            line = Line(f"{what}; looking again before it counts as gone.", is_warning=True)
            return (Over.GONE, []) if gone else (None, [line] if self._gone_since == now else [])
        self._gone_since = None
        lines = self._progress(job, now)
        if job.state(self.start_day, self.end_day) is not JobState.ACTIVE:
            return Over.DONE, lines
        return None, lines

    def _progress(self, job: Job, now: float) -> list[Line]:
        estimate = job.estimated_completion
        self._remaining = estimate.timestamp() - now if estimate is not None else None
        counts = job.count_by_status(self.start_day, self.end_day)
        seen = (tuple(sorted(counts.items())), job.queue_position)
        moved = estimate is not None and (
            abs(estimate.timestamp() - self._reported_estimate) >= ESTIMATE_MOVED
        )
        if seen == self._reported and not moved:
            return []
        self._reported = seen
        if estimate is not None:
            self._reported_estimate = estimate.timestamp()
        days = job.day_count(self.start_day, self.end_day)
        return [Line(_progress_text(job, counts, days, now))]


@dataclass(slots=True)
class DaysWatch(Watch):
    """
    Wait until every day is available, whoever exported it.

    :param wanted: the days.
    """

    wanted: frozenset[date] = frozenset()
    _reported: frozenset[date] | None = None

    def _judge(self, answer: Answer, now: float) -> tuple[Over | None, list[Line]]:  # noqa: ARG002
        assert isinstance(answer, frozenset)  # noqa: S101 - the reading is of days
        missing = self.wanted - answer
        if not missing:
            return Over.DONE, []
        if missing == self._reported:
            return None, []
        self._reported = missing
        have = len(self.wanted) - len(missing)
        return None, [
            Line(f"{have} of {_days(len(self.wanted))} available; missing: {show_days(missing)}.")
        ]


@dataclass(slots=True)
class JobReader:
    """
    Read jobs of one type by whatever costs fewer requests: each by itself, or one listing.

    :param resource_type: the jobs' type; None where it is not known.
    """

    resource_type: ResourceType | None
    _pages: int = 1
    _pages_at: float = -math.inf

    def read(self, client: Client, sids: Iterable[str]) -> dict[str, Answer]:
        """
        Return what the service says of each job.

        :param client: with which to ask.
        :param sids: the jobs' SIDs.
        :raises BulkExportsError: when the listing fails.
        """
        wanted = set(sids)
        if client.pace.now() - self._pages_at > PAGES_KNOWN_FOR:
            self._pages = 1
        if self.resource_type is not None and len(wanted) > self._pages:
            listed = self._list(client, self.resource_type).by_sid(wanted)
            return {sid: listed[sid] or _fetched(client, sid) for sid in wanted}
        answers = {sid: _fetched(client, sid) for sid in wanted}
        # A request for one job may lag behind the list: only what both lack is missing.
        for resource_type in [self.resource_type] if self.resource_type else ResourceType:
            lost = [sid for sid, answer in answers.items() if answer is MISSING]
            if not lost:
                break
            try:
                listed = self._list(client, resource_type).by_sid(lost)
            except BulkExportsError as error:
                return answers | dict.fromkeys(lost, error)
            answers |= {sid: listed[sid] or MISSING for sid in lost}
        return answers

    def reading(self, client: Client, job_sid: str) -> Callable[[], Answer]:
        """Return a function that reads one job, for :func:`follow`."""
        return lambda: self.read(client, [job_sid])[job_sid]

    def _list(self, client: Client, resource_type: ResourceType) -> JobListing:
        listing = client.list_jobs(resource_type)
        self._pages, self._pages_at = listing.pages, client.pace.now()
        return listing


def follow(
    watch: Watch,
    read: Callable[[], Answer],
    sleep: Callable[[float], None],
    say: Callable[[Line], None],
) -> Over:
    """
    Drive a watch in the foreground until it is over.

    :param watch: what is waited for.
    :param read: returns an answer, or raises why there is none.
    :param sleep: how to wait; it may raise to give up.
    :param say: told each line for the log.
    """
    now = watch.pace.now
    while True:
        sleep(max(0.0, watch.next_look(now()) - now()))
        try:
            answer = read()
        except BulkExportsError as error:
            answer = error
        over, lines = watch.see(answer, now())
        for line in lines:
            say(line)
        if over is not None:
            return over


def _fetched(client: Client, sid: str) -> Answer:
    try:
        return client.fetch_job(sid)
    except NotFound:
        return MISSING
    except BulkExportsError as error:
        return error


_WORDS = {
    Status.SUBMITTED: "queued",
    Status.RUNNING: "running",
    Status.ERROR_DURING_RUN: "being tried again by Twilio",
    Status.FAILED: "failed",
    Status.RUNNING_TO_BE_DELETED: "being deleted",
    Status.DELETED_BY_USER_REQUEST: "deleted",
    Status.UNKNOWN: "in a state that is not known here",
}


def _progress_text(job: Job, counts: Counter[Status], days: int, now: float) -> str:
    done = sum(count for status, count in counts.items() if status.is_complete)
    parts = [f"{done} of {_days(days)} done"]
    parts += [f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status]]
    text = ", ".join(parts)
    if done == days:
        return f"{text}."
    if job.queue_position:
        text += f"; queue position {job.queue_position}"
    if job.estimated_completion is not None:
        moment = job.estimated_completion
        same_day = abs(moment.timestamp() - now) < HALF_A_DAY
        text += f"; Twilio expects {moment.format('HH:mm' if same_day else 'YYYY-MM-DD HH:mm')} UTC"
    return f"{text}."


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
