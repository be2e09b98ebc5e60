"""Requests that reach the service later than they were sent."""

from __future__ import annotations

import heapq
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Deliveries"]


class Deliveries:
    """What is still on its way; nobody waits for its answer any more."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[float], Any]]] = []
        self._numbers = itertools.count()

    def add(self, moment: float, act: Callable[[float], Any]) -> None:
        """
        Have something done later.

        :param moment: when, in seconds since 1970 by the sandbox's clock.
        :param act: is given that moment; a refusal is lost.
        """
        heapq.heappush(self._waiting, (moment, next(self._numbers), act))

    def arrive(self, now: float) -> None:
        """Do what is due, in the order of time."""
        while self._waiting and self._waiting[0][0] <= now:
            moment, _, act = heapq.heappop(self._waiting)
            with suppress(Refusal):
                act(moment)

    @property
    def next_at(self) -> float | None:
        """When the next is due, None if there is none."""
        return self._waiting[0][0] if self._waiting else None
