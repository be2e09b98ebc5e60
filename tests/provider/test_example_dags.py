"""The DAGs of dags/, loaded and run."""

from __future__ import annotations

import time
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pendulum
import pytest
from in_process import AIRFLOW_3, POST, jobs_of, requests_of, run_dag, stored_xcom

from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.sandbox.server import Sandbox

FOLDER = Path(__file__).resolve().parents[2] / "dags"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def bag():
    if AIRFLOW_3:
        from airflow.dag_processing.dagbag import DagBag
    else:
        from airflow.models.dagbag import DagBag
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = DagBag(dag_folder=FOLDER)
    warned = [str(w.message) for w in seen if "bulkexports" in w.filename]
    return loaded, warned


def test_they_load_without_errors_or_warnings(bag):
    """Each file gives one DAG, named as the file, and this Airflow has nothing against it."""
    loaded, warned = bag

    assert loaded.import_errors == {}
    assert {path: list(lines) for path, lines in loaded.captured_warnings.items()} == {}
    assert warned == []
    assert sorted(loaded.dags) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_teaches_one_thing_on_a_page(path):
    """A DAG to learn from has at most 66 lines and says first what it teaches."""
    text = path.read_text()

    assert len(text.splitlines()) <= 66
    assert text.startswith('"""Teaches: ')


@pytest.fixture
def run(bag):
    def by_name(dag_id, day, conf=None):
        return run_dag(bag[0].dags[dag_id], pendulum.datetime(*day), conf)

    return by_name


def test_the_daily_dag_exports_its_day(run, sandbox):
    """One run makes one job for the run's own day and hands its SID on; a rerun makes none."""
    first = run("bulkexports_daily", (2026, 11, 10))
    (job,) = jobs_of(sandbox)

    assert str(first.state) == "success"
    assert (job["resource_type"], job["start_day"], job["end_day"]) == (
        "Messages",
        "2026-11-10",
        "2026-11-10",
    )
    sid = job["job_sid"]
    assert stored_xcom(first, "export_messages") == sid
    assert stored_xcom(first, "report") == f"Messages 2026-11-10 to 2026-11-10: {sid} completed"

    again = run("bulkexports_daily", (2026, 11, 10))
    assert str(again.state) == "success"
    assert stored_xcom(again, "export_messages") == sid
    assert requests_of(sandbox, POST) == 1


def test_the_backfill_dag_splits_a_long_range(run, sandbox):
    """439 days of two types are four jobs of at most 366 days, each day once."""
    form = {
        "resource_types": ["Messages", "Calls"],
        "start_day": "2025-01-01",
        "end_day": "2026-03-15",
    }
    done = run("bulkexports_backfill", (2026, 11, 11), form)
    jobs = jobs_of(sandbox)
    days = (date(2026, 3, 15) - date(2025, 1, 1)).days + 1

    assert str(done.state) == "success"
    assert sorted((job["resource_type"], job["start_day"], job["end_day"]) for job in jobs) == [
        (kind, first, last)
        for kind in ("Calls", "Messages")
        for first, last in [("2025-01-01", "2026-01-01"), ("2026-01-02", "2026-03-15")]
    ]
    assert sandbox.ledger()["charged_days"] == 2 * days
    assert sorted(stored_xcom(done, "collect")) == sorted(job["job_sid"] for job in jobs)


def test_a_reversed_range_in_the_form_fails_at_once(run, sandbox):
    """The backfill's form is checked before anything is planned, and no retry can mend it."""
    form = {"resource_types": ["Calls"], "start_day": "2026-02-01", "end_day": "2026-01-01"}
    done = run("bulkexports_backfill", (2026, 11, 12), form)

    assert str(done.state) == "failed"
    assert done.get_task_instance("plan").try_number == 1
    assert sandbox.ledger()["requests"] == {}


@pytest.fixture
def storage(bag, tmp_path):
    """Point the storage DAG to an empty folder, and give the folder."""
    dag = bag[0].dags["bulkexports_to_storage"]
    for each in dag.tasks:
        fields = getattr(each, "partial_kwargs", None) or vars(each)
        if "destination" in fields:
            fields["destination"] = tmp_path.as_uri() + "/{{ params.output_format }}"
    return tmp_path


FORM = {
    "resource_types": ["Messages", "Calls"],
    "start_day": "2026-01-01",
    "end_day": "2026-01-05",
    "output_format": "raw",
}


