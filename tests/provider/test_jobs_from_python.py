"""The hook creates jobs by itself, for tasks that are written in Python."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from in_process import DAY, POST, requests_of

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.hooks import BulkExportsHook

ASKED = {
    "resource_type": "Calls",
    "start_day": DAY,
    "end_day": DAY,
    "friendly_name": "orders",
    "webhook_url": "https://example.org/done",
    "webhook_method": "POST",
    "email": "ops@example.org",
}


def create(**changes):
    return BulkExportsHook().create_job(**ASKED | changes)


def test_all_six_fields_reach_twilio_and_all_it_says_comes_back(sandbox):
    """Without a key it is one POST, and the job has what Twilio's answer has."""
    job = create()
    with BulkExportsHook().get_conn() as client:
        read = client.fetch_job(job.sid)

    assert sandbox.requests() == 2
    assert (job.sid, job.friendly_name, job.resource_type) == (read.sid, "orders", "Calls")
    assert (job.start_day, job.end_day) == (date(2026, 1, 5), date(2026, 1, 5))
    assert (job.webhook_url, job.webhook_method) == ("https://example.org/done", "POST")
    assert job.email == "ops@example.org"
    assert job.groups == ()
    assert job.queue_position is not None
    assert job.estimated_completion is not None


def test_without_a_key_each_call_creates_a_job(sandbox):
    """Nothing is looked for, since nothing tells one call from another."""
    assert create().sid != create().sid
    assert requests_of(sandbox, POST) == 2


def test_a_lost_answer_without_a_key_is_not_tried_again(sandbox):
    """A retry by Airflow might pay twice, so the task fails for good and says what to do."""
    sandbox.add_fault({"route": "create_job", "kind": "drop_after"})
    with pytest.raises(AirflowFailException, match="without a key it cannot be looked for"):
        create()

    assert requests_of(sandbox, POST) == 1


@pytest.mark.parametrize("fault", ["drop_after", "late", "drop_before"])
def test_with_a_key_it_is_submitted_once(sandbox, fault):
    """The answer is lost, the service acts late or not at all: one job, also for a second call."""
    seconds = {"seconds": 0.25} if fault == "late" else {}
    sandbox.add_fault({"route": "create_job", "kind": fault, **seconds})
    first, second = create(key="run 1"), create(key="run 1")

    assert first.sid == second.sid
    assert [job["job_sid"] for job in sandbox.jobs()] == [first.sid]


@pytest.mark.parametrize(
    "other", [{"key": "run 2"}, {"resource_type": "Messages"}, {"end_day": "2026-01-06"}]
)
def test_another_key_type_or_range_is_another_job(sandbox, other):
    """The key stands for the days too, so that it can be a run's id alone."""
    assert create(key="run 1").sid != create(**{"key": "run 1"} | other).sid


def test_spellings_of_a_day_are_one_job(sandbox):
    """The key is made of what is meant, not of how it is written."""
    day = date.fromisoformat(DAY)

    assert create(key="x").sid == create(key="x", start_day=day, end_day=day).sid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resource_type": "calls"}, "allowed are"),
        ({"end_day": "2026-01-04"}, "Swap them"),
        ({"end_day": f"{date.today() - timedelta(days=1)}"}, "cannot be exported yet"),  # noqa: DTZ011
        ({"friendly_name": "n" * 41, "key": "k"}, "at most 40"),
        ({"webhook_method": None}, "without webhook_method"),
    ],
)
def test_what_no_retry_can_mend_fails_for_good(sandbox, changes, message):
    """Bad input is refused before any request, as an operator refuses it."""
    with pytest.raises(AirflowFailException, match=message):
        create(**changes)

    assert sandbox.requests() == 0


def test_an_outage_leaves_the_task_its_retries(sandbox, one_try):
    """What time may mend is an ordinary failure."""
    sandbox.add_fault({"route": "*", "kind": "status", "status": 503, "times": -1})
    with pytest.raises(AirflowException) as caught:
        create(key="run 1")

    assert not isinstance(caught.value, AirflowFailException)
    assert requests_of(sandbox, POST) == 0
