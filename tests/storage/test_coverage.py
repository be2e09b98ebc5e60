"""Each day of a range is in one state, which follows from three lists and today's date."""

from __future__ import annotations

from datetime import date, timedelta

import pendulum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_values import job_of

from airflow_provider_bulkexports.api.job import Job, ListedFile, Status, StatusGroup
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.storage.coverage import Coverage, DayCoverage
from airflow_provider_bulkexports.storage.store import DayState, StoredDay

FIRST = date(2026, 1, 5)
TODAY = date(2026, 2, 10)
MESSAGES = ResourceType.MESSAGES


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def listed(*numbers: int, created: date = FIRST) -> list[ListedFile]:
    return [ListedFile(day(number), 100, created, "people", MESSAGES) for number in numbers]


def stored(**states: DayState) -> dict[date, StoredDay]:
    return {
        day(int(name[1:])): StoredDay(day(int(name[1:])), state, {})
        for name, state in states.items()
    }


def coverage(days=3, *, there=None, files=(), jobs=(), today=TODAY) -> Coverage:
    return Coverage.of(MESSAGES, FIRST, day(days - 1), there or {}, files, jobs, today=today)


def states(*args, **more) -> list[str]:
    return [state.value for state in coverage(*args, **more).days.values()]


def undetailed(*words: Status, number=1, days=None) -> Job:
    """Return a job of which Twilio says how many days have a status, but not which."""
    job = job_of(*words, number=number)
    groups = tuple(StatusGroup(g.status, g.word, g.count, None) for g in job.groups)
    return Job(job.sid, job.friendly_name, MESSAGES, job.start_day, job.end_day, groups)


ONE_DAY = {
    "nothing is known": ({}, "missing"),
    "stored": ({"there": stored(d0=DayState.STORED)}, "stored"),
    "stored as empty": ({"there": stored(d0=DayState.EMPTY)}, "empty"),
    "locked": ({"there": stored(d0=DayState.LOCKED), "files": listed(0)}, "locked"),
    "a lock's remains": ({"there": stored(d0=DayState.ABSENT)}, "missing"),
    "stored and on offer": ({"there": stored(d0=DayState.STORED), "files": listed(0)}, "stored"),
    "a file is listed": ({"files": listed(0)}, "on offer"),
    "another day's file is listed": ({"files": listed(1)}, "missing"),
    "submitted": ({"jobs": [job_of(Status.SUBMITTED)]}, "in progress"),
    "running": ({"jobs": [job_of(Status.RUNNING)]}, "in progress"),
    "an error that Twilio retries": ({"jobs": [job_of(Status.ERROR_DURING_RUN)]}, "in progress"),
    "a word that nobody knows": ({"jobs": [job_of(Status.UNKNOWN)]}, "in progress"),
    "exported, file not listed": ({"jobs": [job_of(Status.COMPLETED)]}, "in progress"),
    "exported, file listed": ({"jobs": [job_of(Status.COMPLETED)], "files": listed(0)}, "on offer"),
    "empty": ({"jobs": [job_of(Status.COMPLETED_EMPTY_RECORDS)]}, "on offer"),
    "failed": ({"jobs": [job_of(Status.FAILED)]}, "failed"),
    "failed, and another job runs": (
        {"jobs": [job_of(Status.FAILED), job_of(Status.RUNNING, number=2)]},
        "in progress",
    ),
    "failed, and an older job's file is listed": (
        {"jobs": [job_of(Status.FAILED)], "files": listed(0)},
        "on offer",
    ),
    "deleted": ({"jobs": [job_of(Status.DELETED_BY_USER_REQUEST)]}, "missing"),
    "being deleted": ({"jobs": [job_of(Status.RUNNING_TO_BE_DELETED)]}, "missing"),
    "empty for one job, exported by another": (
        {"jobs": [job_of(Status.COMPLETED_EMPTY_RECORDS), job_of(Status.COMPLETED, number=2)]},
        "in progress",
    ),
    "empty for one job, running in another": (
        {"jobs": [job_of(Status.COMPLETED_EMPTY_RECORDS), job_of(Status.RUNNING, number=2)]},
        "in progress",
    ),
    "a job that says nothing yet": (
        {"jobs": [Job("JS" + "1" * 32, "x", MESSAGES, FIRST, FIRST, ())]},
        "in progress",
    ),
    "a job of another day": ({"jobs": [job_of(Status.RUNNING, first_day=day(1))]}, "missing"),
    "a job without days": (
        {"jobs": [Job("JS" + "1" * 32, "x", MESSAGES, None, None, ())]},
        "missing",
    ),
    "too early": ({"today": day(1)}, "not yet"),
    "early enough": ({"today": day(2)}, "missing"),
    "too early, but listed": ({"today": day(1), "files": listed(0)}, "on offer"),
}


