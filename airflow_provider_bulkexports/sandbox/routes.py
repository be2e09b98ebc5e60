"""The nine operations of the API, and the bucket that its links point to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode

from airflow_provider_bulkexports.sandbox.answers import Answer, json_answer
from airflow_provider_bulkexports.sandbox.faults.stages import (
    Creating,
    Reading,
    Scripting,
    Serving,
)
from airflow_provider_bulkexports.sandbox.forms import read_day, read_resource_type
from airflow_provider_bulkexports.sandbox.paging import Page, cut
from airflow_provider_bulkexports.sandbox.refusal import Refusal
from airflow_provider_bulkexports.sandbox.view import View

if TYPE_CHECKING:
    from aiohttp import web

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.sandbox.faults.book import RequestFaults
    from airflow_provider_bulkexports.sandbox.jobs import CustomJob
    from airflow_provider_bulkexports.sandbox.service import Link, ProducedFile, Service

__all__ = ["Routes"]

_MOST_JOBS = 1000
_MOST_DAYS = 400


class Routes:
    """
    Handlers; each takes the request, the account of its login, and the request's faults.

    :param service: what they act on.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def fetch_export(self, request: web.Request, _: str, __: RequestFaults) -> Answer:
        """Answer with a resource type's links."""
        resource_type = _resource_type(request)
        url = f"{_origin(request)}/v1/Exports/{resource_type}"
        links = {
            "days": f"{url}/Days",
            "export_custom_jobs": f"{url}/Jobs",
            "jobs": f"{_origin(request)}/v1/Exports/Jobs",
        }
        return json_answer({"resource_type": str(resource_type), "url": url, "links": links})

    async def create_job(self, request: web.Request, account: str, faults: RequestFaults) -> Answer:
        """Create a job."""
        resource_type, form = _resource_type(request), await _form(request)
        now = self._service.clock.now()

        def deliver(moment: float) -> CustomJob:
            scripts = faults.take_all(Scripting)
            return self._service.create_job(account, resource_type, form, moment, scripts)

        fault = faults.take(Creating)
        created = fault.create(deliver, now, self._service.deliveries) if fault else deliver(now)
        if isinstance(created, Answer):
            return created
        return json_answer(self._service.describe(created, now, created=True), 201)

    async def list_jobs(self, request: web.Request, account: str, faults: RequestFaults) -> Answer:
        """List the jobs of a type."""
        resource_type, view = _resource_type(request), self._view(faults)
        jobs = self._service.jobs(account, resource_type, view)
        page = _page(request, [((job.number,), job) for job in jobs], "jobs", _MOST_JOBS)
        items = [self._service.describe(job, view.moment) for job in page.items]
        return json_answer({"jobs": items, "meta": page.meta})

    async def fetch_job(self, request: web.Request, account: str, faults: RequestFaults) -> Answer:
        """Answer with one job."""
        view = self._view(faults)
        job = self._service.job(account, request.match_info["JobSid"], view)
        body = self._service.describe(job, view.moment)
        body["url"] = f"{_origin(request)}/v1/Exports/Jobs/{job.sid}"
        return json_answer(body)

    async def delete_job(self, request: web.Request, account: str, _: RequestFaults) -> Answer:
        """Delete a job that has not finished."""
        self._service.delete_job(account, request.match_info["JobSid"])
        return Answer(204)

    async def list_days(self, request: web.Request, account: str, faults: RequestFaults) -> Answer:
        """List the day files of a type."""
        resource_type = _resource_type(request)
        files = [
            ((file.created_at, file.job.number, file.day.isoformat()), file)
            for file in self._service.files(account, resource_type, self._view(faults))
            if file.listed
        ]
        page = _page(request, files, "days", _MOST_DAYS)
        items = [await self._day_json(file) for file in page.items]
        return json_answer({"days": items, "meta": page.meta})

    async def fetch_day(self, request: web.Request, account: str, faults: RequestFaults) -> Answer:
        """Redirect to a day file."""
        resource_type = _resource_type(request)
        try:
            day = read_day(request.match_info["Day"], "Day")
        except Refusal:
            raise Refusal.not_found(request.path) from None
        signature, link = self._service.sign(account, resource_type, day, self._view(faults))
        url = _origin(request) + _signed_path(signature, link, self._service)
        return json_answer({"redirect_to": url}, 307, {"Location": url})

    async def fetch_configuration(
        self, request: web.Request, account: str, _: RequestFaults
    ) -> Answer:
        """Answer with a type's daily export."""
        return self._configuration(request, account, _resource_type(request))

    async def update_configuration(
        self, request: web.Request, account: str, _: RequestFaults
    ) -> Answer:
        """Change a type's daily export."""
        resource_type = _resource_type(request)
        self._service.configure(account, resource_type, await _form(request))
        return self._configuration(request, account, resource_type)

    async def download(self, request: web.Request, _: str, faults: RequestFaults) -> Answer:
        """Serve a day file to whoever has a fresh link."""
        if "Authorization" in request.headers:
            raise Refusal(400, 0, "InvalidArgument: Only one auth mechanism allowed")
        file = self._service.open_link(request.query.get("X-Amz-Signature", ""))
        fault = faults.take(Serving)
        key = fault.serve(file.key) if fault else file.key
        size = await self._service.archive.size(key)
        record: dict[str, Any] = {
            "resource_type": str(file.job.resource_type),
            "day": file.day.isoformat(),
            "records": self._service.archive.records(key),
            "bytes": 0,
            "complete": False,
            "account_sid": file.job.account_sid,
            "job_sid": file.job.sid,
        }
        self._service.ledger.downloads.append(record)
        return Answer(
            200,
            {"Content-Type": "binary/octet-stream"},
            chunks=self._service.archive.chunks(key),
            size=size,
            record=record,
        )

    def _view(self, faults: RequestFaults) -> View:
        view = View.of(self._service.clock.now())
        for fault in faults.take_each(Reading):
            view = fault.view(view)
        return view

    async def _day_json(self, file: ProducedFile) -> dict[str, Any]:
        return {
            "day": file.day.isoformat(),
            "size": await self._service.archive.size(file.key),
            "create_date": _utc(file.created_at).date().isoformat(),
            # Seen in this list, and only here: hyphens come back escaped.
            "friendly_name": file.job.friendly_name.replace("-", "\\-"),
            "resource_type": str(file.job.resource_type),
        }

    def _configuration(
        self, request: web.Request, account: str, resource_type: ResourceType
    ) -> Answer:
        known = self._service.configuration(account, resource_type)
        return json_answer(
            {
                "enabled": known.enabled,
                "webhook_url": known.webhook_url or "",
                "webhook_method": known.webhook_method or "",
                "resource_type": str(resource_type),
                "url": f"{_origin(request)}/v1/Exports/{resource_type}/Configuration",
            }
        )


