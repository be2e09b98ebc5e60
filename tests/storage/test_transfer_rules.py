"""The rules for a wanted day, a test for each row; and what Twilio has of a day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pendulum
import pytest

from airflow_provider_bulkexports.api.job import Job, ListedFile
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.signed_links import LinkFacts
from airflow_provider_bulkexports.storage.decision import (
    Action,
    Contents,
    Offer,
    decide,
    newest_files,
)
from airflow_provider_bulkexports.storage.manifest import Manifest, Source, StoredFile

DAY = date(2026, 1, 5)
CREATED = date(2026, 1, 7)
OLD, NEW = "old" * 20, "new" * 20
STORED = Manifest(
    resource_type=ResourceType.MESSAGES,
    day=DAY,
    account_sid="AC" + "a" * 32,
    format="raw",
    records=98,
    rejected=2,
    job_sid="JS" + "0" * 32,
    exported_at=pendulum.datetime(2026, 1, 7),
    published_at=pendulum.datetime(2026, 1, 7),
    source=Source(OLD, 1000, "older_export", CREATED, 1000),
    schema=(),
    files=(StoredFile("part-0.json.gz", 1000, OLD),),
)
KNOWN = Offer("older_export", CREATED, 1000, None, may_be_empty=False, dates_itself=True)
NEWER = replace(KNOWN, friendly_name="newer_export")
SAME, MORE, AS_MANY = Contents(OLD, 100), Contents(NEW, 101), Contents(NEW, 100)
FEWER, NONE = Contents(NEW, 99), Contents("", 0)
REFUSED = replace(STORED, source=replace(STORED.source, friendly_name="newer_export"), refused=99)

REBUILT = replace(STORED, source=Source("", 0))
FEWER_ALLOWED = {"allow_fewer_records": True}

ROWS = {
    "absent": (None, NEWER, None, {}, Action.FETCH),
    "absent, none listed": (None, None, None, {}, Action.FETCH),
    "absent, skip": (None, NEWER, None, {"if_exists": "skip"}, Action.FETCH),
    "absent, fetched": (None, NEWER, MORE, {}, Action.STORE),
    "absent, fetched with skip": (None, NEWER, MORE, {"if_exists": "skip"}, Action.STORE),
    "absent, fetched with fail": (None, NEWER, MORE, {"if_exists": "fail"}, Action.STORE),
    "absent, fetched empty": (None, NEWER, NONE, {}, Action.STORE),
    "there, skip": (STORED, NEWER, None, {"if_exists": "skip"}, Action.LEAVE),
    "there, skip, fetched": (STORED, NEWER, MORE, {"if_exists": "skip"}, Action.LEAVE),
    "there, the file that is listed": (STORED, KNOWN, None, {}, Action.LEAVE),
    "there, none listed": (STORED, None, None, {}, Action.LEAVE),
    "there, none listed, fail": (STORED, None, None, {"if_exists": "fail"}, Action.LEAVE),
    "there meanwhile": (STORED, KNOWN, MORE, {}, Action.LEAVE),
    "another name": (STORED, NEWER, None, {}, Action.FETCH),
    "a later date": (STORED, replace(KNOWN, create_date=date(2026, 1, 8)), None, {}, Action.FETCH),
    "an earlier date": (STORED, replace(NEWER, create_date=DAY), MORE, {}, Action.LEAVE),
    "rebuilt, empty now": (REBUILT, NEWER, NONE, {}, Action.REFUSE),
    "rebuilt, empty, fewer": (REBUILT, NEWER, NONE, FEWER_ALLOWED, Action.REPLACE),
    "another size": (STORED, replace(KNOWN, size=1001), None, {}, Action.FETCH),
    "another name, fail": (STORED, NEWER, None, {"if_exists": "fail"}, Action.FETCH),
    "the same bytes": (STORED, NEWER, SAME, {}, Action.RENEW),
    "the same bytes, fail": (STORED, NEWER, SAME, {"if_exists": "fail"}, Action.RENEW),
    "other bytes": (STORED, NEWER, MORE, {}, Action.REPLACE),
    "other bytes, as many": (STORED, NEWER, AS_MANY, {}, Action.REPLACE),
    "other bytes, fail": (STORED, NEWER, MORE, {"if_exists": "fail"}, Action.FAIL),
    "fewer": (STORED, NEWER, FEWER, {}, Action.REFUSE),
    "none": (STORED, NEWER, NONE, {}, Action.REFUSE),
    "fewer, fail": (STORED, NEWER, FEWER, {"if_exists": "fail"}, Action.FAIL),
    "fewer, allowed": (STORED, NEWER, FEWER, {"allow_fewer_records": True}, Action.REPLACE),
    "none, allowed": (STORED, NEWER, NONE, {"allow_fewer_records": True}, Action.REPLACE),
    "refused before": (REFUSED, NEWER, None, {}, Action.LEAVE),
    "refused, now allowed": (REFUSED, NEWER, None, {"allow_fewer_records": True}, Action.FETCH),
    "refused, now fetched": (REFUSED, NEWER, FEWER, {"allow_fewer_records": True}, Action.REPLACE),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_wanted_day(row):
    """The first rule that fits decides, before anything is fetched and under the day's lock."""
    stored, offer, contents, options, action = ROWS[row]
    options = {"if_exists": "replace", "allow_fewer_records": False} | options
    assert decide(stored, offer, contents, **options) is action


