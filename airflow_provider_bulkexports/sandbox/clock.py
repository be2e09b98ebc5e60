"""The sandbox's clock, which a test can move or give."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock"]


class Clock:
    """
    A time plus what it has been advanced by.

    :param source: returns seconds since 1970; the real time if left out.
    """

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self._offset = 0.0
        self.on_change: Callable[[], None] | None = None

    def now(self) -> float:
        """Return the sandbox's time in seconds since 1970."""
        return self._source() + self._offset

    def moment(self) -> datetime:
        """Return the sandbox's time as a UTC instant."""
        return datetime.fromtimestamp(self.now(), UTC)

    def advance(self, seconds: float) -> None:
        """Move the time, backwards too, and tell ``on_change``."""
        self._offset += seconds
        if self.on_change is not None:
            self.on_change()
