"""Days that somebody has exported, or is exporting, need not be paid for again."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_values import FIRST_DAY, job_of

from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.job import JobListing, JobState, Status
from airflow_provider_bulkexports.api.request import ExportRequest, Reattach, ResourceType
from airflow_provider_bulkexports.api.submit import Submission

WANTED = ("2026-01-01", "2026-01-03")
WEEK = 7 * 86_400


@pytest.fixture
def service(start):
    """Give a sandbox whose jobs take a hundred seconds."""
    return start(job_seconds=100)


@pytest.fixture
def by_people(client, request_for):
    """Create jobs as people do, with names of theirs."""

    def create(first=WANTED[0], last=WANTED[1], **more):
        return client.create_job(
            request_for(friendly_name="people_gave_this", start_day=first, end_day=last, **more)
        )

    return create


@pytest.fixture
def adopting(submission_for):
    """Give a submission that adopts any job that covers its range."""
    return submission_for(reattach=Reattach.RANGE)


# What covers a range


@pytest.mark.parametrize(
    ("first", "last"), [WANTED, ("2025-12-01", "2026-01-31"), ("2026-01-01", "2026-01-04")]
)
@pytest.mark.parametrize("seconds", [0, 50, 200])
def test_a_covering_job_is_adopted_whoever_created_it(
    service, by_people, adopting, first, last, seconds
):
    """A job of somebody else that covers the range is taken, waiting, running or finished."""
    job = by_people(first, last)
    service.sandbox.advance(seconds)
    spent = service.charged()
    submitted = service.submit(adopting)
    assert (submitted.job.sid, submitted.owned) == (job.sid, False)
    assert service.charged() == spent
    assert service.asked("create_job") == 1


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-01-02", "2026-01-03"), ("2026-01-01", "2026-01-02"), ("2026-02-01", "2026-02-03")],
)
def test_a_job_that_covers_only_a_part_is_not_adopted(service, by_people, adopting, first, last):
    """Every day asked for must be in the job."""
    job = by_people(first, last)
    submitted = service.submit(adopting)
    assert service.sids() == [job.sid, submitted.job.sid]
    assert submitted.owned


def test_a_job_of_another_type_is_not_adopted(service, by_people, adopting):
    """Calls do not stand for messages."""
    job = by_people(resource_type="Calls")
    assert service.submit(adopting).job.sid != job.sid


def test_only_those_who_ask_adopt_the_jobs_of_others(service, by_people, submission_for):
    """By default a task has a job of its own."""
    job = by_people()
    for reattach in (Reattach.RUN, Reattach.NEVER):
        assert service.submit(submission_for(str(reattach), reattach=reattach)).job.sid != job.sid
    assert len(service.live()) == 3


def test_a_finished_job_is_preferred(service, by_people, adopting):
    """Among covering jobs a finished one wins, since nothing is left to wait for."""
    finished = [by_people().sid for _ in range(4)]
    service.sandbox.advance(200)
    running = [by_people().sid for _ in range(4)]
    job = service.submit(adopting).job
    assert job.sid == min(finished)
    assert job.state() is JobState.COMPLETED
    assert service.live() == finished + running


@pytest.mark.parametrize(
    ("outcome", "days", "adopted"),
    [
        ("Failed", ["2026-01-02"], False),
        ("DeletedByUserRequest", ["2026-01-02"], False),
        ("Failed", ["2026-01-04"], True),
        ("DeletedByUserRequest", ["2026-01-04"], True),
        ("Running", ["2026-01-04"], True),
        ("Running", ["2026-01-02"], True),
        ("ErrorDuringRun", ["2026-01-02"], True),
        ("CompletedEmptyRecords", ["2026-01-02"], True),
    ],
)
def test_only_the_days_asked_for_must_be_good(service, by_people, adopting, outcome, days, adopted):
    """A job that lost one of our days is of no use; one that lost another day is."""
    service.fault("create_job", "job_outcome", outcome=outcome, days=days)
    job = by_people("2026-01-01", "2026-01-05")
    service.sandbox.advance(200)
    assert (service.submit(adopting).job.sid == job.sid) == adopted


def test_a_job_that_is_being_deleted_is_not_adopted(service, client, by_people, adopting):
    """A running job marked for deletion will not bring our days."""
    job = by_people()
    service.sandbox.advance(50)
    client.delete_job(job.sid)
    assert service.submit(adopting).job.sid != job.sid


# Files that can still be fetched


def test_a_finished_job_whose_files_have_expired_is_not_adopted(start, request_for, adopting):
    """Files last for a week from their day's end, the job from that of its last day."""
    service = start(job_seconds=86_400)
    with service.client() as client:
        job = client.create_job(request_for(friendly_name="people_gave_this"))
        service.sandbox.advance(WEEK + 80_000)
        assert job.sid in {listed.sid for listed in client.list_jobs(ResourceType.MESSAGES).jobs}
    submitted = service.submit(adopting)
    assert service.sids() == [job.sid, submitted.job.sid]
    assert submitted.owned


