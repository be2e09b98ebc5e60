"""The sandbox's own routes, below ``/_sandbox``: ledger, faults and clock, without a login."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.faults.book import FaultBook
    from airflow_provider_bulkexports.sandbox.service import Service

__all__ = ["add_control_routes"]


def add_control_routes(application: web.Application, service: Service, faults: FaultBook) -> None:
    """Add the routes to an application."""

    async def ledger(_: web.Request) -> web.Response:
        return web.json_response(service.ledger_json())

    async def list_faults(_: web.Request) -> web.Response:
        return web.json_response(faults.as_json())

    async def add_faults(request: web.Request) -> web.Response:
        try:
            faults.add(await _json(request))
        except ValueError as error:
            raise Refusal.invalid(str(error)) from None
        return web.json_response(faults.as_json(), status=201)

    async def clear_faults(_: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    async def read_clock(_: web.Request) -> web.Response:
        return web.json_response({"now": service.clock.moment().isoformat()})

    async def move_clock(request: web.Request) -> web.Response:
        body = await _json(request)
        seconds = body.get("advance_seconds") if isinstance(body, dict) else None
        if not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise Refusal.invalid("advance_seconds must be a number")
        service.clock.advance(seconds)
        return await read_clock(request)

    application.router.add_routes(
        [
            web.get("/_sandbox/ledger", ledger, allow_head=False),
            web.get("/_sandbox/faults", list_faults, allow_head=False),
            web.post("/_sandbox/faults", add_faults),
            web.delete("/_sandbox/faults", clear_faults),
            web.get("/_sandbox/clock", read_clock, allow_head=False),
            web.post("/_sandbox/clock", move_clock),
        ]
    )


async def _json(request: web.Request) -> object:
    try:
        body: object = json.loads(await request.read())
    except ValueError:
        raise Refusal.invalid("the body must be JSON") from None
    return body
