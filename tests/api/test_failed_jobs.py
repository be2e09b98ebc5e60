"""A job with a failed or deleted day is followed by one of the next generation."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import Retryable
from airflow_provider_bulkexports.api.job import JobState


@pytest.fixture
def service(start):
    """Give a sandbox whose jobs take a hundred seconds."""
    return start(job_seconds=100)


def names(service):
    return [job["friendly_name"] for job in service.jobs()]


def finish(service, submission, outcome, **more):
    """Submit a job and let it come out as asked."""
    service.fault("create_job", "job_outcome", outcome=outcome, **more)
    job = service.retry(submission).job
    service.sandbox.advance(200)
    return job


@pytest.mark.parametrize("outcome", ["Failed", "DeletedByUserRequest", "FAILED"])
def test_a_failed_job_is_followed_by_a_second_and_a_third(service, submission_for, outcome):
    """Each failure is followed by one more job, and the names count them."""
    submission = submission_for()
    for _ in range(2):
        finish(service, submission, outcome)
    last = service.retry(submission).job
    first = f"daily_export_{submission.key}"
    assert names(service) == [first, f"{first}g2", f"{first}g3"]
    assert service.retry(submission).job.sid == last.sid
    assert service.live() == [last.sid]
    assert service.asked("delete_job") == 0


def test_the_next_generation_follows_the_highest(service, submission_for):
    """A generation that is no longer listed is not used again."""
    submission = submission_for()
    for generation in (3, 1):
        service.fault("create_job", "job_outcome", outcome="Failed")
        service.create(submission, generation)
    service.sandbox.advance(200)
    assert service.retry(submission).job.friendly_name.endswith(f"{submission.key}g4")


@pytest.mark.parametrize("generation", [2, 99, 999_999_999])
def test_a_job_of_any_generation_is_found(service, submission_for, generation):
    """However often it failed, the job that runs is adopted."""
    job = service.create(submission_for(), generation)
    assert service.retry(submission_for()).job.sid == job.sid


def test_a_partly_failed_job_is_a_failed_job(service, submission_for):
    """One failed day of three is a failed job once the other days are done."""
    finish(service, submission_for(), "Failed", days=["2026-01-02"])
    service.retry(submission_for())
    assert len(service.jobs()) == 2


@pytest.mark.parametrize("outcome", ["Failed", "DeletedByUserRequest"])
def test_a_job_with_a_lost_day_is_given_up_while_it_runs(service, submission_for, outcome):
    """It cannot complete any more, so that nobody waits for its other days; it is not deleted."""
    submission = submission_for()
    service.fault("create_job", "job_outcome", outcome=outcome, days=["2026-01-02"])
    service.fault("create_job", "job_outcome", outcome="Running", days=["2026-01-01"])
    lost = service.submit(submission).job
    service.sandbox.advance(200)
    assert service.jobs()[0]["state"] == "active"
    job = service.retry(submission).job
    assert names(service) == [lost.friendly_name, f"{lost.friendly_name}g2"]
    assert service.live() == [lost.sid, job.sid]
    assert service.asked("delete_job") == 0


@pytest.mark.parametrize("outcome", ["Completed", "CompletedEmptyRecords"])
def test_a_finished_job_is_adopted(service, submission_for, outcome):
    """A retry after the job has finished takes its result."""
    job = finish(service, submission_for(), outcome)
    found = service.retry(submission_for()).job
    assert found.sid == job.sid
    assert found.state() is JobState.COMPLETED


@pytest.mark.parametrize("word", ["ErrorDuringRun", "Running", "Submitted", "Paused"])
def test_a_job_that_is_not_final_is_adopted(service, submission_for, word):
    """Twilio repairs ErrorDuringRun itself, and an unknown word may mean anything: no new job."""
    job = finish(service, submission_for(), word)
    assert service.retry(submission_for()).job.sid == job.sid
    assert len(service.jobs()) == 1


def test_a_job_that_is_being_deleted_is_not_adopted(service, client, submission_for):
    """A running job marked for deletion is as good as gone: a new one is created at once."""
    job = service.submit(submission_for()).job
    service.sandbox.advance(50)
    client.delete_job(job.sid)
    assert client.fetch_job(job.sid).is_deleted()
    new = service.retry(submission_for()).job
    assert new.friendly_name == f"{job.friendly_name}g2"
    assert service.live() == [new.sid]


@pytest.mark.parametrize("deleted", ["listed", "gone"])
def test_a_deleted_job_is_neither_adopted_nor_awaited(start, submission_for, deleted):
    """What a person deleted stays deleted: whoever waits learns it, a new try creates anew."""
    service, submission = start(deleted_jobs=deleted), submission_for()
    job = service.submit(submission).job
    with service.client() as client:
        client.delete_job(job.sid)
    assert service.reread(submission, job.sid) is None
    assert service.live() == []
    assert [service.retry(submission).job.sid] == service.live()


def test_a_failed_job_is_still_read_as_such(service, submission_for):
    """Whoever waits for it is given it, with its days, and not another."""
    job = finish(service, submission_for(), "Failed", days=["2026-01-02"])
    again = service.reread(submission_for(), job.sid)
    assert (again.sid, again.state()) == (job.sid, JobState.FAILED)


def test_a_lost_answer_in_the_second_generation(service, submission_for):
    """A job of a later generation is found after a lost answer as the first is."""
    first = finish(service, submission_for(), "Failed")
    service.fault("create_job", "drop_after")
    job = service.retry(submission_for()).job
    assert job.friendly_name == f"{first.friendly_name}g2"
    assert names(service) == [first.friendly_name, job.friendly_name]


def test_a_good_job_is_adopted_though_a_later_generation_failed(service, submission_for):
    """A usable job of any generation is adopted, however many have failed."""
    good = service.submit(submission_for()).job
    service.fault("create_job", "job_outcome", outcome="Failed")
    service.create(submission_for(), generation=2)
    service.sandbox.advance(200)
    assert service.retry(submission_for()).job.sid == good.sid


def test_of_two_running_generations_the_higher_stays(service, submission_for):
    """The lower one is about to be given up by whoever created the higher, whatever their SIDs."""
    for number in range(4):
        submission = submission_for(f"task {number}")
        service.create(submission)
        higher = service.create(submission, generation=2)
        assert service.retry(submission).job.sid == higher.sid
        assert service.live()[number:] == [higher.sid]


def test_after_a_week_the_count_starts_anew(service, submission_for):
    """Failed jobs leave the list after a week; the next job is the first again."""
    job = finish(service, submission_for(), "Failed")
    service.sandbox.advance(8 * 86_400)
    assert service.retry(submission_for()).job.friendly_name == job.friendly_name


def test_racing_retries_agree_on_the_generation(service, submission_for):
    """Two workers that retry a failed job at once give the same name, and one job stays."""
    submission = submission_for()
    first = finish(service, submission, "Failed").friendly_name
    barrier = threading.Barrier(2, timeout=10)

    class Meeting(Client):
        def create_job(self, request):
            barrier.wait()
            job = super().create_job(request)
            barrier.wait()
            return job

    sids = []

    def work():
        with service.client(Meeting) as client:
            sids.append(service.submit(submission, client, may_have_posted=True).job.sid)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert names(service) == [first, *[f"{first}g2"] * 2]
    assert service.live() == [sids[0]] == [sids[1]]


def test_a_job_whose_twin_won_and_then_failed_is_no_job_that_somebody_deleted(
    service, submission_for
):
    """A repair took it, so that its task fails as the twin did, and may be tried again."""
    submission = submission_for()
    jobs = []
    for _ in range(2):
        service.fault("create_job", "job_outcome", outcome="Failed")
        jobs.append(service.create(submission).sid)
    first, second = sorted(jobs)
    assert service.reread(submission, second).sid == first  # and deletes the second
    service.sandbox.advance(200)
    again = service.reread(submission, second)
    assert (again.sid, again.state()) == (first, JobState.FAILED)


def test_a_deleted_second_generation_is_deleted_although_the_first_failed(service, submission_for):
    """What failed before is not what became of the job that somebody deleted."""
    submission = submission_for()
    finish(service, submission, "Failed")
    second = service.retry(submission).job
    with service.client() as client:
        client.delete_job(second.sid)
    service.sandbox.advance(20)
    assert service.reread(submission, second.sid) is None


def test_a_job_is_not_gone_while_its_twin_cannot_be_looked_for(service, submission_for):
    """With the list unreadable and the job deleted, nothing is known of a twin."""
    submission = submission_for()
    job = service.retry(submission).job
    with service.client() as client:
        client.delete_job(job.sid)
    service.sandbox.advance(20)
    service.fault("list_jobs", "status", status=503)
    with pytest.raises(Retryable):
        service.reread(submission, job.sid)
