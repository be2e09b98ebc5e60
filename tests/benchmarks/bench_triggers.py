"""Waiting jobs in one event loop: requests a poll, memory, and how long the loop stands still.

The sandbox and each row run in a process of their own, so that one's work does not count as
another's. One trigger alone is the measure of what a busy machine does to any loop; the control
waits as many operators do: each trigger asks by itself, on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="bench_triggers_"))
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"

DAY = "2026-01-05"
LISTED = 2500
SECONDS = 32
ROWS = [("ours", 1), ("ours", 50), ("ours", 200), ("ours", 2000), ("asks on the loop", 200)]
BAR = 20.0
"""Milliseconds that 99 of 100 turns of the loop may be late beyond what they are for one job."""


@contextlib.contextmanager
def sandbox():
    """Run a sandbox with LISTED jobs that do not end while they are watched."""
    import requests

    process = subprocess.Popen(
        [sys.executable, __file__, "sandbox"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        os.environ["AIRFLOW_CONN_BULKEXPORTS_DEFAULT"] = said = process.stdout.readline()
        connection = json.loads(said)
        url, sids = connection["extra"]["base_url"], []
        with requests.Session() as session:
            session.auth = (connection["login"], connection["password"])
            session.trust_env = False
            for number in range(LISTED):
                form = {"StartDay": DAY, "EndDay": DAY, "FriendlyName": f"bench_{number}"}
                answer = session.post(f"{url}/v1/Exports/Messages/Jobs", data=form, timeout=10)
                answer.raise_for_status()
                sids.append(answer.json()["job_sid"])
        yield url, sids
        process.stdin.close()


def serve() -> None:
    """Be the sandbox until the input ends."""
    from airflow_provider_bulkexports.sandbox.server import Sandbox

    with Sandbox(job_seconds=100_000, quota_days=LISTED) as running:
        print(running.connection(), flush=True)
        sys.stdin.read()


def requests_so_far(url: str) -> int:
    """Return how many requests have come."""
    import requests

    session = requests.Session()
    session.trust_env = False
    counts = session.get(f"{url}/_sandbox/ledger", timeout=10).json()["requests"]
    return counts.get("list_jobs", 0) + counts.get("fetch_job", 0)


def memory() -> float:
    """Return this process's memory in MiB."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def watch_loop(stalls: list[float]) -> None:
    """Note by how much each short sleep was late, in milliseconds."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        stalls.append((time.perf_counter() - began - 0.005) * 1000)


async def ours(sid: str) -> None:
    """Wait with our trigger."""
    from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

    trigger = BulkExportsJobTrigger(
        bulkexports_conn_id="bulkexports_default",
        resource_type="Messages",
        job_sid=sid,
        start_day=DAY,
        end_day=DAY,
        started_at=time.time(),
        deadline=time.time() + 3600,
    )
    async for _ in trigger.run():
        return


async def asking_on_the_loop(sid: str) -> None:
    """Ask for a job by itself, on the loop, every 10 s."""
    from airflow_provider_bulkexports.hooks import BulkExportsHook

    while True:
        await asyncio.sleep(10)
        with BulkExportsHook().get_conn() as client:
            client.fetch_job(sid)


async def wait_with(wait, sids) -> list[float]:
    """Run one coroutine for each job for SECONDS, started as Airflow does; return the stalls."""
    stalls: list[float] = []
    probe = asyncio.create_task(watch_loop(stalls))
    tasks = []
    for sid in sids:
        tasks.append(asyncio.create_task(wait(sid)))
        await asyncio.sleep(0)
    await asyncio.sleep(SECONDS)
    for task in [*tasks, probe]:
        task.cancel()
    await asyncio.gather(*tasks, probe, return_exceptions=True)
    return stalls


def measure(name: str, sids: list[str]) -> dict:
    """Measure a row in this process."""
    # Loaded before the clock runs, as a triggerer has long done.
    import airflow_provider_bulkexports.triggers  # noqa: F401
    from airflow_provider_bulkexports.api import pace, watch
    from airflow_provider_bulkexports.hooks import BulkExportsHook

    # As dense as polls ever are: an estimate of Twilio's would spread them.
    pace.PACE = dataclasses.replace(pace.PACE, longest_poll=pace.PACE.shortest_poll)
    polls = 0
    read = watch.JobReader.read

    def counted(*args):
        nonlocal polls
        polls += 1
        return read(*args)

    watch.JobReader.read = counted
    with BulkExportsHook().get_conn() as client:
        client.fetch_job(sids[0])
    before = memory()
    stalls = sorted(asyncio.run(wait_with(ours if name == "ours" else asking_on_the_loop, sids)))
    cuts = statistics.quantiles(stalls, n=1000)
    return {
        "polls": polls,
        "memory": memory() - before,
        "stalls": [cuts[499], cuts[989], cuts[998], stalls[-1]],
    }


def main() -> None:
    """Print the table."""
    print(f"{LISTED} jobs are listed on {-(-LISTED // 30)} pages; each row waits {SECONDS} s.\n")
    print(f"{'':<18}{'':>8}{'':>6}{'GETs':>9}{'memory':>10}{'the loop was late by (ms)':>38}")
    print(
        f"{'':<18}{'waiting':>8}{'polls':>6}{'a poll':>9}{'(MiB)':>10}"
        f"{'p50':>11}{'p99':>9}{'p99.9':>9}{'worst':>9}"
    )
    missed, alone = [], 0.0
    with sandbox() as (url, sids):
        for name, count in ROWS:
            before = requests_so_far(url)
            row = json.loads(
                subprocess.run(
                    [sys.executable, __file__, name],
                    input=json.dumps(sids[-count:]),
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            gets = requests_so_far(url) - before - 1  # the warming one
            polls = row["polls"] or gets / count
            print(
                f"{name:<18}{count:>8}{polls:>6.0f}{gets / polls:>9.0f}{row['memory']:>10.1f}  "
                + "".join(f"{late:>9.1f}" for late in row["stalls"]),
                flush=True,
            )
            if name == "ours" and count == 1:
                alone = row["stalls"][1]
                if gets / polls > 2:
                    missed.append("One waiting job costs more than two requests a poll.")
            if name == "ours" and row["stalls"][1] > alone + BAR:
                missed.append(f"{count} waiting jobs hold the loop up for more than {BAR:.0f} ms.")
    sys.exit("\n".join(missed))


if __name__ == "__main__":
    if sys.argv[1:] == ["sandbox"]:
        serve()
    elif sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1], json.load(sys.stdin))))
    else:
        main()
