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

from airflow_provider_bulkexports.api.errors import Fatal, OutcomeUnknown, Retryable

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = ["TRIES", "Failure", "backoff", "failure_of_status", "retry_after_seconds", "verdict"]

TRIES = 5
"""Tries of one call before its error is raised: about 15 s of waiting in all."""

LONGEST_WAIT = 60.0
"""Seconds that a call may sleep before its next try; a longer advice is left to the caller."""


class Failure(Enum):
    """How a call failed."""

    NOT_SENT = "the connection could not be made"
    LOST = "the answer was lost"
    THROTTLED = "too many requests"
    SERVER = "the service failed"
    REFUSED = "the service refused"


_TABLE = {
    # failure: (a call that may be repeated, a call that creates something)
    Failure.NOT_SENT: (Retryable, Retryable),
    Failure.THROTTLED: (Retryable, Retryable),
    Failure.LOST: (Retryable, OutcomeUnknown),
    Failure.SERVER: (Retryable, OutcomeUnknown),
    Failure.REFUSED: (Fatal, Fatal),
}


def verdict(failure: Failure, *, creates: bool) -> type[Retryable | OutcomeUnknown | Fatal]:
    """Return the error class for a failed call: what the caller may do next."""
    return _TABLE[failure][creates]


def failure_of_status(status: int) -> Failure | None:
    """Return how an HTTP status fails, or None if it does not."""
    if status == 429:
        return Failure.THROTTLED
    # 408: the service gave up reading, so it may or may not have acted.
    if status == 408 or status >= 500:
        return Failure.SERVER
    return Failure.REFUSED if status >= 400 else None


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
    """Read a ``Retry-After`` header, seconds or an HTTP date; None if absent or unreadable."""
    if header is None:
        return None
    if re.fullmatch(r"\d{1,9}", header.strip(), re.ASCII):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
        if moment.tzinfo is None:  # an HTTP date is GMT, also where it does not say so
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now.timestamp())
    except (ValueError, TypeError, OverflowError):
        return None
