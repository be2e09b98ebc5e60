"""One exported day file: fetched over its signed link, checked to the last byte while it streams.

Whoever has a signed link has the file, so no link leaves this module: not in an error, not in a
log. The session that opens it knows nothing of the API's: no login, no cookies, no headers of its.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import logging
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit

import pendulum
import requests
import urllib3.exceptions

from airflow_provider_bulkexports import __version__
from airflow_provider_bulkexports.api.deadline import Deadline, WatchedAdapter
from airflow_provider_bulkexports.api.errors import BadData, LinkRefused, NotFound, Retryable
from airflow_provider_bulkexports.api.gzip_check import DayFileCheck, Limits
from airflow_provider_bulkexports.api.retry import (
    Failure,
    backoff,
    failure_of_status,
    retry_after_seconds,
)
from airflow_provider_bulkexports.api.signed_links import LinkFacts, check_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from datetime import date

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.pace import Pace
    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.api.stop import Stop

__all__ = ["DayFile", "fetch_day_file"]

_log = logging.getLogger(__name__)

TRIES = 3
"""Downloads of one file, each over a link of its own, before its damage is an error."""

MISSING_TRIES = 5
"""Askings for a file that should be there: it may come seconds after its day is complete."""

LONGEST_WAIT = 60.0
"""Seconds slept at most between two tries."""

_BLOCK = 512 * 1024
"""Bytes read at once."""
_BATCH = 4
"""Blocks that are handed to the checking thread at once. Half of either takes a twentieth longer,
as the threads meet more often; more takes more memory and no less time."""
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class DayFile:
    """
    A day file, whole and verified.

    :param size: bytes of the file.
    :param records: lines of its text; 0 for a day on which nothing happened.
    :param sha256: hexadecimal digest of the file.
    :param samples: lines of its text: the first, one about each MiB, the last; each cut at 1 MiB,
        at most 4,096.
    :param link: what the path of the file's link says, None where there was no file, or the path
        has not the documented shape.
    """

    resource_type: ResourceType
    day: date
    size: int
    records: int
    sha256: str
    samples: tuple[bytes, ...] = field(default=(), repr=False)
    link: LinkFacts | None = None


def fetch_day_file(
    client: Client,
    resource_type: ResourceType,
    day: date,
    target: BinaryIO,
    *,
    may_be_empty: bool,
    stop: Stop,
    listed_size: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], None] | None = None,
) -> DayFile:
    """
    Fetch a day file into ``target``, as the bytes that it is in the bucket.

    Each try asks for a link of its own, right before it is used. A file that is cut, altered or
    no gzip is fetched again; unless this returns, ``target`` is left empty.

    What ``listed_size`` counts is not documented. Compressed bytes were seen, and the text's
    size is taken too. Where it is neither, the file may be cut between two gzip members, so
    it is fetched again; if then the same bytes come, as many as the bucket announced, the listing
    is wrong, which is logged, and the file right.

    A try ends when the bucket has not answered in the pace's ``exchange``, is silent for ``read``,
    or does not send each further ``stretch`` in ``stretch_seconds``. So the time that a file may
    take grows with its size.

    :param client: whose login and pace count; other threads may use it meanwhile.
    :param target: a seekable, buffered binary file; what it holds is overwritten.
    :param may_be_empty: whether the job said ``CompletedEmptyRecords``: then no file, an empty
        one and a gzip of nothing all mean no records, and leave ``target`` empty.
    :param listed_size: the day's size in the Days list; None or 0 if not known.
    :param progress: told the bytes of this try so far, about once in 2 MiB.
    :param stop: ends this within a second, or five while a connection is being made.
    :raises Stopped: then.
    :raises BadData: when no try brought a whole file.
    :raises NotFound: when there is no file, and there should be one.
    :raises LinkRefused: when the link leads elsewhere.
    :raises Retryable: when the service or the bucket does not answer.
    """
    fetch = _Fetch(target, limits or Limits(), progress, client.pace, stop)
    loopback = urlsplit(client.base_url).scheme == "http"
    failed, missing, digests = 0, 0, set[str]()
    problem: BadData | Retryable | NotFound | None = None
    try:
        with client.stoppable(stop) as api, _BareSession(loopback=loopback) as session:
            while failed < TRIES and missing < MISSING_TRIES:
                if problem is not None:
                    advice = getattr(problem, "retry_after", None)
                    stop.sleep(min(backoff(failed + missing, advice), LONGEST_WAIT))
                stop.check()
                link = None
                try:
                    link = api.fetch_day(resource_type, day)
                    check_link(link.url, allowed_hosts=client.allowed_hosts, loopback=loopback)
                    fetch.run(session, link.url)
                    fetch.require_size(listed_size or None, digests)
                    fetch.require_records(may_be_empty=may_be_empty)
                    return DayFile(
                        resource_type=resource_type,
                        day=day,
                        size=fetch.size,
                        records=fetch.records,
                        sha256=fetch.sha256,
                        samples=fetch.samples,
                        link=LinkFacts.parse(link.url),
                    )
                except NotFound as error:
                    if may_be_empty:
                        fetch.clear()
                        return DayFile(resource_type, day, 0, 0, fetch.sha256)
                    missing += 1
                    problem = error
                except (BadData, Retryable) as error:
                    if link is None and isinstance(error, Retryable):
                        raise  # the client has tried often enough
                    failed += 1
                    problem = error
                _log.info("%s of %s was not fetched: %s", resource_type, day, problem)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            fetch.clear()
        raise
    fetch.clear()
    assert problem is not None  # noqa: S101 - the loop ended with one
    raise _final(problem, f"{resource_type} of {day}", failed + missing)


def _final(
    problem: BadData | Retryable | NotFound, shown: str, tries: int
) -> BadData | Retryable | NotFound:
    reason = str(problem).rstrip(".")
    if isinstance(problem, NotFound):
        return NotFound(
            f"There is no file of {shown}, after {tries} tries: Twilio keeps files for 7 days, and "
            f"one may come a little later than its day is complete. Try again, or export the day "
            f"anew. {reason}.",
            status=problem.status,
            code=problem.code,
            more_info=problem.more_info,
            request_id=problem.request_id,
        )
    if isinstance(problem, Retryable):
        return Retryable(
            f"{shown} could not be fetched in {tries} tries: {reason}.",
            retry_after=problem.retry_after,
            status=problem.status,
            code=problem.code,
            request_id=problem.request_id,
        )
    return BadData(
        f"{shown} did not arrive whole in {tries} tries, the last time because {reason}. Nothing "
        "was kept. Try again later; if it stays so, export the day anew.",
        status=problem.status,
    )


class _Fetch:
    """One file's way into its target; each run starts anew."""

    def __init__(
        self,
        target: BinaryIO,
        limits: Limits,
        progress: Callable[[int], None] | None,
        pace: Pace,
        stop: Stop,
    ) -> None:
        self._target, self._limits, self._progress = target, limits, progress
        self._pace, self._stop = pace, stop
        self.clear()

    def clear(self) -> None:
        """Empty the target."""
        self._target.seek(0)
        self._target.truncate()
        self._digest = hashlib.sha256()
        self._check = DayFileCheck(self._limits)
        self._announced: int | None = None
        self.size = 0

    @property
    def records(self) -> int:
        return self._check.records

    @property
    def samples(self) -> tuple[bytes, ...]:
        return self._check.samples

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def run(self, session: _BareSession, url: str) -> None:
        """Fetch the file once."""
        self.clear()
        with (
            Deadline(self._pace.exchange, self._stop) as deadline,
            contextlib.closing(self._open(session, url, deadline)) as answer,
        ):
            length = answer.headers.get("Content-Length", "")
            if re.fullmatch(r"\d{1,18}", length, re.ASCII) and not _is_chunked(answer):
                self._announced = int(length)
            self._stream(_Body(answer, deadline, self._pace, self._stop))
        if self._announced not in (None, self.size):
            raise BadData(f"the file ends after {self.size} of {self._announced} bytes")
        if self.size:
            self._check.finish()

    def require_size(self, listed: int | None, digests: set[str]) -> None:
        """Compare with the listing; ``digests`` are those of the tries that differed from it."""
        if listed in (None, self.size, self._check.text_size):
            return
        if self._announced is not None and self.sha256 in digests:
            _log.warning(
                "A day file has %d bytes, and %d were listed; it came twice the same and whole.",
                self.size,
                listed,
            )
            return
        digests.add(self.sha256)
        raise BadData(f"the file has {self.size} bytes, and {listed} were listed")

    def require_records(self, *, may_be_empty: bool) -> None:
        """Accept a file without records where the job said so, as no bytes."""
        if self.records:
            return
        if not may_be_empty:
            raise BadData("the file holds no records, and the job does not call the day empty")
        self.clear()

    def _open(self, session: _BareSession, url: str, deadline: Deadline) -> requests.Response:
        pace = self._pace
        session.watched.deadline = deadline
        failure = ""
        try:
            answer = session.get(
                url, stream=True, allow_redirects=False, timeout=(pace.connect, pace.read)
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            failure = type(error).__name__
        # Raised out here: what the libraries raise holds the link, so it must not be chained.
        if deadline.passed:
            self._stop.check()
            raise Retryable(f"the bucket did not answer within {pace.exchange:g} s")
        if failure:
            raise Retryable(f"the bucket did not answer ({failure})")
        if answer.status_code == 200:
            return answer
        with contextlib.closing(answer):
            told = _bucket_code(_Body(answer, deadline, pace, self._stop))
        raise _refusal(answer, told)

    def _stream(self, body: _Body) -> None:
        # Inflating takes most of the time, and lets go of the interpreter: a thread inflates one
        # batch while the next is read, hashed and written. Never more than two are held.
        checking: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="bulkexports-check") as pool:
            try:
                for batch in _batches(iter(body), _BATCH):
                    # Before the last one is waited for: the thread must not run out of work.
                    checking.append(pool.submit(self._check_all, batch))
                    for block in batch:
                        self._digest.update(block)
                        self._target.write(block)
                        self.size += len(block)
                    if len(checking) > 1:
                        checking.popleft().result()
                    if self._progress is not None:
                        self._progress(self.size)
                while checking:
                    checking.popleft().result()
            finally:
                for each in checking:
                    each.cancel()

    def _check_all(self, batch: list[bytes]) -> None:
        for block in batch:
            self._stop.check()
            self._check.feed(block)


