"""The service's clock decides which day can be exported, so it is the service's clock we go by."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    NotExportableYet,
    QuotaExceeded,
    Retryable,
)
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.retry import http_date

MESSAGES = ResourceType.MESSAGES
MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
LAST_DAY = date(2026, 1, 3)
"""The last day that can be exported from that midnight on."""
SID = "JS" + "1" * 32


def shown(moment):
    return format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)


class Twilio:
    """A service whose clock a test sets, and a client whose machine has another one."""

    def __init__(self, speak):
        self.speak = speak
        self.date = shown(MIDNIGHT)
        self.status, self.message = 200, ""
        self.requests = 0
        self.machine = MIDNIGHT

    def __enter__(self):
        self.serving = self.speak(self.answer)
        url = self.serving.__enter__()
        self.client = Client("AC1", "token", base_url=url, pace=Pace(tries=1, now=self.now))
        return self

    def __exit__(self, *exit_info):
        self.client.close()
        self.serving.__exit__(*exit_info)

    def now(self):
        return self.machine

    def answer(self, connection):
        self.requests += 1
        body = f'{{"job_sid": "{SID}", "message": "{self.message}"}}'
        given = "" if self.date is None else f"Date: {self.date}\r\n"
        head = f"HTTP/1.1 {self.status} Hm\r\n{given}Content-Length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())


@pytest.fixture
def twilio(speak):
    with Twilio(speak) as twilio:
        yield twilio


def test_before_any_answer_the_machines_clock_counts(twilio):
    """Nothing else is known."""
    assert twilio.client.now() == MIDNIGHT
    assert twilio.requests == 0


@pytest.mark.parametrize("skew", [-3600, -90, 0, 90, 86_400])
@pytest.mark.parametrize("status", [200, 401, 404, 429, 500])
def test_any_answer_tells_the_time(twilio, skew, status):
    """The Date of a refusal is as good as that of a success, and time goes on from there."""
    twilio.date, twilio.status = shown(MIDNIGHT + skew), status
    with contextlib.suppress(BulkExportsError):
        twilio.client.fetch_job(SID)
    assert twilio.requests == 1
    assert twilio.client.now() == MIDNIGHT + skew
    twilio.machine += 30
    assert twilio.client.now() == MIDNIGHT + skew + 30


def test_the_last_answer_counts(twilio):
    """A clock that was set right is followed."""
    for skew in (600, -600):
        twilio.date = shown(MIDNIGHT + skew)
        twilio.client.fetch_export(MESSAGES)
        assert twilio.client.now() == MIDNIGHT + skew


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "soon",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Tue, 31 Dec 2019 23:59:59 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 99 Jan 2026 00:00:00 GMT",
        "1767571200",
    ],
)
def test_an_absurd_date_tells_nothing(twilio, header):
    """What cannot be the time leaves the clock as it was."""
    twilio.date = shown(MIDNIGHT + 60)
    twilio.client.fetch_export(MESSAGES)
    twilio.date = header
    twilio.client.fetch_export(MESSAGES)
    assert twilio.client.now() == MIDNIGHT + 60


def test_a_machine_that_is_ahead_posts_nothing_too_early(twilio, request_for):
    """It is still yesterday at Twilio, so the day cannot be exported, whatever the worker says."""
    twilio.machine, twilio.date = MIDNIGHT + 600, shown(MIDNIGHT - 1)
    twilio.client.fetch_export(MESSAGES)
    with pytest.raises(NotExportableYet, match="2026-01-04T23:59:59Z"):
        twilio.client.create_job(request_for(end_day=LAST_DAY))
    assert twilio.requests == 1


def test_a_machine_that_is_behind_does_not_hold_back_a_day(twilio, request_for):
    """It is already today at Twilio, so the day can be exported."""
    twilio.machine, twilio.date = MIDNIGHT - 600, shown(MIDNIGHT)
    with pytest.raises(NotExportableYet):
        twilio.client.create_job(request_for(end_day=LAST_DAY))
    twilio.client.fetch_export(MESSAGES)
    assert twilio.client.create_job(request_for(end_day=LAST_DAY)).sid == SID


@pytest.mark.parametrize("late", [0, 1, 59])
def test_a_refusal_at_midnight_may_pass(twilio, request_for, late):
    """One server's clock may be behind that of the one which told the time."""
    twilio.date = shown(MIDNIGHT + late)
    twilio.client.fetch_export(MESSAGES)
    twilio.status, twilio.message = 400, "EndDay is too late"
    with pytest.raises(
        Retryable, match=r"EndDay is too late.*clock may be a little behind"
    ) as caught:
        twilio.client.create_job(request_for(end_day=LAST_DAY))
    assert (caught.value.retry_after, caught.value.status) == (30, 400)


