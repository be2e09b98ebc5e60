"""Which UTC day a DAG run stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import date

__all__ = ["export_day"]


def export_day(dag_run: Any) -> date:
    """
    Return the UTC day to export for a run whose author names none.

    A partitioned run has its partition's day. Any other has the newest day that Twilio could
    export when the run was due, which is two days before: the end of its data interval, or, for
    a run without one (Airflow 3, started by hand or by an asset), the instant it was to run
    after. A rerun gets the same day. In a template:
    ``user_defined_macros={"export_day": export_day}`` and ``{{ export_day(dag_run) }}``.

    :param dag_run: the context's ``dag_run``.
    """
    import pendulum

    from airflow_provider_bulkexports.api.calendar import EXPORT_DELAY

    partition = getattr(dag_run, "partition_date", None)
    if partition is not None:
        # The partition's own zone says which day it means.
        day: date = pendulum.instance(partition).date()
        return day
    due = getattr(dag_run, "data_interval_end", None) or getattr(dag_run, "run_after", None)
    instant = pendulum.instance(due) if due is not None else pendulum.now("UTC")
    utc_day: date = instant.in_timezone("UTC").date()
    return utc_day - EXPORT_DELAY
