"""Which UTC day a run exports when its author names none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import DagRun, TaskInstance, create, jobs_of, run_task

from airflow_provider_bulkexports.api.errors import NotExportableYet
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.days import export_day

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
TOKYO = ZoneInfo("Asia/Tokyo")
ZONES = ["UTC", "Asia/Tokyo", "America/Los_Angeles", "Pacific/Kiritimati", "Asia/Kolkata"]


@pytest.mark.parametrize(
    ("run", "day"),
    [
        (DagRun(data_interval_end=MIDNIGHT), date(2026, 1, 3)),
        (DagRun(data_interval_end=MIDNIGHT + timedelta(hours=3)), date(2026, 1, 3)),
        (DagRun(data_interval_end=MIDNIGHT, run_after=MIDNIGHT + timedelta(9)), date(2026, 1, 3)),
        (DagRun(run_after=MIDNIGHT - timedelta(seconds=1)), date(2026, 1, 2)),
        (DagRun(partition_date=MIDNIGHT), date(2026, 1, 5)),
        (DagRun(partition_date=datetime(2026, 1, 5, tzinfo=TOKYO)), date(2026, 1, 5)),
        (DagRun(partition_date=MIDNIGHT, data_interval_end=MIDNIGHT), date(2026, 1, 5)),
        (DagRun(data_interval_end=datetime(2026, 1, 5, 8, tzinfo=TOKYO)), date(2026, 1, 2)),
    ],
    ids=[
        "interval of a day, or of no length",
        "interval that ends at night",
        "interval before run_after",
        "run_after only",
        "partition",
        "partition of another zone",
        "partition before interval",
        "interval of another zone",
    ],
)
def test_the_day_of_a_run(run, day):
    """A partition has its own day; any other run the newest exportable when it was due."""
    assert export_day(run) == day


def test_airflow_2_has_no_run_after_and_no_partitions():
    """A run that knows only its interval, as on Airflow 2.11."""

    class Run:
        data_interval_end = pendulum.datetime(2026, 1, 5)

    assert export_day(Run()) == date(2026, 1, 3)


def test_a_run_without_any_date_takes_today():
    """A run that knows nothing takes the newest day that can be exported now."""
    before = datetime.now(UTC).date()
    day = export_day(object())

    assert before <= day + timedelta(days=2) <= datetime.now(UTC).date()


@given(
    some_day=st.dates(min_value=date(2000, 1, 2), max_value=date(2100, 1, 1)),
    around=st.timedeltas(min_value=timedelta(hours=-1), max_value=timedelta(hours=1)),
    zone=st.sampled_from(ZONES),
    name=st.sampled_from(["data_interval_end", "run_after"]),
)
def test_the_day_is_the_newest_exportable(some_day, around, zone, name):
    """At any instant around UTC midnight, told in any zone: that day can be had, the next not."""
    due = datetime(some_day.year, some_day.month, some_day.day, tzinfo=UTC) + around
    run = DagRun(run_after=None)
    setattr(run, name, due.astimezone(ZoneInfo(zone)))
    day = export_day(run)
    now = pendulum.instance(due)

    assert isinstance(day, date)
    assert str(day) == date(day.year, day.month, day.day).isoformat()
    request(day).require_exportable(now)
    with pytest.raises(NotExportableYet):
        request(day + timedelta(days=1)).require_exportable(now)


def request(day):
    return ExportRequest.parse(
        resource_type="Messages", start_day=day, end_day=day, friendly_name="name"
    )


def test_the_operator_takes_that_day(sandbox):
    """Without days the operator asks for the run's day, and a retry for the same."""
    run = DagRun(data_interval_end=MIDNIGHT)
    task = create(start_day=None, end_day=None, retries=1)
    first = run_task(task, TaskInstance(max_tries=1), run)
    second = run_task(task, TaskInstance(max_tries=1, try_number=2), run)

    assert first == second
    assert [(job["start_day"], job["end_day"]) for job in jobs_of(sandbox)] == [
        ("2026-01-03", "2026-01-03")
    ]