@pytest.mark.parametrize("name", ONE_DAY)
def test_what_is_known_of_a_day_decides_its_state(name):
    """The storage comes first, then what costs nothing, then what is under way."""
    facts, state = ONE_DAY[name]

    assert states(1, **facts) == [state]


UNDETAILED = {
    "runs": ([Status.RUNNING] * 3, "in progress"),
    "is nearly done": ([Status.COMPLETED, Status.COMPLETED, Status.RUNNING], "in progress"),
    "found nothing": ([Status.COMPLETED_EMPTY_RECORDS] * 3, "on offer"),
    "found nothing on some days": (
        [Status.COMPLETED, Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS],
        "in progress",
    ),
    "failed on some days": ([Status.COMPLETED, Status.COMPLETED, Status.FAILED], "failed"),
    "was deleted": ([Status.COMPLETED, Status.RUNNING, Status.RUNNING_TO_BE_DELETED], "missing"),
}


@pytest.mark.parametrize("name", UNDETAILED)
def test_a_job_that_does_not_say_which_days_is_judged_as_a_whole(name):
    """Twilio was seen to give counts without days; a day with a file needs no more."""
    words, state = UNDETAILED[name]

    assert states(files=listed(1), jobs=[undetailed(*words)]) == [state, "on offer", state]


def test_no_day_is_on_offer_for_ever():
    """When the file and the job have left their lists, the day is missing: it can be exported."""
    job = job_of(Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS, Status.FAILED)

    assert states(files=listed(0), jobs=[job]) == ["on offer", "on offer", "failed"]
    assert states(jobs=[job]) == ["in progress", "on offer", "failed"]
    assert states() == ["missing"] * 3


@pytest.mark.parametrize(
    ("days_ago", "state"), [(6, "in progress"), (7, "in progress"), (8, "missing")]
)
def test_files_of_a_job_that_never_ends_count_as_gone_in_the_end(days_ago, state):
    """Its exported days were to be had until seven days after Twilio expected the end."""
    expected = pendulum.datetime(TODAY.year, TODAY.month, TODAY.day).subtract(days=days_ago)
    job = job_of(Status.COMPLETED, Status.RUNNING, estimate=expected)

    assert states(2, jobs=[job]) == [state, "in progress"]


def test_a_range_that_has_not_begun_has_no_days():
    """Where the first day is later than the last, nothing is missing yet."""
    empty = Coverage.of(MESSAGES, day(3), day(0), {}, listed(0, 3), [], today=TODAY)

    assert (empty.days, empty.to_fetch(), empty.to_export()) == ({}, [], [])
    assert empty.table() == "(no days)"


def test_jobs_are_named():
    """A day in progress and a day that failed say by which job."""
    jobs = [
        job_of(Status.RUNNING, Status.FAILED, Status.COMPLETED),
        job_of(Status.RUNNING, number=2),
    ]
    found = coverage(4, files=listed(2), jobs=jobs)

    assert found.job_sids == {day(0): jobs[1].sid, day(1): jobs[0].sid}
    assert found.under_way == {day(0): jobs[1].sid}


def test_a_stored_day_that_is_exported_again_stays_stored():
    """A refresh that is under way is told apart from the state."""
    job = job_of(Status.RUNNING)
    found = coverage(1, there=stored(d0=DayState.STORED), jobs=[job])

    assert found.days == {FIRST: DayCoverage.STORED}
    assert found.under_way == {FIRST: job.sid}


