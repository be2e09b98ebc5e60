"""What a storage lacks: what can be had for nothing is fetched, only the rest is paid for."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG
from archives import FIRST, archive_in, day, gap, to_export
from in_process import DagRun, run_task

from airflow_provider_bulkexports.api import download
from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.operators import BulkExportsMissingDaysOperator
from airflow_provider_bulkexports.transfers import BulkExportsToObjectStorageOperator

NOTHING = {"to_fetch": [], "to_export": []}


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """Give an empty storage, a month after its first day."""
    with archive_in(tmp_path / "storage", monkeypatch) as made:
        yield made


@pytest.fixture(autouse=True)
def _impatient_downloads(monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)


@pytest.fixture
def filled(archive):
    """Ten stored days; the fifth is empty. What was on offer then is no more."""
    archive.fault("empty_day", "create_job", days=[day(4)])
    assert archive.fill() == []
    archive.advance(days=8)
    return archive


@pytest.fixture
def logged(caplog, capsys):
    """Return what was logged; Airflow 3 prints what its operators log."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


def remove(archive, *numbers):
    for number in numbers:
        shutil.rmtree(archive.destination.removeprefix("file://") + f"/Messages/day={day(number)}")


def test_an_empty_storage_lacks_everything(archive):
    """Before the first run, the whole range is to be exported, each type by itself."""
    found = archive.missing(resource_types=["Messages", "Calls"])

    assert found == {"to_fetch": [], "to_export": [to_export(0, 9), to_export(0, 9, "Calls")]}


def test_a_full_storage_lacks_nothing(filled):
    """The empty day is there too, and nothing of it costs a look into a file."""
    assert filled.missing() == NOTHING


def test_gaps_are_ranges(filled):
    """Days that follow each other are one job."""
    remove(filled, 0, 3, 4, 5, 9)

    found = filled.missing(last=11)

    assert found == {
        "to_fetch": [],
        "to_export": [to_export(0, 0), to_export(3, 5), to_export(9, 11)],
    }


def test_what_is_missing_is_filled_and_paid_for_once(filled):
    """The ranges, exported and stored, leave nothing missing."""
    remove(filled, 0, 3, 4, 9)

    assert filled.fill() == []
    assert filled.missing() == NOTHING
    assert filled.charged() == 10 + 4


def test_a_gap_of_more_than_a_year_is_split(archive):
    """One job may have 366 days, so a longer gap comes as several ranges."""
    found = archive.missing(-900, 0, max_days=1000)

    assert [each["start_day"] for each in found["to_export"]] == [day(-900), day(-534), day(-168)]


def test_a_day_on_offer_is_fetched_and_not_paid_for(archive):
    """A file that somebody has exported lately costs nothing."""
    archive.order(2, 4)

    assert archive.missing() == {
        "to_fetch": [gap(2, 4)],
        "to_export": [to_export(0, 1), to_export(5, 9)],
    }
    assert archive.fill() == []
    assert archive.charged() == 3 + 7


def test_an_empty_day_on_offer_needs_no_file(archive):
    """A day that a job found empty is stored as such, although no file of it is listed."""
    archive.fault("empty_day", "create_job", how="absent", days=[day(1)])
    archive.order(0, 2)

    assert archive.missing(last=2) == {"to_fetch": [gap(0, 2)], "to_export": []}
    assert archive.fill(last=2) == []
    assert archive.missing(last=2) == NOTHING
    assert archive.charged() == 3


def test_a_transfer_that_failed_is_repeated_and_not_paid_again(archive):
    """However many runs it takes, each day is exported once."""
    archive.fault("status", status=500, times=-1)
    for _ in range(3):
        assert len(archive.fill()) == 1
        archive.advance(days=1)
    archive.sandbox.clear_faults()

    assert archive.missing() == {"to_fetch": [gap(0, 9)], "to_export": []}
    assert archive.fill() == []
    assert archive.missing() == NOTHING
    assert archive.charged() == 10


def test_what_expired_before_it_was_stored_is_exported_again(archive):
    """After seven days nothing is on offer any more, and nobody can have it for nothing."""
    archive.order(0, 9)
    archive.advance(days=8)

    assert archive.missing() == {"to_fetch": [], "to_export": [to_export(0, 9)]}


