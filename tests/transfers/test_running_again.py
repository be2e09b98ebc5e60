"""A transfer that runs again: what is there stays, what is not comes."""

from __future__ import annotations

import pytest
from day_transfers import day, sha256, snapshot
from in_process import run_task

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException


@pytest.mark.parametrize("output_format", ["raw", "parquet"])
def test_a_rerun_fetches_nothing(transfers, output_format):
    """What is there is not fetched again, and not touched."""
    if output_format == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("isal")
    transfers.fault("empty_day", "create_job", days=[day(1)])
    job = transfers.export(3)
    first = transfers.bring(job, output_format=output_format)
    served, stored = transfers.downloads(), snapshot(transfers.storage)

    assert transfers.bring(job, output_format=output_format) == first
    assert transfers.downloads() == served == [day(0), day(2)]
    assert snapshot(transfers.storage) == stored


def test_a_rerun_of_a_range_fetches_nothing(transfers):
    """Days named by type and range are left alone like those of a job."""
    job = transfers.export(3)
    days = {"resource_type": "Messages", "start_day": day(0), "end_day": day(2)}
    first = transfers.bring(**days)
    stored = snapshot(transfers.storage)

    assert transfers.bring(**days) == first
    assert transfers.bring(job) == first
    assert len(transfers.downloads()) == 3
    assert snapshot(transfers.storage) == stored


def test_a_longer_range_fetches_the_new_days_only(transfers):
    """A job that overlaps a range's stored days does not bring them again from the same job."""
    transfers.export(3)
    transfers.bring(resource_type="Messages", start_day=day(0), end_day=day(1))
    transfers.bring(resource_type="Messages", start_day=day(0), end_day=day(2))

    assert transfers.downloads() == [day(0), day(1), day(2)]


@pytest.mark.parametrize("if_exists", ["replace", "skip", "fail"])
def test_another_job_with_the_same_records_replaces_nothing(transfers, if_exists):
    """Days that were exported again without a change stay as they are."""
    first = transfers.bring(transfers.export(2))
    stored = snapshot(transfers.storage)
    again = transfers.bring(transfers.export(2), if_exists=if_exists)

    assert again == first
    assert snapshot(transfers.storage) == stored
    assert len(transfers.downloads()) == (2 if if_exists == "skip" else 4)


def changed(start_transfers, **bring):
    """Bring two days, then the same days with other records; return what came and what was."""
    first = start_transfers()
    first.bring(first.export(2))
    stored = snapshot(first.storage)
    second = start_transfers(seed=1, records=5)
    job = second.export(2)
    return second, stored, second.task(job, **bring), job


def test_other_records_replace_a_day(start_transfers):
    """With if_exists="replace", days that changed at Twilio change in the storage."""
    transfers, _, task, job = changed(start_transfers, if_exists="replace")
    results = run_task(task)

    assert [result["records"] for result in results] == [5, 5]
    for number in range(2):
        manifest, served = transfers.manifest(number), transfers.served(number)
        assert (manifest["job_sid"], manifest["source_sha256"]) == (job, sha256(served))
        assert (transfers.folder(number) / "part-0.json.gz").read_bytes() == served


def test_other_records_are_not_even_fetched(start_transfers):
    """With if_exists="skip", a day that is there is good enough."""
    transfers, stored, task, _ = changed(start_transfers, if_exists="skip")
    results = run_task(task)

    assert [result["records"] for result in results] == [3, 3]
    assert transfers.downloads() == []
    assert snapshot(transfers.storage) == stored


def test_other_records_are_an_error(start_transfers):
    """With if_exists="fail", nothing is overwritten and the error says how to allow it."""
    transfers, stored, task, _ = changed(start_transfers, if_exists="fail")
    with pytest.raises(AirflowException, match='if_exists="replace"') as caught:
        run_task(task)

    assert day(0) in str(caught.value)
    assert day(1) in str(caught.value)
    assert snapshot(transfers.storage) == stored


