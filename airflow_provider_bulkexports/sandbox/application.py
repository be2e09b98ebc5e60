"""The sandbox over HTTP: routes, login, and faults around each answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from airflow_provider_bulkexports.sandbox.answers import (
    Answer,
    refusal,
    service_headers,
    xml_refusal,
)
from airflow_provider_bulkexports.sandbox.control import add_control_routes
from airflow_provider_bulkexports.sandbox.faults import Fault, FaultBook, RequestFaults
from airflow_provider_bulkexports.sandbox.routes import Routes
from airflow_provider_bulkexports.sandbox.settings import Refusal
from airflow_provider_bulkexports.sandbox.webhooks import Caller

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.service import Service

__all__ = ["build_application"]

Handler = Callable[[web.Request, str, RequestFaults], Awaitable[Answer]]

_log = logging.getLogger(__name__)
_HTML = b"<html><head><title>Service</title></head><body>Please come back later.</body></html>"
_CODES = {400: 20001, 401: 20003, 403: 20006, 404: 20404, 429: 20429, 500: 20500, 503: 20503}


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
        ("GET", f"{exports}/Configuration", "configuration", routes.fetch_configuration),
        ("POST", f"{exports}/Configuration", "configuration", routes.update_configuration),
        ("GET", "/_files/{Key:.+}", "download", routes.download),
    ):
        shown = "/_files/{Key}" if name == "download" else path
        application.router.add_route(method, path, front.wrap(f"{method} {shown}", name, handler))
    add_control_routes(application, service, faults)

    async def call_webhooks(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(caller.run())
        yield
        task.cancel()

    application.cleanup_ctx.append(call_webhooks)
    return application


class _Front:
    """What every request meets before and after its handler."""

    def __init__(self, service: Service, faults: FaultBook, caller: Caller) -> None:
        self._service, self._faults, self._caller = service, faults, caller

    def wrap(
        self, template: str, name: str, handler: Handler
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return an aiohttp handler around one of ours."""

        async def serve(request: web.Request) -> web.StreamResponse:
            self._service.ledger.requests[template] += 1
            # Read first: a client that has gone must not keep the handler from acting.
            await request.read()
            faults = self._faults.for_request(name)
            file = name == "download"
            if fault := faults.take("delay"):
                await asyncio.sleep(fault.params["seconds"])
            if fault := faults.take("drop_before", "status"):
                answer = self._injected(fault, file)
                return await self._send(request, answer, file=file, faults=faults)
            answer = await self._act(request, handler, faults, file)
            self._caller.wake()
            if fault := faults.take("delay_after"):
                await asyncio.sleep(fault.params["seconds"])
            if fault := faults.take("drop_after", "status_after"):
                answer = self._injected(fault, file)
            elif fault := faults.take("bad_json"):
                answer.replace_body(_body(fault), "text/html; charset=utf-8")
            elif answer.record is not None and (fault := faults.take("other_file")):
                answer.replace_file(
                    base64.b64decode(fault.params["base64"]),
                    fault.params.get("headers", {}),
                    no_length=bool(fault.params.get("no_length")),
                )
            elif faults.take("wrong_type"):
                answer.replace_body(b"[]", "application/json; charset=utf-8")
            return await self._send(request, answer, file=file, faults=faults)

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
        return await self._send(request, answer, file=False, faults=RequestFaults())

    async def _act(
        self, request: web.Request, handler: Handler, faults: RequestFaults, file: bool
    ) -> Answer:
        try:
            account = "" if file else self._service.accounts.authenticate(*_login(request))
            return await handler(request, account, faults)
        except Refusal as error:
            return xml_refusal(error) if file else refusal(error)

    def _injected(self, fault: Fault, file: bool) -> Answer | Fault:
        if fault.kind.startswith("drop"):
            return fault
        status = int(fault.params["status"])
        code = fault.params.get("code", _CODES.get(status, 20000 + status % 1000))
        message = fault.params.get("message", f"Fault of the sandbox with status {status}")
        after = fault.params.get("retry_after")
        headers = {} if after is None else {"Retry-After": str(after)}
        return (xml_refusal if file else refusal)(Refusal(status, code, message), headers)

    async def _send(
        self, request: web.Request, answer: Answer | Fault, *, file: bool, faults: RequestFaults
    ) -> web.StreamResponse:
        if isinstance(answer, Fault):
            return _drop(request, answer)
        if answer.status >= 400:
            self._service.ledger.rejected[str(answer.status)] += 1
        headers = service_headers(self._service.clock.moment(), file=file) | answer.headers
        if answer.no_length:
            return await _stream_until_close(request, answer, headers)
        corrupt, truncate = faults.take("corrupt"), faults.take("truncate")
        if corrupt is None and truncate is None and answer.chunks is None:
            return web.Response(status=answer.status, headers=headers, body=answer.body or None)
        return await _stream(request, answer, headers, corrupt, truncate)


async def _stream(
    request: web.Request,
    answer: Answer,
    headers: dict[str, str],
    corrupt: Fault | None,
    truncate: Fault | None,
) -> web.StreamResponse:
    record: dict[str, Any] = answer.record if answer.record is not None else {}
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = answer.length
    limit = answer.length
    if truncate is not None:
        limit = min(int(truncate.params.get("bytes", limit // 2)), limit)
    flipped = int(corrupt.params.get("at", answer.length // 2)) if corrupt is not None else -1
    sent = 0
    try:
        await response.prepare(request)
        async for part in answer.parts():
            if sent <= flipped < sent + len(part):
                sending = _flip(part, flipped - sent)[: limit - sent]
            else:
                sending = part[: limit - sent]
            await response.write(sending)
            sent += len(sending)
            # At once: whoever has the last byte may look at the ledger next.
            record |= {"bytes": sent, "complete": truncate is None and sent == answer.length}
            if sent == limit:
                break
        if truncate is not None:
            return _drop(request, truncate, response)
        record["complete"] = sent == answer.length
        await response.write_eof()
    except ConnectionError:
        pass
    return response


async def _stream_until_close(
    request: web.Request, answer: Answer, headers: dict[str, str]
) -> web.StreamResponse:
    # By hand: aiohttp would send an answer without a length in chunks, whose end can be seen.
    lines = [f"{name}: {value}" for name, value in {**headers, "Connection": "close"}.items()]
    transport = request.transport
    if transport is not None:
        head = "\r\n".join([f"HTTP/1.1 {answer.status} OK", *lines])
        transport.write(f"{head}\r\n\r\n".encode())
        async for part in answer.parts():
            transport.write(part)
        transport.close()
    if answer.record is not None:
        answer.record |= {"bytes": answer.length, "complete": True}
    return web.Response()


def _drop(
    request: web.Request, fault: Fault, response: web.StreamResponse | None = None
) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if fault.params.get("reset") and connection is not None:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return response if response is not None else web.Response()


def _flip(part: bytes, at: int) -> bytes:
    changed = bytearray(part)
    changed[at] ^= 1
    return bytes(changed)


def _body(fault: Fault) -> bytes:
    body = fault.params.get("body")
    return _HTML if body is None else str(body).encode()


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
