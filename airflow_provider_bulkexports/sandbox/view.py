"""What of the service's state a request gets to see."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["View"]


@dataclass(frozen=True, slots=True)
class View:
    """
    A look at jobs and files.

    :param moment: the time whose state is shown, in seconds since 1970.
    :param newest: what was created later than this is not there.
    :param omit: share of all jobs and files that are not there either, always the same ones.
    """

    moment: float
    newest: float
    omit: float = 0.0

    @classmethod
    def of(cls, now: float) -> View:
        """Return the look at all there is."""
        return cls(moment=now, newest=now)

    def shows(self, created_at: float, name: str) -> bool:
        """
        Return whether a job or file is there.

        :param name: decides whether it is among the omitted.
        """
        return created_at <= self.newest and random.Random(name).random() >= self.omit
