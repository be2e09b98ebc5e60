"""Whose, which type's and which day's records a file holds, as far as they show it themselves."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.redact import shown
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from airflow_provider_bulkexports.api.signed_links import LinkFacts

__all__ = ["SAMPLE_BYTES", "Evidence", "check_rejected"]

log = logging.getLogger(__name__)

SAMPLE_BYTES = 2**20
"""Where samples are cut: one of this length says nothing."""
FEW_REJECTED = 10
"""Malformed records that fail no day, however small it is."""
_ONE_DAY = timedelta(days=1)
_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
_SIDS = {
    ResourceType.MESSAGES: ("sid", ("SM", "MM")),
    ResourceType.CALLS: ("sid", ("CA",)),
    ResourceType.CONFERENCES: ("sid", ("CF",)),
    ResourceType.PARTICIPANTS: ("conference_sid", ("CF",)),
}
"""The column that tells the type, and how its values begin."""


class Evidence:
    """
    What a day file says of itself: its link, then the records that are looked at.

    :param account_sid: whose records they must be; None where that is learnt here.
    """

    def __init__(self, resource_type: ResourceType, day: date, account_sid: str | None) -> None:
        self.account_sid = account_sid
        self._type, self._day = resource_type, day
        self._sid_name, self._prefixes = _SIDS[resource_type]
        self._days: set[date] = set()
        self._is_looked_at = self._has_sid = False

    def look_at_link(self, link: LinkFacts | None) -> None:
        """
        Compare the path of the file's link, if it has the documented shape.

        :raises BadData: when it names another day, type or account.
        """
        if link is None:
            return
        if (link.resource_type, link.day) != (self._type, self._day):
            raise BadData(
                f"Twilio's link leads to {link.resource_type} of {link.day}, not to {self._type} "
                f"of {self._day}."
            )
        self._compare_account(link.account_sid)

    def look_at_lines(self, lines: Iterable[bytes]) -> None:
        """
        Look at samples of a file's text; one that cannot be read says nothing.

        :param lines: lines of the text, cut at :data:`SAMPLE_BYTES`.
        :raises BadData: when a record is another account's or type's, or no line is a record.
        """
        looked, objects = 0, 0
        for line in lines:
            looked += 1
            record = _object_on(line)
            if record is None:
                continue
            objects += 1
            self._is_looked_at |= bool(record)
            self._compare_account(record.get("account_sid"))
            self._compare_sid(record.get(self._sid_name))
            is_message = self._type is ResourceType.MESSAGES
            day = _day_of(record.get("start" if is_message else "date_created"))
            if day is not None:
                self._days.add(day)
        if looked and not objects:
            raise BadData(
                f"What came as {self._type} of {self._day} is no export: no line that was looked "
                "at is a JSON object."
            )

    def look_at_table(self, table: pa.Table) -> None:
        """
        Look at typed records, their columns as Twilio has them.

        :raises BadData: when a record is another account's or type's.
        """
        import pyarrow as pa
        from pyarrow import compute

        # Each is one pass where all is well: a list of what is different takes five times as long.
        accounts = table["account_sid"]
        if not _all(compute.equal(accounts, self.account_sid or "")):
            for account in compute.unique(accounts).to_pylist():
                self._compare_account(account)
        sids = table[self._sid_name]
        is_right = reduce(
            compute.or_, (compute.starts_with(sids, prefix) for prefix in self._prefixes)
        )
        if not _all(is_right):
            for sid in sids.filter(compute.invert(is_right)).to_pylist():
                self._compare_sid(sid)
        self._is_looked_at |= table.num_rows > 0
        self._has_sid |= bool(compute.any(is_right).as_py())
        if self._type is ResourceType.MESSAGES:
            days = compute.unique(table["start"]).to_pylist()
        else:
            created = table["date_created"].cast(pa.timestamp("us")).cast(pa.date32())
            days = compute.unique(created).to_pylist()
        self._days.update(day for value in days if (day := _day_of(value)) is not None)

    def conclude(self) -> None:
        """
        Judge by all that was looked at; what shows no day is taken on trust.

        :raises BadData: when nothing of it is of the type, or of the day.
        """
        if self._is_looked_at and not self._has_sid:
            raise BadData(
                f"What came as {self._type} of {self._day} is something else: no record that was "
                f"looked at has a {self._sid_name}."
            )
        if not self._days or self._day in self._days:
            return
        found = (
            f"What came as {self._type} of {self._day} has records of {min(self._days)} to "
            f"{max(self._days)}, and none of its own day"
        )
        # Twilio does not say which of a record's times decides its day, save for messages.
        is_near = not self._days.isdisjoint({self._day - _ONE_DAY, self._day + _ONE_DAY})
        if self._type is ResourceType.MESSAGES or not is_near:
            raise BadData(f"{found}.")
        log.warning("%s. It is kept, as days may be cut elsewhere than at midnight UTC.", found)

    def _compare_account(self, account_sid: object) -> None:
        if not isinstance(account_sid, str) or not account_sid:
            return
        if self.account_sid is None:
            if not _ACCOUNT.fullmatch(account_sid):
                raise BadData(f"What came names the account {shown(account_sid)}, which is none.")
            self.account_sid = account_sid
        if account_sid != self.account_sid:
            raise BadData(
                f"What came as {self._type} of {self._day} is of account {shown(account_sid)}, not "
                f"of {self.account_sid}."
            )

    def _compare_sid(self, sid: object) -> None:
        if not isinstance(sid, str) or not sid:
            return
        self._has_sid = True
        if not sid.startswith(self._prefixes):
            raise BadData(
                f"What came as {self._type} of {self._day} has the {self._sid_name} {shown(sid)}; "
                f"it must begin with {' or '.join(self._prefixes)}."
            )


def check_rejected(records: int, rejected: int, max_rejected: float) -> None:
    """
    Refuse a day of which too many records are malformed, or all.

    :param records: records that are well.
    :param max_rejected: share of all that may be malformed; ten records always may.
    :raises BadData: naming the counts.
    """
    if rejected and not records:
        raise BadData(f"all {rejected} records are malformed")
    if rejected > max(FEW_REJECTED, max_rejected * (records + rejected)):
        raise BadData(
            f"{rejected} of {records + rejected} records are malformed, which is more than "
            f"max_rejected={max_rejected:g} allows"
        )


def _all(mask: pa.ChunkedArray) -> bool:
    """Say whether a mask holds wherever it is not null."""
    from pyarrow import compute

    return bool(compute.all(mask, min_count=0).as_py())


def _object_on(line: bytes) -> dict[str, Any] | None:
    """Return a line's JSON object, an empty one for a line that begins as one but is unreadable."""
    try:
        record = json.loads(line)
    except RecursionError:
        record = None
    except ValueError:
        if len(line) < SAMPLE_BYTES:
            return None
        record = None
    if isinstance(record, dict):
        return record
    return {} if record is None and line.startswith(b"{") else None


def _day_of(value: object) -> date | None:
    """Return the UTC day of a date or an instant, in a text or not."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
        if value.tzinfo is None:
            return value.date()
    if isinstance(value, datetime):
        return value.astimezone(UTC).date()
    return value if isinstance(value, date) else None
