"""From an answer to the bytes on the socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_provider_bulkexports.sandbox.answers import Answer

__all__ = ["Pace", "Plan", "drop", "send"]


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How slowly bytes go out.

    :param bytes: how many at once.
    :param seconds: real time between them.
    :param head: whether the head is slow already.
    """

    bytes: int
    seconds: float
    head: bool


@dataclass(slots=True)
class Plan:
    """
    How an answer is sent.

    :param headers: all of them; without ``Date``, none is sent.
    :param length: length of the body in bytes.
    :param limit: how many of them are sent before the connection ends, None for all.
    :param reset: whether it ends with a reset.
    :param flipped: which byte of the body is sent with a bit flipped, None for none.
    :param pace: how slowly, None for at once.
    """

    headers: dict[str, str]
    length: int
    limit: int | None = None
    reset: bool = False
    flipped: int | None = None
    pace: Pace | None = None


async def send(request: web.Request, answer: Answer, plan: Plan) -> web.StreamResponse:
    """Send an answer, all of it or as the plan says."""
    if plan.pace is not None or answer.no_length or "Date" not in plan.headers:
        return await _send_by_hand(request, answer, plan)
    if plan.limit is None and plan.flipped is None and answer.chunks is None:
        return web.Response(status=answer.status, headers=plan.headers, body=answer.body or None)
    response = web.StreamResponse(status=answer.status, headers=plan.headers)
    response.content_length = plan.length
    try:
        await response.prepare(request)
        async for part in _body(answer, plan):
            await response.write(part)
            _note(answer, plan, len(part))
        _note(answer, plan, 0)
        if plan.limit is not None:
            drop(request, reset=plan.reset)
        else:
            await response.write_eof()
    except ConnectionError:
        pass
    return response


def drop(request: web.Request, *, reset: bool) -> web.StreamResponse:
    """End the connection."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if reset and connection is not None:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


async def _send_by_hand(request: web.Request, answer: Answer, plan: Plan) -> web.StreamResponse:
    # aiohttp would send an answer without a length in chunks, and always a Date.
    transport = request.transport
    if transport is None:
        return web.Response()
    headers = {**plan.headers, "Connection": "close"}
    if not answer.no_length and answer.status != HTTPStatus.NO_CONTENT:
        headers["Content-Length"] = str(plan.length)
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    try:
        pace = plan.pace if plan.pace and plan.pace.head else None
        await _write(transport, head, pace, lambda _: None)
        async for part in _body(answer, plan):
            await _write(transport, part, plan.pace, partial(_note, answer, plan))
        _note(answer, plan, 0)
    except ConnectionError:
        pass
    if plan.limit is not None:
        return drop(request, reset=plan.reset)
    transport.close()
    return web.Response()


async def _write(
    transport: asyncio.Transport, data: bytes, pace: Pace | None, note: Callable[[int], None]
) -> None:
    step = pace.bytes if pace else max(len(data), 1)
    for start in range(0, len(data), step):
        if transport.is_closing():
            raise ConnectionResetError
        piece = data[start : start + step]
        transport.write(piece)
        note(len(piece))
        if pace:
            await asyncio.sleep(pace.seconds)


async def _body(answer: Answer, plan: Plan) -> AsyncIterator[bytes]:
    sent = 0
    async for whole in answer.parts():
        part = whole
        if plan.flipped is not None and sent <= plan.flipped < sent + len(part):
            part = _flip(part, plan.flipped - sent)
        if plan.limit is not None:
            part = part[: plan.limit - sent]
        yield part
        sent += len(part)
        if sent == plan.limit:
            return


def _note(answer: Answer, plan: Plan, count: int) -> None:
    # With each part, as whoever has the last byte may look next; at the end, for a file of none.
    if answer.record is not None:
        sent = answer.record["bytes"] + count
        answer.record |= {"bytes": sent, "complete": plan.limit is None and sent == plan.length}


def _flip(part: bytes, at: int) -> bytes:
    changed = bytearray(part)
    changed[at] ^= 1
    return bytes(changed)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
