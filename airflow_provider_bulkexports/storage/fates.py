"""What a job is to a day of its own: one reading of Twilio's answers for all who ask."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.calendar import KEPT
from airflow_provider_bulkexports.api.job import JobState, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from airflow_provider_bulkexports.api.job import Job

__all__ = ["Fate", "fate_of", "fates_in"]


class Fate(StrEnum):
    """What a job is to a day of its own."""

    UNDER_WAY = "under way"
    EXPORTED = "exported"
    EMPTY = "empty"
    FAILED = "failed"


_FATES = {
    Status.COMPLETED: Fate.EXPORTED,
    Status.COMPLETED_EMPTY_RECORDS: Fate.EMPTY,
    Status.FAILED: Fate.FAILED,
    Status.RUNNING_TO_BE_DELETED: None,
    Status.DELETED_BY_USER_REQUEST: None,
}
"""Any other word, and none at all, means that the day is under way."""


def fates_in(job: Job, today: date) -> Callable[[date], Fate | None]:
    """Return what says of a day what a job is to it, None for a day that it will not bring."""
    expected = job.estimated_completion
    files_are_gone = expected is not None and expected.date() + KEPT < today
    found = fate_of(job)

    def fate(day: date) -> Fate | None:
        return None if found(day) is Fate.EXPORTED and files_are_gone else found(day)

    return fate


def fate_of(job: Job) -> Callable[[date], Fate | None]:
    """Return what says of a day what a job is to it, None for one that is not its own."""
    statuses = job.day_statuses()
    whole = _fate_of_all(job)

    def fate(day: date) -> Fate | None:
        if statuses is not None and day in statuses:
            return _FATES.get(statuses[day], Fate.UNDER_WAY)
        if job.start_day and job.end_day and job.start_day <= day <= job.end_day:
            return whole
        return None

    return fate


def _fate_of_all(job: Job) -> Fate | None:
    """Return what a job is to a day of its range whose own status Twilio does not show."""
    shown = [status for status, count in job.count_by_status().items() if count]
    state = job.state()
    if job.is_deleted():
        return None
    if state is JobState.ACTIVE:
        return Fate.UNDER_WAY
    if state is JobState.FAILED:
        return Fate.FAILED
    only_empty = all(status is Status.COMPLETED_EMPTY_RECORDS for status in shown)
    return Fate.EMPTY if only_empty else Fate.EXPORTED