def _resource_type(request: web.Request) -> ResourceType:
    return read_resource_type(request.match_info["ResourceType"], request.path)


def _origin(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


async def _form(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    text = (await request.read()).decode("utf-8", "replace")
    return dict(parse_qsl(text, keep_blank_values=True))


def _page(
    request: web.Request, items: list[tuple[tuple[Any, ...], Any]], name: str, most: int
) -> Page[Any]:
    url = f"{_origin(request)}{request.path}"
    return cut(items, request.query, url=url, name=name, most=most)


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _signed_path(signature: str, link: Link, service: Service) -> str:
    job, day = link.file.job, link.file.day
    created = _utc(link.file.created_at).strftime("%Y%m%d%H%M%S")
    owner = f"account={job.account_sid}"
    parts = ("daily", f"day={day}", f"type={job.resource_type}", owner, f"created_time={created}")
    query = {
        "X-Amz-Security-Token": "sandbox",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Date": service.clock.moment().strftime("%Y%m%dT%H%M%SZ"),
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Expires": f"{service.settings.link_seconds:.0f}",
        "X-Amz-Credential": "sandbox/us-east-1/s3/aws4_request",
        "X-Amz-Signature": signature,
    }
    path = "/".join(quote(part) for part in parts)
    return f"/_files/{path}/part-00000.json.gz?{urlencode(query)}"
