"""A failed or deleted job is followed by one of the next generation."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.job import JobState
from airflow_provider_bulkexports.api.request import ResourceType


@pytest.fixture
def service(start):
    """Give a sandbox whose jobs take a hundred seconds."""
    return start(job_seconds=100)


def names(service):
    return [job["friendly_name"] for job in service.jobs()]


def end(service, request, outcome, **more):
    """Submit a job and let it end as told."""
    service.fault("create_job", "job_outcome", outcome=outcome, **more)
    job = service.submit(request)
    service.sandbox.advance(200)
    return job


@pytest.mark.parametrize("outcome", ["Failed", "DeletedByUserRequest", "FAILED"])
def test_a_failed_job_is_followed_by_a_second_and_a_third(service, request_for, outcome):
    """Each failure makes way for one more job, and the names count them."""
    request = request_for()
    for _ in range(2):
        end(service, request, outcome)
    last = service.submit(request)
    own = request.friendly_name
    assert names(service) == [own, f"{own}g2", f"{own}g3"]
    assert service.submit(request, cautious=True).sid == last.sid
    assert service.live() == [last.sid]


def test_a_partly_failed_job_is_a_failed_job(service, request_for):
    """One failed day of three is a failed job once the other days are done."""
    end(service, request_for(), "Failed", days=["2026-01-02"])
    service.submit(request_for())
    assert len(service.jobs()) == 2


@pytest.mark.parametrize("outcome", ["Completed", "CompletedEmptyRecords"])
def test_a_finished_job_is_adopted(service, request_for, outcome):
    """A retry after the job has finished takes its result."""
    job = end(service, request_for(), outcome)
    found = service.submit(request_for())
    assert found.sid == job.sid
    assert found.state() is JobState.COMPLETED


@pytest.mark.parametrize("word", ["ErrorDuringRun", "Running", "Submitted", "Paused"])
def test_a_job_that_is_not_final_is_adopted(service, request_for, word):
    """Twilio repairs ErrorDuringRun itself, and an unknown word may mean anything: no new job."""
    job = end(service, request_for(), word)
    assert service.submit(request_for()).sid == job.sid
    assert len(service.jobs()) == 1


def test_a_job_with_a_failed_day_is_adopted_while_it_runs(service, request_for):
    """While other days still run, a failed day does not make a second job."""
    service.fault("create_job", "job_outcome", outcome="Failed", days=["2026-01-02"])
    service.fault("create_job", "job_outcome", outcome="Running", days=["2026-01-01"])
    job = service.submit(request_for())
    service.sandbox.advance(200)
    assert service.submit(request_for()).sid == job.sid


def test_a_job_that_is_being_deleted_is_not_adopted(service, client, request_for):
    """A running job marked for deletion is as good as gone: a new one is made at once."""
    job = service.submit(request_for())
    service.sandbox.advance(50)
    client.delete_job(job.sid)
    assert client.fetch_job(job.sid).is_being_deleted
    new = service.submit(request_for())
    assert new.friendly_name == f"{request_for().friendly_name}g2"
    assert service.live() == [new.sid]


def test_a_deleted_job_is_not_adopted(service, client, request_for):
    """What a person deleted stays deleted; a retry makes a new job."""
    job = service.submit(request_for())
    client.delete_job(job.sid)
    assert service.submit(request_for()).sid != job.sid
    assert len(service.live()) == 1


def test_a_lost_answer_in_the_second_generation(service, request_for):
    """A job of a later generation is found after a lost answer as the first is."""
    end(service, request_for(), "Failed")
    service.fault("create_job", "drop_after")
    job = service.submit(request_for())
    assert names(service) == [job.friendly_name.removesuffix("g2"), job.friendly_name]


def test_a_good_job_beats_a_later_generation(service, client, request_for):
    """A usable job of any generation is adopted, however many have failed."""
    good = service.submit(request_for())
    name = f"{good.friendly_name}g2"
    service.fault("create_job", "job_outcome", outcome="Failed")
    client.create_job(request_for(friendly_name=name))
    service.sandbox.advance(200)
    assert service.submit(request_for()).sid == good.sid


def test_after_a_week_the_count_starts_anew(service, request_for):
    """Failed jobs leave the list after a week; the next job is the first again."""
    job = end(service, request_for(), "Failed")
    service.sandbox.advance(8 * 86_400)
    assert service.submit(request_for()).friendly_name == job.friendly_name


def test_racing_retries_agree_on_the_generation(service, request_for):
    """Two workers that retry a failed job at once give the same name, and one job stays."""
    request = request_for()
    end(service, request, "Failed")
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
            sids.append(service.submit(request, client).sid)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert names(service) == [request.friendly_name, *[f"{request.friendly_name}g2"] * 2]
    assert service.live() == [sids[0]] == [sids[1]]
    with service.client() as client:
        assert len(client.list_jobs(ResourceType.MESSAGES)) == 3
