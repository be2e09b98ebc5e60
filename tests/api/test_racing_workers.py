"""Two workers that submit the same at once end with one live job."""

from __future__ import annotations

import logging
import threading

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.request import ResourceType


@pytest.fixture
def race(service):
    """Let workers race: all have looked before one posts, and posted before one looks again."""

    def run(requests, **options):
        barrier = threading.Barrier(len(requests), timeout=10)
        results = {}

        class Meeting(Client):
            def create_job(self, request):
                barrier.wait()
                job = super().create_job(request)
                barrier.wait()
                return job

        def work(number):
            with service.client(Meeting) as client:
                results[number] = service.submit(requests[number], client, **options).sid

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results.get(number) for number in range(len(requests))]

    return run


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_racing_workers_end_with_one_job(service, race, request_for, workers):
    """However many raced, all name the same job, the others are deleted, their days are spent."""
    sids = race([request_for()] * workers)
    assert service.live() == [min(job["job_sid"] for job in service.jobs())]
    assert set(sids) == set(service.live())
    assert service.charged() == 3 * workers


def test_racing_workers_that_adopt_any_job_end_with_one(service, race, request_for):
    """Different tasks that accept any covering job end with one, too."""
    sids = race([request_for("one"), request_for("other")], any_covering=True)
    assert set(sids) == set(service.live())
    assert len(service.live()) == 1


@pytest.mark.parametrize("number", range(6))
def test_a_straggler_ends_with_one_job(service, request_for, number):
    """A worker that looked long ago and posts late still leaves one live job, and names it."""
    request = request_for(f"task {number}")
    made = []

    class Straggler(Client):
        def create_job(self, late):
            made.append(service.submit(request).sid)
            return super().create_job(late)

    with service.client(Straggler) as client:
        sid = service.submit(request, client).sid
    assert service.live() == [sid]
    assert sid == min(job["job_sid"] for job in service.jobs())
    assert service.submit(request).sid == sid


def test_a_straggler_whose_answer_is_lost_ends_with_one_job(service, request_for):
    """A lost answer and a race at once: the look afterwards deletes the extra job."""
    request = request_for()

    class Straggler(Client):
        def create_job(self, late):
            if not service.jobs():
                service.submit(request)
                service.fault("create_job", "drop_after")
            return super().create_job(late)

    with service.client(Straggler) as client:
        sid = service.submit(request, client).sid
    assert len(service.jobs()) == 2
    assert service.live() == [sid]


def test_an_extra_job_is_deleted_when_adopting(service, client, request_for, caplog):
    """Two jobs left by an earlier race are one after the next attempt; the log names the other."""
    jobs = sorted(client.create_job(request_for()).sid for _ in range(3))
    with caplog.at_level(logging.INFO):
        assert service.submit(request_for()).sid == jobs[0]
    assert service.live() == [jobs[0]]
    assert f"Deleting job {jobs[1]}" in caplog.text
    assert f"Adopting job {jobs[0]}" in caplog.text


def test_an_extra_job_that_cannot_be_deleted_is_named(service, client, request_for, caplog):
    """The job is kept although its rival could not be deleted; the next attempt tries again."""
    jobs = sorted(client.create_job(request_for()).sid for _ in range(2))
    service.fault("delete_job", "status", status=500)
    assert service.submit(request_for()).sid == jobs[0]
    assert f"Could not delete job {jobs[1]}" in caplog.text
    assert len(service.live()) == 2
    service.submit(request_for())
    assert service.live() == [jobs[0]]


def test_a_finished_twin_is_left_alone(start, request_for):
    """What has finished is no longer deleted: its files may be in use."""
    service = start(job_seconds=100)
    with service.client() as client:
        client.create_job(request_for())
        service.sandbox.advance(200)
        twins = {client.create_job(request_for()).sid for _ in range(2)}
    winner = service.submit(request_for()).sid
    finished = service.jobs()[0]["job_sid"]
    assert finished in service.live()
    assert set(service.live()) == {finished, winner}
    assert service.asked("delete_job") == len(twins - {winner})


def test_other_peoples_jobs_are_never_deleted(service, client, request_for, race):
    """A race of ours leaves jobs of other tasks and of people as they are."""
    others = {client.create_job(request_for(f"task {number}")).sid for number in range(3)}
    others.add(client.create_job(request_for(friendly_name="people_gave_this")).sid)
    race([request_for()] * 2)
    assert others <= set(service.live())
    assert len(service.live()) == 5


def test_a_worker_that_fails_while_racing_leaves_one_job(service, request_for):
    """If both the answer and the look after it fail, the next attempt sorts it out."""
    service.fault("create_job", "drop_after")
    service.fault("list_jobs", "status", status=503, after=1)
    with pytest.raises(BulkExportsError):
        service.submit(request_for())
    sid = service.submit(request_for(), cautious=True).sid
    assert service.live() == [sid]
    with service.client() as client:
        assert len(client.list_jobs(ResourceType.MESSAGES)) == 1
