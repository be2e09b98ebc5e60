"""The faults that wait for their request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_bulkexports.sandbox.faults.arguments import SECONDS, WHOLE
from airflow_provider_bulkexports.sandbox.faults.catalogue import parse_fault
from airflow_provider_bulkexports.sandbox.faults.fault import Fault

if TYPE_CHECKING:
    from airflow_provider_bulkexports.sandbox.clock import Clock

__all__ = ["FaultBook", "RequestFaults"]

Kind = TypeVar("Kind", bound=Fault)


@dataclass(slots=True)
class _Entry:
    """
    A fault and whom it strikes.

    :param given: the arguments as they were given.
    :param times: how many requests it still strikes; -1 for any number.
    :param after: how many matching requests it lets pass first.
    :param until: when it ends, in seconds since 1970, None for never.
    """

    fault: Fault
    route: str
    given: dict[str, Any]
    times: int
    after: int
    until: float | None

    @classmethod
    def parse(cls, item: object, now: float) -> _Entry:
        if not isinstance(item, Mapping):
            raise ValueError(  # noqa: TRY004 - what is wrong is the JSON
                f"a fault is a JSON object, not {type(item).__name__}"
            )
        given = dict(item)
        kind, route = given.pop("kind", None), str(given.pop("route", "*"))
        lasting, after = given.pop("lasting", None), given.pop("after", 0)
        times = given.pop("times", 1 if lasting is None else -1)
        if lasting is not None and not (SECONDS.allows(lasting) and lasting):
            raise ValueError(f"lasting is a number of seconds above 0, not {lasting!r}")
        if not WHOLE.allows(after):
            raise ValueError(f"after is {WHOLE.allowed}, not {after!r}")
        if times != -1 and not WHOLE.allows(times):
            raise ValueError(f"times is {WHOLE.allowed}, or -1 for ever, not {times!r}")
        until = None if lasting is None else now + lasting
        return cls(parse_fault(kind, route, given), route, given, times, after, until)

    def waits(self, now: float) -> bool:
        return self.times != 0 and (self.until is None or now < self.until)

    def fits(self, route: str) -> bool:
        return self.route == route or (self.route == "*" and self.fault.fits(route))

    def strike(self) -> None:
        if self.times > 0:
            self.times -= 1

    def as_json(self, now: float) -> dict[str, Any]:
        known = {"route": self.route, "kind": self.fault.kind, "times": self.times}
        lasting = {} if self.until is None else {"lasting": self.until - now}
        return {**known, "after": self.after, **lasting, **self.given}


class RequestFaults:
    """The faults that one request may meet; one that is never taken strikes a later request."""

    def __init__(self, entries: Iterable[_Entry] = ()) -> None:
        self._entries = list(entries)

    def take(self, stage: type[Kind], when: Callable[[Kind], bool] = lambda _: True) -> Kind | None:
        """
        Return the first fault of a stage and count it, or None.

        :param when: says of a fault whether it is to be taken.
        """
        return next(self.take_all(stage, when), None)

    def take_each(
        self, stage: type[Kind], when: Callable[[Kind], bool] = lambda _: True
    ) -> Iterator[Kind]:
        """Yield the first fault of each kind of a stage, counting each as it is yielded."""
        met: set[str] = set()
        for fault in self.take_all(stage, lambda fault: fault.kind not in met and when(fault)):
            met.add(fault.kind)
            yield fault

    def take_all(
        self, stage: type[Kind], when: Callable[[Kind], bool] = lambda _: True
    ) -> Iterator[Kind]:
        """Yield every fault of a stage, counting each as it is yielded."""
        for entry in self._entries:
            fault = entry.fault
            if isinstance(fault, stage) and entry.times != 0 and when(fault):
                entry.strike()
                yield fault


class FaultBook:
    """
    All faults that wait for their request.

    :param clock: times those that last for a while.
    :param faults: faults as JSON objects.
    """

    def __init__(self, clock: Clock, faults: Iterable[object] = ()) -> None:
        self._clock = clock
        self._entries: list[_Entry] = []
        self.add(list(faults))

    def add(self, items: object) -> None:
        """
        Add a fault or a list of faults; all of them or, if one is wrong, none.

        :param items: JSON objects with ``kind``, ``route``, ``times``, ``after``, ``lasting``
            and the arguments of the kind.
        :raises ValueError: naming what is wrong and what would be right.
        """
        given = items if isinstance(items, list) else [items]
        self._entries += [_Entry.parse(item, self._clock.now()) for item in given]

    def clear(self) -> None:
        """Forget all faults."""
        self._entries.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the faults that can still strike, their bounds counted down."""
        now = self._clock.now()
        return [entry.as_json(now) for entry in self._entries if entry.waits(now)]

    def for_request(self, route: str) -> RequestFaults:
        """Return the faults that a request to ``route`` may meet, and count it for ``after``."""
        now = self._clock.now()
        self._entries = [entry for entry in self._entries if entry.waits(now)]
        due = []
        for entry in self._entries:
            if not entry.fits(route):
                continue
            if entry.after:
                entry.after -= 1
            else:
                due.append(entry)
        return RequestFaults(due)
