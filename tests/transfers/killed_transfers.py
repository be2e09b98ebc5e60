"""
Run transfers in processes of their own and end them with SIGKILL.

One process imports Airflow and forks a child for each transfer. It reads a list of
``{"options": ..., "share": ...}`` from its input. One without a share is left to its end; another
is killed after its share of the time that the shortest whole one took. The children's process ids
are written as lines, and as the last line the list of whether each was killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import IO


def start_transfers(rounds: list[dict], temporary: Path) -> subprocess.Popen[str]:
    """Start the process; the connection to Twilio comes from the environment."""
    process = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(rounds))
    process.stdin.close()
    return process


def _transfer(options: dict) -> None:
    from in_process import run_task

    from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator

    run_task(BulkExportsToObjectStorageOperator(task_id="bring", **options))


def _run(told: IO[str], options: dict, seconds: float) -> tuple[bool, float]:
    """Fork a child and return whether it was killed, and how long it lived."""
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _transfer(options)
            code = 0
        except BaseException:  # noqa: BLE001 - for whoever reads the test's output
            traceback.print_exc()
        finally:
            os._exit(code)
    print(pid, file=told, flush=True)
    while (left := started + seconds - time.monotonic()) > 0:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return _was_killed(status), time.monotonic() - started
        time.sleep(min(left, 0.002))
    os.kill(pid, signal.SIGKILL)
    return _was_killed(os.waitpid(pid, 0)[1]), time.monotonic() - started


def _was_killed(status: int) -> bool:
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"a transfer ended with {code}")
    return code == -signal.SIGKILL


def _main() -> None:
    rounds = json.load(sys.stdin)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Airflow logs to the standard output
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "airflow")]
    connections = {name: os.environ[name] for name in os.environ if "AIRFLOW_CONN_" in name}
    import in_process  # noqa: F401 - it begins with no connections

    os.environ |= connections
    from airflow_provider_bulkexports.api import download  # noqa: F401
    from airflow_provider_bulkexports.hooks import BulkExportsHook
    from airflow_provider_bulkexports.transfers import object_storage_path

    # What Airflow looks up at its first use only, the children find done.
    object_storage_path("file:///", None).exists()
    BulkExportsHook().get_conn().close()
    killed = []
    whole = 60.0
    for item in rounds:
        was_killed, lived = _run(told, item["options"], item.get("share", 1.0) * whole)
        killed.append(was_killed)
        if not was_killed:
            whole = min(whole, lived)
    print(json.dumps(killed), file=told, flush=True)


if __name__ == "__main__":
    _main()
