"""The main job, watched: the example DAGs on a real Airflow, against the bundled sandbox."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem
from live_airflow import AirflowFailure, LiveAirflow

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.storage.coverage import Coverage, DayCoverage
from airflow_provider_bulkexports.storage.store import DayStore

ROOT = Path(__file__).resolve().parent.parent
# The first look comes 10 s after a task began to wait; a job that is done by then needs no second.
JOB_SECONDS = 9
TYPES = ["Messages", "Calls"]
ALL_TYPES = [*TYPES, "Conferences", "Participants"]
THERE = (DayCoverage.STORED, DayCoverage.EMPTY)
START = time.monotonic()


def say(line: str) -> None:
    """Print a line with the seconds since the start."""
    print(f"[{time.monotonic() - START:4.0f} s] {line}", flush=True)


def watch_daily(airflow: LiveAirflow, days: list[date]) -> None:
    """Let the scheduler run the daily DAG until these days are exported, telling each change."""
    dag_id = "bulkexports_daily"
    airflow.unpause(dag_id)
    shown: dict[str, str] = {}

    def done() -> bool:
        states = {}
        for run in airflow.runs(dag_id):
            for task in airflow.task_instances(dag_id, run["run_id"]):
                day = str(run["logical_date"])[:10]
                states[f"{day} {task['task_id']}"] = str(task["state"])
        for name, state in states.items():
            if shown.get(name) != state and state in ("deferred", "success", "failed"):
                note = "  (waits in the triggerer, without a worker)" if state == "deferred" else ""
                say(f"  {dag_id} {name}: {state}{note}")
            shown[name] = state
        if "failed" in states.values():
            raise AirflowFailure(airflow.report())
        return all(states.get(f"{day} report") == "success" for day in days)

    airflow.wait(done, 150, "the daily runs")


def backfill(airflow: LiveAirflow, start: date, end: date) -> None:
    """Start the backfill DAG as a person would from its form, and wait for it."""
    dag_id = "bulkexports_backfill"
    airflow.unpause(dag_id)
    form = {"resource_types": TYPES, "start_day": f"{start}", "end_day": f"{end}"}
    say(f"Backfill by hand: {json.dumps(form)}")
    run_id = airflow.trigger(dag_id, conf=form)
    if airflow.wait_for_run(dag_id, run_id, 150) != "success":
        raise AirflowFailure(airflow.report())
    say(f"  {dag_id} collected {airflow.xcom(dag_id, run_id, 'collect')}")


def to_storage(airflow: LiveAirflow, output_format: str) -> None:
    """Let the third DAG export and fetch what the storage lacks, which at first is all."""
    dag_id = "bulkexports_to_storage"
    say(f"Days to storage, as {output_format}.")
    if output_format == "parquet":
        airflow.unpause(dag_id)
        run_id = airflow.wait(lambda: airflow.runs(dag_id), 60, "the scheduled run")[0]["run_id"]
    else:
        run_id = airflow.trigger(dag_id, conf={"output_format": output_format})
    if airflow.wait_for_run(dag_id, run_id, 150) != "success":
        raise AirflowFailure(airflow.report())


def compare(storage: Path, output_format: str, ledger: dict) -> None:
    """Read the files with DuckDB; the rows of each day must be those that the service gave."""
    import duckdb

    served = {(item["resource_type"], item["day"]): item["records"] for item in ledger["downloads"]}
    print(f"\n{output_format + ', by DuckDB':<24}{'days':>6}{'rows':>8}{'ledger':>8}")
    for kind in ALL_TYPES:
        files = f"{storage}/{output_format}/{kind}/day=*/part-*.*"
        query = f"SELECT filename, count(*) FROM read_{{}}('{files}', filename=true) GROUP BY ALL"  # noqa: S608
        found = duckdb.sql(
            query.format("parquet" if output_format == "parquet" else "json")
        ).fetchall()
        rows = {name.split("day=")[1][:10]: count for name, count in found}
        wanted = {day: count for (of, day), count in served.items() if of == kind and count}
        print(f"{kind:<24}{len(rows):>6}{sum(rows.values()):>8}{sum(wanted.values()):>8}")
        if rows != wanted:
            raise AirflowFailure(f"{kind}: the files have {rows}, the ledger {wanted}.")


def show_coverage(sandbox: Sandbox, storage: Path, first: date, daily: list[date]) -> None:
    """Print which days are stored, on offer and missing, as storage and service say now."""
    client = Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url)
    with client:
        for resource_type in ResourceType:
            store = DayStore(LocalFileSystem(), f"{storage}/raw", resource_type)
            today = datetime.fromtimestamp(client.now(), UTC).date()
            coverage = Coverage.of(
                resource_type, first, today, store.list_days(first),
                client.list_days(resource_type), client.list_jobs(resource_type).jobs, today=today,
            )  # fmt: skip
            print(f"\n{resource_type}\n{coverage.table()}")
            stored = {day for day, state in coverage.days.items() if state in THERE}
            if stored != set(daily):
                raise AirflowFailure(f"{resource_type}: {daily} should be stored, not {stored}.")
    print()


def table(ledger: dict) -> str:
    """Return the service's own account of the jobs."""
    lines = [f"{'type':<12}{'days':<27}{'job SID':<36}state"]
    for job in ledger["jobs"]:
        days = job["start_day"]
        days += f" to {job['end_day']}" if job["end_day"] != days else ""
        lines.append(f"{job['resource_type']:<12}{days:<27}{job['job_sid']:<36}{job['state']}")
    return "\n".join(lines)


