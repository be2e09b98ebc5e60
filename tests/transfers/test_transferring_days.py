"""Days in the storage: where they lie, what their manifests say, what is in them."""

from __future__ import annotations

import json
import threading

import pytest
from day_transfers import PARTS, day, lines_of, sha256
from in_process import TaskInstance, context_of

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import AirflowException
from airflow_provider_bulkexports.hooks import BulkExportsHook

FORMATS = list(PARTS)
RECORDS = 700
EMPTY_FORMS = ["absent", "not_found", "zero_bytes", "empty_gzip"]


@pytest.fixture(params=FORMATS)
def output_format(request):
    if request.param == "parquet":
        for name in ("pyarrow", "isal"):
            pytest.importorskip(name, reason="needs airflow-provider-bulkexports[parquet]")
    return request.param


def count_with_duckdb(files):
    """Count the rows of Parquet files by their folders' days."""
    duckdb = pytest.importorskip("duckdb", reason="reads the Parquet files back with duckdb")
    query = f"SELECT day, count(*) FROM '{files}' GROUP BY ALL ORDER BY ALL"  # noqa: S608
    return {f"{found}": rows for found, rows in duckdb.sql(query).fetchall()}


@pytest.mark.parametrize("resource_type", list(ResourceType))
def test_a_finished_jobs_days_are_stored_whole(start_transfers, resource_type, output_format):
    """Each day lies in its folder, with all its records and a manifest that tells the truth."""
    transfers = start_transfers(records=RECORDS)
    transfers.fault("empty_day", "create_job", days=[day(1)])
    job = transfers.export(3, resource_type)
    results = transfers.transfer(job, output_format=output_format)

    part, counts = PARTS[output_format], [RECORDS, 0, RECORDS]
    assert [(result["day"], result["records"]) for result in results] == [
        (day(number), count) for number, count in enumerate(counts)
    ]
    for number, result in enumerate(results):
        manifest = transfers.manifest(number, resource_type)
        stored = {
            "version": 1,
            "resource_type": resource_type,
            "day": day(number),
            "account_sid": transfers.sandbox.account_sid,
            "job_sid": job,
            "format": output_format,
            "records": counts[number],
            "rejected": 0,
        }
        assert manifest | stored == manifest
        assert result["bytes"] == sum(file["bytes"] for file in manifest["files"])
        if not counts[number]:
            assert transfers.names(number, resource_type) == ["_manifest.empty.json"]
            assert (manifest["files"], manifest["source"]["sha256"]) == ([], "")
            assert result["path"] is None
            continue
        assert transfers.names(number, resource_type) == ["_manifest.json", part]
        path, served = (
            transfers.folder(number, resource_type) / part,
            transfers.served(number, resource_type),
        )
        content = path.read_bytes()
        assert manifest["files"] == [
            {"name": part, "bytes": len(content), "sha256": sha256(content)}
        ]
        assert (
            manifest["source"] | {"bytes": len(served), "sha256": sha256(served)}
            == (manifest["source"])
        )
        assert result["path"] == f"file://{path}"
        if output_format == "raw":
            assert content == served
            assert lines_of(path) == RECORDS
    if output_format == "parquet":
        rows = count_with_duckdb(transfers.storage / resource_type / "day=*" / part)
        assert rows == {day(0): RECORDS, day(2): RECORDS}


def test_the_manifest_is_written_last(transfers):
    """Whoever sees a new day's manifest finds the file that it names."""
    transfers.transfer(transfers.export(3))

    for number in range(3):
        folder = transfers.folder(number)
        written = (folder / "_manifest.json").stat().st_mtime_ns
        assert written >= (folder / "part-0.json.gz").stat().st_mtime_ns


def test_nothing_else_is_left_in_the_storage(transfers):
    """No temporary file stays behind in the storage."""
    transfers.transfer(transfers.export(3))

    names = {path.name for path in transfers.storage.rglob("*") if path.is_file()}
    assert names == {"_archive.json", "_manifest.json", "part-0.json.gz"}


@pytest.mark.parametrize("how", EMPTY_FORMS)
def test_an_empty_day_is_no_records_and_no_file(transfers, how, output_format):
    """However Twilio shows a day without records, it is stored as a manifest of none."""
    transfers.fault("empty_day", "create_job", how=how, days=[day(1)])
    job = transfers.export(2)
    results = transfers.transfer(job, output_format=output_format)
    served = transfers.downloads()

    assert results[1] == {"day": day(1), "path": None, "records": 0, "rejected": 0, "bytes": 0}
    assert transfers.names(1) == ["_manifest.empty.json"]
    assert (transfers.manifest(1)["records"], transfers.manifest(1)["job_sid"]) == (0, job)
    assert transfers.missing(2) == []
    assert transfers.transfer(job, output_format=output_format) == results
    assert transfers.downloads() == served


