"""One exchange with the service: over in time, and no larger than it may be.

``requests`` limits the silence between two pieces of an answer, never the answer: one byte every
few seconds would hold a worker for hours, and two megabytes of gzip could fill its memory.
"""

from __future__ import annotations

import http.client
import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from airflow_provider_bulkexports import __version__
from airflow_provider_bulkexports.api.deadline import Deadline, WatchedAdapter
from airflow_provider_bulkexports.api.retry import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_bulkexports.api.pace import Pace
    from airflow_provider_bulkexports.api.stop import Stop

__all__ = ["Answer", "Failed", "Transport"]

_PIECE = 64 * 1024
_BROKEN = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,  # a host or a header that no library can encode
)


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the service answered, whole.

    :param reason: the words beside the status, as foreign as the body.
    :param headers: by name in lower case.
    """

    path: str
    status: int
    reason: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json_object(self) -> dict[str, Any] | None:
        """Return the body as a JSON object, None if it is anything else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):  # also for a number too long, or too deep a nesting
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Failed:
    """
    An exchange without an answer.

    :param reason: what happened, without the request's headers, query or body.
    """

    failure: Failure
    reason: str

    @classmethod
    def because(cls, failure: Failure, why: str) -> Failed:
        """Return a failure in its own words, with the reason after them."""
        return cls(failure, f"{failure.value} ({why})")


class Transport:
    """
    Carries one exchange at a time over connections of its own.

    :param auth: login and secret.
    :param trust_env: whether the environment's proxies and CA bundle count.
    :param stop: cuts an exchange short.
    """

    def __init__(self, auth: tuple[str, str], *, trust_env: bool, stop: Stop) -> None:
        self._stop = stop
        self._adapter = WatchedAdapter()
        self._session = _Session()
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)
        self._session.auth = auth
        self._session.trust_env = trust_env
        self._session.headers.update(
            {
                "User-Agent": f"airflow-provider-bulkexports/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            }
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def exchange(
        self, method: str, url: str, form: dict[str, str] | None, pace: Pace
    ) -> Answer | Failed:
        """
        Send one request, and return its whole answer or how it failed; follow no redirect.

        :raises Stopped: when it was cut short.
        """
        target = urlsplit(url)
        failed = None
        with Deadline(pace.exchange, self._stop) as deadline:
            self._adapter.deadline = deadline
            try:
                with self._session.request(
                    method,
                    url,
                    data=form,
                    timeout=(pace.connect, pace.read),
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    body = _body(answer, pace.body)
            except _UnreadableError as error:
                failed = Failed.because(Failure.UNREADABLE, str(error))
            except _BROKEN as error:
                failed = Failed.because(Failure.LOST, _why_lost(error, pace))
        if deadline.passed:
            self._stop.check()
        if deadline.connecting:
            port = target.port or (443 if target.scheme == "https" else 80)
            return Failed(
                Failure.NOT_SENT,
                f"the connection to {target.hostname}:{port} could not be made "
                f"({deadline.obstacle or f'timed out after {pace.exchange:g} s'})",
            )
        # What ends with its connection looks whole when this end has cut it.
        if deadline.passed:
            return Failed.because(Failure.LOST, f"it was not whole after {pace.exchange:g} s")
        if failed is not None:
            if failed.failure is Failure.LOST or answer.status_code < 400:
                return failed
            body = b""  # a refusal's status says it all the same
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(target.path, answer.status_code, answer.reason or "", headers, body)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find no redirect in any answer: requests would parse it even where it is not followed."""


class _UnreadableError(Exception):
    """A body that came, and cannot be used."""


def _body(answer: requests.Response, limit: int) -> bytes:
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    pieces = _pieces(answer, limit)
    if encoding in {"", "identity"}:
        return b"".join(pieces)
    if encoding not in {"gzip", "x-gzip"}:
        raise _UnreadableError("it came in an encoding that was not asked for")
    return _inflated(pieces, limit)


def _pieces(answer: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield the body as it is on the wire."""
    size = 0
    # Not stream(), which reads a chunk's length without any limit.
    while piece := answer.raw.read(_PIECE, decode_content=False):
        size += len(piece)
        if size > limit:
            raise _UnreadableError(f"it has more than {limit} bytes")
        yield piece


def _inflated(pieces: Iterator[bytes], limit: int) -> bytes:
    inflated = bytearray()
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    began = False
    for piece in pieces:
        began = True
        try:
            inflated += stream.decompress(piece, limit + 1 - len(inflated))
        except zlib.error:
            raise _UnreadableError("its gzip is damaged") from None
        if len(inflated) > limit:
            raise _UnreadableError(f"it has more than {limit} bytes when inflated")
        if stream.unused_data:
            raise _UnreadableError("its gzip is followed by something else")
    if began and not stream.eof:
        raise _UnreadableError("its gzip is cut")
    return bytes(inflated)


def _why_lost(error: BaseException, pace: Pace) -> str:
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return f"nothing came for {pace.read:g} s"
    return f"the connection broke: {type(error).__name__}"
