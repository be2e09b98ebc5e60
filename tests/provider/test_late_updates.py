"""Twilio goes on to change what it has exported: a refresh stores that, and pays once more."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from archives import FIRST, archive_in, day, gap, to_export

from airflow_provider_bulkexports.api import download
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.sandbox.records import FileKey, records
from airflow_provider_bulkexports.storage.store import DayStore

NOTHING = {"to_fetch": [], "to_export": []}
SETTLED = 4
"""Days after which the records of a day do not change any more."""
SETTINGS = {"settle_days": SETTLED, "records": 16}


@pytest.fixture(autouse=True)
def _impatient_downloads(monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start the sandbox on a day, counted from the first that is wanted."""
    running = []

    def begin(today, **settings):
        at = FIRST + timedelta(days=today)
        manager = archive_in(tmp_path / "storage", monkeypatch, today=at, **SETTINGS | settings)
        running.append(manager)
        return manager.__enter__()

    yield begin
    for manager in running:
        manager.__exit__(None, None, None)


def stored(archive, number):
    """Return a day's records as they are stored, None for a day without a part."""
    folder = Path(archive.destination.removeprefix("file://"))
    part = folder / "Messages" / f"day={day(number)}" / "part-0.json.gz"
    if not part.exists():
        return None
    with gzip.open(part) as lines:
        return [json.loads(line) for line in lines]


def final(archive, number):
    """Return a day's records as they are when they change no more."""
    the_day = FIRST + timedelta(days=number)
    key = FileKey(archive.sandbox.account_sid, ResourceType.MESSAGES, the_day)
    return list(records(0, key, SETTINGS["records"]))


def test_three_weeks_of_daily_runs_store_every_change_and_pay_twice_for_each_day(start):
    """Each day is stored when it can be, and once more when it has settled; never a third time."""
    archive = start(today=2, empty_every=6)
    seen_changing = set()
    for today in range(2, 23):
        assert archive.fill(0, today - 2, refresh_after_days=SETTLED + 1) == []
        for number in range(today - 1):
            is_final = stored(archive, number) in (None, final(archive, number))
            if not is_final:
                seen_changing.add(number)
            assert is_final or number > today - SETTLED - 1
        archive.advance(days=1)

    refreshed = range(22 - SETTLED)
    counts = Counter(archive.days_charged())
    assert [counts[day(number)] for number in refreshed] == [2] * len(refreshed)
    assert set(counts.values()) == {1, 2}
    assert len(seen_changing) > 10
    assert sum(stored(archive, number) is None for number in refreshed) > 1


def test_without_a_refresh_changes_are_not_seen(start):
    """The control: a day is paid for once, and stays as it was."""
    archive = start(today=2)
    for today in range(2, 12):
        archive.fill(0, today - 2)
        archive.advance(days=1)

    assert set(Counter(archive.days_charged()).values()) == {1}
    assert any(stored(archive, number) != final(archive, number) for number in range(5))


@pytest.fixture
def filled(start):
    """Ten days that were stored before they were due, on the day when the first two are due."""
    archive = start(today=11, empty_every=0)
    archive.options["refresh_after_days"] = 14
    assert archive.fill(0, 9) == []
    archive.advance(days=4)
    return archive


def test_a_day_is_due_from_its_age_on(filled):
    """On the fifteenth day the first day and the second are 14 days old, or older."""
    found = filled.missing(0, 9)

    assert found == {"to_fetch": [], "to_export": [to_export(0, 1, since=15)]}


def test_a_refresh_that_failed_to_be_stored_is_fetched_and_not_paid_again(filled):
    """The newer file is on offer for seven days: it costs nothing until then."""
    filled.fault("status", status=500, times=-1)
    assert len(filled.fill(0, 9)) == 1
    filled.sandbox.clear_faults()

    assert filled.missing(0, 9) == {"to_fetch": [gap(0, 1)], "to_export": []}
    assert filled.fill(0, 9) == []
    assert filled.missing(0, 9) == NOTHING
    assert filled.charged() == 10 + 2


def test_what_somebody_else_has_exported_since_is_enough(filled):
    """A newer file of any job will do; an older one will not."""
    filled.order(0, 0)

    assert filled.missing(0, 9) == {
        "to_fetch": [gap(0, 0)],
        "to_export": [to_export(1, 1, since=15)],
    }
    assert filled.fill(0, 9) == []
    assert filled.charged() == 10 + 1 + 1


def test_an_older_file_that_is_still_on_offer_is_no_refresh(start):
    """The first export is listed for seven days, and the day may be due long before."""
    archive = start(today=4)
    archive.options["refresh_after_days"] = 3
    archive.fill(0, 2)

    assert archive.missing(0, 2) == NOTHING
    archive.advance(days=1)
    assert archive.missing(0, 2)["to_export"] == [to_export(2, 2, since=5)]
    assert archive.fill(0, 2) == []
    assert Counter(archive.days_charged()) == {day(0): 1, day(1): 1, day(2): 2}


def test_a_refresh_under_way_is_left_to_its_job(start):
    """A second run beside the first orders nothing."""
    archive = start(today=11, empty_every=0)
    archive.options["refresh_after_days"] = 14
    archive.fill(0, 9)
    archive.advance(days=4)
    archive.fault("job_outcome", "create_job", outcome="Running")
    archive.order(0, 1)

    assert archive.missing(0, 9) == NOTHING


