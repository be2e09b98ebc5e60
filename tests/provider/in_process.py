"""An Airflow in this process, set up before it is imported, and a task to run in it."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

if "airflow" in sys.modules:
    raise RuntimeError("Airflow was imported before its home was set; import in_process first.")

HOME = Path(tempfile.mkdtemp(prefix="bulkexports-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
(HOME / "dags").mkdir()
for _name in [name for name in os.environ if name.startswith(("AIRFLOW__", "AIRFLOW_CONN_"))]:
    del os.environ[_name]
if metadata.version("apache-airflow").startswith("2."):
    os.environ["AIRFLOW__CORE__EXECUTOR"] = (
        "SequentialExecutor"  # the one that 2.11 lets use SQLite
    )
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW_CONFIG": str(HOME / "airflow.cfg"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db?timeout=60",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
}

import pytest  # noqa: E402

from airflow_provider_bulkexports.api import pace as pace_module  # noqa: E402
from airflow_provider_bulkexports.compat import AIRFLOW_3  # noqa: E402
from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator  # noqa: E402
from airflow_provider_bulkexports.sandbox.server import Sandbox  # noqa: E402

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before 3.2
    from airflow.exceptions import TaskDeferred

CONNECTION = "bulkexports_default"
DAY = "2026-01-05"
POST = "create_job"
LISTING = "list_jobs"
FETCH = "fetch_job"
DELETE = "delete_job"


@dataclass
class DagRun:
    """The little that is asked of a DAG run."""

    run_id: str = "scheduled__2026-01-05"
    data_interval_end: datetime | None = None
    run_after: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    partition_date: datetime | None = None


@dataclass
class TaskInstance:
    """A task instance that keeps its XComs, as plain JSON only."""

    task_id: str = "export"
    dag_id: str = "orders"
    run_id: str = "scheduled__2026-01-05"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    start_date: datetime = field(default_factory=lambda: datetime.now(UTC))
    xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def context_of(ti: TaskInstance, dag_run: DagRun | None = None) -> dict[str, Any]:
    return {"ti": ti, "task_instance": ti, "dag_run": dag_run or DagRun(ti.run_id)}


def rebuilt(trigger: Any) -> Any:
    """Return the trigger as a triggerer has it: made anew from what was stored."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    if not module.startswith("airflow_provider_bulkexports"):
        return trigger
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


def fire(trigger: Any) -> Any:
    """Run a trigger in an event loop of its own and return its event's payload."""

    async def first() -> Any:
        async for event in trigger.run():
            return event.payload
        return None

    return asyncio.run(first())


def deferral_of(task: Any, ti: TaskInstance | None = None) -> TaskDeferred:
    """Run a task up to its deferral."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(context_of(ti or TaskInstance()))
    return caught.value


def run_task(task: Any, ti: TaskInstance | None = None, dag_run: DagRun | None = None) -> Any:
    """Run a task to its end; where it defers, run its trigger and resume it, as Airflow does."""
    context = context_of(ti or TaskInstance(), dag_run)
    try:
        return task.execute(context)
    except TaskDeferred as deferral:
        waiting = deferral
    while True:
        event = fire(rebuilt(waiting.trigger))
        try:
            facts = {"event": event, **(waiting.kwargs or {})}
            return task.resume_execution(waiting.method_name, facts, context)
        except TaskDeferred as deferral:
            waiting = deferral


def connection(sandbox: Sandbox, **changes: Any) -> str:
    """Return a connection to the sandbox as the text of its environment variable."""
    return sandbox.connection(**changes)


def jobs_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return the jobs that were made and not deleted."""
    return sandbox.jobs(live=True)


def requests_of(sandbox: Sandbox, route: str) -> int:
    return sandbox.requests(route)


def let_thread_run_tasks() -> None:
    """Let this thread run operators, which Airflow 2.11 lets only the one that imported it."""
    if not AIRFLOW_3:
        from airflow.models.baseoperator import ExecutorSafeguard

        ExecutorSafeguard._sentinel.callers = {}


class Running:
    """A task that runs in a thread of its own, as a second worker would."""

    def __init__(self, task: Any, ti: TaskInstance | None = None) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(task, ti), daemon=True)
        self._thread.start()

    def _run(self, task: Any, ti: TaskInstance | None) -> None:
        let_thread_run_tasks()
        try:
            self.result = run_task(task, ti)
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def join(self, seconds: float = 10) -> float:
        """Wait for the end and return how long that took."""
        started = time.monotonic()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the task did not end in time"
        return time.monotonic() - started


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@functools.cache
def make_database() -> None:
    """Create Airflow's tables, once a process."""
    from airflow.utils.db import initdb

    initdb()


def run_dag(dag: Any, day: datetime, conf: dict[str, Any] | None = None) -> Any:
    """Run a DAG with Airflow's own ``dag.test``, which knows it from its bundle on Airflow 3."""
    make_database()
    if not AIRFLOW_3:
        return dag.test(execution_date=day, run_conf=conf)
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return dag.test(logical_date=day, run_conf=conf)


def stored_xcom(run: Any, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
    """Return an XCom from Airflow's database."""
    where = {
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "task_id": task_id,
        "key": key,
        "map_index": map_index,
    }
    if not AIRFLOW_3:
        from airflow.models.xcom import XCom

        return XCom.get_one(**where)
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        row = session.query(XComModel).filter_by(**where).one_or_none()
        return None if row is None else XComModel.deserialize_value(row)


def create(**options: Any) -> BulkExportsCreateJobOperator:
    """Return a create operator for one day of Messages, unless told otherwise."""
    defaults = {"task_id": "export", "resource_type": "Messages", "start_day": DAY, "end_day": DAY}
    return BulkExportsCreateJobOperator(**defaults | options)


@pytest.fixture
def sandbox(monkeypatch):
    """Run a sandbox whose jobs take a fifth of a second, as the default connection."""
    with Sandbox(job_seconds=0.2, records=3, empty_every=0, quota_days=5000) as running:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(running))
        yield running


def change_pace(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change waits and limits for the length of a test."""
    monkeypatch.setattr(pace_module, "PACE", replace(pace_module.PACE, **changes))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Shorten every wait, so that minutes pass in no time."""
    change_pace(
        monkeypatch,
        looks=(0.05, 0.1, 0.15),
        settle=0.3,
        credentials=(0.05, 0.1),
        shortest_poll=0.05,
        refused=1.0,
        gone=0.3,
    )


@pytest.fixture
def one_try(monkeypatch):
    """Let a call fail at its first lost answer instead of after 15 s of repeating."""
    change_pace(monkeypatch, tries=1)
