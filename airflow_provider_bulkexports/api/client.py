"""The BulkExport API over HTTP: one method per endpoint, values in and out."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin, urlsplit

import pendulum
import requests
import urllib3.exceptions

from airflow_provider_bulkexports import __version__
from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    Fatal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    Retryable,
    Unauthorized,
)
from airflow_provider_bulkexports.api.job import (
    ExportConfiguration,
    ExportLinks,
    Job,
    ListedFile,
    SignedLink,
    parse_job_sid,
)
from airflow_provider_bulkexports.api.redact import safe_text, spellings
from airflow_provider_bulkexports.api.retry import (
    LONGEST_WAIT,
    TRIES,
    Failure,
    backoff,
    failure_of_status,
    retry_after_seconds,
    verdict,
)
from airflow_provider_bulkexports.api.signed_links import check_allowed_hosts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType

__all__ = ["BASE_URL", "PAGE_SIZE", "Client", "check_base_url"]

BASE_URL = "https://bulkexports.twilio.com"

PAGE_SIZE = 30
"""Items a page, always sent: without it the service cuts a listing at 10 items in silence, and 2
to 30 is the range in which paging was seen to work (twilio-python issue 650)."""

MAX_PAGES = 2000
"""Pages of one listing; more can only be a service that never ends."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NOT_SENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
)


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


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Find no redirect in any answer: requests would parse it even where it is not followed."""


class Client:
    """
    Calls the nine operations of the BulkExport API.

    Reads are repeated on 429, 5xx and lost connections; a job is created only by a call that is
    never repeated here. Redirects are never followed. One client serves one thread at a time.

    :param login: Account SID or API key SID.
    :param secret: Auth Token or API key secret.
    :param base_url: another origin than Twilio's: https, or http on this machine.
    :param allowed_hosts: hosts beside S3's that a day's file may come from; ``.example.com`` stands
        for all below it.
    :param connect_timeout: seconds to wait for a connection.
    :param read_timeout: seconds to wait for each piece of an answer.
    :param tries: tries of a call that may be repeated.
    :raises InvalidRequest: for missing credentials, or a ``base_url`` or host that is not allowed.
    """

    def __init__(
        self,
        login: str,
        secret: str,
        *,
        base_url: str | None = None,
        allowed_hosts: Sequence[str] = (),
        connect_timeout: float = 5.0,
        read_timeout: float = 30.0,
        tries: int = TRIES,
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
        self._login = login
        self._secret = secret
        self._secrets = spellings(login, secret)
        self._timeout = (connect_timeout, read_timeout)
        self._tries = tries
        self._session = _Session()
        self._session.auth = (login, secret)
        self._session.headers.update(
            {
                "User-Agent": f"airflow-provider-bulkexports/{__version__}",
                "Accept": "application/json",
            }
        )
        # A proxy or CA bundle of the environment is the user's wish, but never for this machine.
        self._session.trust_env = urlsplit(self.base_url).hostname not in _LOOPBACK

    def copy(self) -> Client:
        """Return such a client with connections of its own, for another thread."""
        return self._with(*self._timeout, self._tries)

    def hurried(self) -> Client:
        """Return a client of its own connections that gives up within about four seconds."""
        return self._with(1.5, 2.5, 1)

    def _with(self, connect_timeout: float, read_timeout: float, tries: int) -> Client:
        return Client(
            self._login,
            self._secret,
            base_url=self.base_url,
            allowed_hosts=self.allowed_hosts,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            tries=tries,
        )

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch_export(self, resource_type: ResourceType) -> ExportLinks:
        """Fetch a resource type's entry point."""
        body = self._read(f"/v1/Exports/{resource_type}")
        links = body.get("links")
        pairs = links.items() if isinstance(links, dict) else ()
        return ExportLinks(resource_type, tuple((str(name), str(url)) for name, url in pairs))

    def create_job(self, request: ExportRequest) -> Job:
        """
        Create a custom export job: one POST, never repeated here.

        :raises NotExportableYet: before any traffic.
        :raises QuotaExceeded: when the account has no days left today.
        :raises Retryable: when the service certainly did not act.
        :raises OutcomeUnknown: when it may have acted: look before repeating.
        """
        request.require_exportable(pendulum.now("UTC"))
        path = f"/v1/Exports/{request.resource_type}/Jobs"
        try:
            answer = self._send("POST", path, form=request.form(), creates=True)
            return Job.parse(_object(answer), request.resource_type)
        except BadData as error:
            # The service said yes but not to what: the job may well be there.
            raise OutcomeUnknown(f"The answer to the new job is unreadable: {error}") from None

    def list_jobs(self, resource_type: ResourceType) -> list[Job]:
        """Return all listed jobs of a type: the unfinished and those finished within 7 days."""
        items = self._pages(f"/v1/Exports/{resource_type}/Jobs", "jobs")
        # An item may come twice when the list grows between two pages.
        return list({(job := Job.parse(item, resource_type)).sid: job for item in items}.values())

    def fetch_job(self, job_sid: str) -> Job:
        """
        Fetch a job.

        :raises NotFound: for an unknown job, or one that finished more than 7 days ago.
        """
        try:
            job = Job.parse(self._read(f"/v1/Exports/Jobs/{parse_job_sid(job_sid)}"))
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
        try:
            self._repeat("DELETE", f"/v1/Exports/Jobs/{parse_job_sid(job_sid)}")
        except NotFound:
            return False
        return True

    def list_days(self, resource_type: ResourceType) -> list[ListedFile]:
        """Return all listed day files of a type, in order of their making; a day may come twice."""
        items = self._pages(f"/v1/Exports/{resource_type}/Days", "days")
        return [ListedFile.parse(item, resource_type) for item in items]

    def fetch_day(self, resource_type: ResourceType, day: date) -> SignedLink:
        """
        Fetch the link to a day's file, without following it.

        :raises NotFound: when the day has no file, or the file is older than 7 days.
        """
        answer = self._repeat("GET", f"/v1/Exports/{resource_type}/Days/{day.isoformat()}")
        url = (_json(answer) or {}).get("redirect_to") or answer.headers.get("Location")
        if answer.status_code not in (200, 302, 303, 307) or not isinstance(url, str):
            raise BadData(f"The service gave no link to {resource_type} of {day}.")
        return SignedLink(url)

    def fetch_configuration(self, resource_type: ResourceType) -> ExportConfiguration:
        """Fetch whether Twilio makes every day's file by itself."""
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

    def _pages(self, path: str, key: str) -> Iterator[Any]:
        url: str | None = f"{path}?PageSize={PAGE_SIZE}"
        seen: set[str] = set()
        while url is not None:
            if url in seen or len(seen) >= MAX_PAGES:
                raise BadData(f"The listing {path} does not end: page {len(seen)} leads back.")
            seen.add(url)
            body = self._read(url)
            items, meta = body.get(key), body.get("meta")
            if not isinstance(items, list) or not isinstance(meta, dict):
                raise BadData(f"The listing {path} came without its {key!r} or 'meta'.")
            for item in items:
                if not isinstance(item, dict):
                    raise BadData(f"The listing {path} holds an item that is no object.")
                yield item
            url = self._next_page(meta.get("next_page_url"), path)

    def _next_page(self, url: object, path: str) -> str | None:
        if url is None or url == "":
            return None
        try:
            parts = urlsplit(urljoin(self.base_url, str(url)))
            same = check_base_url(f"{parts.scheme}://{parts.netloc}") == self.base_url
        except (ValueError, InvalidRequest):
            same = False
        # The credentials go along, so a page elsewhere is never asked for.
        if not same or parts.path != path:
            raise BadData(f"The listing {path} names a next page that is not part of it.")
        return f"{parts.path}?{parts.query}"

    def _repeat(
        self, method: str, path: str, form: dict[str, str] | None = None
    ) -> requests.Response:
        for tried in range(1, self._tries + 1):
            try:
                return self._send(method, path, form=form, creates=False)
            except Retryable as error:
                wait = backoff(tried, error.retry_after)
                if tried == self._tries or wait > LONGEST_WAIT:
                    raise
                time.sleep(wait)
        raise AssertionError("unreachable")  # pragma: no cover

    def _send(
        self, method: str, path: str, *, form: dict[str, str] | None, creates: bool
    ) -> requests.Response:
        shown = f"{method} {path.partition('?')[0]}"
        try:
            answer = self._session.request(
                method,
                self.base_url + path,
                data=form,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            failure = Failure.NOT_SENT if _was_not_sent(error) else Failure.LOST
            kind = verdict(failure, creates=creates)
            failed = kind(f"{shown}: {failure.value} ({type(error).__name__}).")
        else:
            if failure_of_status(answer.status_code) is not None:
                raise self._refusal(shown, answer, creates=creates)
            return answer
        # Out here, since "from None" would hide the library's exception but keep it, and with it
        # the request and its headers.
        raise failed

    def _refusal(self, shown: str, answer: requests.Response, *, creates: bool) -> BulkExportsError:
        body = _json(answer) or {}
        code, text, more = body.get("code"), body.get("message"), body.get("more_info")
        status = answer.status_code
        facts: dict[str, Any] = {
            "status": status,
            "code": code if isinstance(code, int) else None,
            "more_info": safe_text(more, self._secrets) if isinstance(more, str) else None,
            "request_id": safe_text(answer.headers.get("Twilio-Request-Id", ""), self._secrets, 40)
            or None,
        }
        given = text if isinstance(text, str) else answer.reason
        told = safe_text(given or "no reason given", self._secrets)
        message = f"{shown}: HTTP {status}"
        message += f", Twilio's code {facts['code']}" if facts["code"] is not None else ""
        message += f": {told.rstrip('.')}."
        message += f" See {facts['more_info']}." if facts["more_info"] else ""
        message += f" Request {facts['request_id']}." if facts["request_id"] else ""
        if creates and status < 500 and _is_about_quota(told):
            midnight = pendulum.tomorrow("UTC")
            return QuotaExceeded(
                "The account has no export days left for this UTC day (Twilio allows 366, shared "
                f"with its subaccounts). They start anew at {midnight.to_iso8601_string()}. "
                f"{message}",
                resets_at=midnight,
                **facts,
            )
        failure = failure_of_status(status)
        assert failure is not None  # noqa: S101 - only called for one
        kind = verdict(failure, creates=creates)
        if kind is Retryable:
            advice = retry_after_seconds(answer.headers.get("Retry-After"), pendulum.now("UTC"))
            return Retryable(message, retry_after=advice, **facts)
        if kind is Fatal:
            kind = {401: Unauthorized, 403: Unauthorized, 404: NotFound}.get(status, Fatal)
        return kind(message, **facts)


def _object(answer: requests.Response) -> dict[str, Any]:
    body = _json(answer)
    if body is None or not answer.ok or answer.is_redirect:
        path = urlsplit(answer.url).path
        raise BadData(f"The answer from {path} is not a JSON object (HTTP {answer.status_code}).")
    return body


def _json(answer: requests.Response) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except (ValueError, RecursionError):  # also for a number too long, or too deep a nesting
        return None
    return body if isinstance(body, dict) else None


def _configuration_path(resource_type: ResourceType) -> str:
    return f"/v1/Exports/{resource_type}/Configuration"


def _configuration(body: dict[str, Any], resource_type: ResourceType) -> ExportConfiguration:
    return ExportConfiguration(
        resource_type=resource_type,
        enabled=body.get("enabled") is True,
        webhook_url=body.get("webhook_url") or None,
        webhook_method=body.get("webhook_method") or None,
    )


def _is_about_quota(text: str) -> bool:
    # Twilio documents neither status nor code of this refusal, so its words have to do.
    lowered = text.lower()
    return "quota" in lowered or ("366" in lowered and "day" in lowered)


def _was_not_sent(error: BaseException) -> bool:
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        item = pending.pop()
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, _NOT_SENT):
            return True
        # Not __context__: an error that the caller was handling is none of this request's.
        pending += [item.__cause__, getattr(item, "reason", None), *item.args]
    return False
