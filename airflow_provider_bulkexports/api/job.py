"""What the service describes: jobs and their days, listed files, links.

Parsed once, at the edge. Days are :class:`datetime.date` and mean UTC days; instants are
UTC-aware :class:`pendulum.DateTime`.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.calendar import days_between, parse_day, show_days
from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest
from airflow_provider_bulkexports.api.redact import shown
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import date

    from pendulum import DateTime

__all__ = [
    "ExportConfiguration",
    "ExportLinks",
    "Job",
    "JobListing",
    "JobState",
    "ListedFile",
    "OddItem",
    "SignedLink",
    "Status",
    "StatusGroup",
    "available_days",
    "parse_job_sid",
]

_JOB_SID = re.compile(r"JS[0-9a-fA-F]{32}")


class Status(StrEnum):
    """State of one day of a job (Twilio's ``job_enum_status``)."""

    SUBMITTED = "Submitted"
    RUNNING = "Running"
    ERROR_DURING_RUN = "ErrorDuringRun"
    COMPLETED = "Completed"
    COMPLETED_EMPTY_RECORDS = "CompletedEmptyRecords"
    FAILED = "Failed"
    RUNNING_TO_BE_DELETED = "RunningToBeDeleted"
    DELETED_BY_USER_REQUEST = "DeletedByUserRequest"
    UNKNOWN = "Unknown"

    @classmethod
    def parse(cls, word: object) -> Status:
        """Return the status a word means; case and underscores do not count."""
        if not isinstance(word, str):
            return cls.UNKNOWN
        return _STATUS_WORDS.get(word.replace("_", "").lower(), cls.UNKNOWN)

    @property
    def is_complete(self) -> bool:
        """Whether the day has been exported."""
        return self in (Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS)

    @property
    def is_final(self) -> bool:
        """Whether the day stays as it is; ErrorDuringRun does not, Twilio tries again."""
        return self.is_complete or self in (Status.FAILED, Status.DELETED_BY_USER_REQUEST)


_STATUS_WORDS = {status.value.lower(): status for status in Status if status != Status.UNKNOWN}


_DELETED = (Status.RUNNING_TO_BE_DELETED, Status.DELETED_BY_USER_REQUEST)


class JobState(StrEnum):
    """State of a whole job, which Twilio does not say: it follows from the days."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StatusGroup:
    """
    Days of a job that share a status.

    :param status: what the word means; :attr:`Status.UNKNOWN` for a word we do not know.
    :param word: the word as Twilio wrote it.
    :param count: how many days.
    :param days: which days; None where Twilio did not list them.
    """

    status: Status
    word: str
    count: int
    days: tuple[date, ...] | None


@dataclass(frozen=True, slots=True)
class Job:
    """
    A custom export job as the service last described it.

    ``start_day`` and ``end_day`` bound it, ``groups`` say how far it is. Twilio gives a job
    no state of its own: :meth:`state` is computed.
    """

    sid: str
    friendly_name: str | None
    resource_type: ResourceType | None
    start_day: date | None
    end_day: date | None
    groups: tuple[StatusGroup, ...]
    queue_position: int | None = None
    estimated_completion: DateTime | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_method: str | None = None
    email: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, body: object, resource_type: ResourceType | None = None) -> Job:
        """
        Read a job from an answer.

        :param body: the decoded JSON.
        :param resource_type: the type it was listed under, for answers that leave it null.
        :raises BadData: when the answer is not a job.
        """
        if not isinstance(body, dict):
            raise BadData(f"A job came as {type(body).__name__}, not as an object.")
        sid = body.get("job_sid")
        if not isinstance(sid, str) or not _JOB_SID.fullmatch(sid):
            raise BadData(f"A job came without a valid job_sid: {shown(sid)}.")
        named = body.get("resource_type")
        try:
            described = ResourceType(named) if named is not None else resource_type
        except ValueError:
            raise BadData(f"Job {sid} has the resource_type {shown(named)}.") from None
        return cls(
            sid=sid,
            friendly_name=_text(body.get("friendly_name")),
            resource_type=described,
            start_day=_day_or_none(body.get("start_day"), sid),
            end_day=_day_or_none(body.get("end_day"), sid),
            groups=tuple(_groups(body.get("details"), sid)),
            queue_position=_position(body.get("job_queue_position")),
            estimated_completion=_instant(body.get("estimated_completion_time")),
            webhook_url=_text(body.get("webhook_url")),
            webhook_method=_text(body.get("webhook_method")),
            email=_text(body.get("email")),
        )

    def day_statuses(self) -> dict[date, Status] | None:
        """
        Return each listed day's status, or None where Twilio did not list the days.

        A day listed twice has the less final of its statuses: a job in motion may be read
        while a day moves.
        """
        if any(group.days is None for group in self.groups if group.count):
            return None
        statuses: dict[date, Status] = {}
        for group in self.groups:
            for day in group.days or ():
                known = statuses.get(day)
                if known is None or _rank(group.status) < _rank(known):
                    statuses[day] = group.status
        return statuses

    def state(self, start_day: date | None = None, end_day: date | None = None) -> JobState:
        """
        Say whether the job is done, and how: for its whole range, or for a part of it.

        Done means that every day asked for is final; completed, that each was exported.
        Missing details, unlisted days and unknown words all mean: not done yet. Where Twilio
        does not list the days, a part is only as far as the whole.
        """
        counts = self.count_by_status(start_day, end_day)
        expected = self.day_count(start_day, end_day)
        final = sum(count for status, count in counts.items() if status.is_final)
        if final < expected or final < sum(counts.values()):
            return JobState.ACTIVE
        if all(status.is_complete for status, count in counts.items() if count):
            return JobState.COMPLETED
        return JobState.FAILED

    def is_doomed(self, start_day: date | None = None, end_day: date | None = None) -> bool:
        """Say whether the job cannot complete any more, for its range or a part of it."""
        counts = self.count_by_status(start_day, end_day)
        return any(status in counts for status in (Status.FAILED, *_DELETED))

    def is_deleted(self, start_day: date | None = None, end_day: date | None = None) -> bool:
        """Say whether somebody deleted the job, or a day of the part that is asked for."""
        counts = self.count_by_status(start_day, end_day)
        return any(status in counts for status in _DELETED)

    def count_by_status(
        self, start_day: date | None = None, end_day: date | None = None
    ) -> Counter[Status]:
        """
        Return how many days have each status, for the whole range or for a part of it.

        Where Twilio does not list the days, a part counts as the whole.
        """
        first, last = start_day or self.start_day, end_day or self.end_day
        listed = self.day_statuses()
        if listed is not None and first and last:
            return Counter(listed[day] for day in days_between(first, last) if day in listed)
        counts: Counter[Status] = Counter()
        for group in self.groups:
            if group.count:
                counts[group.status] += group.count
        return counts

    def day_count(self, start_day: date | None = None, end_day: date | None = None) -> int:
        """Return how many days there should be, in the part that :meth:`count_by_status` counts."""
        first, last = start_day or self.start_day, end_day or self.end_day
        if self.day_statuses() is None:
            first, last = self.start_day, self.end_day
        if first and last:
            return (last - first).days + 1
        return max(1, sum(group.count for group in self.groups))

    def as_xcom(self) -> dict[str, Any]:
        """Return the job as plain JSON for an XCom: sid, range, and days by status."""
        return {
            "job_sid": self.sid,
            "friendly_name": self.friendly_name,
            "resource_type": self.resource_type,
            "start_day": self.start_day.isoformat() if self.start_day else None,
            "end_day": self.end_day.isoformat() if self.end_day else None,
            "state": self.state().value,
            "days": {
                group.word: [day.isoformat() for day in group.days]
                if group.days is not None
                else group.count
                for group in self.groups
            },
        }

    def report(self) -> str:
        """Return a table of the days by status, one line a status, for a log or an error."""
        lines = []
        for group in self.groups:
            days = f"  {show_days(group.days)}" if group.days else ""
            lines.append(f"  {group.word:<22} {group.count:>4}{days}".rstrip())
        return "\n".join(lines) or "  (Twilio gave no details)"


@dataclass(frozen=True, slots=True)
class OddItem:
    """
    A listed item that is not what its contract says, and what can be read of it all the same.

    :param reason: what is wrong with it, safe to log.
    :param job_sid: its job SID, None where that cannot be read.
    :param friendly_name: its name, None where that cannot be read.
    """

    reason: str
    job_sid: str | None
    friendly_name: str | None

    @classmethod
    def of(cls, item: object, reason: str) -> OddItem:
        """Read what can be read of an item."""
        fields = item if isinstance(item, dict) else {}
        sid = fields.get("job_sid")
        return cls(
            reason=reason,
            job_sid=sid if isinstance(sid, str) and _JOB_SID.fullmatch(sid) else None,
            friendly_name=_text(fields.get("friendly_name")),
        )


@dataclass(frozen=True, slots=True)
class JobListing:
    """
    The jobs of a type as one whole listing shows them.

    :param jobs: each job once, in the listing's order.
    :param odd: items that could not be read as jobs; most belong to somebody else.
    :param pages: how many pages, and so requests, the listing took.
    """

    jobs: tuple[Job, ...]
    odd: tuple[OddItem, ...] = ()
    pages: int = 1

    @classmethod
    def parse(cls, items: Iterable[object], resource_type: ResourceType, pages: int) -> JobListing:
        """
        Read a whole listing's items; one that comes twice, as where the list grows, counts once.

        :param resource_type: the type they were listed under, for items that leave it null.
        """
        jobs: dict[str, Job] = {}
        odd: dict[OddItem, None] = {}
        for item in items:
            try:
                job = Job.parse(item, resource_type)
            except BadData as error:
                odd[OddItem.of(item, str(error))] = None
            else:
                jobs[job.sid] = job
        return cls(
            jobs=tuple(jobs.values()),
            odd=tuple(item for item in odd if item.job_sid not in jobs),
            pages=pages,
        )

    def get(self, job_sid: str) -> Job | None:
        """
        Return a job by its SID, None if the listing lacks it.

        :raises BadData: if it is listed but cannot be read.
        """
        found = self.by_sid([job_sid])[job_sid]
        if isinstance(found, BadData):
            raise found
        return found

    def by_sid(self, job_sids: Collection[str]) -> dict[str, Job | BadData | None]:
        """Return what is listed under each SID: a job, why it cannot be read, or None."""
        found: dict[str, Job | BadData | None] = dict.fromkeys(job_sids)
        for item in self.odd:
            if item.job_sid in found:
                reason = f"Job {item.job_sid} is listed but cannot be read: {item.reason}"
                found[item.job_sid] = BadData(reason)
        found.update({job.sid: job for job in self.jobs if job.sid in found})
        return found


@dataclass(frozen=True, slots=True)
class ListedFile:
    """
    A day file as the Days list describes it.

    :param size: bytes of the file, as listed; 0 where Twilio says nothing.
    :param create_date: UTC day the file was created.
    :param friendly_name: name of the job that created it.
    """

    day: date
    size: int
    create_date: date | None
    friendly_name: str | None
    resource_type: ResourceType

    @classmethod
    def parse(cls, body: object, resource_type: ResourceType) -> ListedFile:
        """
        Read a day file from a listing of ``resource_type``; of what is odd, only its day matters.

        :raises BadData: when the item has no day.
        """
        if not isinstance(body, dict):
            raise BadData(
                f"A {resource_type} day file came as {type(body).__name__}, not as an object."
            )
        owner = f"A {resource_type} day file"
        day = _day_or_none(body.get("day"), owner)
        if day is None:
            raise BadData(f"{owner} was listed without its day.")
        size = body.get("size")
        created = None
        with contextlib.suppress(BadData):
            created = _day_or_none(body.get("create_date"), owner)
        return cls(
            day=day,
            # Not isinstance, which takes true for 1.
            size=size if type(size) is int and size > 0 else 0,
            create_date=created,
            friendly_name=_text(body.get("friendly_name")),
            resource_type=resource_type,
        )


@dataclass(frozen=True, slots=True)
class SignedLink:
    """A day file's address: good for one use, for minutes. Whoever has it has the file."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExportLinks:
    """A resource type's entry point and its links."""

    resource_type: ResourceType
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExportConfiguration:
    """Whether Twilio creates every day file by itself (Twilio Editions only)."""

    resource_type: ResourceType
    enabled: bool
    webhook_url: str | None = field(default=None, repr=False)
    webhook_method: str | None = None


def available_days(days: Iterable[ListedFile], jobs: Iterable[Job]) -> set[date]:
    """
    Return the days that are available now: those with a file, and those known to be empty.

    An empty day may have no file, so the Days list alone would never show it.
    """
    listed = {day.day for day in days}
    for job in jobs:
        statuses = job.day_statuses() or {}
        listed.update(day for day, status in statuses.items() if status.is_complete)
    return listed


def parse_job_sid(value: object) -> str:
    """
    Check that ``value`` is a job SID.

    :raises InvalidRequest: if it is not ``JS`` and 32 hexadecimal digits.
    """
    if isinstance(value, str) and _JOB_SID.fullmatch(value):
        return value
    raise InvalidRequest(f"job_sid is {shown(value)}; a job SID is JS and 32 hexadecimal digits.")


def _groups(details: object, sid: str) -> Iterator[StatusGroup]:
    if details is None:
        return
    if not isinstance(details, list):
        raise BadData(f"Job {sid} has details of type {type(details).__name__}, not a list.")
    for entry in details:
        if not isinstance(entry, dict):
            raise BadData(f"Job {sid} has an entry of type {type(entry).__name__} in its details.")
        if not entry:
            continue
        word, listed = entry.get("status"), entry.get("days")
        if listed is not None and not isinstance(listed, list):
            raise BadData(f"Job {sid} lists days of type {type(listed).__name__}.")
        days = None
        if listed is not None:
            days = tuple(day for item in listed if (day := _day_or_none(item, sid)) is not None)
        count = entry.get("count")
        count = len(days or ()) if count is None else count
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise BadData(f"Job {sid} has the count {shown(count)} in its details.")
        yield StatusGroup(Status.parse(word), shown(word).strip("'\""), count, days)


def _day_or_none(value: object, owner: str) -> date | None:
    if value is None:
        return None
    try:
        return parse_day(value, "day")
    except InvalidRequest:
        raise BadData(f"{owner} has the day {shown(value)}.") from None


def _instant(value: object) -> DateTime | None:
    # Seen with 3, 6 and 9 fraction digits and no zone; an estimate that cannot be read is
    # no estimate, and no reason to fail.
    if not isinstance(value, str):
        return None
    match = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,6})?", value, re.ASCII)
    if match is None:
        return None
    import pendulum

    try:
        instant = pendulum.parse(
            "".join(part or "" for part in (match[1], "T", match[2], match[3]))
        )
    except ValueError:
        return None
    return instant if isinstance(instant, pendulum.DateTime) else None


def _position(value: object) -> int | None:
    text = str(value) if isinstance(value, str | int) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _rank(status: Status) -> int:
    return 2 if status.is_complete else 1 if status.is_final else 0
