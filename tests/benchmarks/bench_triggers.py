"""Waiting jobs in one event loop: listing calls a poll, and the loop's worst stall.

The sandbox runs in a process of its own, so that its work does not count as the loop's. The
control waits as many operators do: each trigger asks by itself, on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="bench_triggers_"))
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

JOBS = 200
SECONDS = 35
LISTING = "GET /v1/Exports/{ResourceType}/Jobs"


@contextlib.contextmanager
def sandbox():
    """Run a sandbox and make JOBS jobs in it that end after the row is measured."""
    import requests

    from airflow_provider_bulkexports.sandbox.settings import (
        DEFAULT_ACCOUNT_SID,
        DEFAULT_AUTH_TOKEN,
    )

    command = [sys.executable, "-m", "airflow_provider_bulkexports.sandbox", "--port", "0"]
    process = subprocess.Popen([*command, "--job-seconds", "50"], stdout=subprocess.PIPE, text=True)
    try:
        url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        sids, days = [], []
        for number in range(JOBS):
            days.append(f"2026-{1 + number % 9:02}-{1 + number // 9:02}")
            form = {"StartDay": days[-1], "EndDay": days[-1], "FriendlyName": f"bench_{number}"}
            answer = requests.post(
                f"{url}/v1/Exports/Messages/Jobs",
                auth=(DEFAULT_ACCOUNT_SID, DEFAULT_AUTH_TOKEN),
                data=form,
                timeout=10,
            )
            answer.raise_for_status()
            sids.append(answer.json()["job_sid"])
        os.environ["AIRFLOW_CONN_BULKEXPORTS_DEFAULT"] = json.dumps(
            {
                "conn_type": "twilio_bulkexports",
                "login": DEFAULT_ACCOUNT_SID,
                "password": DEFAULT_AUTH_TOKEN,
                "extra": {"base_url": url},
            }
        )
        yield url, list(zip(sids, days, strict=True))
    finally:
        process.terminate()
        process.wait()


def requests_so_far(url: str) -> dict:
    """Return the ledger's count of requests."""
    import requests

    return requests.get(f"{url}/_sandbox/ledger", timeout=10).json()["requests"]


async def watch_loop(stalls: list[float]) -> None:
    """Note by how much each short sleep was late."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        stalls.append(time.perf_counter() - began - 0.005)


async def wait_with(make, jobs) -> float:
    """Run one coroutine for each job for SECONDS; return the worst stall."""
    stalls: list[float] = []
    probe = asyncio.create_task(watch_loop(stalls))
    tasks = [asyncio.create_task(make(sid, day)) for sid, day in jobs]
    await asyncio.sleep(SECONDS)
    for task in [*tasks, probe]:
        task.cancel()
    await asyncio.gather(*tasks, probe, return_exceptions=True)
    return max(stalls)


async def ours(sid: str, day: str) -> None:
    """Wait with our trigger."""
    from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

    trigger = BulkExportsJobTrigger(
        bulkexports_conn_id="bulkexports_default",
        resource_type="Messages",
        job_sid=sid,
        start_day=day,
        end_day=day,
        started_at=time.time(),
        deadline=time.time() + 3600,
    )
    async for _ in trigger.run():
        return


async def control(sid: str, _day: str) -> None:
    """Ask for each job by itself, on the loop, every 10 s."""
    from airflow_provider_bulkexports.hooks import BulkExportsHook

    while True:
        await asyncio.sleep(10)
        with BulkExportsHook().get_conn() as client:
            client.fetch_job(sid)


def main() -> None:
    """Print the table."""
    # Loaded before the clock runs, as a triggerer has long done.
    import_module("airflow_provider_bulkexports.api.client")
    import_module("airflow_provider_bulkexports.triggers")

    pages = -(-JOBS // 30)
    print(f"{JOBS} jobs are listed, on {pages} pages; each row waits {SECONDS} s.\n")
    print(f"{'waiting':<20}{'listing calls':>14}{'polls':>7}{'per poll':>10}{'worst stall':>14}")
    rows = [("ours", ours, 1), ("ours", ours, 50), ("ours", ours, 200), ("control", control, 200)]
    for name, make, count in rows:
        with sandbox() as (url, jobs):
            before = requests_so_far(url)
            stall = asyncio.run(wait_with(make, jobs[:count]))
            after = requests_so_far(url)
        calls = after.get(LISTING, 0) - before.get(LISTING, 0)
        single = after.get("GET /v1/Exports/Jobs/{JobSid}", 0)
        polls = calls // pages
        print(
            f"{name + ', ' + str(count) + ' jobs':<20}"
            f"{calls or str(single) + ' single':>14}"
            f"{polls or '-':>7}{calls / polls if polls else '-':>10}{stall * 1000:>11.1f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
