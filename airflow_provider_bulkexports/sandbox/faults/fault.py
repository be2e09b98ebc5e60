"""What every fault has: a kind, routes, arguments that are checked, and a place to act."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_bulkexports.sandbox.faults.arguments import Argument

__all__ = ["API_ROUTES", "LIST_ROUTES", "ROUTES", "Fault", "argument_name"]

API_ROUTES = (
    "create_job",
    "list_jobs",
    "fetch_job",
    "delete_job",
    "list_days",
    "fetch_day",
    "fetch_export",
    "fetch_configuration",
    "update_configuration",
)
"""Names of the API's operations, as faults and ledger have them."""

ROUTES = (*API_ROUTES, "download")
"""Every route: the API's, and the bucket's one."""

LIST_ROUTES = ("list_jobs", "list_days")
"""The routes that answer with pages."""


class Fault:
    """
    One way to misbehave; a kind is a frozen dataclass whose fields are its arguments.

    The first line of a kind's docstring is what the list of faults says about it.
    """

    kind: ClassVar[str]
    stage: ClassVar[str]
    routes: ClassVar[tuple[str, ...]]

    @classmethod
    def parse(cls, given: Mapping[str, Any], route: str) -> Self:
        """
        Read the arguments of a fault.

        :param given: the fault's own arguments as JSON.
        :param route: the name of a route, or ``*``.
        :raises ValueError: naming what is wrong and what would be right.
        """
        if route != "*" and route not in cls.routes:
            raise ValueError(
                f"{cls.kind} does not fit route {route!r}; it fits {', '.join(cls.routes)} and '*'"
            )
        known: dict[str, Field[Any]] = {argument_name(item): item for item in cls.arguments()}
        if unknown := sorted(set(given) - set(known)):
            allowed = ", ".join(known) or "none of its own"
            raise ValueError(f"{cls.kind} has no argument {', '.join(unknown)}; it has {allowed}")
        for name, item in known.items():
            if name not in given and item.default is MISSING:
                raise ValueError(f"{cls.kind} needs {name}")
        for name, value in given.items():
            what: Argument = known[name].metadata["argument"]
            if not what.allows(value):
                raise ValueError(f"{name} of {cls.kind} is {what.allowed}, not {value!r}")
        fault = cls(**{known[name].name: value for name, value in given.items()})
        fault.check(route)
        return fault

    @classmethod
    def arguments(cls) -> tuple[Field[Any], ...]:
        """Return the fields of the kind; a name that Python keeps for itself ends in ``_``."""
        return fields(cls)  # type: ignore[arg-type]  # every kind is a dataclass

    def check(self, route: str) -> None:
        """
        Refuse arguments that are right each but do not go together.

        :param route: the name of a route, or ``*``.
        :raises ValueError: naming them.
        """

    def fits(self, route: str) -> bool:
        """Return whether a fault on ``*`` strikes a route."""
        return route in self.routes


def argument_name(item: Field[Any]) -> str:
    """Return what JSON calls an argument."""
    return item.name.rstrip("_")
