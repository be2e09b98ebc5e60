"""The one module that knows which Airflow it runs on: 2.11, or 3.x."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.exceptions import AirflowException, AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

AIRFLOW_3 = importlib.util.find_spec("airflow.sdk") is not None

if TYPE_CHECKING or AIRFLOW_3:
    from airflow.sdk import BaseOperator, BaseSensorOperator
    from airflow.triggers.base import BaseEventTrigger
else:
    from airflow.models import BaseOperator
    from airflow.sensors.base import BaseSensorOperator

    BaseEventTrigger = BaseTrigger  # nothing watches assets there

try:
    from airflow.sdk import BaseHook
except ImportError:  # before 3.1
    from airflow.hooks.base import BaseHook  # type: ignore[attr-defined, no-redef]

try:
    from airflow.sdk.exceptions import (
        AirflowFailException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )
except ImportError:  # before 3.2
    from airflow.exceptions import (  # type: ignore[no-redef]
        AirflowFailException,
        AirflowSensorTimeout,
        AirflowSkipException,
    )

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk import ObjectStoragePath

__all__ = [
    "TRIGGER_HAS_ON_KILL",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseEventTrigger",
    "BaseHook",
    "BaseOperator",
    "BaseSensorOperator",
    "BaseTrigger",
    "TriggerEvent",
    "conf",
    "date_time_trigger",
    "mask_secret",
    "object_storage_path",
    "task_instance_state",
]

TRIGGER_HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
"""From 3.3 on, a trigger is told that a person ended its task."""


def mask_secret(secret: str) -> None:
    """Hide a text in every log of this process."""
    if AIRFLOW_3:
        try:
            from airflow.sdk.log import mask_secret as mask
        except ImportError:  # before 3.1
            from airflow.sdk.execution_time.secrets_masker import (  # type: ignore[no-redef]
                mask_secret as mask,
            )
    else:
        from airflow.utils.log.secrets_masker import mask_secret as mask  # type: ignore[import-not-found, no-redef]
    mask(secret)


def date_time_trigger(moment: datetime) -> BaseTrigger:
    """Return Airflow's own trigger that fires at ``moment``."""
    if AIRFLOW_3:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger
    else:
        from airflow.triggers.temporal import DateTimeTrigger  # type: ignore[import-not-found, no-redef]
    return DateTimeTrigger(moment=moment)


def object_storage_path(address: str, conn_id: str | None) -> ObjectStoragePath:
    """Return Airflow's path for an address in any storage that the deployment knows."""
    if AIRFLOW_3:
        from airflow.sdk import ObjectStoragePath
    else:
        from airflow.io.path import ObjectStoragePath  # type: ignore[import-not-found, no-redef]
    # On 2.11 a conn_id of None would win over the one in s3://conn_id@bucket/folder.
    return ObjectStoragePath(address, **({"conn_id": conn_id} if conn_id else {}))


def task_instance_state(ti: Any) -> str | None:
    """
    Return the state that a trigger's task instance has now; call it off the event loop.

    :param ti: the trigger's ``task_instance``.
    """
    if not AIRFLOW_3:
        from airflow.models import TaskInstance
        from airflow.utils.session import create_session

        with create_session() as session:
            row = TaskInstance.get_task_instance(
                dag_id=ti.dag_id,
                run_id=ti.run_id,
                task_id=ti.task_id,
                map_index=ti.map_index,
                session=session,
            )
            return row.state if row else None
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    ).get(ti.run_id, {})
    # A mapped task instance is keyed by its task and its index.
    state = states.get(f"{ti.task_id}_{ti.map_index}", states.get(ti.task_id))
    return None if state is None else str(getattr(state, "value", state))
