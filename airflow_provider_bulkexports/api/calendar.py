"""UTC days: reading them, showing them, and from when they can be exported."""

from __future__ import annotations

import re
from datetime import date, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.redact import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "EXPORT_DELAY",
    "KEPT",
    "MAX_DAYS",
    "check_order",
    "days_between",
    "parse_day",
    "parse_range",
    "ranges_of",
    "show_days",
    "split_range",
]


MAX_DAYS = 366
"""Days an account may request per UTC day (Twilio's overview page), so also per job."""

EXPORT_DELAY = timedelta(days=2)
"""Twilio: the end day must be at least two days before the current UTC day."""

KEPT = timedelta(days=7)
"""For how long Twilio keeps a file that it created, and lists a job that has finished."""
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def days_between(start_day: date, end_day: date) -> Iterator[date]:
    """Yield every day from ``start_day`` to ``end_day``, both included."""
    for offset in range((end_day - start_day).days + 1):
        yield start_day + timedelta(days=offset)


def split_range(start_day: date, end_day: date) -> list[tuple[date, date]]:
    """
    Cut a range into ranges of at most 366 days, as one job may have.

    :raises InvalidRequest: for a reversed range.
    """
    check_order(start_day, end_day)
    step = timedelta(days=MAX_DAYS)
    starts = [start_day + n * step for n in range(-(-((end_day - start_day).days + 1) // MAX_DAYS))]
    last = timedelta(days=1)
    return [*((first, second - last) for first, second in pairwise(starts)), (starts[-1], end_day)]


def ranges_of(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return days as the ranges that they form, in order."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and (day - ranges[-1][1]).days == 1:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def show_days(days: Iterable[date]) -> str:
    """Return days as text, runs of days as ``first to last``."""
    return ", ".join(
        f"{first}" if first == last else f"{first} to {last}" for first, last in ranges_of(days)
    )


def parse_day(value: object, name: str) -> date:
    """
    Read a UTC day from ``YYYY-MM-DD`` or a :class:`datetime.date`.

    :param name: the argument's name, for the error.
    :raises InvalidRequest: for anything else; an instant is refused, since its zone would
        decide the day.
    """
    if type(value) is date or (isinstance(value, date) and not hasattr(value, "hour")):
        return date(value.year, value.month, value.day)
    if isinstance(value, str) and _DAY.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise InvalidRequest(f"{name} is {shown(value)}; give a UTC day as YYYY-MM-DD.")


def parse_range(start_day: object, end_day: object) -> tuple[date, date]:
    """
    Read two UTC days in order.

    :raises InvalidRequest: as :func:`parse_day` does, and for a reversed range.
    """
    start, end = parse_day(start_day, "start_day"), parse_day(end_day, "end_day")
    check_order(start, end)
    return start, end


def check_order(start_day: date, end_day: date) -> None:
    """
    Refuse a reversed range.

    :raises InvalidRequest: naming both days.
    """
    if start_day > end_day:
        raise InvalidRequest(
            f"The range is reversed: start_day {start_day} is after end_day {end_day}. Swap them."
        )