class _Body:
    """
    The body of an answer as it was sent, whatever Content-Encoding it claims.

    :raises BadData: when it breaks off, or does not come fast enough.
    """

    def __init__(
        self, answer: requests.Response, deadline: Deadline, pace: Pace, stop: Stop
    ) -> None:
        self._stream = answer.raw.stream(_BLOCK, decode_content=False)
        self._deadline, self._pace, self._stop = deadline, pace, stop

    def __iter__(self) -> Iterator[bytes]:
        pace, left = self._pace, 0
        while True:
            if left <= 0:
                left += pace.stretch
                self._deadline.renew(pace.stretch_seconds)
            block = self.read()
            if block is None:
                return
            if block:
                left -= len(block)
                yield block

    def read(self) -> bytes | None:
        """Return the next block, None at the end."""
        failure, block = "", None
        try:
            block = next(self._stream, None)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            failure = type(error).__name__
        # Also without a failure: what ends with its connection looks whole when it was cut here.
        if self._deadline.passed:
            self._stop.check()
            raise BadData(
                f"the bucket sent less than {self._pace.stretch} bytes in "
                f"{self._pace.stretch_seconds:g} s"
            )
        if failure:
            raise BadData(f"the connection broke before the file's end ({failure})")
        return block


def _refusal(answer: requests.Response, told: str) -> NotFound | Retryable | LinkRefused | BadData:
    status = answer.status_code
    message = f"the bucket answered HTTP {status}{told}"
    if status == 404:
        return NotFound(message, status=status)
    if failure_of_status(status) in (Failure.THROTTLED, Failure.SERVER):
        advice = retry_after_seconds(answer.headers.get("Retry-After"), pendulum.now("UTC"))
        return Retryable(message, status=status, retry_after=advice)
    if 300 <= status < 400:
        return LinkRefused(
            f"The link to the day file leads on to another place (HTTP {status}), which is not "
            "followed: only the service's own link is.",
            status=status,
        )
    return BadData(message, status=status)


