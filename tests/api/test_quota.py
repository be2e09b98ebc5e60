"""An account that has too few days left today learns when it has some again."""

from __future__ import annotations

import pendulum
import pytest

from airflow_provider_bulkexports.api.errors import Fatal, QuotaExceeded, Retryable
from airflow_provider_bulkexports.api.request import ResourceType


@pytest.mark.parametrize(("status", "code"), [(400, 20001), (403, 20006), (429, 20429)])
def test_too_few_days_left(start, request_for, status, code):
    """Whatever the status, a refusal that speaks of the quota names the next UTC midnight."""
    service = start(quota_days=5, quota_status=status, quota_code=code)
    with service.client() as client:
        client.create_job(request_for("one"))
        before = client.now()
        with pytest.raises(QuotaExceeded) as caught:
            client.create_job(request_for("other"))
        after = client.now()
    error = caught.value
    assert error.resets_at in {
        pendulum.from_timestamp(moment).add(days=1).start_of("day") for moment in (before, after)
    }
    assert (error.status, error.code) == (status, code)
    assert service.asked("create_job") == 2
    assert service.charged() == 3


@pytest.mark.parametrize(
    ("last", "days"),
    [("2024-01-01", "1 day"), ("2024-01-03", "3 days"), ("2024-12-31", "366 days")],
)
def test_the_error_says_what_was_asked_and_does_not_say_that_nothing_is_left(
    service, client, request_for, last, days
):
    """A range of 366 days is refused where 365 are left: a shorter one may well go through."""
    service.fault("create_job", "status", status=400, message="The quota is used up")
    with pytest.raises(QuotaExceeded) as caught:
        client.create_job(request_for(start_day="2024-01-01", end_day=last))
    text = str(caught.value)
    assert text.startswith(f"Twilio refused the request for {days}: an account and its subaccounts")
    assert "may request 366 days per UTC day, and too few of today's are left." in text
    assert f"The count starts anew at {caught.value.resets_at.to_iso8601_string()}." in text
    assert text.index("The quota is used up") > text.index("starts anew")
    assert "no export days" not in text


def test_tomorrow_there_are_days_again(start, request_for):
    """The same request goes through after midnight."""
    service = start(quota_days=3)
    with service.client() as client:
        client.create_job(request_for("one"))
        with pytest.raises(QuotaExceeded):
            client.create_job(request_for("other"))
        service.sandbox.advance(86_400)
        assert client.create_job(request_for("other")).sid in service.live()


def test_subaccounts_share_the_quota(start, request_for):
    """A subaccount's days are its parent's days."""
    service = start(quota_days=5)
    child = {"login": "AC" + "1" * 32, "secret": "child-token"}
    service.sandbox.add_account(*child.values(), parent=service.sandbox.account_sid)
    with service.client() as client:
        client.create_job(request_for())
    with service.client(**child) as client, pytest.raises(QuotaExceeded):
        client.create_job(request_for())


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
