"""Faults that delay an answer, or put something in its place, when the service has acted."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_bulkexports.sandbox.answers import Answer
from airflow_provider_bulkexports.sandbox.bomb import bomb
from airflow_provider_bulkexports.sandbox.faults.arguments import (
    BASE64,
    FLAG,
    HEADERS,
    POSITIVE,
    SECONDS,
    STATUS,
    TEXT,
    WHOLE,
    argument,
)
from airflow_provider_bulkexports.sandbox.faults.before import RETRY_AFTER
from airflow_provider_bulkexports.sandbox.faults.fault import API_ROUTES, ROUTES
from airflow_provider_bulkexports.sandbox.faults.stages import After, Replacing

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.exchange import Exchange

__all__ = ["BadJson", "Bomb", "DelayAfter", "DropAfter", "OtherFile", "StatusAfter", "WrongType"]

_HTML = "<html><head><title>Service</title></head><body>Please come back later.</body></html>"
_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class DelayAfter(After):
    """Acts at once and answers later."""

    kind: ClassVar[str] = "delay_after"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    seconds: float = argument(SECONDS)

    async def pause(self) -> None:
        """Wait in real time."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class DropAfter(Replacing):
    """Acts, then ends the connection without an answer."""

    kind: ClassVar[str] = "drop_after"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    reset: bool = argument(FLAG, default=False)

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return an end of the connection."""
        del answer, exchange
        return Answer.lost(reset=self.reset)


@dataclass(frozen=True)
class StatusAfter(Replacing):
    """Acts, then answers with a status in spite of it."""

    kind: ClassVar[str] = "status_after"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    status: int = argument(STATUS)
    code: int | None = argument(WHOLE, default=None)
    message: str | None = argument(TEXT, default=None)
    retry_after: float | str | None = argument(RETRY_AFTER, default=None)

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return an error with the status."""
        del answer
        return exchange.fault_status(self.status, self.code, self.message, self.retry_after)


@dataclass(frozen=True)
class BadJson(Replacing):
    """Answers 200 with a page of HTML, or with `body`."""

    kind: ClassVar[str] = "bad_json"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    body: str = argument(TEXT, default=_HTML)

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return the page."""
        del exchange
        answer.replace_body(self.body.encode(), "text/html; charset=utf-8")
        return answer


@dataclass(frozen=True)
class WrongType(Replacing):
    """Answers 200 with an empty JSON list."""

    kind: ClassVar[str] = "wrong_type"
    routes: ClassVar[tuple[str, ...]] = API_ROUTES

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return the list."""
        del exchange
        answer.replace_body(b"[]", _JSON)
        return answer


@dataclass(frozen=True)
class Bomb(Replacing):
    """Answers 200 with a little gzip that inflates to many `megabytes` of JSON."""

    kind: ClassVar[str] = "bomb"
    routes: ClassVar[tuple[str, ...]] = API_ROUTES
    megabytes: int = argument(POSITIVE, default=100)

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return the gzip, built aside so that others are served meanwhile."""
        del exchange
        answer.replace_body(await asyncio.to_thread(bomb, self.megabytes), _JSON)
        answer.headers["Content-Encoding"] = "gzip"
        return answer


@dataclass(frozen=True)
class OtherFile(Replacing):
    """Serves other bytes in the place of the day file, with more headers or without a length."""

    kind: ClassVar[str] = "other_file"
    routes: ClassVar[tuple[str, ...]] = ("download",)
    base64: str = argument(BASE64)
    headers: dict[str, str] | None = argument(HEADERS, default=None)
    no_length: bool = argument(FLAG, default=False)

    def applies(self, answer: Answer) -> bool:
        """Return whether a file is served at all."""
        return answer.record is not None

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return the other file."""
        del exchange
        content = base64.b64decode(self.base64)
        answer.replace_file(content, self.headers or {}, no_length=self.no_length)
        return answer