def test_a_job_that_never_ends_holds_no_expired_days(archive):
    """One day is stuck; the files of the others expire, and are exported anew by another job."""
    archive.fault("job_outcome", "create_job", outcome="Running", days=[day(12)])
    stuck = archive.order(0, 12)
    archive.advance(days=9)

    assert archive.missing() == {"to_fetch": [], "to_export": [to_export(0, 9)]}
    assert archive.fill() == []
    assert archive.missing() == NOTHING
    assert archive.sandbox.jobs()[0]["job_sid"] == stuck
    assert archive.charged() == 13 + 10


def test_a_day_that_a_job_never_ends_is_warned_about(archive, logged):
    """It is not paid for behind the job's back, and not passed over in silence either."""
    archive.fault("job_outcome", "create_job", outcome="Running", days=[day(0)])
    stuck = archive.order(0, 0)
    archive.advance(days=9)

    assert archive.missing(0, 0) == NOTHING
    assert f"{day(0)} of Messages waits for job {stuck}, which Twilio expected to end" in logged()


def test_days_under_way_are_left_to_their_job(monkeypatch, tmp_path, logged):
    """They are neither fetched nor ordered, and the log names the job."""
    with archive_in(tmp_path / "storage", monkeypatch, job_seconds=3600) as archive:
        sid = archive.order(2, 4)
        found = archive.missing()
        archive.advance(hours=2)
        later = archive.missing()

    assert found == {"to_fetch": [], "to_export": [to_export(0, 1), to_export(5, 9)]}
    assert f"{day(2)} to {day(4)} of Messages is left to job {sid}" in logged()
    assert later["to_fetch"] == [gap(2, 4)]


def test_a_file_that_is_late_is_waited_for(monkeypatch, tmp_path):
    """A day that is exported but not listed yet is not ordered again; later it is fetched."""
    with archive_in(tmp_path / "storage", monkeypatch, file_lag=3600) as archive:
        archive.order(0, 9)
        at_once = archive.missing()
        archive.advance(hours=2)
        later = archive.missing()

    assert at_once == NOTHING
    assert later == {"to_fetch": [gap(0, 9)], "to_export": []}


def test_a_failed_day_is_exported_again(archive):
    """Twilio has given it up, so that nothing is to be waited for."""
    archive.fault("job_outcome", "create_job", outcome="Failed", days=[day(3)])
    archive.order(0, 9)

    assert archive.missing() == {
        "to_fetch": [gap(0, 2), gap(4, 9)],
        "to_export": [to_export(3, 3)],
    }


def test_the_log_shows_the_calendar(filled, logged):
    """One table a type says what is known of each day."""
    remove(filled, 3)
    filled.order(7, 7)
    remove(filled, 7)
    filled.missing(last=60, max_days=60)

    shown = logged()
    assert "2026-01  ■■■!0■■↓■■!!!!" in shown
    assert "■ stored 7   0 empty 1   ↓ on offer 1   ! missing 29   · not yet 23" in shown


# Days that somebody is writing, or was


def lock(archive, number, age):
    """Leave a day as a publisher does that took it some seconds ago; return the folder."""
    folder = Path(archive.destination.removeprefix("file://")) / "Messages" / f"day={day(number)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_lock.1").write_text('{"seconds": 900, "holder": "a worker"}')
    os.utime(folder / "_lock.1", (time.time() - age,) * 2)
    return folder


def test_what_a_dead_publisher_left_is_mended_and_not_paid_for(filled):
    """A part without a manifest is whole: the manifest is made again from what is there."""
    folder = lock(filled, 3, age=1000)
    (folder / "_manifest.json").unlink()
    nothing = lock(filled, 7, age=1000)
    for name in ("_manifest.json", "part-0.json.gz"):
        (nothing / name).unlink()
    requests = filled.sandbox.requests()

    assert filled.missing() == {"to_fetch": [], "to_export": [to_export(7, 7)]}
    assert json.loads((folder / "_manifest.json").read_text())["records"] == 3
    assert not (folder / "_lock.1").exists()
    assert filled.sandbox.requests() - requests == 2
    assert filled.fill() == []
    assert filled.charged() == 11


def test_a_day_that_is_being_written_is_left_alone(filled, logged):
    """Its publisher lives, for all that is known; a later run sees what became of it."""
    folder = lock(filled, 3, age=10)
    (folder / "_manifest.json").unlink()
    filled.order(3, 3)

    assert filled.missing() == NOTHING
    assert (folder / "_lock.1").exists()
    assert f"day={day(3)} is being written" in logged()


# Nothing is missing yet


def test_a_range_that_has_not_begun_lacks_nothing(archive):
    """On its first days a new DAG is green; nothing is asked of anybody."""
    assert archive.missing(5, 4) == NOTHING
    assert archive.missing(31, 29) == NOTHING
    assert archive.sandbox.requests() == 0


