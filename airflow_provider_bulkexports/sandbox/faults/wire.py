"""Faults in how an answer's bytes go out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_bulkexports.sandbox.faults.arguments import (
    FLAG,
    NUMBER,
    POSITIVE,
    SECONDS,
    WHOLE,
    Argument,
    argument,
    one_of,
)
from airflow_provider_bulkexports.sandbox.faults.fault import API_ROUTES, ROUTES
from airflow_provider_bulkexports.sandbox.faults.stages import OnWire
from airflow_provider_bulkexports.sandbox.wire import Pace

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.wire import Plan

__all__ = ["Corrupt", "Date", "Trickle", "Truncate"]

_UNCHANGED = "unchanged"
_HEADER = Argument("a text or null", lambda value: value is None or isinstance(value, str))


@dataclass(frozen=True)
class Date(OnWire):
    """Sends a Date that is off by `skew` seconds, or another `value`, or none for null."""

    kind: ClassVar[str] = "date"
    routes: ClassVar[tuple[str, ...]] = API_ROUTES
    skew: float = argument(NUMBER, default=0)
    value: str | None = argument(_HEADER, default=_UNCHANGED)

    def check(self, route: str) -> None:
        """Refuse to do both, or neither."""
        del route
        if bool(self.skew) == (self.value != _UNCHANGED):
            raise ValueError("date needs either skew or value")

    def send(self, plan: Plan) -> None:
        """Change the header."""
        if self.skew:
            right = parsedate_to_datetime(plan.headers["Date"])
            wrong = right + timedelta(seconds=self.skew)
            plan.headers["Date"] = format_datetime(wrong, usegmt=True)
        elif self.value is None:
            del plan.headers["Date"]
        else:
            plan.headers["Date"] = self.value


@dataclass(frozen=True)
class Truncate(OnWire):
    """Ends the connection after some `bytes` of the body, half of it if not told."""

    kind: ClassVar[str] = "truncate"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    bytes: int | None = argument(WHOLE, default=None)
    reset: bool = argument(FLAG, default=False)

    def send(self, plan: Plan) -> None:
        """Set the limit."""
        plan.limit = min(plan.length // 2 if self.bytes is None else self.bytes, plan.length)
        plan.reset = self.reset


@dataclass(frozen=True)
class Corrupt(OnWire):
    """Flips a bit of the byte `at`, or of the one in the middle."""

    kind: ClassVar[str] = "corrupt"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    at: int | None = argument(WHOLE, default=None)

    def send(self, plan: Plan) -> None:
        """Set the byte."""
        plan.flipped = plan.length // 2 if self.at is None else self.at


@dataclass(frozen=True)
class Trickle(OnWire):
    """Sends `bytes` bytes, waits `seconds`, and so on until all is sent or the client has gone."""

    kind: ClassVar[str] = "trickle"
    routes: ClassVar[tuple[str, ...]] = ROUTES
    seconds: float = argument(SECONDS, default=2)
    bytes: int = argument(POSITIVE, default=1)
    from_: str = argument(one_of("head", "body"), default="body")

    def send(self, plan: Plan) -> None:
        """Set the pace."""
        plan.pace = Pace(self.bytes, self.seconds, head=self.from_ == "head")
