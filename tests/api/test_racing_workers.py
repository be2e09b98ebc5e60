"""Whatever is created twice, by workers that race or on the way, is one live job in the end."""

from __future__ import annotations

import itertools
import logging
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.request import Reattach
from airflow_provider_bulkexports.sandbox import service as sandbox_service


@pytest.fixture
def race(service):
    """Let workers race: all have looked before one posts, and posted before one looks again."""

    def run(submissions):
        barrier = threading.Barrier(len(submissions), timeout=10)
        results = {}

        class Meeting(Client):
            def create_job(self, request):
                barrier.wait()
                job = super().create_job(request)
                barrier.wait()
                return job

        def work(number):
            with service.client(Meeting) as client:
                results[number] = service.submit(submissions[number], client).job.sid

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(submissions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results.get(number) for number in range(len(submissions))]

    return run


@pytest.fixture(params=[1, -1], ids=["rising", "falling"])
def sids_in_order(request, monkeypatch):
    """Have each new job's SID be larger than those before, or smaller."""
    numbers = itertools.count(1000, request.param)
    ordered = SimpleNamespace(token_hex=lambda count: f"{next(numbers):0{2 * count}x}")
    monkeypatch.setattr(sandbox_service, "secrets", ordered)
    return request.param


@pytest.fixture(params=["listed", "gone"])
def service(request, start):
    """Give a sandbox whose jobs stay active for hours; deleted ones are listed as such, or gone."""
    return start(deleted_jobs=request.param)


# Races


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_racing_workers_end_with_one_job(service, race, submission_for, workers):
    """However many raced, all name the same job, the others are deleted, their days are spent."""
    sids = race([submission_for()] * workers)
    assert service.live() == [min(service.sids())]
    assert set(sids) == set(service.live())
    assert service.charged() == 3 * workers


def test_racing_tasks_that_adopt_a_range_keep_their_jobs(service, race, submission_for):
    """Tasks that would adopt each other's job delete none that another task may be waiting for."""
    tasks = ("one", "other")
    sids = race([submission_for(task, reattach=Reattach.RANGE) for task in tasks])
    assert set(sids) == set(service.live()) == set(service.sids())
    assert len(service.live()) == 2


@pytest.mark.usefixtures("sids_in_order")
def test_a_worker_whose_job_went_gets_the_twin(service, submission_for):
    """One worker waits for its job already when another posts late: the fixed order decides."""
    submission = submission_for()
    early = []

    class Straggler(Client):
        def create_job(self, request):
            early.append(service.submit(submission).job.sid)
            return super().create_job(request)

    with service.client(Straggler) as client:
        late = service.submit(submission, client).job.sid
    assert service.sids()[0] == early[0]
    assert service.live() == [late] == [min(service.sids())]
    assert service.reread(submission, early[0]).sid == late
    assert service.reread(submission, late).sid == late
    assert service.submit(submission, may_have_posted=True).job.sid == late
    assert service.live() == [late]


@pytest.mark.usefixtures("sids_in_order")
@pytest.mark.parametrize("lag", [2, 20])
def test_racing_workers_that_do_not_see_each_other_end_with_one_job(service, submission_for, lag):
    """Where the list lags, each is content with its own job until the next look."""
    submission = submission_for()
    service.fault("list_jobs", "lag", seconds=lag, times=-1)
    one, other = (service.submit(submission).job.sid for _ in range(2))
    assert len(service.live()) == 2
    service.pause(lag)
    ends = {service.reread(submission, sid).sid for sid in (one, other)}
    assert ends == set(service.live()) == {min(one, other)}


@pytest.mark.usefixtures("sids_in_order")
def test_a_worker_that_sees_an_old_list_deletes_nothing_that_counts(service, submission_for):
    """A list that shows jobs as they were half a minute ago still leads all to one live job."""
    submission = submission_for()
    sids = [service.create(submission).sid for _ in range(3)]
    service.pause(30)
    service.reread(submission, sids[1])
    service.fault("list_jobs", "stale", seconds=30, times=-1)
    service.fault("fetch_job", "stale", seconds=30, times=-1)
    assert {service.reread(submission, sid).sid for sid in sids} == {min(sids)}
    assert service.live() == [min(sids)]


