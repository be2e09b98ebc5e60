"""The same job by our operator, waiting in each way, and by the control, a retried POST."""

import os
from datetime import timedelta

import pendulum
from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator

SETTINGS = {
    "start_date": pendulum.datetime(2026, 1, 1),
    "catchup": False,
    "default_args": {"retries": 3, "retry_delay": timedelta(seconds=2)},
    "params": {"day": Param(type="string")},
}

WAYS = {
    "ours": {"wait_for_completion": False},
    "ours_deferred": {"deferrable": True},
    "ours_cancelled": {"deferrable": True, "cancel_on_kill": True},
    "ours_cancelled_running": {"deferrable": False, "cancel_on_kill": True},
}

for dag_id, way in WAYS.items():
    with DAG(dag_id=dag_id, schedule=None, **SETTINGS):
        BulkExportsCreateJobOperator(
            task_id="create",
            resource_type="Messages",
            start_day="{{ params.day }}",
            end_day="{{ params.day }}",
            **way,
        )

with DAG(dag_id="control", schedule=None, **SETTINGS):

    @task
    def create(params: dict) -> str:
        """Do what an HTTP operator with retries does."""
        import json

        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        connection = json.loads(os.environ["AIRFLOW_CONN_BULKEXPORTS_DEFAULT"])
        retry = Retry(total=3, allowed_methods=None, status_forcelist=[500, 502, 503, 504])
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=retry))
        answer = session.post(
            f"{connection['extra']['base_url']}/v1/Exports/Messages/Jobs",
            auth=(connection["login"], connection["password"]),
            data={"StartDay": params["day"], "EndDay": params["day"], "FriendlyName": "control"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json()["job_sid"]

    create()