def test_a_day_that_is_done_in_a_running_job_needs_its_file_too(service, by_people, adopting):
    """What is complete is judged by its file, also where other days are still under way."""
    service.fault("create_job", "job_outcome", outcome="Running", days=["2026-01-02"])
    job = by_people()
    service.sandbox.advance(200)
    service.fault("list_days", "lag", omit=1)
    assert service.submit(adopting).job.sid != job.sid


def test_files_of_other_days_are_not_needed(service, by_people, adopting):
    """Days beyond the range may have come without a file."""
    service.fault("create_job", "empty_day", how="absent", days=["2026-01-04"])
    job = by_people("2026-01-01", "2026-01-05")
    service.sandbox.advance(200)
    assert service.submit(adopting).job.sid == job.sid


def test_where_the_days_of_a_status_are_not_listed_every_file_is_needed(
    service, by_people, adopting
):
    """A listing that says how many days are done but not which: all files must be there."""
    service.fault("list_jobs", "null_days", times=-1)
    whole = by_people()
    service.sandbox.advance(200)
    assert service.submit(adopting).job.sid == whole.sid
    service.fault("list_days", "lag", omit=1)
    assert service.submit(adopting).job.sid != whole.sid


def test_without_the_list_of_files_nothing_is_adopted_or_created(service, by_people, adopting):
    """A list of files that fails is never an empty one: no days are paid for because of it."""
    by_people()
    service.sandbox.advance(200)
    service.fault("list_days", "status", status=503)
    with pytest.raises(BulkExportsError):
        service.submit(adopting)
    assert service.asked("create_job") == 1


def test_refused_credentials_at_the_list_of_files_are_asked_again(service, by_people, adopting):
    """A token that is rotated between the two lists costs five seconds."""
    job = by_people()
    service.sandbox.advance(200)
    service.fault("list_days", "status", status=401)
    assert service.submit(adopting).job.sid == job.sid
    assert service.pauses == [5]


def test_a_job_without_files_gives_way_to_one_that_runs(service, by_people, adopting):
    """The first covering job is of no use, the second is."""
    by_people()
    service.sandbox.advance(200)
    running = by_people()
    service.fault("list_days", "lag", omit=1, times=-1)
    assert service.submit(adopting).job.sid == running.sid


def test_the_files_are_listed_once_however_many_jobs_there_are(service, by_people, adopting):
    """A look reads both lists once: an account may have many finished jobs of the same days."""
    for _ in range(4):
        by_people()
    service.sandbox.advance(200)
    service.fault("list_days", "lag", omit=1, times=-1)
    service.submit(adopting)
    assert service.asked("list_days") == 1


# Own jobs and those of others


def test_our_own_job_comes_first(service, by_people, adopting):
    """A retry keeps to the job it has, even if somebody else's is finished."""
    by_people()
    service.sandbox.advance(200)
    own = service.create(adopting)
    submitted = service.retry(adopting)
    assert (submitted.job.sid, submitted.owned) == (own.sid, True)


