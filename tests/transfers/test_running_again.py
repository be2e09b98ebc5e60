"""A transfer that runs again: what is there stays, what is not comes, what is newer replaces."""

from __future__ import annotations

import hashlib

import pytest
from day_downloads import FILE
from day_transfers import day, sha256, snapshot
from in_process import Running, TaskInstance, context_of, wait_for

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException

WEEK = 7 * 86_400


@pytest.mark.parametrize("output_format", ["raw", "parquet"])
def test_a_rerun_fetches_nothing(transfers, output_format):
    """What is there is not fetched again, and not touched."""
    if output_format == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("isal")
    transfers.fault("empty_day", "create_job", days=[day(1)])
    job = transfers.export(3)
    first = transfers.transfer(job, output_format=output_format)
    served, stored = transfers.downloads(), snapshot(transfers.storage)

    assert transfers.transfer(job, output_format=output_format) == first
    assert transfers.downloads() == served == [day(0), day(2)]
    assert snapshot(transfers.storage) == stored


def test_a_rerun_of_a_range_fetches_nothing(transfers):
    """Days named by type and range are left alone like those of a job."""
    job = transfers.export(3)
    first = transfers.transfer_range(3)
    stored = snapshot(transfers.storage)

    assert transfers.transfer_range(3) == first
    assert transfers.transfer(job) == first
    assert len(transfers.downloads()) == 3
    assert snapshot(transfers.storage) == stored


def test_a_longer_range_fetches_the_new_days_only(transfers):
    """A job that overlaps a range's stored days does not bring them again from the same job."""
    transfers.export(3)
    transfers.transfer_range(2)
    transfers.transfer_range(3)

    assert transfers.downloads() == [day(0), day(1), day(2)]


@pytest.mark.parametrize("if_exists", ["replace", "skip", "fail"])
def test_another_job_with_the_same_records_touches_no_file(transfers, if_exists):
    """Days that were exported again without a change keep their files; who exported them is new."""
    older = transfers.export(2)
    first = transfers.transfer(older)
    stored, manifest = snapshot(transfers.storage), transfers.manifest(1)
    transfers.sandbox.advance(86_400)
    newer = transfers.export(2)
    again = transfers.transfer(newer, if_exists=if_exists)

    assert again == first
    assert len(transfers.downloads()) == (2 if if_exists == "skip" else 4)
    found, renewed = snapshot(transfers.storage), transfers.manifest(1)
    if if_exists == "skip":
        assert found == stored
        return
    changed_files = {name for name in stored if stored[name] != found[name]}
    assert changed_files == {f"Messages/day={day(n)}/_manifest.json" for n in range(2)}
    assert (manifest["job_sid"], renewed["job_sid"]) == (older, newer)
    assert manifest["exported_at"] < renewed["exported_at"]
    assert transfers.transfer(newer, if_exists=if_exists) == first
    assert snapshot(transfers.storage) == found
    assert len(transfers.downloads()) == 4


def changed(start_transfers, records=5):
    """Store two days; return a sandbox that has other records for them, and what was stored."""
    first = start_transfers()
    first.transfer(first.export(2))
    return start_transfers(seed=1, records=records), snapshot(first.storage)


def test_other_records_replace_a_day(start_transfers):
    """With if_exists="replace", days that changed at Twilio change in the storage."""
    transfers, _ = changed(start_transfers)
    job = transfers.export(2)
    results = transfers.transfer(job)

    assert [result["records"] for result in results] == [5, 5]
    for number in range(2):
        manifest, served = transfers.manifest(number), transfers.served(number)
        assert (manifest["job_sid"], manifest["source"]["sha256"]) == (job, sha256(served))
        assert transfers.content(number) == served


def test_other_records_are_not_even_fetched(start_transfers):
    """With if_exists="skip", a day that is there is good enough, and Twilio is not asked."""
    transfers, stored = changed(start_transfers)
    transfers.export(2)
    before = transfers.requests()
    results = transfers.transfer_range(2, if_exists="skip")

    assert [result["records"] for result in results] == [3, 3]
    assert transfers.requests() == before
    assert snapshot(transfers.storage) == stored


def test_other_records_are_an_error(start_transfers):
    """With if_exists="fail", nothing is overwritten, and the error names both exports."""
    transfers, stored = changed(start_transfers)
    transfers.export(2, name="newer_export")
    with pytest.raises(AirflowException, match='if_exists="replace"') as caught:
        transfers.transfer_range(2, if_exists="fail")

    for part in (day(0), day(1), "3 records", "5 records", "newer_export"):
        assert part in str(caught.value)
    assert snapshot(transfers.storage) == stored


