"""Answers of the sandbox before they are sent, so that a fault can still change them."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

__all__ = ["Answer", "fault_status", "json_answer", "refusal", "service_headers", "xml_refusal"]

_CODES = {400: 20001, 401: 20003, 403: 20006, 404: 20404, 429: 20429, 500: 20500, 503: 20503}

_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type",
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "ETag, Twilio-Request-Id",
}


@dataclass(slots=True)
class Answer:
    """
    An answer to be sent.

    :param content: JSON; faults may change it.
    :param text: body of an answer that is not JSON.
    :param chunks: body of a file; ``size`` is its length.
    :param record: entry of the ledger that follows the sending.
    :param no_length: whether only the connection's end tells where the body ends.
    :param dropped: whether the connection ends instead, with a ``"reset"`` or a ``"close"``.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: Any = None
    text: bytes = b""
    chunks: AsyncIterator[bytes] | None = None
    size: int = 0
    record: dict[str, Any] | None = None
    no_length: bool = False
    dropped: Literal["close", "reset"] | None = None

    @classmethod
    def lost(cls, *, reset: bool = False) -> Answer:
        """Return the end of the connection in the place of an answer."""
        return cls(0, dropped="reset" if reset else "close")

    def replace_body(self, body: bytes, content_type: str) -> None:
        """Put another body in the place of the answer's own, as a success."""
        self.status, self.text, self.content, self.chunks = 200, body, None, None
        self.headers["Content-Type"] = content_type

    def replace_file(self, content: bytes, headers: dict[str, str], *, no_length: bool) -> None:
        """Put another file in the place of the answer's own."""

        async def chunks() -> AsyncIterator[bytes]:
            yield content

        self.chunks, self.size, self.no_length = chunks(), len(content), no_length
        self.headers |= headers

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        if self.chunks is None:
            yield self.body
            return
        async for chunk in self.chunks:
            yield chunk

    @property
    def body(self) -> bytes:
        """The body, unless it is a file."""
        return self.text if self.content is None else json.dumps(self.content).encode()

    @property
    def length(self) -> int:
        """Length of the body in bytes."""
        return len(self.body) if self.chunks is None else self.size


def json_answer(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer whose body is JSON."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status, kind | (headers or {}), content=body)


def refusal(error: Refusal, headers: dict[str, str] | None = None) -> Answer:
    """Return an error as the API describes it: code, message, more_info, status."""
    more = dict(headers or {})
    if error.status == 401:
        more["WWW-Authenticate"] = 'Basic realm="Twilio API"'
    body = {
        "code": error.code,
        "message": error.message,
        "more_info": f"https://www.twilio.com/docs/errors/{error.code}",
        "status": error.status,
    }
    return json_answer(body, error.status, more)


def xml_refusal(error: Refusal, headers: dict[str, str] | None = None) -> Answer:
    """Return an error as a bucket describes it; its name stands before the message's colon."""
    name, _, message = error.message.partition(": ")
    if not message:
        name, message = "InternalError" if error.status >= 500 else "AccessDenied", error.message
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{escape(name)}</Code><Message>{escape(message)}</Message>"
        f"<RequestId>{secrets.token_hex(8).upper()}</RequestId></Error>"
    )
    kind = {"Content-Type": "application/xml"}
    return Answer(error.status, kind | (headers or {}), text=body.encode())


def fault_status(
    status: int,
    code: int | None = None,
    message: str | None = None,
    retry_after: float | str | None = None,
    *,
    file: bool = False,
) -> Answer:
    """
    Return an error that a fault asks for.

    :param code: Twilio's error code; one that goes with the status if None.
    :param message: what is wrong; that it is a fault if None.
    :param retry_after: the header of that name; none if None.
    :param file: whether the bucket answers rather than the API.
    """
    error = Refusal(
        status,
        _CODES.get(status, 20000 + status % 1000) if code is None else code,
        f"Fault of the sandbox with status {status}" if message is None else message,
    )
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return (xml_refusal if file else refusal)(error, headers)


def service_headers(moment: datetime, *, file: bool) -> dict[str, str]:
    """
    Return the headers every answer has.

    :param moment: the sandbox's time, for ``Date``.
    :param file: whether the answer is the bucket's rather than the API's.
    """
    date = {"Date": format_datetime(moment, usegmt=True)}
    if file:
        return date | {"Server": "AmazonS3", "x-amz-request-id": secrets.token_hex(8).upper()}
    own = {
        "Twilio-Request-Id": f"RQ{secrets.token_hex(16)}",
        "Twilio-Request-Duration": "0.001",
        "Twilio-Concurrent-Requests": "1",
    }
    return date | own | _CORS
