"""Which days of a type are stored, which Twilio has on offer, and which lack: one pure value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.calendar import EXPORT_DELAY, days_between
from airflow_provider_bulkexports.storage.fates import Fate, fates_in
from airflow_provider_bulkexports.storage.store import DayState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date

    from airflow_provider_bulkexports.api.job import Job, ListedFile
    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.storage.store import StoredDay

__all__ = ["Coverage", "DayCoverage"]


class DayCoverage(StrEnum):
    """What is known of a day; the order is that of the legend."""

    STORED = "stored"
    EMPTY = "empty"
    LOCKED = "locked"
    ON_OFFER = "on offer"
    IN_PROGRESS = "in progress"
    FAILED = "failed"
    MISSING = "missing"
    NOT_EXPORTABLE_YET = "not yet"

    @property
    def glyph(self) -> str:
        """The one character that stands for it in a table."""
        return _GLYPHS[self]


_GLYPHS = dict(zip(DayCoverage, "■0L↓…×!·", strict=True))

_STORED = {
    DayState.STORED: DayCoverage.STORED,
    DayState.EMPTY: DayCoverage.EMPTY,
    DayState.LOCKED: DayCoverage.LOCKED,
}


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    Each day of a range, as storage and Twilio show it.

    :param resource_type: the type.
    :param days: what is known of each day, in order.
    :param job_sids: the job that a day in progress, or one that failed, belongs to.
    :param under_way: the job that exports a day now; also of days that are stored or on offer.
    """

    resource_type: ResourceType
    days: Mapping[date, DayCoverage]
    job_sids: Mapping[date, str]
    under_way: Mapping[date, str]

    @classmethod
    def of(  # noqa: PLR0917 - each list is of another type, so that none is taken for another
        cls,
        resource_type: ResourceType,
        first_day: date,
        last_day: date,
        stored: Mapping[date, StoredDay],
        listed: Iterable[ListedFile],
        jobs: Iterable[Job],
        *,
        today: date,
    ) -> Coverage:
        """
        Judge a range's days.

        A day is on offer if Twilio lists its file, or if a listed job found no records for it:
        such a day needs no file, and both can be had for nothing. A day that a listed job has
        exported, but whose file is not listed, counts as in progress: the file may be late, and a
        new export would be paid for. Both end by themselves, since a file is listed for 7 days
        after it was created, and a job for 7 days after its last day; of a job that never ends,
        files count as gone 7 days after Twilio expected its end.

        :param first_day: first UTC day; after ``last_day`` there are no days at all.
        :param stored: the storage's listing; a day that it lacks is absent.
        :param listed: Twilio's list of files of the type.
        :param jobs: Twilio's list of jobs of the type, oldest first.
        :param today: the UTC day by Twilio's clock.
        """
        wanted = list(days_between(first_day, last_day))
        offered = {file.day for file in listed}
        by_day: dict[date, dict[Fate, str]] = {day: {} for day in wanted}
        for job in jobs:
            fate_of = fates_in(job, today)
            for day in wanted:
                fate = fate_of(day)
                if fate is not None:
                    by_day[day][fate] = job.sid
        days: dict[date, DayCoverage] = {}
        job_sids: dict[date, str] = {}
        for day, sids in by_day.items():
            there = _STORED.get(stored[day].state) if day in stored else None
            state, sid = (there, None) if there else _unstored(sids, listed=day in offered)
            if state is DayCoverage.MISSING and day > today - EXPORT_DELAY:
                state = DayCoverage.NOT_EXPORTABLE_YET
            days[day] = state
            if sid:
                job_sids[day] = sid
        under_way = {
            day: sids[Fate.UNDER_WAY] for day, sids in by_day.items() if Fate.UNDER_WAY in sids
        }
        return cls(resource_type, days, job_sids, under_way)

    def to_fetch(self) -> list[date]:
        """Return the days that can be stored without an export, so for nothing."""
        return self._in(DayCoverage.ON_OFFER)

    def to_export(self) -> list[date]:
        """Return the days that somebody has to export, and pay for."""
        return self._in(DayCoverage.FAILED, DayCoverage.MISSING)

    def counts(self) -> Counter[DayCoverage]:
        """Return how many days are in each state."""
        return Counter(self.days.values())

    def table(self) -> str:
        """Return a calendar as text: a line a month, a character a day, legend and counts below."""
        if not self.days:
            return "(no days)"
        ruler = [" "] * 31
        for number in (1, 5, 10, 15, 20, 25, 30):
            ruler[number - len(str(number)) : number] = str(number)
        lines = [" " * 9 + "".join(ruler).rstrip()]
        for month, days in groupby(self.days, key=lambda day: f"{day:%Y-%m}"):
            cells = [" "] * 31
            for day in days:
                cells[day.day - 1] = self.days[day].glyph
            lines.append(f"{month}  {''.join(cells).rstrip()}")
        counts = self.counts()
        legend = [f"{each.glyph} {each} {counts[each]}" for each in DayCoverage if counts[each]]
        return "\n".join([*lines, "   ".join(legend)])

    def _in(self, *states: DayCoverage) -> list[date]:
        return [day for day, state in self.days.items() if state in states]


def _unstored(sids: Mapping[Fate, str], *, listed: bool) -> tuple[DayCoverage, str | None]:
    """Return the state of a day that is not stored, and the job to blame or to wait for."""
    if listed:
        return DayCoverage.ON_OFFER, None
    for fate in (Fate.UNDER_WAY, Fate.EXPORTED):
        if fate in sids:
            return DayCoverage.IN_PROGRESS, sids[fate]
    if Fate.EMPTY in sids:
        return DayCoverage.ON_OFFER, None
    if Fate.FAILED in sids:
        return DayCoverage.FAILED, sids[Fate.FAILED]
    return DayCoverage.MISSING, None