def days_in(folder, kind):
    return sorted(path.parent.name[4:] for path in folder.glob(f"raw/{kind}/day=*/part-*"))


def test_the_storage_dag_fetches_what_is_on_offer_and_exports_the_rest(run, sandbox, storage):
    """Of five days of two types, two are on offer and one is there; the rest is paid for once."""
    first = run("bulkexports_to_storage", (2026, 11, 14), FORM | {"end_day": "2026-01-01"})
    assert str(first.state) == "success"
    with BulkExportsHook().get_conn() as client:
        wish = {"resource_type": "Calls", "start_day": "2026-01-03", "end_day": "2026-01-04"}
        client.create_job(ExportRequest.parse(**wish, friendly_name="people"))
    time.sleep(0.5)

    second = run("bulkexports_to_storage", (2026, 11, 15), FORM)

    assert str(second.state) == "success"
    wanted = [f"2026-01-{day:02d}" for day in range(1, 6)]
    assert [days_in(storage, kind) for kind in FORM["resource_types"]] == [wanted, wanted]
    assert sandbox.ledger()["charged_days"] == 10
    names = {
        (ti.task_id, ti.rendered_map_index)
        for ti in second.get_task_instances()
        if ti.map_index >= 0
    }
    assert names == {("fetch", "Calls 2026-01-03 to 2026-01-04")} | {
        (f"export.{task_id}", name)
        for task_id in ("create", "fetch")
        for name in (
            "Messages 2026-01-02 to 2026-01-05",
            "Calls 2026-01-02 to 2026-01-02",
            "Calls 2026-01-05 to 2026-01-05",
        )
    }


@pytest.fixture
def prompt_sandbox(monkeypatch):
    """Run a sandbox whose jobs are finished at the first look, whatever the time is there."""
    with Sandbox(job_seconds=0, records=3, empty_every=0) as running:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", running.connection())
        yield running


def test_the_storage_dag_refreshes_if_asked(run, prompt_sandbox, storage):
    """A day is exported once more at the age that the form says; without that word it is not."""
    sandbox = prompt_sandbox
    the_day = f"{datetime.now(UTC).date() - timedelta(days=5)}"
    form = FORM | {"resource_types": ["Calls"], "start_day": the_day, "end_day": the_day}
    assert str(run("bulkexports_to_storage", (2026, 11, 20), form).state) == "success"
    sandbox.advance(8 * 86_400)
    assert str(run("bulkexports_to_storage", (2026, 11, 21), form).state) == "success"
    assert sandbox.ledger()["charged_days"] == 1

    asked = form | {"refresh_after_days": 10}
    for day in (22, 23):
        assert str(run("bulkexports_to_storage", (2026, 11, day), asked).state) == "success"

    assert sandbox.ledger()["charged_days"] == 2
    assert len(sandbox.ledger()["downloads"]) == 2


def test_the_storage_dag_has_nothing_to_do_twice(run, sandbox, storage):
    """When all days are there, a run asks for lists and is green."""
    for day in (16, 17):
        done = run("bulkexports_to_storage", (2026, 11, day), FORM)
        assert str(done.state) == "success"

    assert sandbox.ledger()["charged_days"] == 10
    assert len(sandbox.ledger()["downloads"]) == 10


def test_the_storage_dag_asks_before_it_orders_months(run, sandbox, storage):
    """More than 31 days of a type need a word in the form."""
    months = FORM | {"resource_types": ["Calls"], "start_day": "2025-11-01"}
    refused = run("bulkexports_to_storage", (2026, 11, 18), months)
    assert str(refused.state) == "failed"
    assert sandbox.ledger()["requests"].get(POST, 0) == 0

    allowed = run("bulkexports_to_storage", (2026, 11, 19), months | {"max_days": 66})
    assert str(allowed.state) == "success"
    assert sandbox.ledger()["charged_days"] == 66


def test_mapped_tasks_have_names(run, sandbox):
    """In the page a mapped task is called after what it exports, not 0 and 1."""
    form = {"resource_types": ["Calls"], "start_day": "2026-01-01", "end_day": "2026-01-02"}
    done = run("bulkexports_backfill", (2026, 11, 13), form)
    names = [ti.rendered_map_index for ti in done.get_task_instances() if ti.task_id == "export"]

    assert names == ["Calls 2026-01-01 to 2026-01-02"]
