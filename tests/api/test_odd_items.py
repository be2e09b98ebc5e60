"""Other people's odd items are no reason to see nothing, and none of ours is lost over them."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.job import Job, JobListing, ListedFile, OddItem
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES
SID, OTHER = "JS" + "1" * 32, "JS" + "2" * 32
GOOD = {
    "job_sid": SID,
    "friendly_name": "ours",
    "start_day": "2026-01-01",
    "end_day": "2026-01-02",
    "details": [{"status": "Running", "count": 2, "days": ["2026-01-01", "2026-01-02"]}],
}
ODD_JOBS = {
    "start_day": {"start_day": "2026-01-013"},
    "an instant as a day": {"end_day": "2026-01-01T00:00:00Z"},
    "a day as a number": {"start_day": 20260101},
    "details as an object": {"details": {"status": "Running"}},
    "a detail as text": {"details": ["Running"]},
    "count as text": {"details": [{"status": "Running", "count": "2"}]},
    "count as a fraction": {"details": [{"status": "Running", "count": 2.5}]},
    "days as text": {"details": [{"status": "Running", "count": 1, "days": "2026-01-01"}]},
    "an unknown type": {"resource_type": "Faxes"},
    "a type as a list": {"resource_type": ["Messages"]},
    "no SID": {"job_sid": None},
    "a short SID": {"job_sid": "JS1"},
    "control characters": {"start_day": "\x1b[2J\n2026"},
}


@pytest.fixture
def listing(speak):
    """List what is given: each argument is a page of items; the client and the page's key."""

    def serve(kind, *pages):
        path = f"/v1/Exports/Messages/{kind.capitalize()}"
        answers = []
        for number, items in enumerate(pages, 1):
            after = f"{path}?Page={number}" if number < len(pages) else None
            body = json.dumps({kind: items, "meta": {"next_page_url": after}}).encode()
            answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answers.reverse()
        with (
            speak(lambda connection: connection.sendall(answers.pop())) as url,
            Client("AC1", "token", base_url=url) as client,
        ):
            return getattr(client, f"list_{kind}")(MESSAGES)

    return serve


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("fields", ODD_JOBS.values(), ids=ODD_JOBS)
def test_an_odd_job_hides_no_other(listing, caplog, fields):
    """An item that is no job is kept apart with its reason, and the others are listed."""
    odd = GOOD | {"job_sid": OTHER, "friendly_name": "theirs"} | fields
    listed = listing("jobs", [odd, GOOD])
    assert [job.sid for job in listed.jobs] == [SID]
    (item,) = listed.odd
    assert item.friendly_name == "theirs"
    assert item.job_sid == (None if "job_sid" in fields else OTHER)
    (warning,) = warnings(caplog)
    assert item.reason in warning
    assert "1 odd item," in warning
    assert warning.isprintable()


@pytest.mark.parametrize("item", [None, 7, "JS", [], True, [[GOOD]]], ids=repr)
def test_what_is_no_object_is_odd_too(listing, item):
    """An item may be anything that JSON can be."""
    listed = listing("jobs", [item, GOOD])
    assert [job.sid for job in listed.jobs] == [SID]
    assert (listed.odd[0].job_sid, listed.odd[0].friendly_name) == (None, None)


def test_one_listing_is_one_warning(listing, caplog):
    """However many items are odd on however many pages, the log has one line, with a number."""
    bad = [{"job_sid": f"JS{number:032x}", "details": "x"} for number in range(3)]
    listed = listing("jobs", [bad[0], GOOD], [bad[1]], [bad[2], {}])
    assert (len(listed.jobs), len(listed.odd), listed.pages) == (1, 4, 3)
    (warning,) = warnings(caplog)
    assert "4 odd items" in warning
    assert bad[0]["job_sid"] in warning


def test_an_item_that_comes_twice_counts_once(listing, caplog):
    """A list that grows between two pages repeats items; they are still one."""
    odd, later = {"job_sid": OTHER, "details": "x"}, GOOD | {"details": None}
    listed = listing("jobs", [GOOD, odd], [odd, later])
    assert [job.groups for job in listed.jobs] == [()]
    assert len(listed.odd) == 1
    assert "1 odd item," in warnings(caplog)[0]
    days = [{"day": "2026-01-01", "size": 1}, {"day": "2026-01-02", "size": 1}]
    assert len(listing("days", days, days[::-1])) == 2


