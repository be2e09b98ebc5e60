"""Synthetic records and day files: the same seed, account, type and day give the same bytes."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = [
    "CONTENTS",
    "Archive",
    "FileKey",
    "day_file",
    "is_empty_day",
    "other_contents",
    "records",
]

Record = dict[str, Any]

CONTENTS = {
    "other_day": "the records of 30 days before",
    "neighbour_day": "the records of the day before",
    "other_type": "Calls for Messages, Participants for Conferences, or the other way round",
    "other_account": "the records of another account",
    "early": "the first and every eighth of the records as they were before Twilio updated them",
    "fewer": "the first tenth of the records",
    "rfc2822": "instants as mails have them",
    "empty_strings": "no number, and no instant but date_created: empty strings instead",
    "deep_line": "a first line more, that is nested 3,000 deep",
    "blank_lines": "as many blank lines as records",
    "hello": "one word",
    "html": "a page",
}
"""What a day file may have in it instead of the day's records."""

_OTHER_TYPE = {
    ResourceType.MESSAGES: ResourceType.CALLS,
    ResourceType.CALLS: ResourceType.MESSAGES,
    ResourceType.CONFERENCES: ResourceType.PARTICIPANTS,
    ResourceType.PARTICIPANTS: ResourceType.CONFERENCES,
}
_OTHER_ACCOUNT = "AC" + "0e" * 16
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DEPTH = 3000
_FIRST_YEAR = 2010
_BATCH = 200
_CHUNK = 64 * 1024
_CACHED_FILES = 16
_CACHED_SIZE = 1024 * 1024
_BODIES = (
    "Your parcel is on its way",
    "Code 000000 is for the sandbox only",
    "Réunion à 9 h ☕",
    'Line one\nline two, "quoted"',
    "",
)


@dataclass(frozen=True, slots=True)
class FileKey:
    """
    What decides the bytes of a day file.

    :param form: ``records`` for the day's own records, how an empty file looks (``zero_bytes`` or
        ``empty_gzip``), or one of the contents of :data:`CONTENTS` that is no other file's.
    """

    account_sid: str
    resource_type: ResourceType
    day: date
    form: str = "records"


def other_contents(key: FileKey, what: str) -> FileKey:
    """
    Return the key of a file with other contents in the place of a day's records.

    :param what: of :data:`CONTENTS`.
    """
    if key.form != "records":
        return key
    if what in {"other_day", "neighbour_day"}:
        return replace(key, day=key.day - timedelta(days=30 if what == "other_day" else 1))
    if what == "other_type":
        return replace(key, resource_type=_OTHER_TYPE[key.resource_type])
    if what == "other_account":
        return replace(key, account_sid=_OTHER_ACCOUNT)
    return replace(key, form=what)


def is_empty_day(seed: int, resource_type: ResourceType, day: date, every: int) -> bool:
    """
    Return whether nothing happened on ``day``: about one day in ``every``, none for 0.

    Days before 2010 are always empty.
    """
    if day.year < _FIRST_YEAR:
        return True
    return every > 0 and random.Random(f"{seed}/empty/{resource_type}/{day}").randrange(every) == 0


def records(seed: int, key: FileKey, count: int, repeated: int = 0) -> Iterator[Record]:
    """
    Yield ``count`` records of a day, out of order in time.

    :param repeated: how many of the records come again at the end.
    """
    make = _MAKERS[key.resource_type]
    again: list[Record] = []
    rng = random.Random(f"{seed}/{key.account_sid}/{key.resource_type}/{key.day}")
    for _ in range(count):
        record = make(rng, key)
        if len(again) < repeated:
            again.append(record)
        yield record
    yield from again


def day_file(seed: int, key: FileKey, count: int, repeated: int = 0) -> Iterator[bytes]:
    """Yield the parts of a day file: gzip, one JSON object a line."""
    if key.form == "zero_bytes":
        return
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    lines = _lines(seed, key, count, repeated)
    while batch := list(itertools.islice(lines, _BATCH)):
        yield compressor.compress(("\n".join(batch) + "\n").encode())
    yield compressor.flush()


