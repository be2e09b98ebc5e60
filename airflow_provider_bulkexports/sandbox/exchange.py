"""A request on its way through the sandbox, as faults see it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.sandbox.answers import fault_status

if TYPE_CHECKING:
    from aiohttp import web

    from airflow_provider_bulkexports.sandbox.answers import Answer

__all__ = ["Exchange"]

_GLANCE = 0.05


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    A request and the form of its answer.

    :param file: whether the bucket answers rather than the API.
    """

    request: web.Request
    file: bool

    def fault_status(
        self,
        status: int,
        code: int | None,
        message: str | None,
        retry_after: float | str | None,
    ) -> Answer:
        """Return an error that a fault asks for, in the form of whoever answers."""
        return fault_status(status, code, message, retry_after, file=self.file)

    async def until_gone(self, seconds: float) -> None:
        """Wait until the client has gone, at most ``seconds`` of real time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            transport = self.request.transport
            if transport is None or transport.is_closing():
                return
            await asyncio.sleep(min(_GLANCE, end - loop.time()))
