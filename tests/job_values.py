"""Jobs as values, for tests of what needs no service."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.job import Job, Status, StatusGroup
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from pendulum import DateTime

FIRST_DAY = date(2026, 1, 5)


def job_of(
    *words: Status,
    number: int = 1,
    name: str | None = "people_gave_this",
    first_day: date = FIRST_DAY,
    resource_type: ResourceType | None = ResourceType.MESSAGES,
    queue_position: int | None = None,
    estimate: DateTime | None = None,
) -> Job:
    """
    Return a job whose days, from the first on, have these statuses.

    :param number: its SID's digits.
    """
    days = [first_day + timedelta(days=index) for index in range(len(words))]
    groups = [
        (word, tuple(day for day, has in zip(days, words, strict=True) if has is word))
        for word in dict.fromkeys(words)
    ]
    return Job(
        sid=f"JS{number:032x}",
        friendly_name=name,
        resource_type=resource_type,
        start_day=days[0],
        end_day=days[-1],
        groups=tuple(StatusGroup(word, word.value, len(own), own) for word, own in groups),
        queue_position=queue_position,
        estimated_completion=estimate,
    )
