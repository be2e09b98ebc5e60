"""On a real Airflow: what is edited, cleared, shared or refused while tasks wait adds no job."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from live_airflow import LiveAirflow

from airflow_provider_bulkexports.sandbox.server import Sandbox

pytestmark = pytest.mark.xdist_group("a real Airflow")

HERE = Path(__file__).parent
CROWD = 50
RETRIES = 3
DAG_IDS = ("edited", "cleared", "shared", "month", "crowd")

# The job is there; the worker waits for the second listing and has stored nothing yet.
AFTER_201 = {"route": "list_jobs", "kind": "delay", "seconds": 6, "after": 1}
REFUSED = {"route": "*", "kind": "status", "status": 401, "code": 20003, "times": -1}


@pytest.fixture(scope="module")
def accounts():
    """Return a service for each DAG; but for one, the jobs end only when its clock is moved."""
    started = time.time()
    with contextlib.ExitStack() as stack:
        running = {
            dag_id: Sandbox(now=lambda: started, job_seconds=30, records=5)
            for dag_id in DAG_IDS
            if dag_id != "month"
        }
        running["month"] = Sandbox(job_seconds=50, records=5)
        for sandbox in running.values():
            stack.enter_context(sandbox)
        yield running


@pytest.fixture(scope="module")
def dags(tmp_path_factory):
    """Return a copy of the DAG files that can be edited."""
    return shutil.copytree(HERE / "identity_dags", tmp_path_factory.mktemp("dags") / "dags")


@pytest.fixture(scope="module")
def airflow(accounts, dags, tmp_path_factory):
    env = {
        f"AIRFLOW_CONN_{dag_id.upper()}": sandbox.connection()
        for dag_id, sandbox in accounts.items()
    }
    # Half a minute by default, in which an edited file is read but not yet stored.
    env["AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL"] = "1"
    with LiveAirflow(tmp_path_factory.mktemp("airflow"), dags, env=env) as running:
        for dag_id in DAG_IDS:
            running.unpause(dag_id)
        yield running


@pytest.fixture(scope="module")
def runs(airflow, accounts):
    """Start the runs at once, so that they wait side by side, and return their ids."""
    return {dag_id: airflow.trigger(dag_id) for dag_id in DAG_IDS if dag_id != "edited"}


def states(airflow, runs, dag_id):
    """Return how many of a run's task instances are in which state and try."""
    rows = airflow.task_instances(dag_id, runs[dag_id])
    return Counter((row["state"], row["try_number"]) for row in rows)


def wait_for_crowd(airflow, runs, try_number):
    """Wait until all tasks wait, in this try or, where Airflow lost a worker, in a later one."""

    def all_wait():
        waiting = states(airflow, runs, "crowd").elements()
        return all(state == "deferred" and number >= try_number for state, number in waiting)

    airflow.wait(all_wait, 240, "all tasks to wait")


def finish(airflow, accounts, runs, dag_id):
    """Let the jobs end and return the service's account of them once the run is green."""
    accounts[dag_id].advance(60)
    assert airflow.wait_for_run(dag_id, runs[dag_id], 240) == "success", airflow.report()
    return accounts[dag_id].ledger()


@pytest.mark.usefixtures("runs")
def test_retries_edited_between_two_tries_add_no_job(airflow, accounts, dags):
    """The worker is killed after its POST, the author edits retries, the second try adopts."""
    sandbox, file = accounts["edited"], dags / "edited.py"
    sandbox.add_fault(AFTER_201)
    run_id = airflow.trigger("edited")
    airflow.wait(lambda: sandbox.requests("list_jobs") == 2, 60, "the look after the POST")
    airflow.kill_task("edited", supervisor=False)

    file.write_text(file.read_text().replace(f"retries={RETRIES}", "retries=5"))

    def is_parsed():
        rows = airflow._select("SELECT data FROM serialized_dag WHERE dag_id = 'edited'")
        return any(re.search(r'"retries":\s*5\b', row["data"]) for row in rows)

    airflow.wait(is_parsed, 60, "the edited file to be parsed")
    # Only a try that has not begun yet sees the edit.
    airflow.wait_for_task("edited", run_id, "create", "up_for_retry")
    assert airflow.wait_for_run("edited", run_id, 120) == "success", airflow.report()
    assert [task["try_number"] for task in airflow.task_instances("edited", run_id)] == [2]
    assert len(sandbox.jobs()) == 1
    assert sandbox.ledger()["charged_days"] == 1


