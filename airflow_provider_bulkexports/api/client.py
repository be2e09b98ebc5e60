"""The BulkExport API over HTTP: one method per endpoint, values in and out."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import pendulum

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.calendar import MAX_DAYS
from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    Retryable,
)
from airflow_provider_bulkexports.api.exchange import Answer, Failed, Transport
from airflow_provider_bulkexports.api.job import (
    ExportConfiguration,
    ExportLinks,
    Job,
    JobListing,
    ListedFile,
    SignedLink,
    parse_job_sid,
)
from airflow_provider_bulkexports.api.redact import safe_text, spellings
from airflow_provider_bulkexports.api.retry import (
    backoff,
    failure_of_status,
    http_date,
    retry_after_seconds,
    verdict,
)
from airflow_provider_bulkexports.api.signed_links import check_allowed_hosts
from airflow_provider_bulkexports.api.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from airflow_provider_bulkexports.api.pace import Pace
    from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType

__all__ = ["BASE_URL", "PAGE_SIZE", "Client", "check_base_url"]

_log = logging.getLogger(__name__)

BASE_URL = "https://bulkexports.twilio.com"

PAGE_SIZE = 30
"""Items a page, always sent: without it the service cuts a listing at 10 items in silence, and 2
to 30 is the range in which paging was seen to work (twilio-python issue 650)."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CREDIBLE = (1_577_836_800, 4_102_444_800)
"""The years 2020 to 2099: a ``Date`` outside them tells nothing about the time."""


