"""When a job is done, and how: from days that come in any order, twice, or not at all."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.job import Job, JobState, ListedFile, Status, available_days
from airflow_provider_bulkexports.api.request import ResourceType

SID = "JS" + "0" * 32
START = date(2026, 1, 1)
COMPLETE = ("Completed", "CompletedEmptyRecords")
FAILED = ("Failed", "DeletedByUserRequest")
OPEN = (
    "Submitted",
    "Running",
    "ErrorDuringRun",
    "RunningToBeDeleted",
    "Paused",
    "Unknown",
    "",
    "✓",
)

# Mostly complete, or almost no example would be.
words = st.sampled_from(COMPLETE * 6 + FAILED + OPEN)
spellings = st.sampled_from(
    [str, str.upper, str.lower, lambda word: "".join(f"_{c}" if c.isupper() else c for c in word)]
)


@st.composite
def jobs(draw):
    """Draw a job body, and (day, word) for every listed day, or None where days are not listed."""
    length = draw(st.integers(1, 8))
    listed = [(START + timedelta(days=n), draw(words)) for n in range(length)]
    shape = draw(st.sampled_from(["whole", "whole", "holes", "twice", "beyond"]))
    if shape == "holes":
        listed = draw(st.lists(st.sampled_from(listed), unique=True))
    if shape == "twice":
        listed += [(day, draw(words)) for day, _ in draw(st.lists(st.sampled_from(listed)))]
    if shape == "beyond":
        listed += [(START + timedelta(days=n), draw(words)) for n in (-1, length)]
    listed = draw(st.permutations(listed))
    hidden = draw(st.sampled_from([None, None, "all", "one"]))
    groups = {}
    for day, word in listed:
        groups.setdefault(word, []).append(day.isoformat())
    details = [
        {"status": draw(spellings)(word), "count": len(days), "days": days}
        for word, days in groups.items()
    ]
    for place, group in enumerate(details):
        if hidden == "all" or (hidden == "one" and place == 0):
            group["days"] = None
    details = draw(st.permutations([*details, *draw(st.sampled_from([[], [{}]]))]))
    body = {
        "job_sid": SID,
        "start_day": START.isoformat(),
        "end_day": (START + timedelta(days=length - 1)).isoformat(),
        "details": details,
    }
    return body, listed, hidden is not None and bool(groups)


def expected_state(listed, hidden, asked, length):
    """Say the state in the plainest way: look at each day that was asked for."""
    if hidden:
        seen = [word for _, word in listed]
        missing = len(seen) < length
    else:
        seen = [word for day, word in listed if day in asked]
        missing = {day for day, _ in listed if day in asked} != asked
    if missing or any(word not in COMPLETE + FAILED for word in seen):
        return JobState.ACTIVE
    return JobState.COMPLETED if all(word in COMPLETE for word in seen) else JobState.FAILED


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize(
    ("one", "other", "state"),
    [
        ("Running", "Completed", JobState.ACTIVE),
        ("Paused", "Failed", JobState.ACTIVE),
        ("Failed", "Completed", JobState.FAILED),
        ("CompletedEmptyRecords", "Completed", JobState.COMPLETED),
    ],
)
def test_a_day_listed_twice_is_as_far_as_its_worse_word(one, other, state, turn):
    """A job read while a day moves on may list it twice; the less final word counts."""
    words = (one, other)[::turn]
    details = [{"status": word, "count": 1, "days": ["2026-01-01"]} for word in words]
    body = {"job_sid": SID, "start_day": "2026-01-01", "end_day": "2026-01-01"}
    assert Job.parse(body | {"details": details}).state() is state


@given(jobs(), st.integers(0, 7), st.integers(0, 7))
def test_a_job_is_done_when_every_day_asked_for_is(drawn, skip, count):
    """A job and every part of it is done exactly when each of its days is final."""
    body, listed, hidden = drawn
    job = Job.parse(body)
    length = (job.end_day - START).days + 1
    whole = {START + timedelta(days=n) for n in range(length)}
    assert job.state() is expected_state(listed, hidden, whole, length)
    first = START + timedelta(days=min(skip, length - 1))
    last = min(first + timedelta(days=count), job.end_day)
    part = {first + timedelta(days=n) for n in range((last - first).days + 1)}
    assert job.state(first, last) is expected_state(listed, hidden, part, length)


@given(jobs())
def test_a_doomed_job_never_completes(drawn):
    """A job that completed is not doomed, and one that failed is."""
    body, listed, hidden = drawn
    job = Job.parse(body)
    inside = [word for day, word in listed if hidden or START <= day <= job.end_day]
    once = len(inside) == len({day for day, _ in listed if START <= day <= job.end_day})
    if once and not hidden:
        assert job.is_doomed() == any(word in (*FAILED, "RunningToBeDeleted") for word in inside)
    if job.state() is JobState.COMPLETED:
        assert not job.is_doomed()
    if job.state() is JobState.FAILED:
        assert job.is_doomed()
    if once and not hidden:
        deleted = ("RunningToBeDeleted", "DeletedByUserRequest")
        assert job.is_deleted() == any(word in deleted for word in inside)


@given(jobs())
def test_the_outcome_tells_every_day(drawn):
    """What goes to the XCom and the report names each status with its days or their number."""
    body, listed, hidden = drawn
    job = Job.parse(body)
    told = job.as_xcom()
    assert told["job_sid"] == SID
    assert told["state"] == job.state().value
    if not hidden and len({group.word for group in job.groups}) == len(job.groups):
        days = Counter(day for group in told["days"].values() for day in group)
        assert days == Counter(day.isoformat() for day, _ in listed)
    lines = job.report().splitlines()
    assert len(lines) == max(1, len(job.groups))
    assert all(line.isprintable() for line in lines)


@given(st.sampled_from([str(status) for status in Status]), spellings)
def test_case_and_underscores_do_not_count(word, spelling):
    """COMPLETED and completed_empty_records mean what Completed and its like mean."""
    assert Status.parse(spelling(word)) is Status(word)


@given(st.text() | st.none() | st.integers() | st.booleans() | st.lists(st.just("Completed")))
def test_an_unknown_word_is_never_final(word):
    """A word that Twilio may add tomorrow is waited out."""
    status = Status.parse(word)
    if str(word).replace("_", "").lower() not in {str(known).lower() for known in Status}:
        assert status is Status.UNKNOWN
        assert not status.is_final
        assert not status.is_complete


@pytest.mark.parametrize("status", Status)
def test_five_words_are_not_final(status):
    """Twilio retries after ErrorDuringRun by itself, so that too is waited out."""
    final = {"Completed", "CompletedEmptyRecords", "Failed", "DeletedByUserRequest"}
    assert status.is_final == (status.value in final)
    assert status.is_complete == (status.value in COMPLETE)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"details": None},
        {"details": []},
        {"details": [{}]},
        {"start_day": "2026-01-01", "end_day": "2026-01-02", "details": None},
        {"details": [{"status": "Completed", "count": 0, "days": []}]},
        {"start_day": "2026-01-01", "details": [{"status": None}]},
    ],
)
def test_no_details_means_not_done(body):
    """A job that nothing is known of is not done."""
    job = Job.parse({"job_sid": SID, **body}, ResourceType.CALLS)
    assert job.state() is JobState.ACTIVE
    assert job.resource_type is ResourceType.CALLS
    assert not job.is_doomed()


def test_a_job_without_range_is_done_by_its_counts():
    """Where Twilio leaves the range out, the days it counts are all there are."""
    details = [{"status": "Completed", "count": 27, "days": None}]
    assert Job.parse({"job_sid": SID, "details": details}).state() is JobState.COMPLETED


def test_too_few_days_are_not_all_days():
    """26 of 27 completed days are not a completed job."""
    body = {"job_sid": SID, "start_day": "2026-01-01", "end_day": "2026-01-27"}
    details = [{"status": "Completed", "count": 26, "days": None}]
    assert Job.parse(body | {"details": details}).state() is JobState.ACTIVE


@pytest.mark.parametrize(
    "change",
    [
        {"job_sid": None},
        {"job_sid": 7},
        {"job_sid": "JS1"},
        {"job_sid": SID + "\n"},
        {"resource_type": "SMS"},
        {"resource_type": ["Messages"]},
        {"start_day": "yesterday"},
        {"end_day": 20260101},
        {"details": "Completed"},
        {"details": {"0": {}}},
        {"details": ["Completed"]},
        {"details": [None]},
        {"details": [{"status": "Completed", "count": "1"}]},
        {"details": [{"status": "Completed", "count": -1}]},
        {"details": [{"status": "Completed", "count": True}]},
        {"details": [{"status": "Completed", "count": 1, "days": "2026-01-01"}]},
        {"details": [{"status": "Completed", "count": 1, "days": ["today"]}]},
    ],
)
def test_what_is_no_job_is_bad_data(change):
    """An answer that breaks its contract is named, never guessed at."""
    with pytest.raises(BadData) as caught:
        Job.parse({"job_sid": SID} | change)
    assert str(caught.value).isprintable()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | words | st.just("2026-01-01"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "count", "days"]), inner, max_size=3)
    ),
    max_leaves=5,
)
fields = st.dictionaries(
    st.sampled_from(
        [
            "friendly_name",
            "resource_type",
            "start_day",
            "end_day",
            "details",
            "email",
            "webhook_url",
            "day",
            "size",
            "create_date",
            "job_queue_position",
            "estimated_completion_time",
        ]
    ),
    values,
)


@given(fields)
def test_any_answer_is_a_job_or_bad_data(body):
    """No answer makes the client stumble, and none makes it believe a job is done for nothing."""
    try:
        job = Job.parse({**body, "job_sid": SID})
    except BadData as error:
        told = str(error)
        assert told.isprintable()
        return
    if job.start_day is None or job.end_day is None or job.start_day <= job.end_day:
        state = job.state()
        assert state is not JobState.COMPLETED or any(group.count for group in job.groups)
    assert job.as_xcom()
    assert job.report().replace("\n", "").isprintable()


@given(fields)
def test_any_item_is_a_day_or_bad_data(body):
    """No item of the Days list makes the client stumble."""
    try:
        day = ListedFile.parse(body, ResourceType.CALLS)
    except BadData as error:
        told = str(error)
        assert told.isprintable()
    else:
        assert day.size >= 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-09-10T00:13:27.977", "2022-09-10T00:13:27.977000+00:00"),
        ("2025-03-10T11:00:30.092285", "2025-03-10T11:00:30.092285+00:00"),
        ("2025-03-10T11:00:46.548289902", "2025-03-10T11:00:46.548289+00:00"),
        ("2025-03-10T11:00:46", "2025-03-10T11:00:46+00:00"),
        ("2025-02-30T11:00:46", None),
        ("2025-03-10T99:00:46", None),
        ("soon", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_the_estimate_is_read_with_any_fraction(text, expected):
    """Estimates have come with 3, 6 and 9 digits and no zone; one that cannot be read is none."""
    estimate = Job.parse({"job_sid": SID, "estimated_completion_time": text}).estimated_completion
    assert (estimate.isoformat() if estimate else None) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("2", 2), (2, 2), ("0", 0), ("-1", None), ("", None), (None, None), ("9" * 30, None)],
)
def test_the_queue_position_is_a_number_or_nothing(value, expected):
    """Twilio writes the position as text."""
    assert Job.parse({"job_sid": SID, "job_queue_position": value}).queue_position == expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"day": None},
        {"day": "today"},
        {"day": "2026-01-013"},
        {"day": "2026-01-01T00:00:00Z"},
        {"day": 20260101},
        {"day": [["2026-01-01"]]},
        None,
        [],
        "2026-01-01",
    ],
)
def test_what_has_no_day_is_no_day_file(body):
    """A listed file whose day cannot be read is an error that names the type."""
    with pytest.raises(BadData, match="Calls"):
        ListedFile.parse(body, ResourceType.CALLS)


@pytest.mark.parametrize(
    ("fields", "size", "create_date", "name"),
    [
        ({"size": None, "create_date": None, "friendly_name": None}, 0, None, None),
        ({"size": -1, "create_date": "2026-01-013", "friendly_name": 7}, 0, None, None),
        ({"size": "7", "create_date": 7, "friendly_name": ["x"]}, 0, None, None),
        ({"size": True, "create_date": "2026-01-03T00:00:00Z"}, 0, None, None),
        ({"size": 7.5}, 0, None, None),
        ({"size": 7, "create_date": "2026-01-03", "friendly_name": "x"}, 7, date(2026, 1, 3), "x"),
        ({}, 0, None, None),
    ],
)
def test_a_day_file_needs_only_its_day(fields, size, create_date, name):
    """Size, date and name are hints, and an odd one is none."""
    listed = ListedFile.parse({"day": "2026-01-01"} | fields, ResourceType.CALLS)
    assert (listed.size, listed.create_date, listed.friendly_name) == (size, create_date, name)


def test_days_with_files_and_empty_days_are_available():
    """A day is available if it has a file, or if a job found it empty."""
    days = [ListedFile.parse({"day": "2026-01-01"}, ResourceType.CALLS)]
    details = [
        {"status": "CompletedEmptyRecords", "count": 1, "days": ["2026-01-02"]},
        {"status": "Running", "count": 1, "days": ["2026-01-03"]},
    ]
    unlisted = [{"status": "Completed", "count": 9, "days": None}]
    jobs = [Job.parse({"job_sid": SID, "details": entry}) for entry in (details, unlisted)]
    assert available_days(days, jobs) == {date(2026, 1, 1), date(2026, 1, 2)}
