"""The signal by which a caller ends work that runs, in whatever thread it does."""

from __future__ import annotations

import time

from airflow_provider_bulkexports.api.errors import Stopped

__all__ = ["Stop"]

STEP = 0.1
"""Seconds after which whoever waits looks again, as for the poll of a download's connection."""


class Stop:
    """
    A signal that is given once and stays.

    A plain flag that waits look at: the lock of a ``threading.Event`` is not reentrant, and a
    signal's handler may set this amid anything, also amid a wait for it.
    """

    def __init__(self) -> None:
        self._is_set = False

    @property
    def is_set(self) -> bool:
        """Whether the signal was given."""
        return self._is_set

    def set(self) -> None:
        """Give the signal; any thread or signal handler may, more than once."""
        self._is_set = True

    def check(self) -> None:
        """
        Return unless the signal was given.

        :raises Stopped: then.
        """
        if self._is_set:
            raise Stopped("The work was stopped.")

    def sleep(self, seconds: float) -> None:
        """
        Wait.

        :raises Stopped: within 0.2 s of the signal.
        """
        end = time.monotonic() + seconds
        while True:
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, STEP))