def listed(name="first", created=CREATED, size=1000, day=DAY):
    return ListedFile(day, size, created, name, ResourceType.MESSAGES)


def job(name, word="Completed", number=0, days=(DAY,)):
    """Return a job that has these days in one status."""
    return Job.parse(
        {
            "job_sid": f"JS{number:032x}",
            "friendly_name": name,
            "resource_type": "Messages",
            "start_day": f"{DAY}",
            "end_day": f"{DAY}",
            "details": [{"status": word, "count": len(days), "days": [f"{day}" for day in days]}],
        }
    )


EMPTY = "CompletedEmptyRecords"


def test_a_day_without_file_and_job_is_not_on_offer():
    """Nothing is known of it."""
    assert Offer.of(DAY, None, []) is None
    assert Offer.of(DAY, None, [job("first", "Running"), job("other", days=(CREATED,))]) is None
    assert Offer.of(DAY, None, [job("first", "Completed")]) is None


def test_a_listed_files_job_is_the_one_of_its_name_that_completed_the_day():
    """The Days list escapes a name's hyphens; jobs that are not done, or of other days, are not."""
    jobs = [
        job("the-first", number=1),
        job("the-first", "Running", number=2),
        job("the-first", number=3, days=(CREATED,)),
        job("second", number=4),
    ]
    offer = Offer.of(DAY, listed(r"the\-first"), jobs)
    assert (offer.friendly_name, offer.job_sid) == ("the-first", f"JS{1:032x}")
    assert not offer.may_be_empty


@pytest.mark.parametrize(
    "jobs",
    [[], [job("second")], [job("first", number=1), job("first", number=2)], [job(None)]],
)
def test_a_job_is_never_guessed(jobs):
    """None, or two of one name, may have written a file: then no job is named."""
    assert Offer.of(DAY, listed("first"), jobs).job_sid is None
    assert Offer.of(DAY, listed(None), jobs).job_sid is None


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_order_of_jobs_says_nothing(newest_first):
    """The same jobs, in any order, name the same one."""
    jobs = [job("first", number=1), job("second", number=2)]
    offer = Offer.of(DAY, listed("second"), jobs[::-1] if newest_first else jobs)
    assert offer.job_sid == f"JS{2:032x}"


def test_a_day_that_jobs_call_empty_needs_no_file():
    """It is on offer by their names, and so is known again."""
    offer = Offer.of(DAY, None, [job("second", EMPTY, number=2)])
    assert (offer.friendly_name, offer.create_date, offer.size) == ("second", None, None)
    assert (offer.job_sid, offer.may_be_empty) == (f"JS{2:032x}", True)
    both = Offer.of(DAY, None, [job("second", EMPTY, number=2), job("first", EMPTY, number=1)])
    assert (both.friendly_name, both.job_sid, both.may_be_empty) == ("first + second", None, True)


def test_a_late_file_is_not_taken_for_an_empty_day():
    """Where one job found records and another none, no file is an error, not an empty day."""
    offer = Offer.of(DAY, None, [job("first"), job("second", EMPTY, number=2)])
    assert not offer.may_be_empty


def test_an_older_file_is_no_longer_all_when_another_job_calls_the_day_empty():
    """The file's date is then not that of the newest export, and its name not the only one."""
    offer = Offer.of(DAY, listed("first"), [job("first"), job("second", EMPTY, number=2)])
    assert offer.friendly_name == "first + second"
    assert not offer.dates_itself
    assert not offer.may_be_empty
    assert Offer.of(DAY, listed("first"), [job("first", EMPTY)]).may_be_empty


@pytest.mark.parametrize(
    ("link_time", "agrees"),
    [("2026-01-07T23:59:59", True), ("2026-01-08T00:00:00", False), (None, True)],
)
def test_a_file_that_was_created_on_another_date_is_not_the_listed_one(link_time, agrees):
    """A newer file may have come after the list was read; then no job is known to be its."""
    moment = pendulum.parse(link_time) if link_time else None
    link = LinkFacts(ResourceType.MESSAGES, DAY, "AC" + "a" * 32, moment)
    assert KNOWN.agrees_with(link) is agrees
    assert KNOWN.agrees_with(None)


def test_of_a_day_that_is_listed_twice_the_newest_file_counts():
    """By its date, and with one date by the list's order, which is that of creation."""
    older, newer = listed("older", date(2026, 1, 7)), listed("newer", date(2026, 1, 8))
    other = listed("other", day=CREATED)
    assert newest_files([older, newer, other]) == {DAY: newer, CREATED: other}
    assert newest_files([newer, older]) == {DAY: newer}
    twin = listed("twin", date(2026, 1, 8))
    assert newest_files([newer, twin])[DAY] is twin
    assert newest_files([listed("undated", None), older])[DAY] is older