def test_rows_that_come_twice_are_other_content(start_transfers):
    """A day with repeated rows replaces the day without them, rows and all."""
    first = start_transfers(records=5)
    first.transfer(first.export(1))
    second = start_transfers(records=5, repeated_rows=2)
    results = second.transfer(second.export(1))

    assert results[0]["records"] == 7
    assert second.content(0) == second.served(0)


EMPTY_FORMS = ["absent", "not_found", "zero_bytes", "empty_gzip"]


@pytest.mark.parametrize("how", EMPTY_FORMS)
def test_a_newer_job_that_calls_a_day_empty_takes_no_records_away(start_transfers, how, caplog):
    """The stored day stays, with a warning, and is not asked for again."""
    first = start_transfers()
    first.transfer(first.export(1))
    exported_at = first.manifest(0)["exported_at"]
    second = start_transfers()
    second.sandbox.advance(86_400)
    second.fault("empty_day", "create_job", how=how)
    job = second.export(1)
    results = second.transfer(job)

    assert results[0]["records"] == 3
    assert second.content(0) == second.served(0)
    manifest = second.manifest(0)
    assert (manifest["refused"], manifest["records"]) == (0, 3)
    assert manifest["exported_at"] > exported_at
    assert "allow_fewer_records" in caplog.text
    stored, asked = snapshot(second.storage), second.sandbox.requests("fetch_day")
    second.transfer(job)
    assert snapshot(second.storage) == stored
    assert second.sandbox.requests("fetch_day") == asked


@pytest.mark.parametrize("how", EMPTY_FORMS)
def test_a_day_may_become_empty_if_that_is_allowed(start_transfers, how):
    """With allow_fewer_records=True its file goes, also after it was refused before."""
    first = start_transfers()
    first.transfer(first.export(1))
    second = start_transfers()
    second.fault("empty_day", "create_job", how=how)
    job = second.export(1)
    second.transfer(job)
    results = second.transfer(job, allow_fewer_records=True)

    assert results[0]["records"] == 0
    assert second.names(0) == ["_manifest.empty.json"]
    assert second.manifest(0)["records"] == 0
    assert second.missing(1) == []


def test_a_newer_file_with_fewer_records_is_refused(start_transfers):
    """One record never takes the place of a hundred, and the event says that it was refused."""

    class Event:
        extra = None

    transfers = start_transfers(records=100)
    transfers.transfer(transfers.export(2))
    transfers.fault("job_contents", "create_job", what="fewer")
    job = transfers.export(1)
    task = transfers.task(job)
    task.outlets, event = ["outlet"], Event()
    task.execute(context_of(TaskInstance()) | {"outlet_events": {"outlet": event}})

    assert transfers.content(0) == transfers.served(0)
    assert (transfers.manifest(0)["refused"], transfers.manifest(0)["records"]) == (10, 100)
    assert event.extra["changes"]["refused"] == 1
    assert event.extra["days"][0]["change"] == "refused"
    transfers.transfer(job, allow_fewer_records=True)
    assert transfers.content(0) == transfers.served(0, contents="fewer")
    assert (transfers.manifest(0)["refused"], transfers.manifest(0)["records"]) == (None, 10)


def test_an_empty_day_that_got_records_has_a_file(start_transfers):
    """When a day that was empty is exported again with records, they are stored."""
    first = start_transfers()
    first.fault("empty_day", "create_job")
    first.transfer(first.export(1))
    second = start_transfers()
    second.transfer(second.export(1))

    assert second.content(0) == second.served(0)
    assert second.names(0) == ["_manifest.json", "part-0.json.gz"]


def test_an_empty_day_that_is_exported_again_is_renewed(transfers):
    """Also where no file is listed, a refresh leaves its trace, so that it is not ordered again."""
    transfers.fault("empty_day", "create_job", times=2)
    transfers.transfer(transfers.export(1))
    exported_at = transfers.manifest(0)["exported_at"]
    transfers.sandbox.advance(86_400)
    transfers.transfer(transfers.export(1))

    assert transfers.manifest(0)["exported_at"] > exported_at
    assert transfers.names(0) == ["_manifest.empty.json"]


@pytest.mark.parametrize("if_exists", ["replace", "skip", "fail"])
def test_another_format_is_refused_and_takes_nothing_away(transfers, if_exists):
    """Twilio's own files, which cannot be had again, stay; nothing is fetched."""
    pytest.importorskip("pyarrow")
    job = transfers.export(1)
    transfers.transfer(job)
    stored = snapshot(transfers.storage)
    with pytest.raises(AirflowFailException, match="'raw' there and 'parquet' here"):
        transfers.transfer(job, output_format="parquet", if_exists=if_exists)

    assert snapshot(transfers.storage) == stored
    assert transfers.downloads() == [day(0)]


