"""One submission makes one job, whatever happens to the answers."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    OutcomeUnknown,
    Retryable,
)


class Killed(Exception):
    """The worker dies."""


def die(_):
    raise Killed


ACTED = [
    {"kind": "drop_after"},
    {"kind": "drop_after", "reset": True},
    {"kind": "status_after", "status": 500},
    {"kind": "status_after", "status": 503},
    {"kind": "truncate"},
    {"kind": "bad_json"},
    {"kind": "corrupt", "at": 0},
    {"kind": "delay_after", "seconds": 0.6},
]
NOT_ACTED = [
    {"kind": "drop_before"},
    {"kind": "drop_before", "reset": True},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
]


def name_of(fault):
    return "-".join(str(part) for part in fault.values())


def test_a_submission_makes_a_job(service, request_for):
    """Without any trouble: one look, one POST, one look, no waiting."""
    job = service.submit(request_for())
    assert [listed["job_sid"] for listed in service.jobs()] == [job.sid]
    assert (service.asked("create_job"), service.asked("list_jobs")) == (1, 2)
    assert service.pauses == []


def test_a_second_submission_adopts(service, request_for):
    """A retry of the same task run costs one look and no day of the quota."""
    first = service.submit(request_for())
    assert service.submit(request_for(), cautious=True).sid == first.sid
    assert (service.asked("create_job"), service.charged()) == (1, 3)
    assert service.pauses == []


@pytest.mark.parametrize("fault", ACTED, ids=name_of)
def test_a_job_whose_answer_was_lost_is_found(service, request_for, fault):
    """The service acted and its answer was lost: the job is looked for, found and adopted."""
    service.fault("create_job", **fault)
    with service.client(read_timeout=0.3) as client:
        job = service.submit(request_for(), client)
    assert [listed["job_sid"] for listed in service.jobs()] == [job.sid]
    assert (service.asked("create_job"), service.charged()) == (1, 3)
    assert service.pauses == [5.0]


@pytest.mark.parametrize("fault", NOT_ACTED, ids=name_of)
def test_a_post_is_repeated_only_after_two_empty_looks(service, request_for, fault):
    """The service may have acted but had not: two looks apart find nothing, then it is asked."""
    service.fault("create_job", **fault)
    job = service.submit(request_for())
    assert [listed["job_sid"] for listed in service.jobs()] == [job.sid]
    assert (service.asked("create_job"), service.asked("list_jobs")) == (2, 4)
    assert service.pauses == [5.0, 5.0]


def test_a_throttled_post_waits_as_told(service, request_for):
    """A 429 was not processed: after the time asked for, one look is enough."""
    service.fault("create_job", "status", status=429, retry_after=40)
    service.fault("create_job", "status", status=429)
    service.submit(request_for())
    assert (service.asked("create_job"), service.asked("list_jobs")) == (3, 4)
    assert service.pauses[0] == 40
    assert 1.5 <= service.pauses[1] <= 2.5


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 429}, Retryable),
        ({"kind": "status", "status": 503}, OutcomeUnknown),
        ({"kind": "drop_before"}, OutcomeUnknown),
    ],
    ids=["throttled", "failing", "lost"],
)
def test_a_submission_gives_up_after_four_posts(service, request_for, fault, error):
    """A service that never answers is left alone in the end."""
    service.fault("create_job", **fault, times=-1)
    with pytest.raises(error):
        service.submit(request_for())
    assert service.asked("create_job") == 4
    assert service.jobs() == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(service, request_for, status):
    """What Twilio refuses is not asked for twice."""
    service.fault("create_job", "status", status=status)
    with pytest.raises(Fatal):
        service.submit(request_for())
    assert service.asked("create_job") == 1
    assert service.pauses == []


@pytest.mark.parametrize("fault", ACTED, ids=name_of)
def test_the_next_attempt_finds_what_a_killed_one_made(service, request_for, fault):
    """A worker that died before it knew its job leaves it to the next attempt."""
    service.fault("create_job", **fault)
    with service.client(read_timeout=0.3) as client, pytest.raises(Killed):
        service_sleepless(client, request_for())
    assert service.submit(request_for(), cautious=True).sid == service.jobs()[0]["job_sid"]
    assert (len(service.jobs()), service.asked("create_job")) == (1, 1)


def service_sleepless(client, request):
    from airflow_provider_bulkexports.api.submit import submit_once

    return submit_once(client, request, sleep=die)


def test_a_cautious_attempt_looks_twice(service, request_for):
    """After an attempt that may just have posted, one empty look is not believed."""
    service.submit(request_for(), cautious=True)
    assert service.pauses == [5.0]
    assert (service.asked("create_job"), service.asked("list_jobs")) == (1, 3)


@pytest.mark.parametrize(("cautious", "made"), [(True, 1), (False, 2)])
def test_a_job_that_is_listed_late_is_found_by_caution(
    service, client, request_for, cautious, made
):
    """A listing that lags by four seconds hides a fresh job from one look, not from two."""
    client.create_job(request_for())
    service.fault("list_jobs", "list_lag", seconds=4, times=-1)
    service.submit(request_for(), cautious=cautious)
    assert len(service.jobs()) == made


@pytest.mark.parametrize("lag", [1, 4, 9])
def test_a_lost_job_that_is_listed_late_is_found(service, request_for, lag):
    """A job whose answer was lost is found though the listing lags by up to twice the settling."""
    service.fault("create_job", "drop_after")
    service.fault("list_jobs", "list_lag", seconds=lag, times=-1)
    service.submit(request_for())
    assert (len(service.jobs()), service.asked("create_job")) == (1, 1)


def test_settle_says_how_far_apart_the_looks_are(service, request_for):
    """A slower listing is met with a longer settling."""
    service.fault("create_job", "drop_after")
    service.fault("list_jobs", "list_lag", seconds=50, times=-1)
    service.submit(request_for(), settle=30)
    assert service.pauses == [30, 30]
    assert len(service.jobs()) == 1


@pytest.mark.parametrize("after", [0, 1, 2])
def test_no_listing_no_post(service, request_for, after):
    """While the list cannot be read nothing is submitted, also after a lost answer."""
    service.fault("create_job", "drop_before")
    service.fault("list_jobs", "status", status=500, after=after, times=-1)
    with pytest.raises(BulkExportsError):
        service.submit(request_for())
    assert service.asked("create_job") == min(after, 1)


def test_a_listing_that_fails_after_the_post_does_not_lose_the_job(service, request_for, caplog):
    """Once Twilio has said yes, a failing look for rivals is only worth a warning."""
    service.fault("list_jobs", "status", status=500, after=1)
    assert service.submit(request_for()).sid == service.jobs()[0]["job_sid"]
    assert "Could not look for a second job" in caplog.text


def test_other_tasks_have_other_jobs(service, request_for):
    """Two tasks for the same days make two jobs: neither takes the other's."""
    one, other = (service.submit(request_for(task)) for task in ("one", "other"))
    assert one.sid != other.sid
    assert len(service.live()) == 2
