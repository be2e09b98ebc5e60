"""Run a task as another deployment would that uses the same account, and stop it as it waits."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "provider"))

from in_process import Running, TaskInstance, create, wait_for


def main() -> None:
    """Print the job's SID and the warnings, as JSON."""
    connection, dag_id, run_id, max_tries = sys.argv[1:]
    os.environ["AIRFLOW_CONN_BULKEXPORTS_DEFAULT"] = connection
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("airflow_provider_bulkexports").addHandler(handler)
    ti = TaskInstance(task_id="create", dag_id=dag_id, run_id=run_id, max_tries=int(max_tries))
    task = create(task_id="create", deferrable=False, cancel_on_kill=True)

    running = Running(task, ti)
    wait_for(lambda: "job_sid" in ti.xcoms, 30)
    task.on_kill()
    running.join()

    print(json.dumps({"job_sid": ti.xcoms["job_sid"], "warnings": warnings}))


if __name__ == "__main__":
    main()