def _lines(seed: int, key: FileKey, count: int, repeated: int) -> Iterator[str]:
    if key.form == "empty_gzip":
        return
    if key.form in _NO_RECORDS:
        yield from [_NO_RECORDS[key.form]] * (count if key.form == "blank_lines" else 1)
        return
    if key.form == "deep_line":
        yield '{"body":' + "[" * _DEPTH + "]" * _DEPTH + "}"
    change, every = _CHANGES.get(key.form, (dict, 1))
    for number, record in enumerate(records(seed, key, _count(key, count), repeated)):
        shown = change(record) if number % every == 0 else record
        yield json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _count(key: FileKey, count: int) -> int:
    return max(1, count // 10) if key.form == "fewer" else count


class Archive:
    """
    Create day files when they are asked for; remember all sizes and the last small files.

    :param seed: another seed gives other records.
    :param count: records in a day.
    :param repeated: records of a day that come twice.
    """

    def __init__(self, seed: int, count: int, repeated: int = 0) -> None:
        self._seed, self._count, self._repeated = seed, count, repeated
        self._sizes: dict[FileKey, int] = {}
        self._contents: OrderedDict[FileKey, bytes] = OrderedDict()

    def records(self, key: FileKey) -> int:
        """Return how many records a file has."""
        if key.form in {"zero_bytes", "empty_gzip", *_NO_RECORDS}:
            return 0
        count = _count(key, self._count)
        return count + min(self._repeated, count)

    async def size(self, key: FileKey) -> int:
        """Return the size of a file in bytes, as compressed."""
        if key not in self._sizes:
            size, content = await asyncio.to_thread(self._make, key)
            self._sizes[key] = size
            if content is not None:
                self._contents[key] = content
                while len(self._contents) > _CACHED_FILES:
                    self._contents.popitem(last=False)
        return self._sizes[key]

    async def chunks(self, key: FileKey) -> AsyncIterator[bytes]:
        """Yield the bytes of a file, never the whole of a large one at once."""
        content = self._contents.get(key)
        if content is not None:
            self._contents.move_to_end(key)
            for start in range(0, len(content), _CHUNK):
                yield content[start : start + _CHUNK]
            return
        parts = self._parts(key)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            yield part

    def _parts(self, key: FileKey) -> Iterator[bytes]:
        return day_file(self._seed, key, self._count, self._repeated)

    def _make(self, key: FileKey) -> tuple[int, bytes | None]:
        size, kept = 0, bytearray()
        for part in self._parts(key):
            size += len(part)
            if size <= _CACHED_SIZE:
                kept += part
        return size, bytes(kept) if size <= _CACHED_SIZE else None


def _sid(rng: random.Random, prefix: str) -> str:
    return f"{prefix}{rng.getrandbits(128):032x}"


def _number(rng: random.Random) -> str:
    return f"+1555{rng.randrange(10_000_000):07d}"


def _moment(rng: random.Random, day: date) -> datetime:
    midnight = datetime.combine(day, time(), UTC)
    return midnight + timedelta(seconds=rng.randrange(86_400))


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _message(rng: random.Random, key: FileKey) -> Record:
    created = _moment(rng, key.day)
    inbound = rng.random() < 0.3
    record: Record = {
        "sid": _sid(rng, "SM"),
        "account_sid": key.account_sid,
        "messaging_service_sid": None if rng.random() < 0.7 else _sid(rng, "MG"),
        "from": _number(rng),
        "to": _number(rng),
        "body": rng.choice(_BODIES),
        "status": "received" if inbound else rng.choice(("delivered", "sent", "undelivered")),
        "direction": "inbound" if inbound else "outbound-api",
        "num_segments": rng.randrange(1, 4),
        "num_media": 0,
        "error_code": rng.choice((0, None)),
        "date_created": _iso(created),
        "date_sent": _iso(created + timedelta(seconds=1)),
        "date_updated": _iso(created + timedelta(seconds=rng.randrange(2, 90))),
        "flags": rng.choice((17, 65618)),
        "start": key.day.isoformat(),
    }
    # Twilio leaves the price out where it is not known yet.
    if rng.random() < 0.9:
        record["price"] = rng.choice(("-0.00750", "-0.01500", None))
    return record


def _call(rng: random.Random, key: FileKey) -> Record:
    start = _moment(rng, key.day)
    duration = rng.randrange(900)
    caller, called = _number(rng), _number(rng)
    end = _iso(start + timedelta(seconds=duration))
    return {
        "sid": _sid(rng, "CA"),
        "date_created": _iso(start),
        "date_updated": end,
        "parent_call_sid": None,
        "account_sid": key.account_sid,
        "to": called,
        "to_formatted": called,
        "from": caller,
        "from_formatted": caller,
        "phone_number_sid": _sid(rng, "PN"),
        "status": rng.choice(("completed", "completed", "busy", "no-answer", "failed")),
        "start_time": _iso(start),
        "end_time": end,
        "duration": duration,
        "price": rng.choice(("-0.01300", "-0.02600", None)),
        "price_unit": "USD",
        "direction": rng.choice(("inbound", "outbound-api", "outbound-dial")),
        "answered_by": None,
        "api_version": "2010-04-01",
        "forwarded_from": None,
        "group_sid": None,
        "caller_name": None,
        "queue_time": "0",
        "trunk_sid": None,
    }


def _conference(rng: random.Random, key: FileKey) -> Record:
    created = _moment(rng, key.day)
    return {
        "account_sid": key.account_sid,
        "date_created": _iso(created),
        "date_updated": _iso(created + timedelta(seconds=rng.randrange(10, 3600))),
        "friendly_name": f"Room {rng.randrange(100)}",
        "region": "us1",
        "sid": _sid(rng, "CF"),
        "status": "completed",
        "reason_conference_ended": "last-participant-left",
        "call_sid_ending_conference": _sid(rng, "CA"),
    }


def _participant(rng: random.Random, key: FileKey) -> Record:
    created = _moment(rng, key.day)
    return {
        "account_sid": key.account_sid,
        "call_sid": _sid(rng, "CA"),
        "call_sid_to_coach": None,
        "coaching": False,
        "conference_sid": _sid(rng, "CF"),
        "date_created": _iso(created),
        "date_updated": _iso(created + timedelta(seconds=rng.randrange(10, 3600))),
        "end_conference_on_exit": rng.random() < 0.5,
        "muted": rng.random() < 0.1,
        "hold": False,
        "start_conference_on_enter": True,
        "status": rng.choice(("complete", "complete", "failed")),
        "queue_time": "0",
    }


_MAKERS: dict[ResourceType, Callable[[random.Random, FileKey], Record]] = {
    ResourceType.MESSAGES: _message,
    ResourceType.CALLS: _call,
    ResourceType.CONFERENCES: _conference,
    ResourceType.PARTICIPANTS: _participant,
}


def _early(record: Record) -> Record:
    return record | {"status": "in-progress", "date_updated": record["date_created"]}


def _as_in_mails(record: Record) -> Record:
    return {
        name: format_datetime(datetime.fromisoformat(value)) if _is_instant(value) else value
        for name, value in record.items()
    }


def _with_empty_strings(record: Record) -> Record:
    return {
        name: ""
        if name == "price" or type(value) is int or (_is_instant(value) and name != "date_created")
        else value
        for name, value in record.items()
    }


def _is_instant(value: object) -> bool:
    return isinstance(value, str) and _INSTANT.fullmatch(value) is not None


# And to every how manyth record.
_CHANGES: dict[str, tuple[Callable[[Record], Record], int]] = {
    "early": (_early, 8),
    "rfc2822": (_as_in_mails, 1),
    "empty_strings": (_with_empty_strings, 1),
}
_NO_RECORDS = {
    "blank_lines": "",
    "hello": "hello",
    "html": "<html><body>Please come back later.</body></html>",
}
