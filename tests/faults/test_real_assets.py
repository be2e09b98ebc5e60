"""On a real Airflow: what other DAGs, partitions and OpenLineage learn of exported days."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

DAGS = Path(__file__).with_name("asset_dags")
FIRST, LAST = "2026-01-01", "2026-01-02"
ROUNDS = 3


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(job_seconds=0, records=5, empty_every=0) as running:
        yield running


@pytest.fixture(scope="module")
def quiet():
    """Return the watched account, in which nothing happens but what a test does."""
    with Sandbox(job_seconds=0, records=5, empty_every=0) as running:
        yield running


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def airflow(sandbox, quiet, storage, tmp_path_factory):
    transport = {"type": "file", "log_file_path": f"{storage}/lineage.jsonl", "append": True}
    env = {
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection(),
        "AIRFLOW_CONN_QUIET": quiet.connection(),
        "BULKEXPORTS_DESTINATION": storage.as_uri(),
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
    }
    with LiveAirflow(tmp_path_factory.mktemp("airflow"), DAGS, env=env) as running:
        yield running


def run(airflow, dag_id, start=FIRST, end=LAST):
    airflow.unpause(dag_id)
    run_id = airflow.trigger(dag_id, conf={"start_day": start, "end_day": end})
    assert airflow.wait_for_run(dag_id, run_id, 200) == "success", airflow.report()
    return run_id


def seen(airflow, dag_id, runs):
    """Return what the first runs of a DAG that assets start have seen, once they are done."""

    def done():
        ended = [item for item in airflow.runs(dag_id) if item["state"] == "success"]
        return len(ended) >= runs and ended

    ended = airflow.wait(done, 120, f"{runs} runs of {dag_id}")
    return [airflow.xcom(dag_id, item["run_id"], "seen") for item in ended]


def events_of(run_, told):
    """Return the events that OpenLineage wrote of a run's task that has ended."""
    events = [json.loads(line) for line in told.read_text().splitlines()]
    return [
        event
        for event in events
        if event["job"]["name"].endswith(run_) and event["eventType"] == "COMPLETE"
    ]


def test_outlets_and_lineage_say_what_was_stored(airflow, sandbox, storage):
    """A DAG that waits for the asset gets days, records and SID; OpenLineage gets both ends."""
    airflow.unpause("after_store")
    run(airflow, "store")

    (job,) = sandbox.ledger()["jobs"]
    sid = job["job_sid"]
    ((partition, (extra,)),) = seen(airflow, "after_store", 1)
    assert partition is None
    assert extra == {
        "resource_type": "Messages",
        "start_day": FIRST,
        "end_day": LAST,
        "records": 10,
        "rejected": 0,
        "job_sids": [sid],
        "changes": {"stored": 2, "replaced": 0, "renewed": 0, "unchanged": 0, "refused": 0},
        "days": [
            {"day": day, "records": 5, "rejected": 0, "job_sid": sid, "change": "stored"}
            for day in (FIRST, LAST)
        ],
    }
    told = storage / "lineage.jsonl"
    airflow.wait(lambda: events_of("store.fetch", told), 30, "OpenLineage's event")
    (create,), (fetch,) = events_of("store.create", told), events_of("store.fetch", told)
    exports = ("https://bulkexports.twilio.com", "v1/Exports/Messages")
    assert [(item["namespace"], item["name"]) for item in create["outputs"]] == [exports]
    assert create["run"]["facets"]["externalQuery"]["externalQueryId"] == sid
    assert [(item["namespace"], item["name"]) for item in fetch["inputs"]] == [exports]
    # Airflow itself names the outlet besides.
    statistics = [item["outputFacets"]["outputStatistics"] for item in fetch["outputs"]
                  if item["name"] == f"{storage}/stored/Messages"]  # fmt: skip
    assert [(item["rowCount"], item["fileCount"]) for item in statistics] == [(10, 2)]


def test_each_day_is_a_partition(airflow):
    """Where the DAG has partitions, each day that was stored starts the run of its partition."""
    if not airflow.is_3:
        pytest.skip("Airflow 2.11 has no partitions")
    airflow.unpause("after_part")
    run(airflow, "store_parts", "2026-01-03", "2026-01-04")

    partitions = {partition for partition, _ in seen(airflow, "after_part", 2)}
    assert partitions == {"2026-01-03", "2026-01-04"}


def export(sandbox, first, last):
    """Have day files appear at once."""
    client = Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url)
    with client:
        client.create_job(
            ExportRequest.parse(
                resource_type="Messages", start_day=first, end_day=last, friendly_name="quiet"
            )
        )


@pytest.fixture(scope="module")
def watched(airflow, quiet):
    """Wait for the watcher's first look, in which there is nothing."""
    if not airflow.is_3:
        pytest.skip("Airflow 2.11 watches no assets")
    airflow.unpause("after_file")
    airflow.wait(lambda: quiet.requests("list_days") > 0, 60, "the watcher's first look")


def reported(airflow):
    """Return how often each day was in an event that Airflow has kept."""
    rows = airflow._select("SELECT extra FROM asset_event WHERE extra LIKE '%from_trigger%'")
    payloads = [json.loads(row["extra"])["payload"] for row in rows]
    assert {payload["resource_type"] for payload in payloads} <= {"Messages"}
    return Counter(item["day"] for payload in payloads for item in payload["days"])


@pytest.mark.usefixtures("watched")
def test_a_watcher_reports_all_new_files_at_once(airflow, quiet):
    """26 files that appear at once reach the consumer in one run, within two looks."""
    days = [f"2026-01-{day:02}" for day in range(1, 27)]
    looks = quiet.requests("list_days")

    export(quiet, days[0], days[-1])

    airflow.wait(lambda: reported(airflow), 60, "the event")
    assert quiet.requests("list_days") - looks <= 2
    assert reported(airflow) == Counter(days)
    ((_, (extra,)),) = seen(airflow, "after_file", 1)
    assert [item["day"] for item in extra["payload"]["days"]] == days


@pytest.mark.usefixtures("watched")
def test_a_watcher_that_is_killed_around_its_event_loses_no_day(airflow, quiet):
    """The triggerer is killed at random moments after a look that saw a new file."""
    before = reported(airflow)
    looks = quiet.requests("list_days")
    # Later than the event by a look, what was reported is kept with the asset.
    airflow.wait(lambda: quiet.requests("list_days") > looks + 1, 60, "two more looks")

    days = [f"2026-02-{day:02}" for day in range(1, ROUNDS + 1)]
    for day in days:
        looks = quiet.requests("list_days")
        export(quiet, day, day)
        airflow.wait(lambda seen=looks: quiet.requests("list_days") > seen, 90, "a look")
        time.sleep(random.uniform(0, 2))
        airflow.kill_triggerer()
        airflow.start_triggerer()

    airflow.wait(lambda: set(days) <= set(reported(airflow)), 90, "all days to be reported")
    assert reported(airflow).keys() == before.keys() | set(days)
    assert before.items() <= reported(airflow).items(), "what was kept was reported again"
