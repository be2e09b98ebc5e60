"""Teaches: keep a storage complete. What is on offer is fetched; what is not is exported, once.

``refresh_after_days`` exports each day once more at that age, as Twilio goes on to change prices
and statuses: that doubles the charged days. A transfer that fails is repeated by the next run.
"""

import os

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task, task_group
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_bulkexports.operators import (
    BulkExportsCreateJobOperator,
    BulkExportsMissingDaysOperator,
)
from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator as Transfer

FIRST_DAY = os.environ.get("BULKEXPORTS_FIRST_DAY", "2026-11-01")
DESTINATION = os.environ.get("BULKEXPORTS_DESTINATION", "file:///tmp/twilio")
REFRESH = int(os.environ.get("BULKEXPORTS_REFRESH_AFTER_DAYS", "0")) or None
TYPES = ["Messages", "Calls", "Conferences", "Participants"]
FOLDER, FORMAT = DESTINATION + "/{{ params.output_format }}", "{{ params.output_format }}"
NAME = {"map_index_template": "{{ task.resource_type }} {{ task.start_day }} to {{ task.end_day }}"}

with DAG(
    dag_id="bulkexports_to_storage",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=pendulum.parse(FIRST_DAY),
    catchup=False,
    max_active_runs=1,  # of two runs at once, both would order what is missing
    default_args={"retries": 3},
    render_template_as_native_obj=True,
    params={
        "resource_types": Param(TYPES, type="array", examples=TYPES, items={"enum": TYPES}),
        "start_day": Param(FIRST_DAY, type="string", format="date"),
        "end_day": Param(None, type=["null", "string"], format="date"),
        "max_days": Param(31, type="integer", minimum=1),
        "refresh_after_days": Param(REFRESH, type=["null", "integer"], minimum=1),
        "output_format": Param("parquet", enum=["parquet", "raw"]),
    },
    tags=["twilio", "bulkexports", "bulkexports:fill"],
    doc_md=__doc__,
):
    names = ("resource_types", "start_day", "end_day", "max_days", "refresh_after_days")
    form = {name: "{{ params." + name + " }}" for name in names}
    missing = BulkExportsMissingDaysOperator(task_id="missing_days", destination=FOLDER, **form)
    # Airflow maps over what a task returns, and over no other XCom.
    ranges = task(lambda found: found)
    on_offer = ranges.override(task_id="on_offer")(missing.output["to_fetch"])
    to_export = ranges.override(task_id="to_export")(missing.output["to_export"])

    fetch = {"task_id": "fetch", "destination": FOLDER, "output_format": FORMAT, **NAME}
    Transfer.partial(**fetch).expand_kwargs(on_offer)

    @task_group
    def export(resource_type, start_day, end_day, not_before):
        days = {"resource_type": resource_type, "start_day": start_day, "end_day": end_day}
        adopt = {"reattach": "range", "not_before": not_before}
        wait = {"deferrable": True, "wait_for_quota": True}
        create = BulkExportsCreateJobOperator(task_id="create", **days, **adopt, **wait, **NAME)
        Transfer(**fetch, **days, job_sid=create.output)

    export.expand_kwargs(to_export)
