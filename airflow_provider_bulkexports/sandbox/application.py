"""The sandbox over HTTP: routes, login, and faults around each answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_bulkexports.sandbox.answers import (
    Answer,
    refusal,
    service_headers,
    xml_refusal,
)
from airflow_provider_bulkexports.sandbox.control import add_control_routes
from airflow_provider_bulkexports.sandbox.exchange import Exchange
from airflow_provider_bulkexports.sandbox.faults.book import FaultBook, RequestFaults
from airflow_provider_bulkexports.sandbox.faults.stages import (
    After,
    Before,
    Bending,
    Instead,
    OnWire,
    Replacing,
)
from airflow_provider_bulkexports.sandbox.refusal import Refusal
from airflow_provider_bulkexports.sandbox.routes import Routes
from airflow_provider_bulkexports.sandbox.webhooks import Caller
from airflow_provider_bulkexports.sandbox.wire import Plan, drop, send

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.service import Service

__all__ = ["build_application"]

Handler = Callable[[web.Request, str, RequestFaults], Awaitable[Answer]]

_log = logging.getLogger(__name__)


def build_application(service: Service, faults: FaultBook) -> web.Application:
    """Return the whole sandbox as an aiohttp application."""
    caller = Caller(service)
    front = _Front(service, faults, caller)
    routes = Routes(service)
    application = web.Application(middlewares=[front.catch])
    exports = "/v1/Exports/{ResourceType}"
    for method, path, name, handler in (
        ("GET", "/v1/Exports/Jobs/{JobSid}", "fetch_job", routes.fetch_job),
        ("DELETE", "/v1/Exports/Jobs/{JobSid}", "delete_job", routes.delete_job),
        ("GET", exports, "fetch_export", routes.fetch_export),
        ("POST", f"{exports}/Jobs", "create_job", routes.create_job),
        ("GET", f"{exports}/Jobs", "list_jobs", routes.list_jobs),
        ("GET", f"{exports}/Days", "list_days", routes.list_days),
        ("GET", f"{exports}/Days/{{Day}}", "fetch_day", routes.fetch_day),
        ("GET", f"{exports}/Configuration", "fetch_configuration", routes.fetch_configuration),
        ("POST", f"{exports}/Configuration", "update_configuration", routes.update_configuration),
        ("GET", "/_files/{Key:.+}", "download", routes.download),
    ):
        application.router.add_route(method, path, front.wrap(name, handler))
    add_control_routes(application, service, faults)

    async def call_webhooks(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(caller.run())
        yield
        task.cancel()

    application.cleanup_ctx.append(call_webhooks)
    return application


class _Front:
    """The way of every request: from the socket to its handler, and back."""

    def __init__(self, service: Service, faults: FaultBook, caller: Caller) -> None:
        self._service, self._faults, self._caller = service, faults, caller

    def wrap(
        self, name: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """
        Return an aiohttp handler around one of ours.

        :param name: what ledger and faults call the route.
        """

        async def serve(request: web.Request) -> web.StreamResponse:
            self._service.ledger.requests[name] += 1
            # Read first: a client that has gone must not keep the handler from acting.
            await request.read()
            exchange = Exchange(request, file=name == "download")
            faults = self._faults.for_request(name)
            for pause in faults.take_each(Before):
                await pause.pause()
            if instead := faults.take(Instead):
                answer = await instead.answer(exchange)
            else:
                answer = await self._act(exchange, handler, faults)
                self._caller.wake()
                answer = await _changed(answer, exchange, faults)
            return await self._send(exchange, answer, faults)

        return serve

    @web.middleware
    async def catch(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Answer unknown paths and methods, and our own mistakes, as the API would."""
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allow = {"Allow": ",".join(sorted(error.allowed_methods))}
            answer = refusal(Refusal(405, 20004, "Method not allowed"), allow)
        except web.HTTPException as error:
            answer = refusal(Refusal(error.status, 20404, f"{request.path}: {error.reason}"))
        except Refusal as error:
            answer = refusal(error)
        except Exception:  # noqa: BLE001 - a mistake of ours must look like one of theirs
            _log.exception("The sandbox failed at %s %s", request.method, request.path)
            answer = refusal(Refusal(500, 20500, "The sandbox has an error; see its log"))
        return await self._send(Exchange(request, file=False), answer, RequestFaults())

    async def _act(self, exchange: Exchange, handler: Handler, faults: RequestFaults) -> Answer:
        self._service.catch_up()
        try:
            account = ""
            if not exchange.file:
                account = self._service.accounts.authenticate(*_login(exchange.request))
            return await handler(exchange.request, account, faults)
        except Refusal as error:
            return xml_refusal(error) if exchange.file else refusal(error)

    async def _send(
        self, exchange: Exchange, answer: Answer, faults: RequestFaults
    ) -> web.StreamResponse:
        if answer.dropped is not None:
            return drop(exchange.request, reset=answer.dropped == "reset")
        if answer.status >= 400:
            self._service.ledger.rejected[str(answer.status)] += 1
        headers = service_headers(self._service.clock.moment(), file=exchange.file)
        plan = Plan(headers | answer.headers, answer.length)
        for fault in faults.take_each(OnWire):
            fault.send(plan)
        return await send(exchange.request, answer, plan)


async def _changed(answer: Answer, exchange: Exchange, faults: RequestFaults) -> Answer:
    for bending in faults.take_each(Bending, lambda fault: fault.applies(answer)):
        bending.bend(answer)
    for pause in faults.take_each(After):
        await pause.pause()
    if replacing := faults.take(Replacing, lambda fault: fault.applies(answer)):
        return await replacing.replace(answer, exchange)
    return answer


def _login(request: web.Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            return "", ""
        login, _, password = text.partition(":")
        return login, password
    return "", ""
