"""How long, how often and how much: every wait and every limit in one value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PACE", "Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """
    Waits and limits, in seconds unless said otherwise, each with its reason.

    What is read at the moment of use is :data:`PACE`, which a test replaces as a whole.
    """

    # One exchange with the service.
    connect: float = 5.0
    """A connection that takes longer is taken for dead."""
    read: float = 30.0
    """Silence between two pieces of an answer."""
    exchange: float = 60.0
    """A whole exchange, also one that trickles without ever being silent."""
    body: int = 16 * 2**20
    """Bytes of a decoded answer; a page of 30 jobs of 366 days each has less than one MiB."""
    tries: int = 5
    """Tries of a call that may be repeated: about 15 s of waiting in all."""
    longest_pause: float = 60.0
    """What a call sleeps at most before its next try; a longer advice is left to the caller."""

    # One download, whose head has the time of an exchange.
    stretch: int = 2**20
    """Bytes of a day file that must come in ..."""
    stretch_seconds: float = 120.0
    """... this time, one stretch after the other: 9 kB/s at least, so that the end of a file
    of gigabytes may take days, and of a bucket that trickles two minutes."""

    # One listing.
    listing: float = 60.0
    """A whole listing, all pages."""
    pages: int = 500
    """Pages of one listing: 15,000 items, which is more than an account can have in 7 days."""

    # Creating a job.
    looks: tuple[float, ...] = (5.0, 15.0, 30.0)
    """When the list is read again after an answer was lost; most jobs show up within seconds."""
    settle: float = 120.0
    """How long after its answer was lost a POST may still act, so that none is sent before."""
    posts: int = 4
    """POSTs of one try of a task."""
    credentials: tuple[float, ...] = (5.0, 20.0)
    """When refused credentials are tried again: a token that is rotated is refused for moments."""
    clock: float = 600.0
    """How far a worker's clock may be off; what is too early even so is refused before traffic."""
    midnight: float = 60.0
    """After a day became exportable, how long a refusal may come from a clock that is behind."""

    # Waiting for a job or for days.
    shortest_poll: float = 10.0
    """Airflow can lose a deferral that ends within about five seconds (apache/airflow#66374)."""
    longest_poll: float = 900.0
    """With an estimate of Twilio's."""
    longest_poll_blind: float = 300.0
    """Without one."""
    refused: float = 900.0
    """How long refused credentials are ridden out while a job is awaited."""
    gone: float = 120.0
    """How far apart two listings must both lack a job before it counts as gone."""
    lookup: float = 5.0
    """How long a poll waits for Airflow to look its connection up."""
    last_look: float = 1.0
    """How long a wait goes on past its deadline for the answer to its last look."""
    late: float = 12.0
    """How long a task past its deadline may still ask how its job stands."""
    spread: tuple[float, float] = (1.0, 60.0)
    """Tasks that wait for the same midnight do not all come at once."""

    # Being stopped.
    last_connect: float = 1.5
    last_exchange: float = 2.5
    """Airflow kills a stopped task after five seconds, and its job must be deleted before."""

    now: Callable[[], float] = time.time
    """The time, in seconds since the epoch."""
    sleep: Callable[[float], None] = time.sleep
    """How to wait."""


PACE = Pace()
"""The pace that everything keeps; read where it is used, never imported by name."""