TABLE = """\
         1   5   10   15   20   25   30
2026-01      ■0L↓…×!■■■■■■■■■■■■■■■■■■■■
2026-02  ■!!··
■ stored 22   0 empty 1   L locked 1   ↓ on offer 1   … in progress 1   × failed 1   ! missing 3   \
· not yet 2"""


def test_the_table_is_a_calendar():
    """A line a month, a character a day, and below what each means and how many there are."""
    there = stored(
        d0=DayState.STORED, d1=DayState.EMPTY, d2=DayState.LOCKED,
        **{f"d{number}": DayState.STORED for number in range(7, 28)},
    )  # fmt: skip
    found = coverage(
        32,
        there=there,
        files=listed(3),
        jobs=[job_of(Status.RUNNING, Status.FAILED, first_day=day(4))],
        today=date(2026, 2, 5),
    )

    assert found.table() == TABLE


# A simple reading, which shares nothing with the code but the names of the states.

WORDS = st.sampled_from(list(Status))
JOBS = st.lists(
    st.builds(
        lambda words, offset, number, hidden: (undetailed if hidden else job_of)(
            *words, number=number, **({} if hidden else {"first_day": day(offset)})
        ),
        st.lists(WORDS, min_size=1, max_size=4),
        st.integers(-2, 6),
        st.integers(1, 50),
        st.booleans(),
    ),
    max_size=4,
)


def simple_state(the_day, there, files, jobs, today) -> str:
    """Say the state in the words of the documentation, a day at a time."""
    if the_day in there and there[the_day].state is not DayState.ABSENT:
        return str(there[the_day].state)
    if any(item.day == the_day for item in files):
        return "on offer"
    said = simple_words(the_day, jobs)
    if said & {"under way", "exported"}:
        return "in progress"
    if "empty" in said:
        return "on offer"
    if "failed" in said:
        return "failed"
    return "missing" if (today - the_day).days >= 2 else "not yet"


def simple_words(the_day, jobs) -> set[str]:
    """Say what all jobs are to a day."""
    said = set()
    for job in jobs:
        if not job.start_day <= the_day <= job.end_day:
            continue
        groups = [group for group in job.groups if group.days is None or the_day in group.days]
        words = {group.status for group in groups}
        deleted = words & {Status.RUNNING_TO_BE_DELETED, Status.DELETED_BY_USER_REQUEST}
        final = words <= {Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS, Status.FAILED}
        if deleted:
            continue
        if not final:
            said.add("under way")
        elif Status.FAILED in words:
            said.add("failed")
        else:
            said.add("empty" if Status.COMPLETED not in words else "exported")
    return said


@settings(max_examples=400)
@given(
    there=st.dictionaries(st.integers(0, 7), st.sampled_from(list(DayState))),
    files=st.lists(st.integers(-2, 9), max_size=6),
    jobs=JOBS,
    age=st.integers(-3, 12),
    length=st.integers(0, 8),
)
def test_any_lists_are_read_as_a_simple_reading_does(there, files, jobs, age, length):
    """Every day has the state that the documentation says, and no day is lost or added."""
    today = day(age)
    facts = stored(**{f"d{number}": state for number, state in there.items()})
    found = Coverage.of(MESSAGES, FIRST, day(length - 1), facts, listed(*files), jobs, today=today)
    wanted = [day(number) for number in range(length)]
    simple = {each: simple_state(each, facts, listed(*files), jobs, today) for each in wanted}

    assert {each: state.value for each, state in found.days.items()} == simple
    assert list(found.days) == wanted
    assert found.to_fetch() == [each for each in wanted if simple[each] == "on offer"]
    assert found.to_export() == [each for each in wanted if simple[each] in ("missing", "failed")]
    assert not set(found.to_export()) & set(found.under_way)
    assert found.counts().total() == length
    cells = "".join(line[9:] for line in found.table().splitlines()[1:-1]).replace(" ", "")
    assert len(cells) == length
