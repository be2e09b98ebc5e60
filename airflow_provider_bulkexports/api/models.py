"""Frozen values of the BulkExport API, parsed once at the edge.

Days are :class:`datetime.date` and mean UTC days; instants are UTC-aware
:class:`pendulum.DateTime`.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest, NotExportableYet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pendulum import DateTime

__all__ = [
    "EXPORT_DELAY",
    "MAX_DAYS",
    "MAX_NAME",
    "Day",
    "Export",
    "ExportConfiguration",
    "ExportRequest",
    "Job",
    "JobState",
    "ResourceType",
    "SignedLink",
    "Status",
    "StatusGroup",
    "available_days",
    "contiguous",
    "day_ranges",
    "days_between",
    "parse_day",
    "parse_job_sid",
    "parse_range",
    "split_range",
]

MAX_DAYS = 366
"""Days an account may request per UTC day (Twilio's overview page), so also per job."""

EXPORT_DELAY = timedelta(days=2)
"""Twilio: the end day must be at least two days before the current UTC day."""

MAX_NAME = 64
"""Our own limit on a job's name: Twilio documents none, and a short name is safe anywhere."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_JOB_SID = re.compile(r"JS[0-9a-fA-F]{32}")
_NAME = re.compile(r"[A-Za-z0-9_]+")


class ResourceType(StrEnum):
    """What can be exported; the words are Twilio's path segments."""

    MESSAGES = "Messages"
    CALLS = "Calls"
    CONFERENCES = "Conferences"
    PARTICIPANTS = "Participants"

    @classmethod
    def parse(cls, value: object) -> ResourceType:
        """
        Return the resource type that ``value`` names, in Twilio's own spelling.

        :raises InvalidRequest: for any other word.
        """
        try:
            return cls(str(value))
        except ValueError:
            allowed = ", ".join(cls)
            raise InvalidRequest(
                f"resource_type is {_shown(value)}; allowed are {allowed}."
            ) from None


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
        return _STATUS_WORDS.get(str(word).replace("_", "").lower(), cls.UNKNOWN)

    @property
    def is_complete(self) -> bool:
        """Whether the day has been exported."""
        return self in (Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS)

    @property
    def is_final(self) -> bool:
        """Whether the day stays as it is; ErrorDuringRun does not, Twilio tries again."""
        return self.is_complete or self in (Status.FAILED, Status.DELETED_BY_USER_REQUEST)


_STATUS_WORDS = {status.value.lower(): status for status in Status if status != Status.UNKNOWN}


class JobState(StrEnum):
    """State of a whole job, which Twilio does not say: it follows from the days."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """
    A custom export job to be made, refused here if Twilio would refuse it.

    :param resource_type: what to export.
    :param start_day: first UTC day, inclusive.
    :param end_day: last UTC day, inclusive.
    :param friendly_name: the job's name: letters, digits, underscores, at most 64.
    :param webhook_url: https URL that Twilio calls on completion; needs ``webhook_method``.
    :param webhook_method: ``GET`` or ``POST``; needs ``webhook_url``.
    :param email: address that Twilio mails on completion.
    :raises InvalidRequest: naming what was given, what is allowed and what to do.
    """

    resource_type: ResourceType
    start_day: date
    end_day: date
    friendly_name: str
    webhook_url: str | None = field(default=None, repr=False)
    webhook_method: str | None = None
    email: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_order(self.start_day, self.end_day)
        if self.day_count > MAX_DAYS:
            raise InvalidRequest(
                f"The range {self.start_day} to {self.end_day} has {self.day_count} days; one job "
                f"may have at most {MAX_DAYS}. Split it."
            )
        if self.end_day > date.max - EXPORT_DELAY:
            raise InvalidRequest(f"end_day is {self.end_day}; give one that can ever be exported.")
        _check_name(self.friendly_name)
        _check_webhook(self.webhook_url, self.webhook_method)
        if self.email is not None and not re.fullmatch(r"[^@\s,;]+@[^@\s,;]+", self.email):
            raise InvalidRequest(
                f"email is {_shown(self.email)}; give one address or leave it out."
            )

    @classmethod
    def parse(
        cls,
        *,
        resource_type: object,
        start_day: object,
        end_day: object,
        friendly_name: str,
        webhook_url: str | None = None,
        webhook_method: str | None = None,
        email: str | None = None,
    ) -> ExportRequest:
        """
        Build a request from rendered text.

        :raises InvalidRequest: as the class does, and for words that are no type or day.
        """
        return cls(
            resource_type=ResourceType.parse(resource_type),
            start_day=parse_day(start_day, "start_day"),
            end_day=parse_day(end_day, "end_day"),
            friendly_name=friendly_name,
            webhook_url=webhook_url or None,
            webhook_method=webhook_method or None,
            email=email or None,
        )

    @property
    def day_count(self) -> int:
        """Number of days asked for, which is what the quota is charged."""
        return (self.end_day - self.start_day).days + 1

    @property
    def exportable_from(self) -> DateTime:
        """The UTC instant from which Twilio accepts this range."""
        import pendulum

        first = self.end_day + EXPORT_DELAY
        return pendulum.datetime(first.year, first.month, first.day)

    def require_exportable(self, now: DateTime) -> None:
        """
        Refuse a range that ends later than two days before ``now``.

        :raises NotExportableYet: with the instant from which it can be exported.
        """
        if now < self.exportable_from:
            raise NotExportableYet(
                f"{self.resource_type} of {self.end_day} cannot be exported yet: Twilio exports a "
                f"UTC day from {self.exportable_from.to_iso8601_string()} on, and it is "
                f"{now.in_timezone('UTC').start_of('second').to_iso8601_string()}. Ask for an "
                "earlier end_day, or set wait_until_exportable=True.",
                available_at=self.exportable_from,
            )

    def form(self) -> dict[str, str]:
        """Return the request as Twilio's form fields; what was not given is left out."""
        fields = {
            "StartDay": self.start_day.isoformat(),
            "EndDay": self.end_day.isoformat(),
            "FriendlyName": self.friendly_name,
            "WebhookUrl": self.webhook_url,
            "WebhookMethod": self.webhook_method,
            "Email": self.email,
        }
        return {name: value for name, value in fields.items() if value is not None}


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
    def parse(cls, body: Mapping[str, Any], resource_type: ResourceType | None = None) -> Job:
        """
        Read a job from an answer.

        :param body: the decoded JSON object.
        :param resource_type: the type it was listed under, for answers that leave it null.
        :raises BadData: when the answer is not a job.
        """
        sid = body.get("job_sid")
        if not isinstance(sid, str) or not _JOB_SID.fullmatch(sid):
            raise BadData(f"A job came without a valid job_sid: {_shown(sid)}.")
        named = body.get("resource_type")
        try:
            kind = ResourceType(named) if named is not None else resource_type
        except ValueError:
            raise BadData(f"Job {sid} has the resource_type {_shown(named)}.") from None
        return cls(
            sid=sid,
            friendly_name=_text(body.get("friendly_name")),
            resource_type=kind,
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
        counts, expected = self._tally(start_day, end_day)
        final = sum(count for status, count in counts.items() if status.is_final)
        if final < expected or final < sum(counts.values()):
            return JobState.ACTIVE
        if all(status.is_complete for status, count in counts.items() if count):
            return JobState.COMPLETED
        return JobState.FAILED

    def is_doomed(self, start_day: date | None = None, end_day: date | None = None) -> bool:
        """Say whether the job cannot complete any more, for its range or a part of it."""
        counts, _ = self._tally(start_day, end_day)
        return any(
            count
            and not status.is_complete
            and (status.is_final or status is Status.RUNNING_TO_BE_DELETED)
            for status, count in counts.items()
        )

    @property
    def is_being_deleted(self) -> bool:
        """Whether Twilio has marked the running job for deletion."""
        return any(g.count and g.status is Status.RUNNING_TO_BE_DELETED for g in self.groups)

    def _tally(self, start_day: date | None, end_day: date | None) -> tuple[dict[Status, int], int]:
        """Return the number of days by status, and how many there should be."""
        first, last = start_day or self.start_day, end_day or self.end_day
        listed = self.day_statuses()
        if listed is not None and first and last:
            days = list(days_between(first, last))
            return Counter(listed[day] for day in days if day in listed), len(days)
        counts: Counter[Status] = Counter()
        for group in self.groups:
            counts[group.status] += group.count
        if self.start_day and self.end_day:
            return counts, (self.end_day - self.start_day).days + 1
        return counts, max(1, counts.total())

    def outcome(self) -> dict[str, Any]:
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
            days = f"  {day_ranges(group.days)}" if group.days else ""
            lines.append(f"  {group.word:<22} {group.count:>4}{days}".rstrip())
        return "\n".join(lines) or "  (Twilio gave no details)"


@dataclass(frozen=True, slots=True)
class Day:
    """
    A day's file as the Days list describes it.

    :param size: bytes of the file, as listed; 0 where Twilio says nothing.
    :param create_date: UTC day the file was made.
    :param friendly_name: name of the job that made it.
    """

    day: date
    size: int
    create_date: date | None
    friendly_name: str | None
    resource_type: ResourceType

    @classmethod
    def parse(cls, body: Mapping[str, Any], resource_type: ResourceType) -> Day:
        """
        Read a day from a listing of ``resource_type``.

        :raises BadData: when the item is not a day.
        """
        if body.get("day") is None:
            raise BadData(f"A {resource_type} day file was listed without its day.")
        size = body.get("size", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadData(
                f"The {resource_type} file of {_shown(body['day'])} has size {_shown(size)}."
            )
        day = _day_or_none(body["day"], f"{resource_type} day file")
        assert day is not None  # noqa: S101 - narrowed above
        return cls(
            day=day,
            size=size,
            create_date=_day_or_none(body.get("create_date"), f"{resource_type} day file"),
            friendly_name=_text(body.get("friendly_name")),
            resource_type=resource_type,
        )


@dataclass(frozen=True, slots=True)
class SignedLink:
    """A day file's address: good for one use, for minutes. Whoever has it has the file."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Export:
    """A resource type's entry point and its links."""

    resource_type: ResourceType
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ExportConfiguration:
    """Whether Twilio makes every day's file by itself (Twilio Editions only)."""

    resource_type: ResourceType
    enabled: bool
    webhook_url: str | None = field(default=None, repr=False)
    webhook_method: str | None = None


def available_days(days: Iterable[Day], jobs: Iterable[Job]) -> set[date]:
    """
    Return the days that can be had now: those with a file, and those known to be empty.

    An empty day may have no file, so the Days list alone would never show it.
    """
    listed = {day.day for day in days}
    for job in jobs:
        statuses = job.day_statuses() or {}
        listed.update(day for day, status in statuses.items() if status.is_complete)
    return listed


def days_between(start_day: date, end_day: date) -> Iterator[date]:
    """Yield every day from ``start_day`` to ``end_day``, both included."""
    for offset in range((end_day - start_day).days + 1):
        yield start_day + timedelta(days=offset)


def split_range(start_day: date, end_day: date) -> list[tuple[date, date]]:
    """
    Cut a range into ranges of at most 366 days, as one job may have.

    :raises InvalidRequest: for a reversed range.
    """
    _check_order(start_day, end_day)
    step = timedelta(days=MAX_DAYS)
    starts = [start_day + n * step for n in range(-(-((end_day - start_day).days + 1) // MAX_DAYS))]
    last = timedelta(days=1)
    return [*((first, second - last) for first, second in pairwise(starts)), (starts[-1], end_day)]


def contiguous(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return days as the ranges that they form, in order."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and (day - ranges[-1][1]).days == 1:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def day_ranges(days: Iterable[date]) -> str:
    """Return days as text, runs of days as ``first to last``."""
    return ", ".join(
        f"{first}" if first == last else f"{first} to {last}" for first, last in contiguous(days)
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
    raise InvalidRequest(f"{name} is {_shown(value)}; give a UTC day as YYYY-MM-DD.")


def parse_range(start_day: object, end_day: object) -> tuple[date, date]:
    """
    Read two UTC days in order.

    :raises InvalidRequest: as :func:`parse_day` does, and for a reversed range.
    """
    start, end = parse_day(start_day, "start_day"), parse_day(end_day, "end_day")
    _check_order(start, end)
    return start, end


def parse_job_sid(value: object) -> str:
    """
    Check that ``value`` is a job SID.

    :raises InvalidRequest: if it is not ``JS`` and 32 hexadecimal digits.
    """
    if isinstance(value, str) and _JOB_SID.fullmatch(value):
        return value
    raise InvalidRequest(f"job_sid is {_shown(value)}; a job SID is JS and 32 hexadecimal digits.")


def _check_order(start_day: date, end_day: date) -> None:
    if start_day > end_day:
        raise InvalidRequest(
            f"The range is reversed: start_day {start_day} is after end_day {end_day}. Swap them."
        )


def _check_name(name: str) -> None:
    if not name:
        raise InvalidRequest("friendly_name is empty; give the job a name.")
    if len(name) > MAX_NAME:
        raise InvalidRequest(
            f"friendly_name {_shown(name)} has {len(name)} characters; at most {MAX_NAME} "
            "are allowed."
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"friendly_name is {_shown(name)}; only letters, digits and underscores are allowed, "
            "since Twilio has been seen to alter others."
        )


def _check_webhook(url: str | None, method: str | None) -> None:
    if (url is None) != (method is None):
        given, missing = (
            ("webhook_url", "webhook_method") if url else ("webhook_method", "webhook_url")
        )
        raise InvalidRequest(f"{given} is given without {missing}; give both or neither.")
    if url is None:
        return
    if method not in ("GET", "POST"):
        raise InvalidRequest(f"webhook_method is {_shown(method)}; allowed are GET and POST.")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme != "https":
        raise InvalidRequest("webhook_url must be an https address with a host.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(
            "webhook_url carries a user name or password, which would be stored with the job; "
            "check Twilio's signature at the receiver instead."
        )


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
            raise BadData(f"Job {sid} has the count {_shown(count)} in its details.")
        yield StatusGroup(Status.parse(word), _shown(word).strip("'\""), count, days)


def _day_or_none(value: object, owner: str) -> date | None:
    if value is None:
        return None
    try:
        return parse_day(value, "day")
    except InvalidRequest:
        raise BadData(f"{owner} has the day {_shown(value)}.") from None


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
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _rank(status: Status) -> int:
    return 2 if status.is_complete else 1 if status.is_final else 0


def _shown(value: object) -> str:
    # Escaped and cut: text from outside must not forge log lines or flood them.
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."
