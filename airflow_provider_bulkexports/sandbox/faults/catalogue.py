"""Every kind of fault, and the list of them that people read."""

from __future__ import annotations

import json
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.sandbox.faults import after, before, contents, effects, wire
from airflow_provider_bulkexports.sandbox.faults.fault import (
    API_ROUTES,
    ROUTES,
    Fault,
    argument_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import Field

__all__ = ["KINDS", "list_faults", "parse_fault"]

KINDS: Mapping[str, type[Fault]] = {
    fault.kind: fault
    for fault in (
        before.Delay,
        before.DropBefore,
        before.Status,
        before.Hang,
        effects.Late,
        effects.Twice,
        effects.JobOutcome,
        effects.EmptyDay,
        effects.JobContents,
        effects.OtherContents,
        effects.Lag,
        effects.Stale,
        contents.LoopPage,
        contents.EvilPage,
        contents.Endless,
        contents.OddItem,
        contents.StatusWord,
        contents.NullDays,
        contents.Redirect,
        contents.LinkPath,
        after.DelayAfter,
        after.DropAfter,
        after.StatusAfter,
        after.BadJson,
        after.WrongType,
        after.Bomb,
        after.OtherFile,
        wire.Date,
        wire.Truncate,
        wire.Corrupt,
        wire.Trickle,
    )
}
"""Every kind by its name, in the order in which a request meets them."""


def parse_fault(kind: object, route: str, given: Mapping[str, Any]) -> Fault:
    """
    Read a fault.

    :param given: its arguments as JSON.
    :raises ValueError: for what there is not, naming what there is.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind].parse(given, route)


def list_faults() -> str:
    """Return the list of all faults as Markdown: what each does, where, and its arguments."""
    lines: list[str] = []
    stage = ""
    for kind, fault in KINDS.items():
        if fault.stage != stage:
            stage = fault.stage
            lines += ["", f"{stage[0].upper()}{stage[1:]}:", ""]
        lines.append(f"- `{kind}`: {(fault.__doc__ or '').strip().splitlines()[0]}")
        lines.append(f"  - routes: {_routes(fault)}")
        lines += [f"  - `{argument_name(item)}`: {_argument(item)}" for item in fault.arguments()]
    return "\n".join(lines[1:])


def _routes(fault: type[Fault]) -> str:
    if fault.routes == ROUTES:
        return "all"
    if fault.routes == API_ROUTES:
        return "all but `download`"
    return ", ".join(f"`{route}`" for route in fault.routes)


def _argument(item: Field[Any]) -> str:
    allowed = item.metadata["argument"].allowed
    if item.default is MISSING:
        return f"{allowed}; required"
    # What stands for "not given" is no JSON, or null, or too long to be read.
    shown = isinstance(item.default, int | float) or (
        isinstance(item.default, str) and item.default.isidentifier()
    )
    return f"{allowed}; {json.dumps(item.default)} if left out" if shown else allowed
