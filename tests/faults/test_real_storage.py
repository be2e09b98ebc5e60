"""On a real Airflow: whatever happens to a storage, what is missing there is paid for once."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

DAGS = Path(__file__).resolve().parents[2] / "dags"
DAG_ID = "bulkexports_to_storage"
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Bucket:
    """An S3 server with one bucket, which can be told to answer every request with 503."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self.is_down = False
        self.refused = 0
        self._application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ, start):
        if not self.is_down:
            return self._application(environ, start)
        self.refused += 1
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [BUSY]

    def open(self, name: str):
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=name)
        return client

    def stop(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(job_seconds=1, records=5, empty_every=0) as running:
        yield running


@pytest.fixture(scope="module")
def bucket():
    running = Bucket()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def objects(bucket):
    return bucket.open("days")


@pytest.fixture(scope="module")
def today():
    return datetime.now(UTC).date()


@pytest.fixture(scope="module")
def airflow(sandbox, bucket, objects, today, tmp_path_factory):
    aws = {
        "conn_type": "aws",
        "login": "testing",
        "password": "testing",
        "extra": {"endpoint_url": bucket.url, "region_name": "us-east-1"},
    }
    env = {
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection(),
        "AIRFLOW_CONN_LAKE": json.dumps(aws),
        # A schedule that begins today has its first run tomorrow: all runs are started here.
        "BULKEXPORTS_FIRST_DAY": f"{today}",
        "BULKEXPORTS_DESTINATION": "s3://lake@days/twilio",
        "AWS_MAX_ATTEMPTS": "1",
    }
    with LiveAirflow(tmp_path_factory.mktemp("airflow"), DAGS, env=env) as running:
        running.unpause(DAG_ID)
        yield running


@pytest.fixture
def trigger(airflow, today):
    """Start a run by hand, as from the form, for the days of Messages up to so many days ago."""

    def start(oldest, newest):
        first, last = (today - timedelta(days=ago) for ago in (oldest, newest))
        form = {
            "resource_types": ["Messages"],
            "start_day": f"{first}",
            "end_day": f"{last}",
            "output_format": "raw",
        }
        return airflow.trigger(DAG_ID, conf=form)

    return start


def charged(sandbox):
    """Return how often each day was paid for, by the ledger."""
    days: Counter[date] = Counter()
    for job in sandbox.ledger()["jobs"]:
        first, last = (date.fromisoformat(job[name]) for name in ("start_day", "end_day"))
        days.update(first + timedelta(days=n) for n in range((last - first).days + 1))
    return days


def stored(objects):
    """Return the days that have a manifest."""
    found = objects.list_objects_v2(Bucket="days").get("Contents", [])
    names = [item["Key"].split("/") for item in found]
    return {date.fromisoformat(name[-2][4:]) for name in names if name[-1] == "_manifest.json"}


def once(today, oldest, newest):
    return {today - timedelta(days=ago): 1 for ago in range(newest, oldest + 1)}


def tries_of(airflow, run_id, task_id):
    return [
        task["try_number"]
        for task in airflow.task_instances(DAG_ID, run_id)
        if task["task_id"] == task_id and task["state"] in ("up_for_retry", "running", "success")
    ]


def process_of(airflow, run_id, task_id):
    """Return the process in which a task runs, None before it does."""
    tasks = airflow.task_instances(DAG_ID, run_id)
    running = (t["pid"] for t in tasks if t["task_id"] == task_id and t["state"] == "running")
    return next(running, None)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_runs_that_are_started_at_once_pay_once(airflow, sandbox, objects, today, trigger):
    """Two runs for the same days go one after the other, and the second finds nothing to do."""
    runs = [trigger(6, 4), trigger(6, 4)]

    for run_id in runs:
        assert airflow.wait_for_run(DAG_ID, run_id, 150) == "success", airflow.report()
    assert charged(sandbox) == once(today, 6, 4)
    assert stored(objects) == set(once(today, 6, 4))


def test_a_storage_that_does_not_answer_is_not_an_empty_one(
    airflow, sandbox, bucket, objects, today, trigger
):
    """While S3 says 503 nothing is exported; when it answers, what is missing is, and no more."""
    bucket.is_down = True
    run_id = trigger(7, 3)
    airflow.wait(
        lambda: max(tries_of(airflow, run_id, "missing_days"), default=0) >= 2,
        120,
        "a second look at the storage",
    )
    assert bucket.refused > 0
    assert charged(sandbox) == once(today, 6, 4)

    bucket.is_down = False
    assert airflow.wait_for_run(DAG_ID, run_id, 150) == "success", airflow.report()
    assert charged(sandbox) == once(today, 7, 3)
    assert stored(objects) == set(once(today, 7, 3))


def test_a_transfer_that_fails_is_repeated_by_the_next_run(
    airflow, sandbox, objects, today, trigger
):
    """The next run fetches what is on offer, and pays for nothing again."""
    sandbox.add_fault({"route": "download", "kind": "status", "status": 500, "times": -1})
    failing = trigger(9, 3)
    pid = airflow.wait(lambda: process_of(airflow, failing, "export.fetch"), 120, "the transfer")
    airflow.mark_failed(DAG_ID, failing, "export.fetch", map_index=0)
    assert airflow.wait_for_run(DAG_ID, failing, 60) == "failed"
    # Airflow 2.11 ends a task that was marked some seconds later.
    airflow.wait(lambda: not is_alive(pid), 60, "the end of the transfer")
    assert stored(objects) == set(once(today, 7, 3))
    sandbox.clear_faults()

    run_id = trigger(9, 3)

    assert airflow.wait_for_run(DAG_ID, run_id, 150) == "success", airflow.report()
    assert charged(sandbox) == once(today, 9, 3)
    assert stored(objects) == set(once(today, 9, 3))
    assert airflow.xcom(DAG_ID, run_id, "to_export") == []
    assert airflow.xcom(DAG_ID, run_id, "on_offer") == [
        {
            "resource_type": "Messages",
            "start_day": f"{today - timedelta(days=9)}",
            "end_day": f"{today - timedelta(days=8)}",
        }
    ]