@pytest.mark.parametrize("how", ["not_found", "zero_bytes", "empty_gzip"])
def test_an_empty_file_of_a_day_with_records_is_an_error(transfers, how):
    """A day without records is accepted only where the job calls it empty."""
    transfers.fault("empty_day", "create_job", how=how, days=[day(1)])
    job = transfers.export(2)
    transfers.fault("status_word", "fetch_job", word="Completed", times=-1)
    with pytest.raises(AirflowException, match=day(1)):
        transfers.transfer(job)

    assert transfers.missing(2) == [1]


def test_more_than_a_month_returns_the_sum(transfers):
    """For more than 31 days the list is a file beside the days, and XCom holds its path."""
    transfers.transfer(transfers.export(31))
    listed = transfers.transfer(transfers.export(31), max_parallel_days=8)
    summed = transfers.transfer(transfers.export(32), max_parallel_days=8)

    assert [result["day"] for result in listed] == [day(number) for number in range(31)]
    index = f"_manifest_{day(0)}_{day(31)}.json"
    written = json.loads((transfers.storage / "Messages" / index).read_text())
    assert [result["day"] for result in written] == [day(number) for number in range(32)]
    assert all(result.keys() == listed[0].keys() for result in written)
    assert transfers.missing(32) == []
    parts = list(transfers.storage.rglob("part-*"))
    assert summed == {
        "manifest": (transfers.storage / "Messages" / index).as_uri(),
        "days": 32,
        "records": 32 * 3,
        "rejected": 0,
        "bytes": sum(path.stat().st_size for path in parts),
    }


@pytest.mark.parametrize("days", [2, 33])
def test_outlets_get_what_was_transferred(transfers, days):
    """Each outlet's event says which days of which type came from which job."""

    class Event:
        extra = None

    task = transfers.task(transfers.export(days), max_parallel_days=8)
    outlets = ["one", "other"]
    task.outlets = outlets
    events = {outlet: Event() for outlet in outlets}
    task.execute(context_of(TaskInstance()) | {"outlet_events": events})

    sid = transfers.sandbox.ledger()["jobs"][0]["job_sid"]
    expected = {
        "resource_type": "Messages",
        "start_day": day(0),
        "end_day": day(days - 1),
        "records": days * 3,
        "rejected": 0,
        "job_sids": [sid],
        "changes": {"stored": days, "replaced": 0, "renewed": 0, "unchanged": 0, "refused": 0},
    }
    if days <= 31:
        expected["days"] = [
            {
                "day": day(number),
                "records": 3,
                "rejected": 0,
                "job_sid": sid,
                "change": "stored",
            }
            for number in range(days)
        ]
    for event in events.values():
        assert event.extra == expected


def test_a_storages_own_error_loses_no_other_day(transfers):
    """A day that the storage does not take is named with the storage's words, like any other."""
    job = transfers.export(3)
    transfers.storage.joinpath("Messages").mkdir(parents=True)
    transfers.folder(1).write_text("a file where a folder should be")
    with pytest.raises(
        AirflowException, match=rf"1 of 3 days[^$]*{day(1)}  StorageError"
    ) as caught:
        transfers.transfer(job)

    assert "File exists" in str(caught.value)
    assert str(transfers.folder(1)) in str(caught.value)
    assert transfers.missing(3) == [1]


def test_airflow_is_asked_by_the_task_alone(transfers, monkeypatch):
    """Up to Airflow 3.1 a worker's threads that ask for a connection at once wait for ever."""
    asking = []
    ask = BulkExportsHook.get_connection

    def noted(_hook, conn_id):
        asking.append(threading.current_thread())
        return ask(conn_id)

    monkeypatch.setattr(BulkExportsHook, "get_connection", noted)
    transfers.transfer(transfers.export(6), max_parallel_days=3)

    assert set(asking) == {threading.current_thread()}


def test_days_are_transferred_without_a_job_too(transfers):
    """A type and its days are enough; the manifest names the newest job that exported a day."""
    transfers.export(3)
    newer = transfers.export(1, first=1)
    results = transfers.transfer_range(3)

    assert [result["records"] for result in results] == [3, 3, 3]
    assert transfers.manifest(1)["job_sid"] == newer
    assert len({transfers.manifest(number)["job_sid"] for number in range(3)}) == 2


def test_a_day_that_nobody_exported_is_an_error(transfers):
    """A range that reaches beyond the exported days names the day that is not there."""
    transfers.export(2)
    with pytest.raises(AirflowException, match=rf"1 of 3 days[^$]*{day(2)}  NotFound"):
        transfers.transfer_range(3)

    assert transfers.names(1) == ["_manifest.json", "part-0.json.gz"]
    assert not transfers.folder(2).exists()
