"""Arguments that can be refused when the DAG is parsed, and not only when the task runs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.compat import AirflowFailException

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_literals", "check_seconds"]

_LITERAL = re.compile(r"[A-Za-z0-9_.:+\- ]*", re.ASCII)


def check_literals(check: Callable[..., object], *values: object) -> None:
    """
    Check arguments now if nothing can change them any more.

    A string of letters, digits, blanks and ``_.:+-`` is no template in any delimiters. Everything
    else, such as an XComArg or what is rendered natively, is checked when the task runs.

    :param check: called with the values; raises :class:`InvalidRequest`.
    :param values: as the operator's constructor got them.
    :raises AirflowFailException: also where a mapped task is unmapped, in the worker, so that it
        is not tried again.
    """
    if all(type(value) is str and _LITERAL.fullmatch(value) for value in values):
        try:
            check(*values)
        except InvalidRequest as error:
            raise AirflowFailException(str(error)) from None


def check_seconds(name: str, value: Any) -> float:
    """
    Return a length of time in seconds.

    :param name: the argument's name, for the error.
    :param value: a number of seconds or a timedelta, 0 or more.
    :raises AirflowFailException: for anything else.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise AirflowFailException(
            f"{name} is {value!r}; give a number of seconds or a datetime.timedelta."
        )
    return float(seconds)