def test_a_job_that_was_read_once_is_not_odd(listing):
    """An item that cannot be read on one page and can on the next is a job."""
    listed = listing("jobs", [GOOD | {"details": "x"}], [GOOD])
    assert listed.get(SID).friendly_name == "ours"
    assert listed.odd == ()


def test_an_odd_job_is_not_a_missing_one(listing):
    """Who asks for a job that is listed but cannot be read is told so."""
    listed = listing("jobs", [GOOD | {"job_sid": OTHER, "details": "x"}, GOOD])
    with pytest.raises(BadData, match=f"{OTHER} is listed but cannot be read"):
        listed.get(OTHER)
    assert listed.get("JS" + "3" * 32) is None


def test_odd_days_are_left_out(listing, caplog):
    """A file needs a day; what else it lacks is not known, and no reason to hide it."""
    odd = [{"day": "2026-01-013"}, {"day": "2026-01-01T00:00:00Z"}, {"day": None}, {}, 7, None]
    fine = [
        {"day": "2026-01-02", "size": None, "create_date": "soon", "friendly_name": 7},
        {"day": "2026-01-03", "size": "398"},
    ]
    listed = listing("days", [odd[0], fine[0], *odd[1:]], [fine[1]])
    assert [(file.day.day, file.size, file.create_date) for file in listed] == [
        (2, 0, None),
        (3, 0, None),
    ]
    (warning,) = warnings(caplog)
    assert "5 odd items" in warning  # two of the six are odd in the same words
    assert "2026-01-013" in warning


def test_a_well_formed_listing_warns_of_nothing(listing, caplog):
    """Nothing is logged where nothing is odd."""
    assert len(listing("jobs", [GOOD], []).jobs) == 1
    assert len(listing("days", [{"day": "2026-01-01", "size": 7}])) == 1
    assert warnings(caplog) == []


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars | st.sampled_from(["2026-01-01", "2026-01-013", SID, "Running", "Messages"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GOOD, "status", "count", "days", "size"]), inner)
    ),
    max_leaves=12,
)
near_jobs = st.builds(
    lambda fields: GOOD | fields, st.dictionaries(st.sampled_from([*GOOD]), anything)
)
good_jobs = st.integers(0, 9).map(lambda number: GOOD | {"job_sid": f"JS{number:032x}"})


@given(st.lists(anything | near_jobs | good_jobs, max_size=12))
def test_no_listing_can_break_its_reader(items):
    """Whatever is listed: nothing is raised, every item is a job or odd, no good job is lost."""
    items = json.loads(json.dumps(items))
    listed = JobListing.parse(items, MESSAGES, 1)
    sids = {job.sid for job in listed.jobs}
    assert len(sids) == len(listed.jobs)
    for item in items:
        try:
            expected = Job.parse(item, MESSAGES)
        except BadData as error:
            odd = OddItem.of(item, str(error))
            assert odd in listed.odd or odd.job_sid in sids
            assert odd.reason.isprintable()
        else:
            assert expected.sid in sids
    wanted = [GOOD | {"job_sid": f"JS{number:032x}"} for number in range(10)]
    assert {item["job_sid"] for item in wanted if item in items} <= sids


@given(
    anything | st.fixed_dictionaries({"day": st.just("2026-01-01")}, optional={"size": anything})
)
def test_no_day_file_can_break_its_reader(item):
    """Whatever is listed is a file of a day, or bad data in printable words."""
    try:
        listed = ListedFile.parse(item, MESSAGES)
    except BadData as error:
        reason = str(error)
    else:
        reason = ""
        assert listed.size >= 0
        assert listed.day.isoformat() == item["day"]
    assert reason.isprintable()


@pytest.mark.parametrize(
    "field", [*GOOD, "job_queue_position", "estimated_completion_time", "email"]
)
def test_json_that_is_only_just_not_too_deep_is_odd_at_worst(field):
    """What the JSON reader accepts may still be too deep to be shown."""
    for depth in range(100, sys.getrecursionlimit(), 20):
        try:
            value = json.loads("[" * depth + "]" * depth)
        except RecursionError:
            break
        for item in (value, GOOD | {field: value}, GOOD | {"details": [{"status": value}]}):
            assert len(JobListing.parse([item], MESSAGES, 1).jobs) <= 1
        with pytest.raises(BadData, match="day"):
            ListedFile.parse({"day": value, "size": value}, MESSAGES)
