"""Tasks run by Airflow itself, with its templates, XComs and deferrals."""

from __future__ import annotations

from datetime import timedelta

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, task
from in_process import POST, create, jobs_of, requests_of, run_dag, stored_xcom

from airflow_provider_bulkexports.compat import AIRFLOW_3, task_instance_state
from airflow_provider_bulkexports.operators import (
    BulkExportsCreateJobOperator,
    BulkExportsDeleteJobOperator,
)
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

START = pendulum.datetime(2026, 1, 1)
RUN_DAY = pendulum.datetime(2026, 2, 3)


def a_dag(dag_id, schedule=None, **options):
    return DAG(dag_id=dag_id, schedule=schedule, start_date=START, catchup=False, **options)


@pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])
def test_templates_xcoms_and_deferral(sandbox, deferrable):
    """The day comes from a template; the SID, alone and with the job, is there afterwards."""
    with a_dag(f"whole_{deferrable}") as dag:
        create(start_day="{{ ds }}", end_day="{{ ds }}", deferrable=deferrable)
    run = run_dag(dag, RUN_DAY)
    (job,) = jobs_of(sandbox)

    assert str(run.state) == "success"
    assert job["start_day"] == job["end_day"] == "2026-02-03"
    assert stored_xcom(run, "export") == job["job_sid"]
    assert stored_xcom(run, "export", "job")["state"] == "completed"
    assert stored_xcom(run, "export", "job_sid") == job["job_sid"]


def test_native_rendering_gives_dates(sandbox):
    """With render_template_as_native_obj a template may give a date object."""
    with a_dag("native", render_template_as_native_obj=True) as dag:
        day = "{{ logical_date.date() }}"
        create(start_day=day, end_day=day, wait_for_completion=False)
    run = run_dag(dag, RUN_DAY)

    assert str(run.state) == "success"
    assert jobs_of(sandbox)[0]["start_day"] == "2026-02-03"


def test_a_daily_run_takes_the_newest_day(sandbox):
    """Without days, a run due at midnight takes the day two days before, on every Airflow."""
    with a_dag("newest", schedule="@daily") as dag:
        create(start_day=None, end_day=None, wait_for_completion=False)
    run_dag(dag, RUN_DAY)

    assert jobs_of(sandbox)[0]["start_day"] == "2026-02-01"


def test_a_retry_by_airflow_adopts_the_job(sandbox, one_try):
    """The first try fails after its job was created; Airflow's own second try takes it over."""
    sandbox.add_fault({"route": "create_job", "kind": "drop_after"})
    sandbox.add_fault({"route": "list_jobs", "kind": "status", "status": 503, "after": 1})
    with a_dag("retried") as dag:
        create(retries=1, retry_delay=timedelta(seconds=0))
    run = run_dag(dag, RUN_DAY)
    (job,) = sandbox.ledger()["jobs"]

    assert str(run.state) == "success"
    assert stored_xcom(run, "export") == job["job_sid"]
    assert requests_of(sandbox, POST) == 1


def test_mapped_tasks_make_a_job_each(sandbox):
    """One operator over three types: three jobs, each waited for."""
    with a_dag("mapped") as dag:
        arguments = {"start_day": "2026-01-05", "end_day": "2026-01-05", "deferrable": True}
        BulkExportsCreateJobOperator.partial(task_id="export", **arguments).expand(
            resource_type=["Messages", "Calls", "Conferences"]
        )
    run = run_dag(dag, RUN_DAY)
    jobs = {job["resource_type"]: job["job_sid"] for job in jobs_of(sandbox)}

    assert str(run.state) == "success"
    assert [stored_xcom(run, "export", map_index=index) for index in range(3)] == [
        jobs["Messages"],
        jobs["Calls"],
        jobs["Conferences"],
    ]


def test_sensors_and_deletion_take_the_sid(sandbox):
    """One task creates, the sensors wait for it, and deleting what has finished is no error."""
    with a_dag("chained") as dag:
        made = create(wait_for_completion=False)
        waited = BulkExportsJobSensor(task_id="wait", job_sid=made.output, deferrable=True)
        days = BulkExportsDaysSensor(
            task_id="days",
            resource_type="Messages",
            start_day="2026-01-05",
            end_day="2026-01-05",
            deferrable=True,
        )
        made >> waited >> days
        days >> BulkExportsDeleteJobOperator(task_id="delete", job_sid=made.output)
    run = run_dag(dag, RUN_DAY)

    assert str(run.state) == "success"
    assert jobs_of(sandbox)[0]["state"] == "completed"


def test_a_running_task_knows_its_state(sandbox):
    """What a trigger asks before it deletes a job: the task instance's own state, mapped or not."""
    with a_dag("states") as dag:

        @task
        def plain(ti=None):
            return task_instance_state(ti)

        @task
        def mapped(number, ti=None):
            return task_instance_state(ti)

        plain()
        mapped.expand(number=[1, 2])
    run = run_dag(dag, RUN_DAY)
    # dag.test of Airflow 2.11 does not store that a task has begun to run.
    state = "running" if AIRFLOW_3 else "scheduled"

    assert stored_xcom(run, "plain") == state
    assert [stored_xcom(run, "mapped", map_index=index) for index in range(2)] == [state] * 2
