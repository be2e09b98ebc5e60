"""Custom jobs of the sandbox: how each day gets from Submitted to its end, by the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.job import JobState, Status

if TYPE_CHECKING:
    import random

    from airflow_provider_bulkexports.api.request import ResourceType

__all__ = ["EMPTY_FORMS", "CustomJob", "DayPlan", "plan_days"]

EMPTY_FORMS = ("absent", "not_found", "zero_bytes", "empty_gzip")
"""What an empty day may look like: not listed, listed but 404, no bytes, gzip of nothing."""

_WAITING = 0.2
_WINDOW = 0.4


@dataclass(slots=True)
class DayPlan:
    """
    What will become of one day of a job.

    :param runs_at: when the day leaves Submitted.
    :param ends_at: when it takes the last word of its walk.
    :param walk: status words from ``runs_at`` on; all but the last share the time evenly.
    :param empty: how the day file looks if the day is empty, None if it has records.
    :param contents: what its file has in it instead of the day's records, None for those.
    """

    runs_at: float
    ends_at: float
    walk: tuple[str, ...] = (Status.RUNNING, Status.COMPLETED)
    empty: str | None = None
    contents: str | None = None

    def word_at(self, moment: float) -> str:
        """Return the status word the day has at ``moment``, deletion apart."""
        if moment >= self.ends_at:
            return self.walk[-1]
        if moment < self.runs_at:
            return Status.SUBMITTED
        steps = self.walk[:-1] or (Status.RUNNING,)
        share = (moment - self.runs_at) / (self.ends_at - self.runs_at)
        return steps[min(int(share * len(steps)), len(steps) - 1)]


def plan_days(
    days: list[date], created_at: float, seconds: float, rng: random.Random
) -> dict[date, DayPlan]:
    """
    Spread the days of a job over its time, in an order of their own.

    The last one ends ``seconds`` after ``created_at``.
    """
    starts = created_at + seconds * _WAITING
    work = created_at + seconds - starts
    window = work * max(_WINDOW, 1 / len(days))
    order = list(days)
    rng.shuffle(order)
    plans = {}
    for place, day in enumerate(order, 1):
        ends = created_at + seconds - work * (len(order) - place) / len(order)
        plans[day] = DayPlan(runs_at=max(starts, ends - window), ends_at=ends)
    return {day: plans[day] for day in days}


@dataclass(slots=True)
class CustomJob:
    """
    A job of the sandbox.

    :param number: counts the jobs of a sandbox; the order of the Jobs list.
    :param plans: what becomes of each day.
    :param grace: seconds that running days take to stop after a deletion.
    :param deleted_at: when it was deleted unfinished, None if it was not.
    :param removed_at: when a deletion took it off list and fetch, None if none did.
    """

    sid: str
    number: int
    account_sid: str
    resource_type: ResourceType
    start_day: date
    end_day: date
    friendly_name: str
    created_at: float
    plans: dict[date, DayPlan]
    grace: float
    webhook_url: str | None = None
    webhook_method: str | None = None
    email: str | None = None
    deleted_at: float | None = None
    removed_at: float | None = None

    def word(self, day: date, now: float) -> str:
        """Return the status word of one of the job's days."""
        plan = self.plans[day]
        if self.deleted_at is None or now < self.deleted_at:
            return plan.word_at(now)
        word = plan.word_at(min(now, self.deleted_at))
        if Status.parse(word).is_final:
            return word
        if word != Status.SUBMITTED and now < self.deleted_at + self.grace:
            return Status.RUNNING_TO_BE_DELETED
        return Status.DELETED_BY_USER_REQUEST

    def details(self, now: float) -> list[dict[str, Any]]:
        """Return the days grouped by status, as Twilio lists them."""
        groups: dict[str, list[str]] = {}
        for day in self.plans:
            groups.setdefault(self.word(day, now), []).append(day.isoformat())
        return [
            {"status": str(word), "count": len(days), "days": days} for word, days in groups.items()
        ]

    def state(self, now: float) -> JobState:
        """Return what a perfect client would conclude from the days."""
        statuses = [Status.parse(self.word(day, now)) for day in self.plans]
        if not all(status.is_final for status in statuses):
            return JobState.ACTIVE
        done = all(status.is_complete for status in statuses)
        return JobState.COMPLETED if done else JobState.FAILED

    @property
    def finished_at(self) -> float | None:
        """When every day is final, None for a job scripted never to end."""
        if self.deleted_at is not None:
            running = any(
                plan.runs_at <= self.deleted_at
                and not Status.parse(plan.word_at(self.deleted_at)).is_final
                for plan in self.plans.values()
            )
            return self.deleted_at + (self.grace if running else 0)
        if not all(Status.parse(plan.walk[-1]).is_final for plan in self.plans.values()):
            return None
        return self.ends_at

    @property
    def ends_at(self) -> float:
        """When the last day is planned to end."""
        return max(plan.ends_at for plan in self.plans.values())

    def file_created_at(self, day: date) -> float | None:
        """Return when the day file is created, None if it never is."""
        plan = self.plans[day]
        if self.deleted_at is not None and plan.ends_at > self.deleted_at:
            return None
        return plan.ends_at if Status.parse(plan.walk[-1]).is_complete else None

    def as_json(self, position: int, details: list[dict[str, Any]] | None) -> dict[str, Any]:
        """
        Return the job as the API describes it.

        :param position: place in the queue, 0 for a finished job.
        :param details: the days by status, None as in the answer to a creation.
        """
        return {
            "friendly_name": self.friendly_name,
            "resource_type": str(self.resource_type),
            "start_day": self.start_day.isoformat(),
            "end_day": self.end_day.isoformat(),
            "webhook_url": self.webhook_url,
            "webhook_method": self.webhook_method,
            "email": self.email,
            "job_sid": self.sid,
            "details": details,
            "job_queue_position": str(position),
            "estimated_completion_time": self._estimate(),
        }

    def _estimate(self) -> str:
        # All three lengths of the fraction have been seen, none with a zone.
        moment = datetime.fromtimestamp(max(self.ends_at, self.created_at), UTC)
        whole, micro = moment.strftime("%Y-%m-%dT%H:%M:%S"), f"{moment.microsecond:06d}"
        return f"{whole}.{(micro[:3], micro, micro + '902')[self.number % 3]}"
