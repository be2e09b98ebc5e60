"""At midnight it is the service's clock that says what can be exported."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import NotExportableYet


def midnight(request_for):
    """Return the first moment at which the request can be exported."""
    return request_for().exportable_from.timestamp()


def test_a_worker_clock_that_is_fast_does_not_ask_too_early(start, request_for, submission_for):
    """Ten seconds before midnight, though 20 past it for the worker: the service's Date counts."""
    last = request_for().end_day
    service = start(at=midnight(request_for) - 10)
    fast = service.pace(now=lambda: service.now() + 30)
    with service.client(pace=fast) as client:
        with pytest.raises(NotExportableYet) as caught:
            service.submit(submission_for(), client)
        assert caught.value.available_at.date() == last.replace(day=last.day + 2)
        assert service.asked("create_job") == 0
        service.pause(10)
        assert [service.submit(submission_for(), client).job.sid] == service.sids()
    assert service.asked("create_job") == 1


def test_a_service_without_a_date_is_asked_again_after_midnight(start, request_for, submission_for):
    """Without a Date a POST comes too early; that refusal is never taken for a final one."""
    service = start(at=midnight(request_for) - 10)
    service.fault("*", "date", value=None, times=-1)
    fast = service.pace(now=lambda: service.now() + 30)
    with service.client(pace=fast) as client:
        submitted = service.submit(submission_for(), client)
    assert service.sids() == [submitted.job.sid]
    assert service.asked("create_job") == 2
    assert service.pauses == [30]


def test_a_worker_clock_that_is_slow_does_not_delay(start, request_for, submission_for):
    """Once Twilio's day has begun a job is created, though the worker's has not."""
    service = start(at=midnight(request_for))
    slow = service.pace(now=lambda: service.now() - 30)
    with service.client(pace=slow) as client:
        assert [service.submit(submission_for(), client).job.sid] == service.sids()