def check(ledger: dict, expected: list[tuple[str, date, date]]) -> None:
    """Fail unless the service has exactly these jobs, all of them complete."""
    found = sorted((j["resource_type"], j["start_day"], j["end_day"]) for j in ledger["jobs"])
    wanted = sorted((kind, f"{start}", f"{end}") for kind, start, end in expected)
    if found != wanted or any(job["state"] != "completed" for job in ledger["jobs"]):
        raise AirflowFailure(f"The ledger should hold {wanted}.")


def main() -> None:
    """Run the demo, or with --ui leave it up afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ui", action="store_true", help="leave the pages up until Ctrl-C")
    stay = parser.parse_args().ui
    # Days that can be exported whenever the demo runs, even across midnight.
    newest = datetime.now(UTC).date() - timedelta(days=2)
    daily = [newest - timedelta(days=n) for n in (2, 1, 0)]
    month = (newest - timedelta(days=33), newest - timedelta(days=3))
    home = ROOT / ".demo"
    shutil.rmtree(home, ignore_errors=True)
    with Sandbox(job_seconds=JOB_SECONDS) as sandbox:
        say(f"BulkExport sandbox on {sandbox.url}; a job takes {JOB_SECONDS} s here.")
        airflow = LiveAirflow(
            home,
            ROOT / "dags",
            env={
                "AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection(),
                "BULKEXPORTS_FIRST_DAY": f"{daily[0]}",
                "BULKEXPORTS_DESTINATION": f"file://{home}/storage",
            },
            say=say,
            login=("admin", "admin") if stay else None,
        )
        say("Starting Airflow: scheduler, triggerer, DAG processor, API server (half a minute).")
        with airflow:
            say(f"Daily DAG, scheduled for {daily[0]} to {daily[-1]}; the day after must wait.")
            watch_daily(airflow, daily)
            backfill(airflow, *month)
            ledger = sandbox.ledger()
            print(f"\nWhat the service says happened:\n\n{table(ledger)}\n")
            posts = ledger["requests"]["create_job"]
            say(
                f"{posts} POSTs, {len(ledger['jobs'])} jobs, {ledger['charged_days']} charged days."
            )
            check(
                ledger,
                [("Messages", day, day) for day in daily] + [(kind, *month) for kind in TYPES],
            )
            say("Every day exactly once.")
            for output_format in ("parquet", "raw"):
                to_storage(airflow, output_format)
                compare(home / "storage", output_format, sandbox.ledger())
            show_coverage(sandbox, home / "storage", month[0], daily)
            say(f"The files are in {home.relative_to(ROOT)}/storage.")
            if stay:
                print(f"\nAirflow: {airflow.ui_address}  login admin, password admin")
                print(f"Sandbox: {sandbox.url}/_sandbox/ledger\nCtrl-C stops both.", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    signal.pause()
            say("Stopping.")
    say("Nothing is left running.")


if __name__ == "__main__":
    try:
        main()
    except AirflowFailure as failure:
        sys.exit(f"The demo failed: {failure}")