def test_a_straggler_whose_answer_is_lost_ends_with_one_job(service, submission_for):
    """A lost answer and a race at once: the look afterwards deletes the extra job."""
    submission = submission_for()

    class Straggler(Client):
        def create_job(self, request):
            if not service.jobs():
                service.submit(submission)
                service.fault("create_job", "drop_after")
            return super().create_job(request)

    with service.client(Straggler) as client:
        sid = service.submit(submission, client).job.sid
    assert len(service.jobs()) == 2
    assert service.live() == [sid]


def test_a_worker_that_fails_while_racing_leaves_one_job(service, submission_for):
    """If both the answer and the look after it fail, the next try sorts it out."""
    service.fault("create_job", "drop_after")
    service.fault("list_jobs", "status", status=503, after=1)
    with pytest.raises(BulkExportsError):
        service.submit(submission_for())
    sid = service.retry(submission_for()).job.sid
    assert service.sids() == service.live() == [sid]


# A POST that is delivered twice


@pytest.mark.usefixtures("sids_in_order")
@pytest.mark.parametrize("answer", ["first", "second"])
@pytest.mark.parametrize("lag", [0, 2])
def test_a_post_that_is_delivered_twice_at_once_leaves_one_job(
    service, submission_for, answer, lag
):
    """A middlebox sends a POST again: whichever was answered, the next look leaves one job."""
    submission = submission_for()
    service.fault("create_job", "twice", answer=answer)
    if lag:
        service.fault("list_jobs", "lag", seconds=lag, times=-1)
    sid = service.submit(submission).job.sid
    assert len(service.jobs()) == 2
    service.pause(lag)
    assert [service.reread(submission, sid).sid] == service.live() == [min(service.sids())]
    assert (service.asked("create_job"), service.charged()) == (1, 6)


@pytest.mark.usefixtures("sids_in_order")
def test_a_post_that_is_delivered_again_later_leaves_one_job(service, submission_for):
    """The second delivery comes while the first job is awaited: that look repairs it."""
    submission = submission_for()
    service.fault("create_job", "twice", seconds=20)
    sid = service.submit(submission).job.sid
    service.pause(20)
    assert len(service.live()) == 2
    assert [service.reread(submission, sid).sid] == service.live() == [min(service.sids())]


def test_a_second_delivery_when_all_is_done_is_deleted_or_reported(
    start, submission_for, sids_in_order, caplog
):
    """The finished job is the one to take; the other goes if the order allows it, or is charged."""
    service, submission = start(job_seconds=10), submission_for()
    service.fault("create_job", "twice", seconds=20)
    done = service.submit(submission).job.sid
    service.pause(20)
    twin = service.sids()[1]
    assert service.reread(submission, done).sid == done
    rising = sids_in_order > 0
    assert service.live() == ([done] if rising else [done, twin])
    service.pause(20)
    assert service.reread(submission, done).sid == min(service.live())
    assert ("its days were charged twice" in caplog.text) == (not rising)
    assert service.charged() == 6


def test_twins_that_have_both_finished_are_reported(start, submission_for, caplog):
    """What is finished cannot be given back, so it is said that its days are spent."""
    service, submission = start(job_seconds=10), submission_for()
    service.fault("create_job", "twice")
    service.fault("list_jobs", "lag", seconds=2, times=-1)
    service.submit(submission)
    service.pause(15)
    first, second = sorted(service.sids())
    assert service.reread(submission, second).sid == first
    twice = f"Job {second} exports the same as {first} and stays: its days were charged twice."
    assert twice in caplog.text
    assert service.live() == service.sids()
    assert service.asked("delete_job") == 0


# Jobs that are left over


def test_an_extra_job_is_deleted_when_adopting(service, submission_for, caplog):
    """Three jobs of an earlier race are one after the next try; the log names the others."""
    jobs = sorted(service.create(submission_for()).sid for _ in range(3))
    with caplog.at_level(logging.INFO):
        assert service.retry(submission_for()).job.sid == jobs[0]
    assert service.live() == [jobs[0]]
    assert f"Deleting job {jobs[1]}" in caplog.text
    assert f"Deleting job {jobs[2]}" in caplog.text
    assert f"Adopting job {jobs[0]}" in caplog.text


