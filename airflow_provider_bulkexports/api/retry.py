"""What may be repeated, and when.

Twilio's rule: 429, 500, 502, 503 and 504 may pass with time; a 429 was never processed; after a
5xx a POST may have acted all the same. So a call that may be repeated freely is repeated on any
of them, and one that creates something only where it certainly did not act.
"""

from __future__ import annotations

import random
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import (
    BadData,
    Fatal,
    NotFound,
    OutcomeUnknown,
    Retryable,
    Unauthorized,
)

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = [
    "Failure",
    "Verdict",
    "backoff",
    "failure_of_status",
    "http_date",
    "retry_after_seconds",
    "verdict",
]

Verdict = type[Retryable | OutcomeUnknown | Unauthorized | BadData | Fatal]

_LONGEST_ADVICE = 999_999_999.0
"""Seconds, 31 years: longer than anybody waits, and still a date when added to one."""


class Failure(Enum):
    """How a call failed."""

    NOT_SENT = "the connection could not be made"
    LOST = "the answer was lost"
    UNREADABLE = "the answer cannot be read"
    THROTTLED = "too many requests"
    SERVER = "the service failed"
    UNAUTHORIZED = "the service refused the credentials"
    MISSING = "the service knows no such thing"
    REFUSED = "the service refused"


_TABLE: dict[Failure, tuple[Verdict, Verdict]] = {
    # failure: (a call that may be repeated, a call that creates something)
    Failure.NOT_SENT: (Retryable, Retryable),
    Failure.THROTTLED: (Retryable, Retryable),
    Failure.LOST: (Retryable, OutcomeUnknown),
    Failure.SERVER: (Retryable, OutcomeUnknown),
    Failure.UNREADABLE: (BadData, OutcomeUnknown),
    Failure.UNAUTHORIZED: (Unauthorized, Unauthorized),
    Failure.MISSING: (NotFound, NotFound),
    Failure.REFUSED: (Fatal, Fatal),
}


def verdict(failure: Failure, *, creates: bool) -> Verdict:
    """Return the error class for a failed call: what the caller may do next."""
    return _TABLE[failure][creates]


def failure_of_status(status: int) -> Failure | None:
    """Return how an HTTP status fails, or None if it does not."""
    if status < 400:
        return None
    # 408: the service gave up reading, so it may or may not have acted.
    if status == 408 or status >= 500:
        return Failure.SERVER
    return {
        401: Failure.UNAUTHORIZED,
        403: Failure.UNAUTHORIZED,
        404: Failure.MISSING,
        429: Failure.THROTTLED,
    }.get(status, Failure.REFUSED)


def backoff(tries: int, retry_after: float | None = None) -> float:
    """
    Return the seconds to wait before the next try: 1, 2, 4, 8... with jitter.

    :param tries: how many tries have failed.
    :param retry_after: the service's own advice in seconds, a lower bound if given.
    """
    # Jitter spreads clients that failed together; it is no secret.
    wait = 2.0 ** (min(tries, 6) - 1) * random.uniform(0.75, 1.25)
    return max(wait, retry_after or 0.0)


def retry_after_seconds(header: str | None, now: DateTime) -> float | None:
    """
    Read a ``Retry-After`` header, seconds or an HTTP date; None if absent or unreadable.

    What is longer than 31 years is cut, so that a date can be reckoned with it.
    """
    if header is not None and re.fullmatch(r"\d+", header.strip(), re.ASCII):
        return min(float(header), _LONGEST_ADVICE)
    moment = http_date(header)
    if moment is None:
        return None
    return min(max(0.0, moment - now.timestamp()), _LONGEST_ADVICE)


def http_date(header: str | None) -> float | None:
    """Read an HTTP date as seconds since the epoch; None if absent or unreadable."""
    try:
        moment = parsedate_to_datetime(header or "")
        if moment.tzinfo is None:  # an HTTP date is GMT, also where it does not say so
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
