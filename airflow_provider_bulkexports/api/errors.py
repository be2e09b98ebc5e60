"""What can go wrong, named by what the caller should do next.

BulkExportsError
├── Retryable            repeat freely: the service did not act
├── OutcomeUnknown       look before repeating: the service may have acted
│   └── Unsettled            it may still act: look again, and repeat only from a given instant
├── Unauthorized         the service refused the credentials: they may be being rotated
├── BadData              the answer cannot be trusted: ask again, never publish
├── StorageError         the storage failed or refused: ask again, nothing is known of its content
│   └── Locked               another publisher has the day: come back when its lock has ended
├── Stopped              the caller gave the signal to stop: nothing failed
└── Fatal                do not repeat: somebody has to change something
    ├── InvalidRequest       refused here, before any traffic
    │   └── NotExportableYet     right, but too early
    ├── NotFound             no such job, day or resource
    ├── QuotaExceeded        no days left until the next UTC midnight
    ├── KeyConflict          a job has our key but is for something else
    └── LinkRefused          a file's link leads where no request may go
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = [
    "BadData",
    "BulkExportsError",
    "Fatal",
    "InvalidRequest",
    "KeyConflict",
    "LinkRefused",
    "Locked",
    "NotExportableYet",
    "NotFound",
    "OutcomeUnknown",
    "QuotaExceeded",
    "Retryable",
    "Stopped",
    "StorageError",
    "Unauthorized",
    "Unsettled",
]


class _Facts(TypedDict, total=False):
    """What an answer told besides its message; see :class:`BulkExportsError`."""

    status: int | None
    code: int | None
    more_info: str | None
    request_id: str | None


class BulkExportsError(Exception):
    """
    Base of every error of this package's API client.

    :param message: what was tried, what happened and what to do, safe to log.
    :param status: HTTP status of the answer, None where none came.
    :param code: Twilio's error code from the body.
    :param more_info: Twilio's page about that code.
    :param request_id: Twilio's ``Twilio-Request-Id``, to give to its support.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: int | None = None,
        more_info: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more_info = more_info
        self.request_id = request_id


class Retryable(BulkExportsError):
    """
    The service did not act: the same call may be repeated.

    :param retry_after: seconds the service asked to wait, None if it did not say.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, **facts: Unpack[_Facts]
    ) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class OutcomeUnknown(BulkExportsError):
    """The service may or may not have acted: look before repeating."""


class Unsettled(OutcomeUnknown):
    """
    A POST may still act, although nothing shows it yet.

    :param not_before: when another POST may be sent, in seconds since the epoch.
    :param posts: POSTs that this try has sent so far.
    """

    def __init__(self, message: str, *, not_before: float, posts: int) -> None:
        super().__init__(message)
        self.not_before = not_before
        self.posts = posts


class Unauthorized(BulkExportsError):
    """The service refused the credentials (401) or what they may do (403)."""


class BadData(BulkExportsError):
    """The service's answer is not what its contract says."""


class Stopped(BulkExportsError):
    """The caller gave the signal to stop, and the work ended before its end."""


class StorageError(BulkExportsError):
    """The storage failed or refused; its own words and the address are in the message."""


class Locked(StorageError):
    """
    Another publisher has the day.

    :param until: when its lock ends at the latest, None where that is not known.
    """

    def __init__(self, message: str, *, until: DateTime | None = None) -> None:
        super().__init__(message)
        self.until = until


class Fatal(BulkExportsError):
    """Repeating cannot help."""


class InvalidRequest(Fatal, ValueError):
    """The request was refused here, before any traffic."""


class NotExportableYet(InvalidRequest):
    """
    The range ends later than the day before yesterday, in UTC.

    :param available_at: the UTC instant from which the range can be exported.
    """

    def __init__(self, message: str, *, available_at: DateTime) -> None:
        super().__init__(message)
        self.available_at = available_at


class NotFound(Fatal):
    """The service knows no such thing (404)."""


class QuotaExceeded(Fatal):
    """
    The account has no export days left today.

    :param resets_at: the next UTC midnight, when the count starts anew.
    """

    def __init__(self, message: str, *, resets_at: DateTime, **facts: Unpack[_Facts]) -> None:
        super().__init__(message, **facts)
        self.resets_at = resets_at


class KeyConflict(Fatal):
    """A listed job has this submission's key but another type or range."""


class LinkRefused(Fatal):
    """The service named a place to which no request may go; none was sent there."""
