"""Credentials that are refused for moments, as while a token is rotated, cost nothing."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import Fatal, Unauthorized


@pytest.mark.parametrize("route", ["*", "list_jobs", "create_job"])
@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_being_rotated_cost_nothing(service, submission_for, route, status):
    """Refused for 15 seconds, asked again after 5 and 20: the try goes through, with one job."""
    service.fault(route, "status", status=status, lasting=15)
    submitted = service.submit(submission_for())
    assert service.sids() == [submitted.job.sid]
    assert service.pauses == [5, 20]
    assert service.charged() == 3


def test_one_refusal_is_asked_again_once(service, submission_for):
    """A single 401 on the list costs five seconds."""
    service.fault("list_jobs", "status", status=401)
    assert [service.submit(submission_for()).job.sid] == service.sids()
    assert service.pauses == [5]


@pytest.mark.parametrize("route", ["list_jobs", "create_job"])
def test_credentials_that_stay_refused_fail_the_try_but_forbid_no_retry(
    service, submission_for, route
):
    """After two more askings the try fails; the error is none of those that forbid a retry."""
    service.fault(route, "status", status=401, times=-1)
    with pytest.raises(Unauthorized) as caught:
        service.submit(submission_for())
    assert not isinstance(caught.value, Fatal)
    assert service.asked(route) == 3
    assert (service.pauses, service.jobs()) == ([5, 20], [])


def test_a_refusal_while_looking_for_a_lost_job_does_not_lose_it(service, submission_for):
    """A rotation right after a lost answer: the job is found, and no second POST is sent."""
    service.fault("create_job", "drop_after")
    service.fault("list_jobs", "status", status=401, after=1)
    assert [service.submit(submission_for()).job.sid] == service.sids()
    assert service.asked("create_job") == 1
