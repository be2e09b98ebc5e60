"""A task whose retries are edited while it waits for its second try."""

from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator

with DAG(dag_id="edited", schedule=None, start_date=pendulum.datetime(2026, 1, 1), catchup=False):
    BulkExportsCreateJobOperator(
        task_id="create",
        resource_type="Messages",
        start_day="2026-01-05",
        end_day="2026-01-05",
        bulkexports_conn_id="edited",
        wait_for_completion=False,
        retries=3,
        retry_delay=timedelta(seconds=40),
        priority_weight=100,  # before those that wait for a slot already
    )