@pytest.mark.parametrize("if_exists", ["replace", "skip", "fail"])
def test_another_account_is_refused_and_takes_nothing_away(start_transfers, if_exists):
    """Two accounts never share a destination, whoever comes first."""
    first = start_transfers()
    first.transfer(first.export(1))
    stored = snapshot(first.storage)
    other = "AC" + "b" * 32
    second = start_transfers(account_sid=other)
    job = second.export(2)
    with pytest.raises(AirflowFailException, match=f"{first.sandbox.account_sid}.*{other}"):
        second.transfer(job, if_exists=if_exists)

    assert snapshot(second.storage) == stored
    assert second.downloads() == []


@pytest.mark.parametrize("change", ["format", "account"])
def test_a_lost_archive_description_lets_nobody_take_a_day(start_transfers, change):
    """What a person or a rule has removed is still in the day's manifest."""
    first = start_transfers()
    job = first.export(1)
    first.transfer(job)
    (first.storage / "Messages" / "_archive.json").unlink()
    stored = snapshot(first.storage)
    if change == "format":
        pytest.importorskip("pyarrow")
        with pytest.raises(AirflowFailException, match="holds raw of account"):
            first.transfer(job, output_format="parquet")
    else:
        second = start_transfers(account_sid="AC" + "b" * 32)
        job = second.export(1)
        with pytest.raises(AirflowFailException, match="holds raw of account"):
            second.transfer(job)

    assert snapshot(first.storage) == stored


def test_finished_days_stay_when_twilio_has_forgotten_them(transfers):
    """After 7 days, with neither files nor jobs, a rerun is as green as the first run."""
    job = transfers.export(3)
    first = transfers.transfer(job)
    stored = snapshot(transfers.storage)
    transfers.sandbox.advance(WEEK + 86_400)
    for if_exists in ("replace", "skip", "fail"):
        assert transfers.transfer_range(3, if_exists=if_exists) == first
        assert transfers.transfer_range(3, job_sid=job, if_exists=if_exists) == first

    assert snapshot(transfers.storage) == stored
    assert len(transfers.downloads()) == 3


def test_a_forgotten_job_alone_says_to_give_the_days(transfers):
    """Which days it had cannot be asked any more."""
    job = transfers.export(1)
    transfers.transfer(job)
    transfers.sandbox.advance(WEEK + 86_400)
    with pytest.raises(AirflowFailException, match="give resource_type, start_day and end_day too"):
        transfers.transfer(job, if_exists="skip")


def test_a_forgotten_job_hinders_where_days_are_absent(transfers):
    """Days that are neither there nor to be had are an error."""
    job = transfers.export(1)
    transfers.transfer(job)
    transfers.sandbox.advance(WEEK + 86_400)
    with pytest.raises(AirflowFailException, match=job):
        transfers.transfer_range(2, job_sid=job)


def test_a_file_that_goes_before_its_listing_does_not_fail_a_stored_day(transfers):
    """A day that is there stays when its newer file is listed and cannot be had."""
    first = transfers.transfer(transfers.export(1))
    stored = snapshot(transfers.storage)
    newer = transfers.export(1)
    transfers.fault("status", "fetch_day", status=404, times=-1)

    assert transfers.transfer(newer) == first
    assert snapshot(transfers.storage) == stored


def test_days_of_a_job_that_left_the_list_are_not_fetched_again(transfers):
    """Who exported a day is not needed to know that it is there."""
    transfers.transfer(transfers.export(2))
    transfers.fault("lag", "list_jobs", omit=1.0, times=-1)
    transfers.transfer_range(2)

    assert transfers.downloads() == [day(0), day(1)]


@pytest.mark.parametrize("lost", ["part-0.json.gz", "_manifest.json"])
def test_a_day_that_lost_a_file_is_transferred_again(transfers, lost):
    """A rerun fetches a day whose file or manifest is gone, and no other."""
    job = transfers.export(3)
    transfers.transfer(job)
    (transfers.folder(1) / lost).unlink()
    assert transfers.missing(3) == [1]
    transfers.transfer(job)

    assert transfers.downloads() == [day(0), day(1), day(1), day(2)]
    assert transfers.content(1) == transfers.served(1)
    assert transfers.missing(3) == []


def test_a_manifest_that_cannot_be_read_is_an_error_and_not_a_missing_day(transfers):
    """Nothing is fetched over a day of which nobody can say what it holds; others are not kept."""
    job = transfers.export(3)
    transfers.transfer_range(2)
    manifest = transfers.folder(1) / "_manifest.json"
    manifest.write_text("{")
    with pytest.raises(AirflowException, match="1 of 3 days") as caught:
        transfers.transfer(job)

    assert f"{manifest} is not a manifest" in str(caught.value)
    assert transfers.downloads() == [day(0), day(1), day(2)]
    assert transfers.missing(3) == []
    with pytest.raises(AirflowException, match="is not a manifest"):
        transfers.transfer_range(2, if_exists="skip")