def test_what_was_missed_is_made_up_for_during_a_month(filled):
    """After a pause of weeks the last thirty days are refreshed, and not the whole archive."""
    filled.advance(days=34)

    assert filled.missing(0, 9)["to_export"] == [to_export(5, 9, since=23)]
    filled.advance(days=4)
    assert filled.missing(0, 9)["to_export"] == [to_export(9, 9, since=23)]
    filled.advance(days=1)
    assert filled.missing(0, 9) == NOTHING


def test_days_that_were_exported_late_need_no_refresh(start):
    """What was exported when it was old enough holds all that a refresh would bring."""
    archive = start(today=30)
    archive.fill(0, 9)
    archive.options["refresh_after_days"] = 14

    assert archive.missing(0, 9) == NOTHING


def test_only_manifests_that_may_be_due_are_read(filled, monkeypatch):
    """Of all that is stored, a month's manifests are opened, and none without a refresh."""
    opened = []
    monkeypatch.setattr(
        "airflow_provider_bulkexports.storage.store.DayStore.read_manifest",
        lambda store, the_day, read=DayStore.read_manifest: (
            opened.append(the_day) or read(store, the_day)
        ),
    )
    filled.missing(0, 9)
    assert opened == [date(2026, 1, 1), date(2026, 1, 2)]
    opened.clear()
    filled.missing(0, 9, refresh_after_days=None)
    assert opened == []


def test_a_manifest_that_cannot_be_read_is_no_day_to_pay_for(filled):
    """The task fails and names the file; nothing is ordered."""
    folder = Path(filled.destination.removeprefix("file://"))
    (folder / "Messages" / f"day={day(0)}" / "_manifest.json").write_text("{")
    with pytest.raises(AirflowException, match=f"day={day(0)}/_manifest.json is not a manifest"):
        filled.missing(0, 9)

    assert filled.charged() == 10


def test_a_refresh_takes_what_missing_days_leave_of_the_limit(filled):
    """A refresh that is more than a run may export goes on in the next, and stops no run."""
    assert filled.missing(0, 9, max_days=1)["to_export"] == [to_export(0, 0, since=14)]
    assert filled.fill(0, 9, max_days=1) == []
    assert filled.fill(0, 9, max_days=1) == []
    assert filled.missing(0, 9) == NOTHING
    assert filled.charged() == 10 + 2


# What was ordered once for a refresh is not ordered again, whatever becomes of it.


def test_a_refresh_of_empty_days_that_failed_to_be_stored_is_not_paid_again(start):
    """A job that calls a day empty leaves no file that could tell its time."""
    archive = start(today=11, empty_every=1)
    archive.options["refresh_after_days"] = 14
    archive.fill(0, 3)
    archive.advance(days=4)
    archive.fault("status", "fetch_day", status=500, times=-1)
    for _ in range(3):
        archive.fill(0, 1)
        archive.advance(days=1)
    archive.sandbox.clear_faults()
    assert archive.fill(0, 1) == []
    assert archive.missing(0, 1) == NOTHING
    assert [archive.days_charged().count(day(number)) for number in (0, 1)] == [2, 2]


def test_a_refresh_whose_file_is_listed_late_is_not_paid_again(start):
    archive = start(today=11, file_lag=7200)
    archive.options["refresh_after_days"] = 14
    for _ in range(2):
        archive.fill(0, 1)
        archive.advance(hours=3)
    archive.advance(days=4)
    for _ in range(4):
        archive.fill(0, 1)
        archive.advance(minutes=25)
    archive.advance(hours=3)
    assert archive.fill(0, 1) == []
    assert archive.missing(0, 1) == NOTHING
    assert Counter(archive.days_charged()) == {day(0): 2, day(1): 2}


def test_a_refresh_that_twilio_fails_is_ordered_anew_only_when_its_job_has_gone(start):
    """Not each day for a month."""
    archive = start(today=4)
    archive.options["refresh_after_days"] = 5
    archive.fill(0, 0)
    outcome = {"outcome": "Failed", "days": [day(0)], "times": -1}
    archive.fault("job_outcome", "create_job", **outcome)
    for _ in range(34):
        archive.advance(days=1)
        with contextlib.suppress(AirflowException, AirflowFailException):
            archive.fill(0, 0)
    assert len(archive.days_charged()) <= 6


def test_a_link_that_dates_a_file_before_its_list_asks_for_no_other(start):
    """The link's time has no zone: that of the evening before must not order the day again."""
    archive = start(today=11, empty_every=0)
    archive.options["refresh_after_days"] = 14
    archive.fill(0, 1)
    archive.advance(days=4)
    evening = {"created_time": "20260115223456"}
    archive.fault("link_path", "fetch_day", parts=evening, times=-1)
    for _ in range(10):
        assert archive.fill(0, 1) == []
        archive.advance(days=1)
    assert Counter(archive.days_charged()) == {day(0): 2, day(1): 2}


def test_lists_that_lag_bring_no_older_export_back(start):
    archive = start(today=4)
    archive.options["refresh_after_days"] = 5
    archive.fill(0, 0)
    archive.advance(days=1)
    archive.fill(0, 0)
    archive.advance(hours=2)
    assert stored(archive, 0) == final(archive, 0)
    for route in ("list_days", "fetch_day", "list_jobs"):
        archive.fault("lag", route, seconds=6 * 3600, times=-1)
    archive.fetch(**gap(0, 0))
    assert stored(archive, 0) == final(archive, 0)
