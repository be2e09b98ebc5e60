"""A running sandbox: in a thread of its own for tests, or in the foreground."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aiohttp import web

from airflow_provider_bulkexports.sandbox.application import build_application
from airflow_provider_bulkexports.sandbox.clock import Clock
from airflow_provider_bulkexports.sandbox.faults.book import FaultBook
from airflow_provider_bulkexports.sandbox.service import Service
from airflow_provider_bulkexports.sandbox.settings import (
    DEFAULT_ACCOUNT_SID,
    DEFAULT_AUTH_TOKEN,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType

__all__ = ["Sandbox"]

Result = TypeVar("Result")

_PATIENCE = 10


class Sandbox:
    """
    A BulkExport service on this machine; a context manager.

    All state belongs to the thread of the server; the methods ask it.

    :param port: 0 for any free one.
    :param host: address to listen on.
    :param account_sid: the first account.
    :param auth_token: its token.
    :param faults: how it misbehaves from the start.
    :param now: returns the sandbox's time in seconds since 1970, so that a test can freeze or
        skew it; the real time if left out. Called in the server's thread.
    :param settings: fields of
        :class:`~airflow_provider_bulkexports.sandbox.settings.Settings`, such as ``speed``,
        ``records``, ``seed`` and ``job_seconds``.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        account_sid: str = DEFAULT_ACCOUNT_SID,
        auth_token: str = DEFAULT_AUTH_TOKEN,
        faults: Iterable[dict[str, Any]] = (),
        now: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.url = ""
        self._host, self._port = host, port
        clock = Clock(now)
        self._faults = FaultBook(clock, faults)
        self._service = Service(Settings(**settings), clock)
        self._service.accounts.add(account_sid, auth_token)
        self._runner: web.AppRunner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server in a thread; it listens when this returns."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="bulkexport-sandbox", daemon=True
        )
        self._thread.start()
        try:
            self._ask(self.open)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and drop its connections."""
        if self._loop is None or self._thread is None:
            return
        self._ask(self.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()
        self._loop = self._thread = None

    async def open(self) -> None:
        """Listen, on the running event loop; for those who have one."""
        application = build_application(self._service, self._faults)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{shown}:{port}"

    async def close(self) -> None:
        """Stop listening, on the loop of :meth:`open`."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def ledger(self) -> dict[str, Any]:
        """Return what really happened: jobs, charged days, requests, downloads, webhooks."""
        return self._call(self._service.ledger_json)

    def connection(self, **changes: Any) -> str:
        """
        Return an Airflow connection to the sandbox, as JSON for ``AIRFLOW_CONN_<ID>``.

        :param changes: fields to set or replace, such as ``login`` or ``extra``.
        """
        fields = {
            "conn_type": "twilio_bulkexports",
            "login": self.account_sid,
            "password": self.auth_token,
            "extra": {"base_url": self.url},
        }
        return json.dumps(fields | changes)

    def requests(self, route: str | None = None) -> int:
        """
        Return how many requests have come, refused ones included.

        :param route: counts those to one route, such as ``create_job``.
        """
        counts: dict[str, int] = self.ledger()["requests"]
        return sum(counts.values()) if route is None else counts.get(route, 0)

    def jobs(self, live: bool = False) -> list[dict[str, Any]]:
        """
        Return the jobs of the ledger, oldest first.

        :param live: leaves out the deleted ones.
        """
        jobs: list[dict[str, Any]] = self.ledger()["jobs"]
        return [job for job in jobs if not (live and job["deleted"])]

    def add_fault(self, fault: dict[str, Any]) -> None:
        """
        Add a fault.

        :param fault: a ``kind`` with its own arguments; the name of a ``route``, or ``*`` for
            every route that the kind fits; and whom it strikes: so many ``times``, 1 if left
            out and -1 for ever, ``after`` so many requests, and while it is ``lasting``, in
            seconds by the sandbox's clock. With ``lasting``, ``times`` is -1 if left out.
        :raises ValueError: if there is no such fault.
        """
        self._call(lambda: self._faults.add(fault))

    def clear_faults(self) -> None:
        """Behave again."""
        self._call(self._faults.clear)

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock."""
        self._call(lambda: self._service.clock.advance(seconds))

    def add_account(self, sid: str, token: str, parent: str | None = None) -> None:
        """
        Add an account.

        :param parent: makes it a subaccount of that account, which shares its quota.
        """
        self._call(lambda: self._service.accounts.add(sid, token, parent))

    def add_key(self, key_sid: str, secret: str, account_sid: str | None = None) -> None:
        """
        Add an API key.

        :param account_sid: whose key it is; the first account's if left out.
        """
        self._call(
            lambda: self._service.accounts.add_key(key_sid, secret, account_sid or self.account_sid)
        )

    def _call(self, function: Callable[[], Result]) -> Result:
        if self._loop is None:
            return function()

        async def run() -> Result:
            return function()

        return self._ask(run)

    def _ask(self, function: Callable[[], Awaitable[Result]]) -> Result:
        async def run() -> Result:
            return await function()

        if self._loop is None:
            raise RuntimeError("The sandbox is not running.")
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE)
