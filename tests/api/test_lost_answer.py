"""One submission creates one job, whatever happens to the answers, and however late they act."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    OutcomeUnknown,
    Retryable,
    Unsettled,
)
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.submit import submit


class Killed(Exception):
    """The worker dies."""


def die(*_):
    raise Killed


ACTED = [
    {"kind": "drop_after"},
    {"kind": "drop_after", "reset": True},
    {"kind": "status_after", "status": 408},
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
    {"kind": "status", "status": 408},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
]
LATE = [
    {"kind": "late", "seconds": 45},
    {"kind": "late", "seconds": 45, "status": 504},
    {"kind": "late", "seconds": 119},
]
LOOKS = [5, 10, 15]
"""The pauses before the looks at 5, 15 and 30 seconds."""


def name_of(fault):
    return "-".join(str(part) for part in fault.values())


def test_a_submission_creates_a_job(service, submission_for):
    """Without any trouble: one look, one POST, one look, no waiting."""
    submitted = service.submit(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert submitted.owned
    assert (service.asked("create_job"), service.asked("list_jobs")) == (1, 2)
    assert service.pauses == []


def test_a_second_submission_adopts(service, submission_for):
    """A retry of the same task run costs one look and no day of the quota."""
    first = service.submit(submission_for())
    again = service.retry(submission_for())
    assert (again.job.sid, again.owned) == (first.job.sid, True)
    assert (service.asked("create_job"), service.charged()) == (1, 3)
    assert service.pauses == []


def test_other_tasks_have_other_jobs(service, submission_for):
    """Two tasks for the same days create two jobs: neither takes the other's."""
    one, other = (service.submit(submission_for(task)).job for task in ("one", "other"))
    assert one.sid != other.sid
    assert len(service.live()) == 2


@pytest.mark.parametrize("fault", ACTED, ids=name_of)
def test_a_job_whose_answer_was_lost_is_found(service, submission_for, fault):
    """The service acted and its answer was lost: the job is looked for, found and adopted."""
    service.fault("create_job", **fault)
    with service.client(pace=service.pace(read=0.3)) as client:
        submitted = service.submit(submission_for(), client)
    assert service.sids() == [submitted.job.sid]
    assert submitted.owned
    assert (service.asked("create_job"), service.charged()) == (1, 3)
    assert service.pauses == LOOKS[:1]


@pytest.mark.parametrize("fault", NOT_ACTED, ids=name_of)
def test_a_post_is_repeated_only_when_it_can_no_longer_act(service, submission_for, fault):
    """The service may have acted but had not: it is asked again two minutes later, not before."""
    service.fault("create_job", **fault)
    submitted = service.submit(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert (service.asked("create_job"), service.asked("list_jobs")) == (2, 6)
    assert service.pauses == [*LOOKS, 90]


@pytest.mark.parametrize("fault", LATE, ids=name_of)
def test_a_post_that_acts_late_is_not_followed_by_a_second(service, submission_for, fault):
    """A POST that hangs in between acts when nobody expects it any more: still one job."""
    service.fault("create_job", **fault)
    submitted = service.submit(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert submitted.owned
    assert (service.asked("create_job"), service.charged()) == (1, 3)


def test_a_post_that_acts_later_than_anybody_waits_is_repaired(service, submission_for):
    """What no wait can cover costs days, but the next look leaves one job."""
    submission = submission_for()
    service.fault("create_job", "late", seconds=200)
    job = service.submit(submission).job
    service.pause(100)
    assert len(service.live()) == 2
    assert [service.reread(submission, job.sid).sid] == service.live()
    assert service.charged() == 6


@pytest.mark.parametrize(
    ("late", "lag"),
    [(0, 1), (0, 4), (0, 9), (0, 12), (0, 30), (0, 31), (0, 119), (45, 12), (45, 30), (45, 75)],
)
def test_a_lost_job_that_is_listed_late_is_found(service, submission_for, late, lag):
    """A job whose answer was lost is found, if it and the list are late by up to two minutes."""
    service.fault("create_job", "late", seconds=late)
    service.fault("list_jobs", "lag", seconds=lag, times=-1)
    submitted = service.submit(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert (service.asked("create_job"), service.charged()) == (1, 3)


def test_an_unsettled_try_says_when_to_come_back(service, client, submission_for):
    """After the looks a worker is given back, with all that the next one has to know."""
    posted_at = service.now()
    service.fault("create_job", "late", seconds=45)
    with pytest.raises(Unsettled, match="no other is sent before") as caught:
        submit(client, submission_for())
    assert (caught.value.not_before, caught.value.posts) == (posted_at + 120, 1)
    assert service.pauses == LOOKS


def test_who_comes_back_too_early_posts_nothing(service, client, submission_for):
    """A worker that is woken before its time looks once, and is sent back with the same facts."""
    not_before = service.now() + 50
    with pytest.raises(Unsettled) as caught:
        submit(client, submission_for(), not_before=not_before, posts=2)
    assert (caught.value.not_before, caught.value.posts) == (not_before, 2)
    assert (service.asked("list_jobs"), service.asked()) == (1, 1)
    assert service.pauses == []


def test_a_throttled_post_waits_as_asked(service, submission_for):
    """A 429 was not processed: after the time asked for, one look is enough."""
    service.fault("create_job", "status", status=429, retry_after=40)
    service.fault("create_job", "status", status=429)
    service.submit(submission_for())
    assert (service.asked("create_job"), service.asked("list_jobs")) == (3, 4)
    assert service.pauses[0] == 40
    assert 1.5 <= service.pauses[1] <= 2.5


def test_a_long_advice_is_left_to_the_next_try(service, submission_for):
    """No worker sleeps for minutes because a service says so."""
    service.fault("create_job", "status", status=429, retry_after=400)
    with pytest.raises(Retryable) as caught:
        service.submit(submission_for())
    assert caught.value.retry_after == 400
    assert (service.asked("create_job"), service.pauses) == (1, [])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 429}, Retryable),
        ({"kind": "status", "status": 503}, OutcomeUnknown),
        ({"kind": "drop_before"}, OutcomeUnknown),
    ],
    ids=["throttled", "failing", "lost"],
)
def test_a_submission_gives_up_after_four_posts(service, submission_for, fault, error):
    """A service that never answers is left alone in the end, also where a try is interrupted."""
    service.fault("create_job", **fault, times=-1)
    with pytest.raises(error) as caught:
        service.submit(submission_for())
    assert not isinstance(caught.value, Unsettled)
    assert service.asked("create_job") == 4
    assert service.jobs() == []


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refusal_is_final(service, submission_for, status):
    """What Twilio refuses is not asked for twice."""
    service.fault("create_job", "status", status=status)
    with pytest.raises(Fatal):
        service.submit(submission_for())
    assert service.asked("create_job") == 1
    assert service.pauses == []