def test_by_default_the_range_ends_with_the_newest_exportable_day(archive):
    """A DAG whose first day cannot be exported yet has nothing to do; later it has one day."""
    archive.options["end_day"] = None
    first = (archive.today - FIRST).days - 1

    assert archive.missing(first) == NOTHING
    archive.advance(days=1)
    assert archive.missing(first) == {"to_fetch": [], "to_export": [to_export(first, first)]}


def test_days_that_cannot_be_exported_yet_are_not_ordered(archive):
    """A range that reaches into the future is cut where Twilio's day is."""
    last = (archive.today - FIRST).days

    assert archive.missing(last - 4, last + 5)["to_export"] == [to_export(last - 4, last - 2)]


# More than is wanted


@pytest.mark.parametrize("max_days", [10, "10", 31])
def test_as_many_days_as_are_allowed_are_ordered(archive, max_days):
    """The limit is included, and may come from a template."""
    assert archive.missing(max_days=max_days)["to_export"] == [to_export(0, 9)]


def test_more_days_than_allowed_are_refused(archive):
    """A destination with a typing error must not use up the quota of the day."""
    with pytest.raises(AirflowFailException) as caught:
        archive.missing(-100, 9, resource_types=["Messages", "Calls"])

    said = str(caught.value)
    assert "220 days would be exported and charged" in said
    assert "max_days allows 31 of a type" in said
    assert "set max_days=110" in said
    assert f"Calls: 110 days, {day(-100)} to {day(9)}" in said
    assert archive.charged() == 0


def test_what_costs_nothing_does_not_count(archive):
    """Only days that are charged are limited."""
    archive.order(0, 9)

    assert archive.missing(max_days=1) == {"to_fetch": [gap(0, 9)], "to_export": []}


# A storage that does not answer


