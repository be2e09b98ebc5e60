"""Tasks that wait in the triggerer, each DAG with an account of its own."""

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator

CROWD = 50
DAY = "2026-01-05"


def settings(dag_id):
    return {
        "start_date": pendulum.datetime(2026, 1, 1),
        "catchup": False,
        "max_active_tasks": CROWD,
        "default_args": {
            "resource_type": "Messages",
            "bulkexports_conn_id": dag_id,
            "deferrable": True,
            "retries": 3,
        },
    }


with DAG(dag_id="cleared", schedule=None, **settings("cleared")):
    BulkExportsCreateJobOperator(task_id="create", start_day=DAY, end_day=DAY, cancel_on_kill=True)

with DAG(dag_id="shared", schedule=None, **settings("shared")):
    BulkExportsCreateJobOperator(task_id="create", start_day=DAY, end_day=DAY)

with DAG(dag_id="month", schedule=None, **settings("month")):
    BulkExportsCreateJobOperator(task_id="create", start_day="2026-01-01", end_day="2026-01-30")

with DAG(dag_id="crowd", schedule=None, **settings("crowd")):
    days = [f"{pendulum.date(2026, 1, 1).add(days=n)}" for n in range(CROWD)]
    BulkExportsCreateJobOperator.partial(task_id="create").expand_kwargs(
        [{"start_day": day, "end_day": day} for day in days]
    )
