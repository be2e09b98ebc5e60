"""Outlets, partitions and a watcher, as the author of a DAG writes them."""

import os

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset, Param, task

from airflow_provider_bulkexports.compat import AIRFLOW_3
from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator
from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator
from airflow_provider_bulkexports.triggers import BulkExportsNewFilesTrigger

DESTINATION = os.environ["BULKEXPORTS_DESTINATION"]
STORED, PARTS = Asset(f"{DESTINATION}/stored"), Asset(f"{DESTINATION}/parts")
SETTINGS = {
    "start_date": pendulum.datetime(2026, 1, 1),
    "catchup": False,
    "params": {name: Param("2026-01-01", type="string") for name in ("start_day", "end_day")},
}


def store(dag_id, outlet, schedule):
    with DAG(dag_id=dag_id, schedule=schedule, **SETTINGS) as dag:
        create = BulkExportsCreateJobOperator(
            task_id="create",
            resource_type="Messages",
            start_day="{{ params.start_day }}",
            end_day="{{ params.end_day }}",
            deferrable=True,
        )
        BulkExportsToObjectStorageOperator(
            task_id="fetch", destination=outlet.uri, job_sid=create.output, outlets=[outlet]
        )
    return dag


def after(dag_id, schedule):
    with DAG(dag_id=dag_id, schedule=schedule, **SETTINGS) as dag:

        @task
        def seen(**context):
            """Return what the events that started the run say."""
            name = "triggering_asset_events" if AIRFLOW_3 else "triggering_dataset_events"
            events = [event for events in context[name].values() for event in events]
            return [getattr(context["dag_run"], "partition_key", None), [e.extra for e in events]]

        seen()
    return dag


stored = store("store", STORED, schedule=None)
after_stored = after("after_store", [STORED])

if AIRFLOW_3:
    from airflow.sdk import (
        AssetWatcher,
        IdentityMapper,
        PartitionedAssetTimetable,
        PartitionedAtRuntime,
    )

    store_parts = store("store_parts", PARTS, schedule=PartitionedAtRuntime())
    after_part = after(
        "after_part",
        PartitionedAssetTimetable(assets=PARTS, default_partition_mapper=IdentityMapper()),
    )
    watcher = AssetWatcher(
        "messages",
        trigger=BulkExportsNewFilesTrigger(
            resource_type="Messages", bulkexports_conn_id="quiet", poll_interval=10
        ),
    )
    after_file = after("after_file", [Asset("twilio_messages", watchers=[watcher])])