def test_a_failed_job_of_ours_may_be_followed_by_somebody_elses(service, by_people, adopting):
    """After our job failed, a covering one is adopted before days are paid for again."""
    service.fault("create_job", "job_outcome", outcome="Failed")
    service.submit(adopting)
    service.sandbox.advance(200)
    job = by_people()
    submitted = service.retry(adopting)
    assert (submitted.job.sid, submitted.owned) == (job.sid, False)


def test_another_task_that_comes_later_adopts_and_deletes_nothing(service, submission_for):
    """Two tasks for the same days pay once, unless they look at the very same moment."""
    one, other = (submission_for(task, reattach=Reattach.RANGE) for task in ("one", "other"))
    twins = [service.create(one).sid for _ in range(2)]
    submitted = service.submit(other)
    assert (submitted.job.sid, submitted.owned) == (min(twins), False)
    assert service.reread(other, submitted.job.sid, owned=False).sid == min(twins)
    assert service.live() == twins
    assert service.asked("delete_job") == 0


def test_a_job_of_others_that_went_is_gone(service, client, by_people, adopting):
    """A task that waited for it learns that, and has to submit anew."""
    sid = by_people().sid
    assert service.submit(adopting).job.sid == sid
    client.delete_job(sid)
    assert service.reread(adopting, sid, owned=False) is None
    assert service.submit(adopting).owned


def test_one_who_waits_for_somebody_elses_job_judges_only_its_own_days(
    service, by_people, adopting
):
    """A day beyond the range that was deleted is no reason to give the job up."""
    service.fault("create_job", "job_outcome", outcome="DeletedByUserRequest", days=["2026-01-05"])
    job = by_people("2026-01-01", "2026-01-05")
    service.sandbox.advance(200)
    request = adopting.request
    again = service.reread(adopting, job.sid, owned=False)
    assert again.sid == job.sid
    assert again.state(request.start_day, request.end_day) is JobState.COMPLETED


def test_our_own_job_is_found_after_a_lost_answer(service, adopting):
    """A lost answer is met as without the option: our own job is adopted."""
    service.fault("create_job", "drop_after")
    submitted = service.submit(adopting)
    assert service.sids() == [submitted.job.sid]
    assert submitted.owned


# The order of a listing


words = st.lists(st.sampled_from(Status), min_size=2, max_size=2)
owners = st.sampled_from(["ours", "second", "earlier", "people"])


@given(st.lists(st.tuples(owners, words), max_size=5), st.sampled_from(Reattach), st.randoms())
def test_the_order_of_a_listing_does_not_count(drawn, reattach, rng):
    """Workers that see the same jobs in any order choose alike, and touch no doomed or foreign."""
    last_day = FIRST_DAY.replace(day=FIRST_DAY.day + 1)
    request = ExportRequest(ResourceType.MESSAGES, FIRST_DAY, last_day, "daily")
    ours = Submission.of(request, "task", cycle=1, reattach=reattach)
    earlier = Submission.of(request, "task", cycle=0, reattach=reattach)
    names = {
        "ours": f"daily_{ours.key}",
        "second": f"daily_{ours.key}g2",
        "earlier": f"daily_{earlier.key}",
        "people": "people_gave_this",
    }
    jobs = [
        job_of(*statuses, number=number, name=names[owner])
        for number, (owner, statuses) in enumerate(drawn)
    ]
    found, other = (
        ours.find(JobListing(tuple(listed))) for listed in (jobs, rng.sample(jobs, len(jobs)))
    )
    assert found == other
    guests = ours.covering(JobListing(tuple(jobs)))
    assert guests == ours.covering(JobListing(tuple(reversed(jobs))))
    assert guests == [] or reattach is Reattach.RANGE
    touched = [job for job in (found.job, *found.surplus, *found.spent) if job is not None]
    assert not any(job.is_doomed() for job in itertools.chain(touched, guests))
    assert all(job.friendly_name != "people_gave_this" for job in touched)
    assert len({job.sid for job in touched}) == len(touched)
    assert all(job.state() is JobState.ACTIVE for job in found.surplus)
    assert not set(found.spent) & {found.job, *found.surplus}
