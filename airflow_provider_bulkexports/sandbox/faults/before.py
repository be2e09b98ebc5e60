"""Faults that strike before the service acts, or keep it from acting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_bulkexports.sandbox.answers import Answer
from airflow_provider_bulkexports.sandbox.faults.arguments import (
    FLAG,
    SECONDS,
    STATUS,
    TEXT,
    WHOLE,
    Argument,
    argument,
)
from airflow_provider_bulkexports.sandbox.faults.fault import ROUTES
from airflow_provider_bulkexports.sandbox.faults.stages import Before, Instead

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.exchange import Exchange

__all__ = ["RETRY_AFTER", "Delay", "DropBefore", "Hang", "Status"]

RETRY_AFTER = Argument(
    "a number of seconds, a text, or null for none",
    lambda value: value is None or isinstance(value, str) or SECONDS.allows(value),
)
"""The header as it is sent: seconds, a date, or nonsense."""


@dataclass(frozen=True)
class Delay(Before):
    """Waits before it acts; it acts although the client may have gone by then."""

    kind: ClassVar[str] = "delay"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    seconds: float = argument(SECONDS)

    async def pause(self) -> None:
        """Wait in real time."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class DropBefore(Instead):
    """Ends the connection without an answer and without acting."""

    kind: ClassVar[str] = "drop_before"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    reset: bool = argument(FLAG, default=False)

    async def answer(self, exchange: Exchange) -> Answer:
        """Return an end of the connection."""
        del exchange
        return Answer.lost(reset=self.reset)


@dataclass(frozen=True)
class Status(Instead):
    """Answers with a status instead of acting; on `*`, a 401 spares the download."""

    kind: ClassVar[str] = "status"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    status: int = argument(STATUS)
    code: int | None = argument(WHOLE, default=None)
    message: str | None = argument(TEXT, default=None)
    retry_after: float | str | None = argument(RETRY_AFTER, default=None)

    def fits(self, route: str) -> bool:
        """Return whether a fault on ``*`` strikes a route: a bucket asks for no login."""
        return self.status != 401 or route != "download"

    async def answer(self, exchange: Exchange) -> Answer:
        """Return an error with the status."""
        return exchange.fault_status(self.status, self.code, self.message, self.retry_after)


@dataclass(frozen=True)
class Hang(Instead):
    """Neither acts nor answers until the client has gone, or the seconds are over."""

    kind: ClassVar[str] = "hang"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    seconds: float = argument(SECONDS, default=3600)

    async def answer(self, exchange: Exchange) -> Answer:
        """Wait in real time, then return an end of the connection."""
        await exchange.until_gone(self.seconds)
        return Answer.lost()
