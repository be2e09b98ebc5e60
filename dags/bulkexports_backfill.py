"""Teaches: a backfill by hand, from a form: one job for each type and at most 366 days.

One job covers many days, so a year costs one call and one mail to the account's owners.
"""

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator

TYPES = ["Messages", "Calls", "Conferences", "Participants"]

with DAG(
    dag_id="bulkexports_backfill",
    schedule=None,
    start_date=pendulum.datetime(2020, 1, 1),
    catchup=False,
    default_args={"retries": 3},
    params={
        "resource_types": Param(
            ["Messages"], type="array", examples=TYPES, items={"enum": TYPES}, minItems=1
        ),
        "start_day": Param(type="string", format="date", description="First UTC day."),
        "end_day": Param(type="string", format="date", description="Last UTC day, inclusive."),
    },
    tags=["twilio", "bulkexports"],
    doc_md=__doc__,
):

    @task
    def plan(params: dict) -> list[dict]:
        """Check the form and split the range into jobs."""
        from airflow_provider_bulkexports.api.calendar import parse_range, split_range
        from airflow_provider_bulkexports.hooks import airflow_errors

        with airflow_errors():
            ranges = split_range(*parse_range(params["start_day"], params["end_day"]))
        return [
            {"resource_type": kind, "start_day": f"{first}", "end_day": f"{last}"}
            for kind in dict.fromkeys(params["resource_types"])
            for first, last in ranges
        ]

    create = BulkExportsCreateJobOperator.partial(
        task_id="export",
        deferrable=True,
        wait_for_quota=True,
        map_index_template="{{ task.resource_type }} {{ task.start_day }} to {{ task.end_day }}",
    ).expand_kwargs(plan())

    @task
    def collect(job_sids: list[str]) -> list[str]:
        """Gather the SIDs of all jobs."""
        return list(job_sids)

    collect(create.output)
