"""On a real Airflow: each way to start a run exports exactly the days it should."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(job_seconds=9, records=5) as running:
        yield running


@pytest.fixture(scope="module")
def newest():
    """Return the newest day that can be exported, and is for the whole module."""
    return datetime.now(UTC).date() - timedelta(days=2)


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Return the folder in which days are kept."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def airflow(sandbox, newest, storage, tmp_path_factory):
    env = {
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection(),
        "BULKEXPORTS_FIRST_DAY": f"{newest - timedelta(days=2)}",
        "BULKEXPORTS_DESTINATION": f"file://{storage}",
    }
    with LiveAirflow(tmp_path_factory.mktemp("airflow"), DAGS, env=env) as running:
        yield running


def days_charged(sandbox, kind):
    """Return how often each day of a type was asked for, by the ledger."""
    days: Counter[date] = Counter()
    for job in sandbox.ledger()["jobs"]:
        if job["resource_type"] == kind:
            first, last = (date.fromisoformat(job[name]) for name in ("start_day", "end_day"))
            days.update(first + timedelta(days=n) for n in range((last - first).days + 1))
    return days


def test_schedule_backfill_and_manual_runs_share_each_day_once(airflow, sandbox, newest):
    """A schedule, a backfill of 30 days and runs by hand give every day once and none twice."""
    airflow.unpause("bulkexports_daily")
    scheduled = [newest - timedelta(days=n) for n in (2, 1, 0)]
    first = scheduled[0] - timedelta(days=30)
    airflow.backfill("bulkexports_daily", first, scheduled[0] - timedelta(days=1), timeout=400)
    # Both stand for a day that the schedule exports too.
    by_hand = [airflow.trigger("bulkexports_daily", logical_date=f"{newest}T12:00:00+00:00")]
    if airflow.is_3:
        by_hand.append(airflow.trigger("bulkexports_daily"))
    for run_id in by_hand:
        state = airflow.wait_for_run("bulkexports_daily", run_id, 200)
        assert state == "success", airflow.report()

    def scheduled_days():
        runs = airflow.runs("bulkexports_daily")
        return {str(run["logical_date"])[:10] for run in runs if run["state"] == "success"}

    airflow.wait(lambda: {f"{day}" for day in scheduled} <= scheduled_days(), 200, "the schedule")
    wanted = [first + timedelta(days=n) for n in range(33)]
    assert days_charged(sandbox, "Messages") == dict.fromkeys(wanted, 1)


def test_the_backfill_form_exports_each_day_once(airflow, sandbox, newest):
    """A backfill from the form makes one job for each type, and hands on their SIDs."""
    airflow.unpause("bulkexports_backfill")
    start, end = newest - timedelta(days=60), newest - timedelta(days=30)
    form = {
        "resource_types": ["Calls", "Participants"],
        "start_day": f"{start}",
        "end_day": f"{end}",
    }

    run_id = airflow.trigger("bulkexports_backfill", conf=form)

    assert airflow.wait_for_run("bulkexports_backfill", run_id, 200) == "success", airflow.report()
    wanted = dict.fromkeys((start + timedelta(days=n) for n in range(31)), 1)
    assert days_charged(sandbox, "Calls") == wanted
    assert days_charged(sandbox, "Participants") == wanted
    made = {
        job["job_sid"] for job in sandbox.ledger()["jobs"] if job["resource_type"] != "Messages"
    }
    assert set(airflow.xcom("bulkexports_backfill", run_id, "collect")) == made


def test_the_storage_heals_itself(airflow, sandbox, storage, newest):
    """Of a complete storage three days' files are deleted; the next run fetches just these."""
    dag_id = "bulkexports_to_storage"

    def kept():
        return {path.parent for path in storage.glob("parquet/*/day=*/_manifest*.json")}

    airflow.unpause(dag_id)
    first = airflow.wait(lambda: airflow.runs(dag_id), 60, "the scheduled run")[0]["run_id"]
    assert airflow.wait_for_run(dag_id, first, 240) == "success", airflow.report()
    whole = kept()
    assert len(whole) == 12
    before = sandbox.ledger()

    lost = {
        storage / "parquet" / kind / f"day={newest - timedelta(days=back)}"
        for kind, back in (("Calls", 2), ("Calls", 0), ("Participants", 1))
    }
    for folder in lost:
        shutil.rmtree(folder)
    second = airflow.trigger(dag_id)
    assert airflow.wait_for_run(dag_id, second, 240) == "success", airflow.report()

    after = sandbox.ledger()
    # What was exported a minute ago is on offer still, so that it is not paid for again.
    assert after["charged_days"] == before["charged_days"]
    fetched = after["downloads"][len(before["downloads"]) :]
    wanted = {(folder.parent.name, folder.name.removeprefix("day=")) for folder in lost}
    assert {(item["resource_type"], item["day"]) for item in fetched} <= wanted
    assert kept() == whole
