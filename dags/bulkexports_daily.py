"""Teaches: one BulkExport job for each day, on a schedule, its SID handed to the next task.

With CronDataIntervalTimetable the run's date, the exported day and a backfill's date are the
same on every Airflow. A run started by hand without a date takes the newest day that can be
exported, and ``reattach="range"`` keeps it from paying for a day that a scheduled run exported.
"""

import os

import pendulum
from airflow.providers.common.compat.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_bulkexports.days import export_day
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator

with DAG(
    dag_id="bulkexports_daily",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.parse(os.environ.get("BULKEXPORTS_FIRST_DAY", "2026-11-01")),
    catchup=True,
    max_active_runs=16,
    default_args={"retries": 3},
    user_defined_macros={"export_day": export_day},
    tags=["twilio", "bulkexports"],
    doc_md=__doc__,
):
    create = BulkExportsCreateJobOperator(
        task_id="export_messages",
        resource_type="Messages",
        start_day="{{ ds | default(export_day(dag_run)) }}",
        end_day="{{ ds | default(export_day(dag_run)) }}",
        reattach="range",
        wait_until_exportable=True,
        deferrable=True,
    )

    @task
    def report(job_sid: str) -> str:
        """Use the SID: ask Twilio how the job stands."""
        with BulkExportsHook().get_conn() as client:
            job = client.fetch_job(job_sid)
        return f"{job.resource_type} {job.start_day} to {job.end_day}: {job_sid} {job.state()}"

    report(create.output)
