"""Teaches: keep a storage complete. What is missing is exported and fetched, the rest stays."""

import os

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_bulkexports.days import export_day
from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator
from airflow_provider_bulkexports.transfers import (
    BulkExportsMissingDaysOperator,
    BulkExportsToObjectStorageOperator,
)

FIRST_DAY = os.environ.get("BULKEXPORTS_FIRST_DAY", "2026-11-01")
DESTINATION = os.environ.get("BULKEXPORTS_DESTINATION", "file:///tmp/twilio")
RANGE = "{{ task.resource_type }} {{ task.start_day }} to {{ task.end_day }}"
FOLDER = DESTINATION + "/{{ params.output_format }}"

with DAG(
    dag_id="bulkexports_to_storage",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.parse(FIRST_DAY),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3},
    params={"output_format": Param("parquet", enum=["parquet", "raw"])},
    user_defined_macros={"export_day": export_day},
    tags=["twilio", "bulkexports"],
    doc_md=__doc__,
):
    missing = BulkExportsMissingDaysOperator.partial(
        task_id="missing_days",
        destination=FOLDER,
        start_day=FIRST_DAY,
        end_day="{{ export_day(dag_run) }}",
        map_index_template="{{ task.resource_type }}",
    ).expand(resource_type=["Messages", "Calls", "Conferences", "Participants"])
    gaps = task(lambda found: [gap for gaps in found for gap in gaps], task_id="gaps")(
        missing.output
    )
    create = BulkExportsCreateJobOperator.partial(
        task_id="export", deferrable=True, wait_for_quota=True, map_index_template=RANGE
    ).expand_kwargs(gaps)
    fetch = BulkExportsToObjectStorageOperator.partial(
        task_id="fetch",
        destination=FOLDER,
        output_format="{{ params.output_format }}",
        map_index_template="{{ task.job_sid }}",
    ).expand(job_sid=create.output)

    @task(trigger_rule="none_failed")
    def messages_by_day_and_status(params: dict) -> list[tuple]:
        """Count what is there now."""
        import duckdb

        reader = {"parquet": "read_parquet", "raw": "read_json"}[params["output_format"]]
        files = f"{DESTINATION.removeprefix('file://')}/{params['output_format']}/Messages/*/part-*"
        query = f"SELECT start, status, count(*) FROM {reader}('{files}') GROUP BY ALL ORDER BY ALL"  # noqa: S608
        return [(f"{day}", *rest) for day, *rest in duckdb.sql(query).fetchall()]

    fetch >> messages_by_day_and_status()