def _bucket_code(body: _Body) -> str:
    """Return the word in which a bucket says what is wrong; its other words name the link."""
    start = b""
    with contextlib.suppress(BadData):
        start = body.read() or b""
    found = re.search(rb"<Code>([A-Za-z]{1,60})</Code>", start[:4096])
    return f" ({found[1].decode()})" if found else ""


def _batches(items: Iterator[Item], count: int) -> Iterator[list[Item]]:
    while batch := list(itertools.islice(items, count)):
        yield batch


def _is_chunked(answer: requests.Response) -> bool:
    return "chunked" in answer.headers.get("Transfer-Encoding", "").lower()


class _BareSession(requests.Session):
    """A session that has nothing to give away, and goes nowhere by itself."""

    def __init__(self, *, loopback: bool) -> None:
        super().__init__()
        self.watched = WatchedAdapter()
        self.mount("https://", self.watched)
        self.mount("http://", self.watched)
        # A proxy or CA bundle of the environment is the user's wish, but a netrc entry must not
        # become a login: requests looks it up only where there is no auth at all.
        self.trust_env = not loopback
        self.auth = _no_login
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self.headers.clear()
        self.headers["User-Agent"] = f"airflow-provider-bulkexports/{__version__}"
        self.headers["Accept-Encoding"] = "identity"

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find no redirect in any answer: requests would read a redirect's whole body."""


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
