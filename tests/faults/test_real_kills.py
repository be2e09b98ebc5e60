"""On a real Airflow: whatever is killed or lost around the POST, the ledger holds one job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

DAG_IDS = ("ours", "ours_deferred", "ours_cancelled", "ours_cancelled_running", "control")
DAY = "2026-10-05"
POST = "create_job"

LOST_ANSWER = {"route": "create_job", "kind": "drop_after"}
FAILED_AFTER = {"route": "create_job", "kind": "status_after", "status": 500}
# The service acts only after the worker that asked has been killed.
IN_FLIGHT = {"route": "create_job", "kind": "delay", "seconds": 4}
# The job is there; the worker waits for the second listing and has stored nothing yet.
AFTER_201 = {"route": "list_jobs", "kind": "delay", "seconds": 4, "after": 1}
AFTER_201_CONTROL = {"route": "create_job", "kind": "delay_after", "seconds": 4}
NEVER_ENDS = {"route": "create_job", "kind": "job_outcome", "outcome": ["Running"]}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(job_seconds=9, records=5) as running:
        yield running


@pytest.fixture(scope="module")
def airflow(sandbox, tmp_path_factory):
    home = tmp_path_factory.mktemp("airflow")
    env = {"AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection()}
    with LiveAirflow(home, Path(__file__).parent / "dags", env=env) as running:
        for dag_id in DAG_IDS:
            running.unpause(dag_id)
        yield running


@pytest.fixture(autouse=True)
def _no_faults(sandbox):
    sandbox.clear_faults()
    yield
    sandbox.clear_faults()


def live_jobs(sandbox, before):
    """Return the jobs made since, but for those deleted."""
    return [job for job in sandbox.ledger()["jobs"][before:] if not job["deleted"]]


def run(airflow, sandbox, dag_id, fault=None, kill_after=None):
    """Run a DAG under a fault, killing its worker when the ledger shows the moment."""
    before = len(sandbox.ledger()["jobs"])
    requests = dict(sandbox.ledger()["requests"])
    if fault:
        sandbox.add_fault(fault)
    run_id = airflow.trigger(dag_id, conf={"day": DAY})
    if kill_after:
        route, count = kill_after

        def reached():
            return sandbox.ledger()["requests"].get(route, 0) - requests.get(route, 0) >= count

        airflow.wait(reached, 60, f"{count} x {route}")
        airflow.kill_task(dag_id, supervisor=False)
    # A second try that finds no job waits two minutes before it creates one.
    state = airflow.wait_for_run(dag_id, run_id, 240)
    # What was still on its way when the run ended must land before it is counted.
    time.sleep(1)
    return state, live_jobs(sandbox, before), airflow.task_instances(dag_id, run_id)


LISTING = "list_jobs"


@pytest.mark.parametrize(
    ("fault", "kill_after"),
    [
        pytest.param(IN_FLIGHT, (POST, 1), id="killed-while-the-post-is-in-flight"),
        pytest.param(AFTER_201, (LISTING, 2), id="killed-after-201-before-the-sid-is-stored"),
        pytest.param(LOST_ANSWER, None, id="answer-lost-on-the-wire"),
        pytest.param(FAILED_AFTER, None, id="500-after-the-job-was-made"),
    ],
)
def test_the_ledger_holds_one_job(airflow, sandbox, fault, kill_after):
    """A worker killed at the worst moment, or a lost answer, leaves one job and a green run."""
    state, jobs, tasks = run(airflow, sandbox, "ours", fault, kill_after)

    assert state == "success", airflow.report()
    assert len(jobs) == 1
    assert tasks[0]["try_number"] == (2 if kill_after else 1)


def test_a_killed_triggerer_changes_nothing(airflow, sandbox):
    """The triggerer dies while the task is deferred; another takes over and the job is one."""
    before = len(sandbox.ledger()["jobs"])
    run_id = airflow.trigger("ours_deferred", conf={"day": DAY})
    airflow.wait_for_task("ours_deferred", run_id, "create", "deferred")
    airflow.kill_triggerer()
    time.sleep(3)
    airflow.start_triggerer()

    assert airflow.wait_for_run("ours_deferred", run_id, 150) == "success", airflow.report()
    jobs = live_jobs(sandbox, before)
    assert len(jobs) == 1
    assert airflow.xcom("ours_deferred", run_id, "create") == jobs[0]["job_sid"]


@pytest.mark.parametrize(
    ("dag_id", "state"),
    [("ours_cancelled", "deferred"), ("ours_cancelled_running", "running")],
)
def test_a_person_who_fails_the_task_deletes_the_job(airflow, sandbox, dag_id, state):
    """With cancel_on_kill, marking the task failed deletes the job, deferred or running."""
    before = len(sandbox.ledger()["jobs"])
    sandbox.add_fault(NEVER_ENDS)
    run_id = airflow.trigger(dag_id, conf={"day": DAY})
    airflow.wait(lambda: len(sandbox.ledger()["jobs"]) > before, 60, "the job")
    airflow.wait_for_task(dag_id, run_id, "create", state)
    time.sleep(2)

    airflow.mark_failed(dag_id, run_id, "create")

    airflow.wait(lambda: not live_jobs(sandbox, before), 90, "the job to be deleted")


def test_a_restarted_triggerer_deletes_nothing(airflow, sandbox):
    """With cancel_on_kill, a triggerer that is stopped and started again leaves the job alone."""
    before = len(sandbox.ledger()["jobs"])
    run_id = airflow.trigger("ours_cancelled", conf={"day": DAY})
    airflow.wait_for_task("ours_cancelled", run_id, "create", "deferred")
    time.sleep(4)
    airflow.stop_triggerer()
    airflow.start_triggerer()

    state = airflow.wait_for_run("ours_cancelled", run_id, 150)
    assert state == "success", airflow.report()
    assert len(live_jobs(sandbox, before)) == 1


@pytest.mark.parametrize(
    ("fault", "kill_after"),
    [
        pytest.param(IN_FLIGHT, (POST, 1), id="killed-while-the-post-is-in-flight"),
        pytest.param(AFTER_201_CONTROL, (POST, 1), id="killed-after-the-job-was-made"),
        pytest.param(LOST_ANSWER, None, id="answer-lost-on-the-wire"),
        pytest.param(FAILED_AFTER, None, id="500-after-the-job-was-made"),
    ],
)
def test_the_control_makes_two(airflow, sandbox, fault, kill_after):
    """The same faults give a plain retried POST two jobs, so they do what they should."""
    state, jobs, _ = run(airflow, sandbox, "control", fault, kill_after)

    assert state == "success", airflow.report()
    assert len(jobs) == 2
