"""Days that somebody has exported, or is exporting, need not be paid for again."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.job import Job, JobState, Status, StatusGroup
from airflow_provider_bulkexports.api.submit import _key_of, _Search


@pytest.fixture
def service(start):
    """Give a sandbox whose jobs take a hundred seconds."""
    return start(job_seconds=100)


def made_by_people(client, request_for, first, last, **more):
    return client.create_job(
        request_for(friendly_name="people_gave_this", start_day=first, end_day=last, **more)
    )


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-01-01", "2026-01-03"), ("2025-12-01", "2026-01-31"), ("2026-01-01", "2026-01-04")],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_covering_job_is_adopted_whoever_made_it(
    service, client, request_for, first, last, finished
):
    """A job of somebody else that covers the range is taken, running or finished."""
    job = made_by_people(client, request_for, first, last)
    service.sandbox.advance(200 * finished)
    spent = service.charged()
    assert service.submit(request_for(), any_covering=True).sid == job.sid
    assert service.charged() == spent


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-01-02", "2026-01-03"), ("2026-01-01", "2026-01-02"), ("2026-02-01", "2026-02-03")],
)
def test_a_job_that_covers_only_a_part_is_not_adopted(service, client, request_for, first, last):
    """Every day asked for must be in the job."""
    job = made_by_people(client, request_for, first, last)
    assert service.submit(request_for(), any_covering=True).sid != job.sid


def test_a_job_of_another_type_is_not_adopted(service, client, request_for):
    """Calls do not stand for messages."""
    job = made_by_people(client, request_for, "2026-01-01", "2026-01-03", resource_type="Calls")
    assert service.submit(request_for(), any_covering=True).sid != job.sid


def test_only_those_who_ask_adopt_the_jobs_of_others(service, client, request_for):
    """By default a task has a job of its own."""
    job = made_by_people(client, request_for, "2026-01-01", "2026-01-03")
    assert service.submit(request_for()).sid != job.sid


def test_a_finished_job_is_preferred(service, client, request_for):
    """Among covering jobs a finished one wins, since nothing is left to wait for."""
    days = ("2026-01-01", "2026-01-03")
    finished = [made_by_people(client, request_for, *days).sid for _ in range(4)]
    service.sandbox.advance(200)
    for _ in range(4):
        made_by_people(client, request_for, *days)
    job = service.submit(request_for(), any_covering=True)
    assert job.sid == min(finished)
    assert job.state() is JobState.COMPLETED
    assert service.asked("delete_job") == 0


@pytest.mark.parametrize(
    ("outcome", "days", "adopted"),
    [
        ("Failed", ["2026-01-02"], False),
        ("DeletedByUserRequest", ["2026-01-02"], False),
        ("Failed", ["2026-01-04"], True),
        ("Running", ["2026-01-02"], True),
        ("ErrorDuringRun", ["2026-01-02"], True),
    ],
)
def test_only_the_days_asked_for_must_be_good(service, client, request_for, outcome, days, adopted):
    """A job that lost one of our days is of no use; one that lost another day is."""
    service.fault("create_job", "job_outcome", outcome=outcome, days=days)
    job = made_by_people(client, request_for, "2026-01-01", "2026-01-05")
    service.sandbox.advance(200)
    assert (service.submit(request_for(), any_covering=True).sid == job.sid) == adopted


def test_a_job_that_is_being_deleted_is_not_adopted(service, client, request_for):
    """A running job marked for deletion will not bring our days."""
    job = made_by_people(client, request_for, "2026-01-01", "2026-01-03")
    service.sandbox.advance(50)
    client.delete_job(job.sid)
    assert service.submit(request_for(), any_covering=True).sid != job.sid


def test_our_own_job_comes_first(service, client, request_for):
    """A retry keeps to the job it has, even if somebody else's is finished."""
    made_by_people(client, request_for, "2026-01-01", "2026-01-03")
    own = service.submit(request_for())
    assert service.submit(request_for(), any_covering=True).sid == own.sid


def test_a_failed_job_of_ours_may_be_followed_by_somebody_elses(service, client, request_for):
    """After our job failed, a covering one is adopted before days are paid for again."""
    service.fault("create_job", "job_outcome", outcome="Failed")
    service.submit(request_for())
    service.sandbox.advance(200)
    job = made_by_people(client, request_for, "2026-01-01", "2026-01-03")
    assert service.submit(request_for(), any_covering=True).sid == job.sid


def test_a_covering_job_is_found_after_a_lost_answer(service, request_for):
    """A lost answer is met as without the option: our own job is adopted."""
    service.fault("create_job", "drop_after")
    job = service.submit(request_for(), any_covering=True)
    assert service.live() == [job.sid]


@given(st.data())
def test_the_order_of_a_listing_does_not_count(data):
    """Workers that see the same jobs in any order choose the same one and name the next alike."""
    from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
    from airflow_provider_bulkexports.api.submit import job_key, job_name

    request = ExportRequest.parse(
        resource_type="Messages",
        start_day="2026-01-01",
        end_day="2026-01-01",
        friendly_name=job_name("a", job_key("a")),
    )
    base = Job(
        "", request.friendly_name, ResourceType.MESSAGES, request.start_day, request.end_day, ()
    )
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(Status), st.booleans()), max_size=6))
    jobs = [
        replace(
            base,
            sid=f"JS{number:032x}",
            friendly_name=request.friendly_name if ours else "people_gave_this",
            groups=(StatusGroup(status, str(status), 1, (request.start_day,)),),
        )
        for number, (status, ours) in enumerate(drawn)
    ]
    search = _Search(request, _key_of(request.friendly_name), data.draw(st.booleans()))
    shuffled = random.Random(0).sample(jobs, len(jobs))
    one, other = search.best(jobs), search.best(shuffled)
    assert (one.winner, one.next_request) == (other.winner, other.next_request)
    assert {job.sid for job in one.rivals} == {job.sid for job in other.rivals}
    assert one.winner not in one.rivals
    if one.winner is not None:
        assert one.winner.state() is not JobState.FAILED
        assert not one.winner.is_being_deleted
        done = [job for job in jobs if job.state() is JobState.COMPLETED]
        if one.winner.friendly_name != request.friendly_name and done:
            assert one.winner == done[0]
    assert all(job.friendly_name == request.friendly_name for job in one.rivals)
