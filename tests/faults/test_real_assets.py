"""On a real Airflow: what other DAGs, partitions and OpenLineage learn of exported days."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

DAGS = Path(__file__).with_name("asset_dags")
FIRST, LAST = "2026-01-01", "2026-01-02"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(job_seconds=0, records=5, empty_every=0) as running:
        yield running


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def airflow(sandbox, storage, tmp_path_factory):
    connection = {
        "conn_type": "twilio_bulkexports",
        "login": sandbox.account_sid,
        "password": sandbox.auth_token,
        "extra": {"base_url": sandbox.url},
    }
    transport = {"type": "file", "log_file_path": f"{storage}/lineage.jsonl", "append": True}
    env = {
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT": json.dumps(connection),
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


def test_outlets_and_lineage_say_what_was_brought(airflow, sandbox, storage):
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
        "job_sids": [sid],
        "days": [{"day": day, "records": 5, "job_sid": sid} for day in (FIRST, LAST)],
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
    """Where the DAG has partitions, each day that was brought starts the run of its partition."""
    if not airflow.is_3:
        pytest.skip("Airflow 2.11 has no partitions")
    airflow.unpause("after_part")
    run(airflow, "store_parts", "2026-01-03", "2026-01-04")

    partitions = {partition for partition, _ in seen(airflow, "after_part", 2)}
    assert partitions == {"2026-01-03", "2026-01-04"}


def test_a_watcher_starts_a_run_for_each_new_file(airflow, sandbox):
    """An asset with a watcher is told of each file once, also after a triggerer's death."""
    if not airflow.is_3:
        pytest.skip("Airflow 2.11 watches no assets")
    airflow.unpause("after_file")
    run(airflow, "store", "2026-01-05", "2026-01-06")
    wanted = {item["day"] for item in sandbox.ledger()["downloads"]}
    assert {"2026-01-05", "2026-01-06"} < wanted

    def told():
        rows = airflow._select("SELECT extra FROM asset_event WHERE extra LIKE '%from_trigger%'")
        return [json.loads(row["extra"])["payload"]["day"] for row in rows]

    airflow.wait(lambda: set(told()) == wanted, 60, "an event for each file")
    airflow.kill_triggerer()
    airflow.start_triggerer()
    before = sum(sandbox.ledger()["requests"].values())
    airflow.wait(
        lambda: sum(sandbox.ledger()["requests"].values()) > before + 1, 90, "the new triggerer"
    )
    time.sleep(3)
    assert sorted(told()) == sorted(wanted)
    found = [extra for _, extras in seen(airflow, "after_file", 1) for extra in extras]
    assert {extra["payload"]["resource_type"] for extra in found} == {"Messages"}