def test_a_clear_while_the_triggerer_stands_still_leaves_one_job(airflow, accounts, runs):
    """With cancel_on_kill, a clear that the triggerer learns of 7 s late deletes nothing."""
    sandbox = accounts["cleared"]
    airflow.wait_for_task("cleared", runs["cleared"], "create", "deferred")
    before = sandbox.requests()
    airflow.wait(lambda: sandbox.requests() > before, 60, "the trigger to look")

    with airflow.frozen_triggerer():
        airflow.clear("cleared", runs["cleared"], "create")
        time.sleep(7)

    waiting = {("deferred", 2): 1}
    airflow.wait(lambda: states(airflow, runs, "cleared") == waiting, 90, "the second try")
    ledger = finish(airflow, accounts, runs, "cleared")
    assert [job["deleted"] for job in ledger["jobs"]] == [False]
    assert ledger["charged_days"] == 1


@pytest.mark.parametrize("namespace", [None, "dev"])
def test_two_deployments_share_an_account(airflow, accounts, runs, namespace):
    """Without a namespace the second adopts the first's job, warns, and never deletes it."""
    sandbox = accounts["shared"]
    airflow.wait_for_task("shared", runs["shared"], "create", "deferred")
    (theirs,) = sandbox.jobs(live=True)
    extra = {"base_url": sandbox.url} | ({"namespace": namespace} if namespace else {})
    command = [sys.executable, HERE / "second_deployment.py", sandbox.connection(extra=extra)]

    second = subprocess.run(
        [*command, "shared", runs["shared"], str(RETRIES)],
        check=True,
        capture_output=True,
        text=True,
    )

    said = json.loads(second.stdout.splitlines()[-1])
    assert (said["job_sid"] == theirs["job_sid"]) == (namespace is None)
    assert any("namespace" in line for line in said["warnings"]) == (namespace is None)
    # Its own job was deleted when it was stopped.
    assert len(sandbox.jobs()) == (1 if namespace is None else 2)
    assert sandbox.jobs(live=True) == [theirs]


def test_the_log_of_a_waiting_task_shows_its_progress(airflow, runs):
    """A deferred job of 30 days tells in the task's log how far it is, and its SID at once."""
    airflow.wait_for_task("month", runs["month"], "create", "deferred", "success")
    sid = airflow.xcom("month", runs["month"], "create", "job_sid")
    assert airflow.wait_for_run("month", runs["month"], 150) == "success", airflow.report()

    progress = re.findall(
        r"\d+ of 30 days done(?:, \d+ \w+)+; queue position 1; Twilio expects \d\d:\d\d UTC\.",
        airflow.log_text("month"),
    )
    assert len(set(progress)) >= 2, airflow.log_text("month")
    assert airflow.xcom("month", runs["month"], "create") == sid


def test_a_refused_token_fails_no_waiting_task(airflow, accounts, runs):
    """A token that is refused for 15 s while all tasks wait costs neither a failure nor a job."""
    wait_for_crowd(airflow, runs, 1)
    before = states(airflow, runs, "crowd")
    accounts["crowd"].add_fault(REFUSED)
    time.sleep(15)
    accounts["crowd"].clear_faults()

    def rode_out():
        return airflow.log_text("crowd").count("Twilio answers again.") == CROWD

    airflow.wait(rode_out, 60, "all tasks to look again")
    assert states(airflow, runs, "crowd") == before
    assert len(accounts["crowd"].jobs()) == CROWD


def test_waiting_tasks_that_are_cleared_adopt_their_jobs(airflow, accounts, runs):
    """All tasks are cleared while their jobs are unfinished: as many jobs, as many charges."""
    wait_for_crowd(airflow, runs, 1)
    airflow.clear("crowd", runs["crowd"], "create")
    wait_for_crowd(airflow, runs, 2)

    ledger = finish(airflow, accounts, runs, "crowd")
    assert [job["deleted"] for job in ledger["jobs"]] == [False] * CROWD
    assert ledger["charged_days"] == CROWD
    assert {state for state, _ in states(airflow, runs, "crowd")} == {"success"}