def test_rows_that_come_twice_are_other_content(start_transfers):
    """A day with repeated rows replaces the day without them, rows and all."""
    first = start_transfers(records=5)
    first.bring(first.export(1))
    second = start_transfers(records=5, repeated_rows=2)
    results = second.bring(second.export(1))

    assert results[0]["records"] == 7
    assert (second.folder(0) / "part-0.json.gz").read_bytes() == second.served(0)


def test_a_day_that_became_empty_loses_its_file(start_transfers):
    """When a day is exported again without records, its old file goes."""
    first = start_transfers()
    first.bring(first.export(1))
    second = start_transfers()
    second.fault("empty_day", "create_job")
    second.bring(second.export(1))

    assert second.names(0) == ["_manifest.json"]
    assert second.manifest(0)["records"] == 0


def test_an_empty_day_that_got_records_has_a_file(start_transfers):
    """When a day that was empty is exported again with records, they are stored."""
    first = start_transfers()
    first.fault("empty_day", "create_job")
    first.bring(first.export(1))
    second = start_transfers()
    second.bring(second.export(1))

    assert (second.folder(0) / "part-0.json.gz").read_bytes() == second.served(0)


def test_another_format_takes_the_place_of_the_first(transfers):
    """A day is stored in one format: the one that was asked for last."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("isal")
    job = transfers.export(1)
    transfers.bring(job)
    transfers.bring(job, output_format="parquet")
    assert transfers.names(0) == ["_manifest.json", "part-0.parquet"]
    transfers.bring(job)
    assert transfers.names(0) == ["_manifest.json", "part-0.json.gz"]


@pytest.mark.parametrize("harm", ["deleted", "cut", "broken manifest"])
def test_a_damaged_day_is_mended(transfers, harm):
    """A rerun brings a day again whose file or manifest is not whole, and no other."""
    job = transfers.export(3)
    transfers.bring(job)
    part = transfers.folder(1) / "part-0.json.gz"
    if harm == "deleted":
        part.unlink()
    elif harm == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        (transfers.folder(1) / "_manifest.json").write_text("{")
    transfers.bring(job)

    assert transfers.downloads() == [day(0), day(1), day(1), day(2)]
    assert part.read_bytes() == transfers.served(1)
    assert transfers.missing(3) == []


@pytest.mark.parametrize("kind", ["truncate", "corrupt"])
def test_one_broken_day_does_not_keep_the_others(transfers, kind):
    """What can be had is stored, the error names the rest, and a rerun fetches the rest only."""
    job = transfers.export(4)
    # One day at a time, so the second day is what follows the first download.
    transfers.fault(kind, after=1, times=3)
    with pytest.raises(AirflowException) as caught:
        transfers.bring(job, max_parallel_days=1)

    assert not isinstance(caught.value, AirflowFailException), "a retry may mend it"
    assert "1 of 4 days of Messages" in str(caught.value)
    assert [number for number in range(4) if day(number) in str(caught.value)] == [1]
    assert "X-Amz" not in str(caught.value)
    for number in (0, 2, 3):
        content = (transfers.folder(number) / "part-0.json.gz").read_bytes()
        assert content == transfers.served(number)
    assert not (transfers.folder(1) / "_manifest.json").exists()
    assert transfers.missing(4) == [
        {"resource_type": "Messages", "start_day": day(1), "end_day": day(1)}
    ]
    before = transfers.downloads()
    transfers.bring(job)
    assert len(before) == 6
    assert transfers.downloads() == sorted([*before, day(1)])


def test_a_link_that_stays_refused_names_every_day(transfers):
    """With every day's file gone for good, each is named and nothing is stored."""
    job = transfers.export(3)
    transfers.fault("status", status=403, times=-1)
    with pytest.raises(AirflowException, match="3 of 3 days"):
        transfers.bring(job)

    assert len(transfers.missing(3)) == 1
    assert not transfers.storage.exists() or snapshot(transfers.storage) == {}


def test_a_kept_day_survives_a_failed_replacement(start_transfers):
    """A day that is there stays as it is when its newer file cannot be had."""
    transfers, stored, task, _ = changed(start_transfers, if_exists="replace")
    transfers.fault("truncate", times=-1)
    with pytest.raises(AirflowException, match="2 of 2 days"):
        run_task(task)

    assert snapshot(transfers.storage) == stored
