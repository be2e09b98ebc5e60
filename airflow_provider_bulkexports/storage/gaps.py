"""What a storage lacks, and what each gap takes: a fetch, or an export that is paid for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.calendar import (
    KEPT,
    days_between,
    ranges_of,
    show_days,
    split_range,
)
from airflow_provider_bulkexports.api.errors import Locked
from airflow_provider_bulkexports.storage.coverage import Coverage, DayCoverage
from airflow_provider_bulkexports.storage.decision import is_source
from airflow_provider_bulkexports.storage.fates import Fate, fates_in
from airflow_provider_bulkexports.storage.store import DayState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import Job
    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.storage.manifest import Manifest
    from airflow_provider_bulkexports.storage.store import DayStore, StoredDay

__all__ = ["Gap", "Gaps", "find_gaps"]

log = logging.getLogger(__name__)

REFRESH_WINDOW = timedelta(days=30)
"""How long a refresh that was missed is made up for; older days stay as they are."""


@dataclass(frozen=True, slots=True)
class Gap:
    """
    Days of a type that follow each other, for one job.

    :param not_before: first UTC day whose files are new enough, None for any.
    """

    resource_type: ResourceType
    start_day: date
    end_day: date
    not_before: date | None = None

    @property
    def day_count(self) -> int:
        """How many days it has, and so what its export costs."""
        return (self.end_day - self.start_day).days + 1


@dataclass(frozen=True, slots=True)
class Gaps:
    """
    What to do so that nothing lacks.

    :param coverage: each day as it was found.
    :param to_fetch: what is on offer: to be stored, for nothing.
    :param to_export: what nobody has exported, or not lately enough: to be exported and paid for.
    """

    coverage: Coverage
    to_fetch: tuple[Gap, ...]
    to_export: tuple[Gap, ...]


def find_gaps(
    client: Client,
    store: DayStore,
    first_day: date,
    last_day: date,
    *,
    refresh_after_days: int | None = None,
    max_days: int | None = None,
) -> Gaps:
    """
    Compare a storage with a range, and with what Twilio has on offer.

    A day whose publisher has died is mended from what it left. That comes before anything is
    asked of Twilio, and so does every error of the storage.

    :param first_day: first UTC day that should be stored.
    :param last_day: last UTC day, inclusive.
    :param refresh_after_days: export a day again when it is this many days old, None for never.
    :param max_days: days to export at most; a refresh takes what missing days leave of it, and
        goes on in the next run. Missing days are all returned, however many.
    :raises StorageError: when the storage does not tell what it holds.
    :raises BulkExportsError: when Twilio does not tell what it has.
    """
    resource_type = store.resource_type
    stored = _mended(store, first_day, last_day)
    listed = client.list_days(resource_type)
    jobs = client.list_jobs(resource_type).jobs
    # By the service's clock, which decides what is exportable and dates the files.
    today = datetime.fromtimestamp(client.now(), UTC).date()
    coverage = Coverage.of(resource_type, first_day, last_day, stored, listed, jobs, today=today)
    to_fetch, to_export = coverage.to_fetch(), coverage.to_export()
    left = {day: sid for day, sid in coverage.job_sids.items() if day not in to_export}
    due: dict[date, date] = {}
    if refresh_after_days is not None:
        manifests = store.read_manifests(_refresh_window(coverage, refresh_after_days, today))
        due = _days_to_refresh(manifests, refresh_after_days, today)
        ordered = []
        for day, since in due.items():
            # A job has no date. One that has exported the day, and is not what is stored, may be
            # the refresh that an earlier run has ordered and paid for.
            fates = {
                fate: job.sid
                for job in jobs
                if not is_source(job, manifests[day]) and (fate := fates_in(job, today)(day))
            }
            if Fate.EMPTY in fates or any(
                f.day == day and f.create_date and f.create_date >= since for f in listed
            ):
                to_fetch.append(day)
            elif fates:
                left[day] = next(fates[fate] for fate in Fate if fate in fates)
            else:
                ordered.append(day)
        room = len(ordered) if max_days is None else max(0, max_days - len(to_export))
        to_export += ordered[:room]
        if ordered[room:]:
            log.info("max_days leaves to later runs: %s.", show_days(ordered[room:]))
    _report_what_is_left(resource_type, left, jobs, today)
    return Gaps(
        coverage,
        tuple(Gap(resource_type, *days) for days in ranges_of(to_fetch)),
        tuple(
            Gap(resource_type, first, last, _latest(due, first, last))
            for days in ranges_of(to_export)
            for first, last in split_range(*days)
        ),
    )


def _refresh_window(coverage: Coverage, after_days: int, today: date) -> list[date]:
    """Return the stored days that may be due for a refresh: only their manifests matter."""
    last = today - timedelta(days=after_days)
    return [
        day
        for day in days_between(last - REFRESH_WINDOW, last)
        if coverage.days.get(day) in (DayCoverage.STORED, DayCoverage.EMPTY)
    ]


def _days_to_refresh(
    manifests: Mapping[date, Manifest], after_days: int, today: date
) -> dict[date, date]:
    """
    Return the days that are due for a refresh, each with the first day that a file may be of.

    A day is due from ``after_days`` after it on, until an export of that time or later is stored.
    """
    due = {}
    for day, manifest in sorted(manifests.items()):
        since = day + timedelta(days=after_days)
        if manifest.exported_at.date() < since <= today <= since + REFRESH_WINDOW:
            due[day] = since
    return due


def _mended(store: DayStore, first_day: date, last_day: date) -> Mapping[date, StoredDay]:
    """Return what is stored, after what dead publishers left has been mended."""
    stored = store.list_days(first_day, last_day)
    mended = []
    for day, found in stored.items():
        if found.state is not DayState.LOCKED:
            continue
        try:
            store.repair(day)
        except Locked as error:
            log.info("%s is being written, and left alone: %s", store.address(day), error)
        else:
            mended.append(day)
    if not mended:
        return stored
    log.info("Mended after a publisher that has died: %s.", show_days(mended))
    return store.list_days(first_day, last_day)


def _report_what_is_left(
    resource_type: ResourceType, left: Mapping[date, str], jobs: Iterable[Job], today: date
) -> None:
    """Name the jobs that a later run has to wait for; warn of those that have long been due."""
    expected = {job.sid: job.estimated_completion for job in jobs}
    for sid in dict.fromkeys(left.values()):
        days = show_days(day for day, of in left.items() if of == sid)
        end = expected.get(sid)
        if end is not None and end.date() + KEPT < today:
            log.warning(
                "%s of %s waits for job %s, which Twilio expected to end on %s. Delete the job, "
                "and the next run exports its days anew.",
                days, resource_type, sid, end.date(),
            )  # fmt: skip
        else:
            log.info(
                "%s of %s is left to job %s; a later run stores what it exports.",
                days, resource_type, sid,
            )  # fmt: skip


def _latest(due: Mapping[date, date], first_day: date, last_day: date) -> date | None:
    return max((due[day] for day in days_between(first_day, last_day) if day in due), default=None)