@pytest.mark.parametrize("fault", ["truncate", "corrupt"])
def test_one_broken_day_does_not_keep_the_others(transfers, fault):
    """What can be had is stored, the error names the rest, and a rerun fetches the rest only."""
    job = transfers.export(4)
    # One day at a time, so the second day is what follows the first download.
    transfers.fault(fault, after=1, times=3)
    with pytest.raises(AirflowException) as caught:
        transfers.transfer(job, max_parallel_days=1)

    assert not isinstance(caught.value, AirflowFailException), "a retry may mend it"
    assert "1 of 4 days of Messages" in str(caught.value)
    assert [number for number in range(4) if day(number) in str(caught.value)] == [1]
    assert "X-Amz" not in str(caught.value)
    for number in (0, 2, 3):
        content = (transfers.folder(number) / "part-0.json.gz").read_bytes()
        assert content == transfers.served(number)
    assert not (transfers.folder(1) / "_manifest.json").exists()
    assert transfers.missing(4) == [1]
    before = transfers.downloads()
    transfers.transfer(job)
    assert len(before) == 6
    assert transfers.downloads() == sorted([*before, day(1)])


def test_a_link_that_stays_refused_names_every_day(transfers):
    """With every day's file gone for good, each is named and nothing is stored."""
    job = transfers.export(3)
    transfers.fault("status", status=403, times=-1)
    with pytest.raises(AirflowException, match="3 of 3 days"):
        transfers.transfer(job)

    assert transfers.missing(3) == [0, 1, 2]
    assert not list(transfers.storage.glob("Messages/day=*"))


def test_a_kept_day_survives_a_failed_replacement(start_transfers):
    """A day that is there stays as it is when its newer file cannot be had."""
    transfers, stored = changed(start_transfers)
    transfers.fault("truncate", times=-1)
    with pytest.raises(AirflowException, match="2 of 2 days"):
        transfers.transfer(transfers.export(2))

    assert snapshot(transfers.storage) == stored


def test_an_older_job_does_not_sign_the_newer_jobs_file(transfers):
    """Twilio serves the newest file of a day, whichever job is asked for."""
    older = transfers.export(2)
    transfers.sandbox.advance(86_400)
    newer = transfers.export(1)
    transfers.transfer(older)

    assert [transfers.manifest(number)["job_sid"] for number in range(2)] == [newer, older]
    transfers.transfer_range(2)
    transfers.transfer(older)
    assert transfers.downloads() == [day(0), day(1)]


def test_two_jobs_of_one_name_sign_nothing(transfers):
    """Which of them wrote the file cannot be known, and is not guessed."""
    for _ in range(2):
        job = transfers.export(1, name="the_same")
    transfers.transfer(job)

    assert transfers.manifest(0)["job_sid"] is None
    transfers.transfer(job)
    assert transfers.downloads() == [day(0)]


def test_a_file_that_is_listed_a_little_late_is_waited_for(start_transfers):
    """A job that is complete replaces the day, though the list shows its file seconds later."""
    first = start_transfers()
    first.transfer(first.export(1))
    second = start_transfers(seed=1, records=5)
    job = second.export(1)
    second.fault("lag", "list_days", omit=1.0, times=2)
    second.transfer(job)

    assert second.content(0) == second.served(0)
    assert second.manifest(0)["job_sid"] == job


@pytest.mark.parametrize(
    "slow", [{"kind": "trickle", "bytes": 1200, "seconds": 1.5}, {"kind": "delay", "seconds": 3}]
)
def test_a_later_export_that_came_meanwhile_stays(start_transfers, slow):
    """A transfer that planned with an older file does not put it, or its name, over a newer one."""
    transfers = start_transfers(records=50)
    older = transfers.export(1)
    transfers.sandbox.add_fault(slow | {"route": "download"})
    running = Running(transfers.task(older))
    wait_for(lambda: transfers.sandbox.requests(FILE) == 1)
    transfers.sandbox.advance(86_400)
    transfers.fault("job_contents", "create_job", what="early")
    newer = transfers.export(1)
    transfers.transfer(newer)
    stored = snapshot(transfers.storage)
    running.join(20)
    assert running.error is None

    assert transfers.manifest(0)["job_sid"] == newer
    assert transfers.content(0) == transfers.served(0, contents="early")
    assert snapshot(transfers.storage) == stored


def test_a_raw_file_is_hashed_while_it_comes_and_never_again(transfers, monkeypatch):
    """Its digest is that of Twilio's bytes, which are the stored ones."""
    monkeypatch.delattr(hashlib, "file_digest")
    transfers.transfer(transfers.export(1))

    manifest = transfers.manifest(0)
    assert manifest["files"][0]["sha256"] == sha256(transfers.content(0))
    assert manifest["files"][0]["sha256"] == manifest["source"]["sha256"]