def test_an_extra_job_that_cannot_be_deleted_is_named(service, submission_for, caplog):
    """The job is kept although its twin could not be deleted; the next try tries again."""
    jobs = sorted(service.create(submission_for()).sid for _ in range(2))
    service.fault("delete_job", "status", status=500)
    assert service.retry(submission_for()).job.sid == jobs[0]
    assert f"Could not delete job {jobs[1]}" in caplog.text
    assert len(service.live()) == 2
    service.retry(submission_for())
    assert service.live() == [jobs[0]]


@pytest.mark.parametrize("deleting", ["404", "204", "removes"])
def test_a_finished_job_is_awaited_beside_an_unfinished_one(
    start, submission_for, sids_in_order, deleting
):
    """The finished one is taken and never deleted; the other only where it is not the first."""
    service, submission = start(job_seconds=100, delete_finished=deleting), submission_for()
    finished = service.create(submission).sid
    service.pause(200)
    unfinished = service.create(submission).sid
    submitted = service.retry(submission)
    assert (submitted.job.sid, submitted.owned) == (finished, True)
    assert service.reread(submission, unfinished).sid == finished
    rising = sids_in_order > 0
    assert service.live() == ([finished] if rising else [finished, unfinished])
    assert service.asked("delete_job") == (1 if rising else 0)


# Jobs of others


def test_other_peoples_jobs_are_never_deleted(service, race, client, submission_for):
    """A race of ours leaves jobs of other tasks and of people as they are."""
    others = {service.create(submission_for(f"task {number}")).sid for number in range(3)}
    others.add(client.create_job(submission_for().request).sid)
    race([submission_for()] * 2)
    assert others <= set(service.live())
    assert len(service.live()) == 5


@pytest.mark.parametrize("count", [1, 3])
def test_a_job_of_another_deployment_is_adopted_with_a_warning(
    service, submission_for, caplog, count
):
    """On a first try a job with our key is not ours: it is used, and never deleted."""
    submission = submission_for()
    others = sorted(service.create(submission).sid for _ in range(count))
    submitted = service.submit(submission)
    assert (submitted.job.sid, submitted.owned) == (others[0], False)
    assert "give each one's connection a namespace of its own" in caplog.text
    assert service.reread(submission, others[0], owned=False).sid == others[0]
    assert sorted(service.live()) == others
    assert (service.asked("create_job"), service.asked("delete_job")) == (count, 0)


def test_a_job_that_is_not_owned_and_went_is_gone(service, client, submission_for):
    """No twin stands in for another deployment's job: the task has to submit anew."""
    submission = submission_for()
    sid = service.create(submission).sid
    assert service.submit(submission).owned is False
    client.delete_job(sid)
    assert service.reread(submission, sid, owned=False) is None


@pytest.mark.parametrize("fault", [{"status": 429}, {"status": 401}], ids=str)
def test_a_refused_post_does_not_make_another_deployments_job_ours(service, submission_for, fault):
    """A POST that was not processed has created nothing: what is found then is still foreign."""
    submission = submission_for()
    service.fault("create_job", "status", **fault)

    class Late(Client):
        def create_job(self, request):
            try:
                return super().create_job(request)
            finally:
                service.create(submission)

    with service.client(Late) as client:
        submitted = service.submit(submission, client)
    assert [submitted.job.sid] == service.live()
    assert submitted.owned is False


# Cleared tasks


@pytest.mark.usefixtures("sids_in_order")
def test_a_cleared_task_goes_on_with_its_unfinished_job(service, submission_for):
    """A task that is cleared while its job runs adopts it, and repairs its twins."""
    before = [service.create(submission_for()).sid for _ in range(2)]
    submitted = service.retry(submission_for(cycle=1))
    assert [submitted.job.sid] == service.live() == [min(before)]
    assert submitted.owned
    assert service.charged() == 6


def test_a_task_that_is_cleared_after_its_job_has_finished_exports_again(start, submission_for):
    """Whoever clears a finished task asks for new data; the finished job stays as it is."""
    service = start(job_seconds=100)
    before = service.submit(submission_for()).job.sid
    service.pause(200)
    after = service.retry(submission_for(cycle=1)).job.sid
    assert service.live() == [before, after]
    assert service.retry(submission_for(cycle=1)).job.sid == after


def test_each_try_that_wants_its_own_job_gets_it(service, submission_for):
    """Under ``never`` an unfinished job of the try before is neither adopted nor deleted."""
    sids = [
        service.submit(submission_for(cycle=number, reattach=Reattach.NEVER)).job.sid
        for number in range(2)
    ]
    assert service.live() == sids
