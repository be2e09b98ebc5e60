"""How long to wait before looking at a job again."""

from __future__ import annotations

import random

__all__ = ["SHORTEST_WAIT", "next_wait"]

SHORTEST_WAIT = 10.0
"""Seconds; Airflow can lose a deferral that ends within about five."""

LONGEST_WAIT = 15 * 60.0
LONGEST_WAIT_BLIND = 5 * 60.0


def next_wait(waited: float, remaining: float | None) -> float:
    """
    Return the seconds until the next look.

    Half of what is left, so that looks become denser towards the end; without an estimate, or
    past it, a twentieth of the time waited so far, which keeps the delay within 5 %. Jitter
    spreads the looks of jobs that were made together.

    :param waited: seconds waited so far.
    :param remaining: seconds left by Twilio's estimate, None if it gave none.
    """
    if remaining is not None and remaining > 0:
        wait, longest = remaining / 2, LONGEST_WAIT
    else:
        wait, longest = waited / 20, LONGEST_WAIT_BLIND
    return min(max(wait * random.uniform(0.9, 1.1), SHORTEST_WAIT), longest)