@pytest.mark.parametrize(("late", "status"), [(60, 400), (3600, 400), (0, 422), (0, 405)])
def test_any_other_refusal_stays_one(twilio, request_for, late, status):
    """After a minute, or for another reason, a refusal is one."""
    twilio.date = shown(MIDNIGHT + late)
    twilio.client.fetch_export(MESSAGES)
    twilio.status = status
    with pytest.raises(Fatal):
        twilio.client.create_job(request_for(end_day=LAST_DAY))


def test_a_machine_that_was_far_ahead_learns_from_its_refusal(twilio, request_for):
    """Where the first answer of all is a refusal, it says how long the day is still away."""
    twilio.machine, twilio.date, twilio.status = MIDNIGHT + 60, shown(MIDNIGHT - 300), 400
    with pytest.raises(Retryable) as caught:
        twilio.client.create_job(request_for(end_day=LAST_DAY))
    assert caught.value.retry_after == 300
    with pytest.raises(NotExportableYet):
        twilio.client.create_job(request_for(end_day=LAST_DAY))


@pytest.mark.parametrize(("skew", "day"), [(-1, 5), (0, 6), (86_399, 6)])
def test_the_quota_starts_anew_at_the_services_midnight(twilio, request_for, skew, day):
    """The next midnight is the next one at Twilio."""
    twilio.date, twilio.status, twilio.message = shown(MIDNIGHT + skew), 400, "quota"
    with pytest.raises(QuotaExceeded) as caught:
        twilio.client.create_job(request_for(end_day=date(2026, 1, 2), start_day=date(2026, 1, 2)))
    assert caught.value.resets_at.isoformat() == f"2026-01-{day:02}T00:00:00+00:00"


def test_an_advice_that_is_a_date_is_reckoned_from_the_services_time(twilio):
    """Wait until a date means until it is that date there, not on this machine."""
    twilio.machine = MIDNIGHT + 3600
    twilio.status = 429
    twilio.date = f"{shown(MIDNIGHT)}\r\nRetry-After: {shown(MIDNIGHT + 40)}"
    with pytest.raises(Retryable) as caught:
        twilio.client.fetch_export(MESSAGES)
    assert caught.value.retry_after == 40


def test_a_copy_asks_for_itself(twilio):
    """A copy serves another thread, with connections and a clock of its own."""
    twilio.date = shown(MIDNIGHT + 60)
    twilio.client.fetch_export(MESSAGES)
    with twilio.client.copy() as other:
        assert other.now() == MIDNIGHT
        assert other.pace is twilio.client.pace


@given(st.integers(0, 4_102_444_799))
def test_a_date_is_read_to_the_second(moment):
    """HTTP dates are whole seconds, in GMT."""
    assert http_date(shown(moment)) == moment


@given(st.none() | st.text(max_size=60) | st.binary(max_size=60).map(lambda b: b.decode("latin-1")))
def test_no_date_can_break_its_reader(header):
    """Anything else is a number or nothing."""
    assert isinstance(http_date(header), float | None)