@pytest.fixture
def bucket(monkeypatch, archive):
    """Serve an S3 whose every answer is the same refusal."""
    refusal = {"status": 503, "code": "SlowDown"}

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"<Error><Code>{refusal['code']}</Code><Message>no</Message></Error>".encode()
            self.send_response(refusal["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            """Say nothing."""

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_port
        extra = f"endpoint_url=http%3A%2F%2F127.0.0.1%3A{port}&region_name=us-east-1"
        monkeypatch.setenv(f"AIRFLOW_CONN_S3_{port}", f"aws://testing:testing@/?{extra}")
        archive.options |= {
            "destination": f"s3://days-{port}/twilio",
            "object_storage_conn_id": f"s3_{port}",
        }
        yield refusal
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (404, "NoSuchBucket"), (500, "InternalError"), (503, "SlowDown")],
)
def test_a_storage_that_refuses_is_not_an_empty_one(archive, bucket, status, code):
    """What cannot be listed is not missing: the task fails, and Twilio is not even asked."""
    bucket |= {"status": status, "code": code}
    with pytest.raises(AirflowException) as caught:
        archive.missing()

    assert not isinstance(caught.value, AirflowFailException)
    assert archive.sandbox.requests() == 0


def test_the_address_may_name_the_connection(archive, bucket):
    """Airflow's own way to write a storage's connection works on every Airflow."""
    conn_id = archive.options.pop("object_storage_conn_id")
    archive.options["destination"] = f"s3://{conn_id}@days/twilio"
    with pytest.raises(AirflowException, match="SlowDown"):
        archive.missing()


@pytest.mark.parametrize("route", ["list_days", "list_jobs"])
def test_without_twilios_lists_nothing_is_ordered(archive, route, one_try):
    """A list that cannot be read is not an empty one."""
    archive.fault("status", route, status=503, times=-1)
    with pytest.raises(AirflowException):
        archive.missing()


# Arguments

WRONG = {
    "no such type": ({"resource_types": ["Messages", "Faxes"]}, "allowed are"),
    "no type": ({"resource_types": "Faxes"}, "allowed are"),
    "no day": ({"start_day": "yesterday"}, "start_day"),
    "no last day": ({"end_day": "tomorrow"}, "end_day"),
    "no limit": ({"max_days": 0}, "max_days is 0"),
    "a rendered None": ({"max_days": "None"}, "max_days is 'None'"),
    "half a day": ({"refresh_after_days": 1.5}, "refresh_after_days is 1.5"),
    "a flag": ({"refresh_after_days": True}, "refresh_after_days is True"),
    "relative": ({"destination": "out"}, "relative path"),
    "unknown scheme": ({"destination": "nosuch://bucket/twilio"}, "cannot open"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(archive, name):
    """No retry can mend them, and nothing is asked of anybody."""
    arguments, message = WRONG[name]
    with pytest.raises(AirflowFailException, match=message):
        archive.missing(**arguments)

    assert archive.sandbox.requests() == 0


def test_one_type_needs_no_list(archive):
    """A single type may come as its name, and a type that is named twice counts once."""
    assert archive.missing(resource_types="Calls")["to_export"] == [to_export(0, 9, "Calls")]
    twice = archive.missing(resource_types=["Calls", "Calls"])
    assert twice["to_export"] == [to_export(0, 9, "Calls")]


# A refresh and if_exists="skip"


def dag_with(if_exists, *, mapped, refresh=3):
    with DAG("refreshing", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        missing = BulkExportsMissingDaysOperator(
            task_id="missing_days",
            destination="file:///nowhere",
            resource_types="Messages",
            start_day=day(0),
            refresh_after_days=refresh,
        )
        options = {"task_id": "fetch", "destination": "file:///nowhere", "if_exists": if_exists}
        if mapped:
            fetch = BulkExportsToObjectStorageOperator.partial(**options).expand_kwargs([gap(0, 1)])
        else:
            fetch = BulkExportsToObjectStorageOperator(**options, **gap(0, 1))
        missing >> fetch
    return dag


@pytest.mark.parametrize("refresh", [3, "3"])
@pytest.mark.parametrize("if_exists", ["skip", "fail"])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_refresh_that_is_not_stored_is_refused_when_the_dag_is_read(mapped, if_exists, refresh):
    """Each day would be paid for twice, and what came the second time would be thrown away."""
    with pytest.raises(AirflowFailException, match=f"fetch has if_exists='{if_exists}'"):
        dag_with(if_exists, mapped=mapped, refresh=refresh).resolve_template_files()

    dag_with("replace", mapped=mapped).resolve_template_files()
    dag_with("skip", mapped=mapped, refresh=None).resolve_template_files()


def test_a_refresh_that_is_only_rendered_later_is_refused_before_any_traffic(archive):
    """What a template gives is known when the task runs, and not when the file is read."""
    dag = dag_with("skip", mapped=True, refresh="{{ params.days }}")
    dag.resolve_template_files()
    task = dag.get_task("missing_days")
    task.refresh_after_days = 3
    with pytest.raises(AirflowFailException, match="paid for again"):
        run_task(task, dag_run=DagRun(data_interval_end=datetime.now(UTC) - timedelta(days=1)))

    assert archive.sandbox.requests() == 0


def test_both_lists_are_xcoms_of_their_own():
    """A task may take one of them by its name."""
    task = BulkExportsMissingDaysOperator(
        task_id="missing_days",
        destination="file:///nowhere",
        resource_types="Messages",
        start_day=date(2026, 1, 1),
    )

    assert task.multiple_outputs
    assert task.output["to_fetch"].key == "to_fetch"


def test_no_type_at_all_is_an_error(archive):
    """A form that was left empty is not a storage that lacks nothing."""
    with pytest.raises(AirflowFailException, match=r"resource_types is \[\]; give a list"):
        archive.missing(resource_types=[])


def test_an_empty_day_of_a_job_that_shows_no_days_is_stored_once(archive):
    """Coverage and transfer read such a job alike: the day is on offer, and has no file."""
    archive.fault("empty_day", "create_job", days=[day(0)], times=-1)
    for route in ("list_jobs", "fetch_job"):
        archive.fault("null_days", route, times=-1)
    for _ in range(3):
        assert archive.fill(0, 0) == []
        archive.advance(days=1)
    assert archive.charged() == 1
    assert archive.missing(0, 0) == {"to_fetch": [], "to_export": []}


def test_a_day_that_fails_costs_no_other_day_twice(archive):
    """With reattach="range" no try orders the good days again; the next run exports the bad one."""
    archive.fault("job_outcome", "create_job", outcome="Failed", days=[day(3)], times=-1)
    (wanted,) = archive.missing(0, 9)["to_export"]
    with pytest.raises(AirflowFailException, match="no day is paid for twice"):
        archive.export(wanted, "run")
    found = archive.missing(0, 9)
    assert found == {"to_fetch": [gap(0, 2), gap(4, 9)], "to_export": [to_export(3, 3)]}
    assert archive.charged() == 10
