"""The sandbox's time: given, frozen, moved, and what hangs on it."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
import requests

EXPORT = "/v1/Exports/Calls"
NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)


class Time:
    """A time that moves only when it is told to."""

    def __init__(self):
        self.now = NOON.timestamp()

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def test_all_that_happens_goes_by_a_time_that_is_given(start, time):
    """Days allowed, words, ledger, links and Date follow the time that a test gives."""
    client = start(now=time, job_seconds=100, quota_days=1)
    assert client.create(StartDay="2026-05-04", EndDay="2026-05-04").status_code == 400
    sid = client.create(StartDay="2026-05-03", EndDay="2026-05-03").json()["job_sid"]
    assert client.details(sid) == {"Submitted": 1}
    time.now += 99
    assert client.details(sid) == {"Running": 1}
    (job,) = client.sandbox.jobs()
    assert (job["created_at"], job["finished_at"]) == ("2026-05-05T12:00:00+00:00", None)
    time.now += 1
    assert client.details(sid) == {"Completed": 1}
    (job,) = client.sandbox.jobs()
    assert job["finished_at"] == "2026-05-05T12:01:40+00:00"
    assert parsedate_to_datetime(client.get(EXPORT).headers["Date"]).timestamp() == time.now
    link = client.link("2026-05-03")
    time.now += 240
    assert requests.get(link, timeout=5).status_code == 403
    assert client.create().status_code == 400
    time.now += 86_400
    assert client.create().status_code == 201


def test_a_given_time_can_be_advanced(start, time):
    """The sandbox's own clock adds to the time that is given."""
    client = start(now=time)
    client.sandbox.advance(60)
    date = parsedate_to_datetime(client.get(EXPORT).headers["Date"])
    assert (date - NOON).total_seconds() == 60


def test_a_fault_may_last_for_a_while(client):
    """A fault with seconds strikes all requests until they are over by the sandbox's clock."""
    refused = {"kind": "status", "status": 401, "code": 20003, "lasting": 15}
    client.create()
    link = client.link()
    client.sandbox.add_fault({"route": "*"} | refused)
    assert [client.get(EXPORT).status_code for _ in range(3)] == [401] * 3
    # A bucket asks for no login, so the token does not matter to it.
    assert requests.get(link, timeout=5).status_code == 200
    (fault,) = client.get("/_sandbox/faults").json()
    assert (fault["times"], fault["lasting"] <= 15) == (-1, True)
    client.sandbox.advance(14)
    assert client.get(EXPORT).status_code == 401
    client.sandbox.advance(1)
    assert client.get(EXPORT).status_code == 200
    assert client.get("/_sandbox/faults").json() == []


def test_a_fault_may_be_bounded_in_time_and_number(client):
    """What is over first, seconds or times, ends it."""
    client.sandbox.add_fault({"kind": "status", "status": 500, "lasting": 9, "times": 2})
    assert [client.get(EXPORT).status_code for _ in range(3)] == [500, 500, 200]
    client.sandbox.add_fault({"kind": "status", "status": 500, "lasting": 9, "times": 2})
    client.sandbox.advance(9)
    assert client.get(EXPORT).status_code == 200
