"""An account that has no days left today learns when it has some again."""

from __future__ import annotations

import pendulum
import pytest

from airflow_provider_bulkexports.api.errors import Fatal, QuotaExceeded, Retryable
from airflow_provider_bulkexports.api.request import ResourceType


@pytest.mark.parametrize(("status", "code"), [(400, 20001), (403, 20006), (429, 20429)])
def test_no_days_left(start, request_for, status, code):
    """Whatever the status, a refusal that speaks of the quota names the next UTC midnight."""
    service = start(quota_days=5, quota_status=status, quota_code=code)
    service.submit(request_for("one"))
    before = pendulum.now("UTC")
    with pytest.raises(QuotaExceeded, match="no export days left") as caught:
        service.submit(request_for("other"))
    after = pendulum.now("UTC")
    error = caught.value
    assert error.resets_at in {moment.add(days=1).start_of("day") for moment in (before, after)}
    assert error.resets_at.to_iso8601_string() in str(error)
    assert (error.status, error.code) == (status, code)
    assert service.asked("create_job") == 2
    assert (service.charged(), service.pauses) == (3, [])


def test_tomorrow_there_are_days_again(start, request_for):
    """The same submission goes through after midnight."""
    service = start(quota_days=3)
    service.submit(request_for("one"))
    with pytest.raises(QuotaExceeded):
        service.submit(request_for("other"))
    service.sandbox.advance(86_400)
    assert service.submit(request_for("other")).sid in service.live()


def test_a_job_that_was_paid_for_is_adopted_without_quota(start, request_for):
    """A retry needs no days: the job it lost is there."""
    service = start(quota_days=3)
    service.fault("create_job", "drop_after")
    job = service.submit(request_for())
    assert service.submit(request_for(), cautious=True).sid == job.sid
    assert service.charged() == 3


def test_subaccounts_share_the_quota(start, request_for):
    """A subaccount's days are its parent's days."""
    service = start(quota_days=5)
    service.submit(request_for())
    child = {"login": "AC" + "1" * 32, "secret": "child-token"}
    service.sandbox.add_account(*child.values(), parent=service.sandbox.account_sid)
    with service.client(**child) as client, pytest.raises(QuotaExceeded):
        service.submit(request_for(), client)


@pytest.mark.parametrize(
    "message", ["Quota exceeded", "At most 366 days may be requested", "366 DAYS per day"]
)
def test_the_refusal_is_known_by_its_words(service, client, request_for, message):
    """Twilio documents neither status nor code, so the words decide."""
    service.fault("create_job", "status", status=400, message=message)
    with pytest.raises(QuotaExceeded):
        client.create_job(request_for())


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "EndDay is wrong", Fatal),
        (400, "366 apples", Fatal),
        (429, "Too many concurrent requests", Retryable),
    ],
)
def test_other_refusals_are_not_about_the_quota(
    service, client, request_for, status, message, error
):
    """A refusal that does not speak of days is what its status says."""
    service.fault("create_job", "status", status=status, message=message)
    with pytest.raises(error) as caught:
        client.create_job(request_for())
    assert not isinstance(caught.value, QuotaExceeded)


def test_reading_costs_no_days(service, client):
    """Only a new job can run out of days, whatever a read's error says."""
    service.fault("list_jobs", "status", status=429, message="quota")
    with pytest.raises(Retryable):
        client.list_jobs(ResourceType.MESSAGES)