# Later tries


@pytest.mark.parametrize("fault", [*ACTED, *LATE], ids=name_of)
def test_the_next_try_finds_what_a_killed_one_created(service, submission_for, fault):
    """A worker that died before it knew its job leaves it to the next try."""
    service.fault("create_job", **fault)
    pace = service.pace(read=0.3)
    with service.client(pace=pace) as client, pytest.raises(Killed):
        submit(client, submission_for(), pause=die)
    submitted = service.retry(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert submitted.owned
    assert service.asked("create_job") == 1


def test_a_later_try_looks_for_two_minutes_before_it_posts(service, submission_for):
    """The POST of the try before may be on its way, so that empty looks are not believed."""
    service.retry(submission_for())
    assert service.pauses == [*LOOKS, 90]
    assert (service.asked("create_job"), service.asked("list_jobs")) == (1, 6)


def test_a_job_that_is_listed_late_is_found_by_a_later_try(service, submission_for):
    """A listing that lags hides a fresh job from the first looks of a retry, not from all."""
    job = service.create(submission_for())
    service.fault("list_jobs", "lag", seconds=60, times=-1)
    assert service.retry(submission_for()).job.sid == job.sid
    assert service.sids() == [job.sid]


def test_a_try_that_is_stopped_before_its_post_creates_nothing(service, client, submission_for):
    """The last moment at which a task can be stopped for nothing is right before the POST."""
    with pytest.raises(Killed):
        submit(client, submission_for(), check=die)
    assert service.asked("create_job") == 0


def test_a_try_that_is_stopped_right_after_its_post_leaves_a_job_that_is_found(
    service, client, submission_for
):
    """Between POST and stop nothing else happens; whoever cleans up finds the job by its name."""

    def die_if_posted():
        if service.asked("create_job"):
            raise Killed

    with pytest.raises(Killed):
        submit(client, submission_for(), check=die_if_posted)
    assert service.asked("list_jobs") == 1
    listing = client.list_jobs(ResourceType.MESSAGES)
    assert [submission_for().find(listing).job.sid] == service.sids()


# Listings that fail


@pytest.mark.parametrize("after", [0, 1, 2])
def test_no_listing_no_post(service, submission_for, after):
    """While the list cannot be read nothing is submitted, also after a lost answer."""
    service.fault("create_job", "drop_before")
    service.fault("list_jobs", "status", status=500, after=after, times=-1)
    with pytest.raises(BulkExportsError):
        service.submit(submission_for())
    assert service.asked("create_job") == min(after, 1)


def test_a_list_that_is_not_found_is_an_outage_and_no_empty_list(service, submission_for):
    """A 404 for the list is asked again like any failure, and never means that there is no job."""
    service.fault("list_jobs", "status", status=404, times=2)
    with pytest.raises(Retryable):
        service.submit(submission_for())
    assert service.asked("create_job") == 0
    with service.client(pace=service.pace(tries=2)) as client:
        assert [service.submit(submission_for(), client).job.sid] == service.sids()
    assert service.asked("list_jobs") == 4


def test_a_listing_that_fails_after_the_post_does_not_lose_the_job(service, submission_for, caplog):
    """Once Twilio has said yes, a failing look for twins is only worth a warning."""
    service.fault("list_jobs", "status", status=500, after=1)
    assert [service.submit(submission_for()).job.sid] == service.sids()
    assert "Could not look for a second job" in caplog.text
