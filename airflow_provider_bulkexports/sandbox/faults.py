"""Faults: how the sandbox misbehaves when it is asked to."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EMPTY_FORMS", "KINDS", "ROUTES", "Fault", "FaultBook", "RequestFaults"]

ROUTES = frozenset(
    {
        "create_job",
        "list_jobs",
        "fetch_job",
        "delete_job",
        "list_days",
        "fetch_day",
        "fetch_export",
        "configuration",
        "download",
    }
)
"""Names of the routes a fault may be put on; ``*`` is any route its kind fits."""

EMPTY_FORMS = ("absent", "not_found", "zero_bytes", "empty_gzip")
"""What an empty day may look like: not listed, listed but 404, no bytes, gzip of nothing."""

_LISTS = frozenset({"list_jobs", "list_days"})
_STATES = frozenset({"list_jobs", "fetch_job"})
_CREATE = frozenset({"create_job"})

KINDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "drop_before": (ROUTES, frozenset({"reset"})),
    "drop_after": (ROUTES, frozenset({"reset"})),
    "status": (ROUTES, frozenset({"status", "code", "message", "retry_after"})),
    "status_after": (ROUTES, frozenset({"status", "code", "message", "retry_after"})),
    "delay": (ROUTES, frozenset({"seconds"})),
    "delay_after": (ROUTES, frozenset({"seconds"})),
    "truncate": (ROUTES, frozenset({"bytes", "reset"})),
    "corrupt": (ROUTES, frozenset({"at"})),
    "bad_json": (ROUTES, frozenset({"body"})),
    "wrong_type": (ROUTES - {"download"}, frozenset()),
    "other_file": (frozenset({"download"}), frozenset({"base64", "headers", "no_length"})),
    "list_lag": (frozenset({"list_jobs"}), frozenset({"seconds"})),
    "loop_page": (_LISTS, frozenset()),
    "evil_page": (_LISTS, frozenset({"url"})),
    "redirect": (frozenset({"fetch_day"}), frozenset({"url"})),
    "status_word": (_STATES, frozenset({"word"})),
    "null_days": (_STATES, frozenset()),
    "job_outcome": (_CREATE, frozenset({"outcome", "days"})),
    "empty_day": (_CREATE, frozenset({"how", "days"})),
}
"""Every kind with the routes it fits and its own parameters."""

_REQUIRED = {
    "delay": "seconds",
    "delay_after": "seconds",
    "evil_page": "url",
    "job_outcome": "outcome",
    "list_lag": "seconds",
    "other_file": "base64",
    "redirect": "url",
    "status": "status",
    "status_after": "status",
}


@dataclass(slots=True)
class Fault:
    """
    One way to misbehave, on one route, for some requests.

    :param route: a name of :data:`ROUTES`, or ``*``.
    :param kind: a name of :data:`KINDS`.
    :param times: how many requests it still strikes; -1 for ever.
    :param after: how many matching requests it lets pass first.
    :param params: the kind's own parameters.
    """

    route: str
    kind: str
    times: int = 1
    after: int = 0
    params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, item: object) -> Fault:
        """
        Read a fault from JSON.

        :raises ValueError: naming what is wrong with it.
        """
        if not isinstance(item, Mapping):
            raise ValueError(  # noqa: TRY004 - what is wrong is the JSON
                f"a fault is a JSON object, not {type(item).__name__}"
            )
        given = dict(item)
        kind, route = str(given.pop("kind", None)), str(given.pop("route", "*"))
        times, after = given.pop("times", 1), given.pop("after", 0)
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; there are {', '.join(sorted(KINDS))}")
        routes, params = KINDS[kind]
        if route != "*" and route not in routes:
            raise ValueError(
                f"{kind} does not fit route {route!r}; it fits {sorted(routes)} and '*'"
            )
        if unknown := set(given) - params:
            raise ValueError(f"{kind} has no parameter {sorted(unknown)}; it has {sorted(params)}")
        if any(type(number) is not int for number in (times, after)) or after < 0 or times < -1:
            raise ValueError("times is a whole number from -1, after one from 0")
        _check(kind, given)
        return cls(route, kind, times, after, given)

    def fits(self, route: str) -> bool:
        """Return whether the fault is about ``route``."""
        return self.route == route or (self.route == "*" and route in KINDS[self.kind][0])

    def as_json(self) -> dict[str, Any]:
        """Return the fault as it would be given now, ``times`` and ``after`` counted down."""
        return {
            "route": self.route,
            "kind": self.kind,
            "times": self.times,
            "after": self.after,
            **self.params,
        }


def _check(kind: str, params: dict[str, Any]) -> None:
    if (needed := _REQUIRED.get(kind)) and needed not in params:
        raise ValueError(f"{kind} needs {needed!r}")
    for name in ("seconds", "status", "bytes", "at"):
        if type(params.get(name, 0)) not in (int, float):
            raise ValueError(f"{name} is a number")
    if kind == "other_file":
        base64.b64decode(params["base64"], validate=True)
    if kind == "job_outcome" and not _is_outcome(params["outcome"]):
        raise ValueError("outcome is a status word or a list of them, one after the other")
    if kind == "empty_day" and params.setdefault("how", "absent") not in EMPTY_FORMS:
        raise ValueError(f"how is one of {', '.join(EMPTY_FORMS)}")


def _is_outcome(value: object) -> bool:
    words = value if isinstance(value, list) else [value]
    return bool(words) and all(isinstance(word, str) for word in words)


class RequestFaults:
    """The faults that one request may meet; one that is never taken strikes a later request."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = list(faults)

    def take(self, *kinds: str) -> Fault | None:
        """Return the first fault of these kinds and count it, or None."""
        return next(self.take_all(*kinds), None)

    def take_all(self, *kinds: str) -> Iterator[Fault]:
        """Yield the faults of these kinds, counting each as it is yielded."""
        for fault in self._faults:
            if fault.kind in kinds and fault.times != 0:
                if fault.times > 0:
                    fault.times -= 1
                yield fault


class FaultBook:
    """
    All faults that wait for their request.

    :param faults: faults as JSON objects.
    """

    def __init__(self, faults: Iterable[object] = ()) -> None:
        self._faults = [Fault.parse(item) for item in faults]

    def add(self, items: object) -> None:
        """
        Add a fault or a list of faults; all of them or, if one is wrong, none.

        :raises ValueError: as :meth:`Fault.parse` does.
        """
        self._faults += [
            Fault.parse(item) for item in (items if isinstance(items, list) else [items])
        ]

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the faults that can still strike."""
        return [fault.as_json() for fault in self._faults if fault.times]

    def for_request(self, route: str) -> RequestFaults:
        """Return the faults that a request to ``route`` may meet, and count it for ``after``."""
        due = []
        self._faults = [fault for fault in self._faults if fault.times]
        for fault in self._faults:
            if not fault.fits(route):
                continue
            if fault.after:
                fault.after -= 1
            else:
                due.append(fault)
        return RequestFaults(due)