def check_base_url(url: str) -> str:
    """
    Return ``url`` as an origin.

    :raises InvalidRequest: unless it is https, or http on this machine, with nothing but a host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if (
        not host
        or parts.username is not None
        or parts.query
        or parts.fragment
        or parts.path.strip("/")
        or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))
    ):
        raise InvalidRequest(
            "base_url must be https://HOST, or http:// on this machine for the sandbox, without "
            "path, query or credentials; leave it empty for Twilio."
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}" if port else f"{parts.scheme}://{shown}"


class Client:
    """
    Calls the nine operations of the BulkExport API.

    Reads are repeated on 429, 5xx and lost connections; a job is created only by a call that is
    never repeated here. Redirects are never followed. One client serves one thread at a time.

    :param login: Account SID or API key SID.
    :param secret: Auth Token or API key secret.
    :param base_url: another origin than Twilio's: https, or http on this machine.
    :param allowed_hosts: hosts beside S3's that a day file may come from; ``.example.com`` stands
        for all below it.
    :param pace: how long and how often; the one that everything keeps if not given.
    :param stop: cuts a call short, which then raises :class:`Stopped`; a POST's outcome is unknown.
    :raises InvalidRequest: for missing credentials, or a ``base_url`` or host that is not allowed.
    """

    def __init__(
        self,
        login: str,
        secret: str,
        *,
        base_url: str | None = None,
        allowed_hosts: Sequence[str] = (),
        pace: Pace | None = None,
        stop: Stop | None = None,
    ) -> None:
        if not login or not secret:
            raise InvalidRequest(
                "The credentials are incomplete: login must be an Account SID or API key SID, "
                "password its Auth Token or key secret."
            )
        if not (login + secret).isascii() or not (login + secret).isprintable():
            raise InvalidRequest(
                "The credentials hold a character that no SID or token has; copy them anew."
            )
        self.base_url = check_base_url(base_url) if base_url else BASE_URL
        self.allowed_hosts = check_allowed_hosts(allowed_hosts)
        self.pace = pace or pace_module.PACE
        self._stop = stop or Stop()
        self.ends_at = math.inf
        """When it sends nothing more and waits for no answer, in seconds since the epoch."""
        self._login = login
        self._secret = secret
        self._secrets = spellings(login, secret)
        self._skew = 0.0
        # A proxy or CA bundle of the environment is the user's wish, but never for this machine.
        self._transport = Transport(
            (login, secret),
            trust_env=urlsplit(self.base_url).hostname not in _LOOPBACK,
            stop=self._stop,
        )

    @property
    def account_sid(self) -> str | None:
        """The account, if the login names it: an API key does not."""
        return self._login if self._login.startswith("AC") else None

    def copy(self) -> Self:
        """Return such a client with connections of its own, for another thread."""
        return self._with(self.pace, self._stop)

    def stoppable(self, stop: Stop) -> Self:
        """Return such a client, for another thread, whose calls and waits end within a second."""
        return self._with(replace(self.pace, sleep=stop.sleep), stop)

    def hurried(self) -> Self:
        """Return a client with connections of its own that gives up within four seconds."""
        pace = self.pace
        connect, rest = pace.last_connect, pace.last_exchange
        hasty = replace(pace, connect=connect, read=rest, exchange=rest, tries=1)
        return self._with(hasty, self._stop)

    def _with(self, pace: Pace, stop: Stop) -> Self:
        return type(self)(
            self._login,
            self._secret,
            base_url=self.base_url,
            allowed_hosts=self.allowed_hosts,
            pace=pace,
            stop=stop,
        )

    def now(self) -> float:
        """
        Return the service's time in seconds since the epoch.

        It is the service's clock that decides which day can be exported, so it is taken from the
        ``Date`` of the last answer; before any answer it is this machine's time.
        """
        return self.pace.now() + self._skew

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch_export(self, resource_type: ResourceType) -> ExportLinks:
        """Fetch a resource type's entry point."""
        body = _object(self._repeat("GET", f"/v1/Exports/{resource_type}", always_there=True))
        links = body.get("links")
        pairs = links.items() if isinstance(links, dict) else ()
        named = tuple((name, url) for name, url in pairs if isinstance(url, str))
        return ExportLinks(resource_type, named)

    def create_job(self, request: ExportRequest) -> Job:
        """
        Create a custom export job: one POST, never repeated here.

        :raises NotExportableYet: before any traffic.
        :raises QuotaExceeded: when too few of the day's export days are left.
        :raises Retryable: when the service certainly did not act.
        :raises OutcomeUnknown: when it may have acted: look before repeating.
        """
        request.require_exportable(pendulum.from_timestamp(self.now()))
        answer = self._send("POST", f"/v1/Exports/{request.resource_type}/Jobs", creates=request)
        body = (answer.json_object() if answer.status in {200, 201} else None) or {}
        asked = {
            "friendly_name": request.friendly_name,
            "resource_type": request.resource_type.value,
            "start_day": request.start_day.isoformat(),
            "end_day": request.end_day.isoformat(),
            "details": None,
        }
        job = None
        try:
            job = Job.parse(body | asked)
            return Job.parse(body, request.resource_type)
        except BadData as error:
            problem = safe_text(str(error), self._secrets)
        if job is None:
            # The service said yes but not to what: the job may well be there.
            raise OutcomeUnknown(
                f"POST {answer.path}: HTTP {answer.status}, but the answer to the new job is "
                f"unreadable. {problem} Look for the job before creating another.",
                status=answer.status,
            )
        _log.warning("Job %s was created, though its answer is odd: %s", job.sid, problem)
        return job

    def list_jobs(self, resource_type: ResourceType) -> JobListing:
        """
        List all jobs of a type: the unfinished, and those finished within 7 days.

        Items that are no jobs are kept apart: most belong to somebody else.

        :raises BadData: when a page is no page of a listing, or the listing does not end.
        :raises Retryable: when it was not whole in time.
        """
        path = f"/v1/Exports/{resource_type}/Jobs"
        items, pages = self._items(path, "jobs")
        listing = JobListing.parse(items, resource_type, pages)
        self._warn_of(path, [odd.reason for odd in listing.odd])
        return listing

    def fetch_job(self, job_sid: str) -> Job:
        """
        Fetch a job.

        :raises NotFound: for an unknown job, or one that finished more than 7 days ago.
        """
        path = f"/v1/Exports/Jobs/{parse_job_sid(job_sid)}"
        try:
            job = Job.parse(self._read(path))
        except NotFound as error:
            raise NotFound(
                f"Twilio knows no job {job_sid}: finished jobs are listed for 7 days. Check the "
                f"SID and the account, or create the job anew. {error}",
                status=error.status,
                code=error.code,
                more_info=error.more_info,
                request_id=error.request_id,
            ) from None
        if job.sid != job_sid:
            raise BadData(f"Asked for job {job_sid}, the service answered with {job.sid}.")
        return job

    def delete_job(self, job_sid: str) -> bool:
        """
        Delete a job that has not finished.

        :return: False if the service no longer knows the job.
        """
        path = f"/v1/Exports/Jobs/{parse_job_sid(job_sid)}"
        try:
            status = self._repeat("DELETE", path).status
        except NotFound:
            return False
        if status != 204:
            raise BadData(
                f"DELETE {path}: HTTP {status} came instead of 204, so the job may be there still. "
                "Fetch it to see, and check what stands between here and Twilio.",
                status=status,
            )
        return True

    def list_days(self, resource_type: ResourceType) -> list[ListedFile]:
        """
        List all day files of a type, in order of their creation; a day may come twice.

        Items whose day cannot be read are left out with one warning.

        :raises BadData: when a page is no page of a listing, or the listing does not end.
        :raises Retryable: when it was not whole in time.
        """
        path = f"/v1/Exports/{resource_type}/Days"
        files: dict[ListedFile, None] = {}
        odd: dict[str, None] = {}
        for item in self._items(path, "days")[0]:
            try:
                files[ListedFile.parse(item, resource_type)] = None
            except BadData as error:
                odd[str(error)] = None
        self._warn_of(path, list(odd))
        return list(files)

    def fetch_day(self, resource_type: ResourceType, day: date) -> SignedLink:
        """
        Fetch the link to a day file, without following it.

        :raises NotFound: when the day has no file, or the file is older than 7 days.
        """
        answer = self._repeat("GET", f"/v1/Exports/{resource_type}/Days/{day.isoformat()}")
        url = (answer.json_object() or {}).get("redirect_to") or answer.headers.get("location")
        if answer.status not in {200, 302, 303, 307} or not isinstance(url, str):
            raise BadData(f"The service gave no link to {resource_type} of {day}.")
        return SignedLink(url)

    def fetch_configuration(self, resource_type: ResourceType) -> ExportConfiguration:
        """Fetch whether Twilio creates every day file by itself."""
        return _configuration(self._read(_configuration_path(resource_type)), resource_type)

    def update_configuration(
        self,
        resource_type: ResourceType,
        *,
        enabled: bool | None = None,
        webhook_url: str | None = None,
        webhook_method: str | None = None,
    ) -> ExportConfiguration:
        """Change the daily export's configuration; what is None stays as it is."""
        form = {"WebhookUrl": webhook_url, "WebhookMethod": webhook_method}
        fields = {name: value for name, value in form.items() if value is not None}
        if enabled is not None:
            fields["Enabled"] = "true" if enabled else "false"
        answer = self._repeat("POST", _configuration_path(resource_type), form=fields)
        return _configuration(_object(answer), resource_type)

    def _read(self, path: str) -> dict[str, Any]:
        return _object(self._repeat("GET", path))

    def _items(self, path: str, key: str) -> tuple[list[object], int]:
        """Return a whole listing's items, and how many pages it took."""
        pace = self.pace
        until = pace.now() + pace.listing
        items: list[object] = []
        seen: set[str] = set()
        url: str | None = f"{path}?PageSize={PAGE_SIZE}"
        while url is not None:
            so_far = f"{len(seen):,} pages with {len(items):,} items were read"
            if url in seen:
                raise BadData(
                    f"The listing {path} does not end: its last page leads back to one that was "
                    f"read before ({so_far}). Try again; if it stays so, tell Twilio's support."
                )
            if len(seen) >= pace.pages:
                raise BadData(
                    f"The listing {path} does not end: {so_far}, which is the most for one "
                    "listing. Try again; if it stays so, tell Twilio's support."
                )
            if seen and pace.now() >= until:
                raise Retryable(
                    f"The listing {path} was not whole after {pace.listing:g} s: {so_far}. Twilio "
                    "is slow at the moment; try again later."
                )
            seen.add(url)
            answer = self._repeat("GET", url, always_there=True, until=until)
            body = _object(answer)
            found, meta = body.get(key), body.get("meta")
            if not isinstance(found, list) or not isinstance(meta, dict):
                raise BadData(f"The listing {path} came without its {key!r} or 'meta'.")
            items += found
            url = self._next_page(meta.get("next_page_url"), path)
        return items, len(seen)

    def _next_page(self, url: object, path: str) -> str | None:
        if url is None or url == "":
            return None
        try:
            parts = urlsplit(urljoin(self.base_url, url if isinstance(url, str) else "//"))
            same = check_base_url(f"{parts.scheme}://{parts.netloc}") == self.base_url
        except (ValueError, InvalidRequest):
            same = False
        # The credentials go along, so a page elsewhere is never asked for.
        if not same or parts.path != path:
            raise BadData(f"The listing {path} names a next page that is not part of it.")
        return f"{parts.path}?{parts.query}"

    def _warn_of(self, path: str, odd: Sequence[str]) -> None:
        if odd:
            _log.warning(
                "The listing %s has %d odd item%s, left out here; the first: %s",
                path,
                len(odd),
                "" if len(odd) == 1 else "s",
                safe_text(odd[0], self._secrets),
            )

    def _repeat(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        *,
        always_there: bool = False,
        until: float = float("inf"),
    ) -> Answer:
        """
        Send a request until it is answered, as often as the pace allows.

        :param always_there: whether the path exists for every account, so that a 404 is a failure
            of the service and no verdict.
        :param until: when to try no more.
        """
        pace, until = self.pace, min(until, self.ends_at)
        for tried in range(1, pace.tries + 1):
            try:
                return self._send(method, path, form, always_there=always_there)
            except Retryable as error:
                wait = backoff(tried, error.retry_after)
                if tried == pace.tries or wait > pace.longest_pause or pace.now() + wait > until:
                    raise
                pace.sleep(wait)
        raise AssertionError("unreachable")  # pragma: no cover

    def _send(
        self,
        method: str,
        path: str,
        form: dict[str, str] | None = None,
        *,
        creates: ExportRequest | None = None,
        always_there: bool = False,
    ) -> Answer:
        shown = f"{method} {path.partition('?')[0]}"
        pace, left = self.pace, self.ends_at - self.pace.now()
        if left <= 0:
            raise Retryable(f"{shown}: no time was left for it.")
        if left < pace.exchange:
            pace = replace(pace, exchange=left)
        answer = self._transport.exchange(
            method, self.base_url + path, creates.form() if creates else form, pace
        )
        if isinstance(answer, Failed):
            kind = verdict(answer.failure, creates=creates is not None)
            raise kind(f"{shown}: {safe_text(answer.reason, self._secrets)}.")
        self._learn_the_time(answer)
        if answer.status >= 400:
            raise self._refusal(shown, answer, creates, always_there=always_there)
        return answer

    def _learn_the_time(self, answer: Answer) -> None:
        told = http_date(answer.headers.get("date"))
        if told is not None and _CREDIBLE[0] <= told < _CREDIBLE[1]:
            self._skew = told - self.pace.now()

    def _refusal(
        self, shown: str, answer: Answer, creates: ExportRequest | None, *, always_there: bool
    ) -> BulkExportsError:
        status = answer.status
        facts, told, message = self._told(shown, answer)
        if creates is not None and status < 500 and _is_about_quota(told):
            return self._quota_exceeded(creates, message, facts)
        if creates is not None and status == 400:
            # At midnight this clock and that of the service may name different days.
            early = creates.exportable_from.timestamp() - self.now()
            if early > -self.pace.midnight:
                return Retryable(
                    f"{message} The range can be exported since "
                    f"{creates.exportable_from.to_iso8601_string()}; the service's clock may be a "
                    "little behind.",
                    retry_after=max(30.0, early),
                    **facts,
                )
        failure = failure_of_status(status)
        assert failure is not None  # noqa: S101 - only called for one
        kind = verdict(failure, creates=creates is not None)
        if kind is Retryable or (status == 404 and always_there):
            now = pendulum.from_timestamp(self.now())
            advice = retry_after_seconds(answer.headers.get("retry-after"), now)
            return Retryable(message, retry_after=advice, **facts)
        return kind(message, **facts)

    def _told(self, shown: str, answer: Answer) -> tuple[dict[str, Any], str, str]:
        """Return what an error answer tells: its facts, Twilio's words, and all of it as text."""
        body = answer.json_object() or {}
        code, text, more = body.get("code"), body.get("message"), body.get("more_info")
        facts: dict[str, Any] = {
            "status": answer.status,
            "code": code if isinstance(code, int) else None,
            "more_info": safe_text(more, self._secrets) if isinstance(more, str) else None,
            "request_id": safe_text(answer.headers.get("twilio-request-id", ""), self._secrets, 40)
            or None,
        }
        given = text if isinstance(text, str) else answer.reason
        told = safe_text(given or "no reason given", self._secrets)
        message = f"{shown}: HTTP {answer.status}"
        message += f", Twilio's code {facts['code']}" if facts["code"] is not None else ""
        message += f": {told.rstrip('.')}."
        message += f" See {facts['more_info']}." if facts["more_info"] else ""
        message += f" Request {facts['request_id']}." if facts["request_id"] else ""
        return facts, told, message

    def _quota_exceeded(
        self, request: ExportRequest, message: str, facts: dict[str, Any]
    ) -> QuotaExceeded:
        midnight = pendulum.from_timestamp(self.now()).add(days=1).start_of("day")
        days = "1 day" if request.day_count == 1 else f"{request.day_count} days"
        return QuotaExceeded(
            f"Twilio refused the request for {days}: an account and its subaccounts may request "
            f"{MAX_DAYS} days per UTC day, and too few of today's are left. The count starts anew "
            f"at {midnight.to_iso8601_string()}. {message}",
            resets_at=midnight,
            **facts,
        )


def _object(answer: Answer) -> dict[str, Any]:
    body = answer.json_object()
    if body is None or answer.status != 200:
        raise BadData(
            f"The answer from {answer.path} is not a JSON object (HTTP {answer.status}).",
            status=answer.status,
        )
    return body


def _configuration_path(resource_type: ResourceType) -> str:
    return f"/v1/Exports/{resource_type}/Configuration"


def _configuration(body: dict[str, Any], resource_type: ResourceType) -> ExportConfiguration:
    url, method = body.get("webhook_url"), body.get("webhook_method")
    return ExportConfiguration(
        resource_type=resource_type,
        enabled=body.get("enabled") is True,
        webhook_url=url if isinstance(url, str) and url else None,
        webhook_method=method if isinstance(method, str) and method else None,
    )


def _is_about_quota(text: str) -> bool:
    # Twilio documents neither status nor code of this refusal, so its words have to do.
    lowered = text.lower()
    return "quota" in lowered or ("366" in lowered and "day" in lowered)
