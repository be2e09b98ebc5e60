"""What becomes of a wanted day: what Twilio has of it, what is stored, and the rules between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.storage.fates import Fate, fate_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_bulkexports.api.job import Job, ListedFile
    from airflow_provider_bulkexports.api.signed_links import LinkFacts
    from airflow_provider_bulkexports.storage.manifest import Manifest

__all__ = [
    "Action",
    "Contents",
    "Offer",
    "decide",
    "is_source",
    "names_in",
    "newest_files",
    "plain_name",
]

_AND = " + "


class Action(StrEnum):
    """What is done about a day."""

    FETCH = "fetch"
    """Fetch the file: what is in it decides."""
    STORE = "stored"
    REPLACE = "replaced"
    RENEW = "renewed"
    """Leave the file; its manifest tells of the newer export that had the same bytes."""
    LEAVE = "unchanged"
    REFUSE = "refused"
    """Leave the file; its manifest tells of the newer export that had fewer records."""
    FAIL = "failed"
    """The day holds other records, and may not be overwritten."""


@dataclass(frozen=True, slots=True)
class Offer:
    """
    What Twilio has of a day: the file that it lists, or jobs that call the day empty.

    :param friendly_name: of the listed file's job, without backslashes, and of the other jobs that
        call the day empty, which may have no file.
    :param create_date: UTC day on which the listed file was created.
    :param size: of the listed file; None where no file is listed.
    :param job_sid: the one listed job that has exported this, None if no or more jobs may have.
    :param may_be_empty: whether the day is allowed to have no records.
    :param dates_itself: whether the listed file's own time is the time of the day's newest export.
    """

    friendly_name: str | None
    create_date: date | None
    size: int | None
    job_sid: str | None
    may_be_empty: bool
    dates_itself: bool

    @classmethod
    def of(cls, day: date, file: ListedFile | None, jobs: Iterable[Job]) -> Offer | None:
        """
        Return what there is of a day; None if that is nothing.

        :param file: the newest that is listed.
        :param jobs: the listed jobs of the type.
        """
        exported = [
            (job, fate)
            for job in jobs
            if (fate := fate_of(job)(day)) in (Fate.EXPORTED, Fate.EMPTY)
        ]
        name = plain_name(file.friendly_name) if file else None
        owners = [
            (job, fate)
            for job, fate in exported
            if file is None or (name is not None and plain_name(job.friendly_name) == name)
        ]
        others = {
            plain_name(job.friendly_name) or job.sid
            for job, fate in exported
            if fate is Fate.EMPTY and (file is None or (job, fate) not in owners)
        }
        if file is None and not others:
            return None
        return cls(
            friendly_name=_AND.join([*([name] if name else []), *sorted(others)]) or None,
            create_date=file.create_date if file else None,
            size=file.size if file else None,
            job_sid=owners[0][0].sid if len(owners) == 1 else None,
            may_be_empty=all(fate is Fate.EMPTY for _, fate in owners or exported),
            dates_itself=file is not None and not others,
        )

    def is_that_of(self, manifest: Manifest) -> bool:
        """Say whether a stored day has been compared with just this before."""
        source = manifest.source
        stored = (source.friendly_name, source.create_date, source.listed_size)
        return (self.friendly_name, self.create_date, self.size) == stored

    def is_older_than(self, manifest: Manifest) -> bool:
        """Say whether the listed file was written on an earlier day than the stored one."""
        stored = manifest.source.create_date
        return bool(self.create_date and stored and self.create_date < stored)

    def agrees_with(self, link: LinkFacts | None) -> bool:
        """Say whether the file behind a link can be the listed one; a newer one may have come."""
        created = link.created_time if link else None
        return created is None or self.create_date in (None, created.date())


@dataclass(frozen=True, slots=True)
class Contents:
    """
    What was in a fetched file.

    :param sha256: digest of Twilio's bytes; empty for a day without records.
    :param lines: records and rejected records.
    """

    sha256: str
    lines: int


def decide(  # noqa: PLR0911 - one return a rule
    stored: Manifest | None,
    offer: Offer | None,
    contents: Contents | None,
    *,
    if_exists: str,
    allow_fewer_records: bool,
) -> Action:
    """
    Say what becomes of a wanted day.

    :param stored: the manifest that stands, None if the day is absent.
    :param offer: what Twilio has of it.
    :param contents: what was fetched; None before that.
    :param if_exists: ``replace``, ``skip`` or ``fail``.
    """
    if stored is None:
        return Action.STORE if contents else Action.FETCH
    if if_exists == "skip":
        return Action.LEAVE
    # What was refused as fewer is known by its name, but is wanted now.
    is_reconsidered = allow_fewer_records and stored.refused is not None
    if offer is None or (offer.is_that_of(stored) and not is_reconsidered):
        return Action.LEAVE
    if offer.is_older_than(stored):
        return Action.LEAVE  # a list that lags must not bring back what was replaced
    if contents is None:
        return Action.FETCH
    # A manifest that was rebuilt knows no digest of Twilio's bytes, and an empty day has none.
    if contents.sha256 == stored.source.sha256 and (contents.sha256 or stored.is_empty):
        return Action.RENEW
    if if_exists == "fail":
        return Action.FAIL
    if contents.lines < stored.records + stored.rejected and not allow_fewer_records:
        return Action.REFUSE
    return Action.REPLACE


def is_source(job: Job, manifest: Manifest) -> bool:
    """Say whether a stored day came from a job."""
    name = plain_name(job.friendly_name) or job.sid
    return job.sid == manifest.job_sid or name in names_in(manifest.source.friendly_name)


def newest_files(files: Iterable[ListedFile]) -> dict[date, ListedFile]:
    """Return the newest file of each day; files of one date are listed as they were created."""
    newest: dict[date, ListedFile] = {}
    for file in files:
        known = newest.get(file.day)
        if known is None or (known.create_date or date.min) <= (file.create_date or date.min):
            newest[file.day] = file
    return newest


def plain_name(name: str | None) -> str | None:
    r"""Return a job's name as it was given: the Days list writes ``\-`` for its hyphens."""
    return name.replace("\\", "") if name else None


def names_in(friendly_name: str | None) -> list[str]:
    """Return the jobs' names of an offer."""
    return friendly_name.split(_AND) if friendly_name else []
