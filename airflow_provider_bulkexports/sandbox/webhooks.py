"""Calls to the webhooks of jobs that have ended; only this machine is ever called."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from airflow_provider_bulkexports.api.job import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_bulkexports.sandbox.jobs import CustomJob
    from airflow_provider_bulkexports.sandbox.service import Service

__all__ = ["Caller", "signature"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SHORTEST_PAUSE = 0.01
_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)


def signature(token: str, url: str, fields: Mapping[str, str]) -> str:
    """
    Return Twilio's ``X-Twilio-Signature`` of a call.

    :param token: auth token of the account.
    :param url: full address, query included.
    :param fields: fields of a form POST; none for a GET.
    """
    text = url + "".join(name + fields[name] for name in sorted(fields))
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


class Caller:
    """
    Call each job's webhook once the job has ended by itself.

    A job that was deleted is not called for. Addresses on other machines are recorded only.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._changed = asyncio.Event()
        service.clock.on_change = self.wake
        self._done: set[str] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look again: something was done, or the time was moved."""
        self._changed.set()

    async def run(self) -> None:
        """Call until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._service.catch_up()
                now = self._service.clock.now()
                for job, ends_at in self._pending():
                    if ends_at <= now:
                        self._done.add(job.sid)
                        task = asyncio.create_task(self._call(job))
                        self._calls.add(task)
                        task.add_done_callback(self._calls.discard)
                moments = [ends_at for _, ends_at in self._pending()]
                if (next_at := self._service.deliveries.next_at) is not None:
                    moments.append(next_at)
                # A clock that a test holds just before a moment must not keep us busy.
                pause = max(min(moments) - now, _SHORTEST_PAUSE) if moments else None
                try:
                    await asyncio.wait_for(self._changed.wait(), pause)
                except TimeoutError:
                    continue
        finally:
            for task in self._calls:
                task.cancel()

    def _pending(self) -> list[tuple[CustomJob, float]]:
        return [
            (job, ends_at)
            for job in self._service.every_job()
            if job.webhook_url
            and job.deleted_at is None
            and job.sid not in self._done
            and (ends_at := job.finished_at) is not None
        ]

    async def _call(self, job: CustomJob) -> None:
        fields = _fields(job, self._service.clock.now())
        url, method = job.webhook_url or "", job.webhook_method or "POST"
        if method == "GET":
            url += ("&" if urlsplit(url).query else "?") + urlencode(fields)
        form = fields if method == "POST" else {}
        headers = {
            "X-Twilio-Signature": signature(
                self._service.accounts[job.account_sid].token, url, form
            ),
            "User-Agent": "TwilioProxy/1.1",
        }
        local = urlsplit(url).hostname in _LOOPBACK
        for _ in range(self._service.settings.webhook_copies):
            entry: dict[str, Any] = {
                "job_sid": job.sid,
                "url": job.webhook_url,
                "method": method,
                "sent": local,
                "status": None,
            }
            self._service.ledger.webhooks.append(entry)
            if local:
                entry["status"] = await _send(method, url, form, headers)


def _fields(job: CustomJob, now: float) -> dict[str, str]:
    # Twilio documents no payload; a capture shows a form with status=completed.
    return {
        "account_sid": job.account_sid,
        "job_sid": job.sid,
        "resource_type": str(job.resource_type),
        "friendly_name": job.friendly_name,
        "start_day": job.start_day.isoformat(),
        "end_day": job.end_day.isoformat(),
        "status": "completed" if job.state(now) is JobState.COMPLETED else "failed",
    }


async def _send(
    method: str, url: str, form: Mapping[str, str], headers: dict[str, str]
) -> int | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.request(
                method,
                url,
                data=dict(form) if method == "POST" else None,
                headers=headers,
                ssl=False,
                allow_redirects=False,
            ) as response,
        ):
            return response.status
    except (aiohttp.ClientError, OSError, ValueError):
        return None
