"""Jobs that are created late or twice, and lists that know them late."""

from datetime import UTC, datetime

import pytest
import requests

JOBS = "/v1/Exports/Messages/Jobs"


def listed(client, path=JOBS):
    return [job["job_sid"] for job in client.get(f"{path}?PageSize=100").json()["jobs"]]


def late(client, seconds, **more):
    client.sandbox.add_fault({"kind": "late", "seconds": seconds} | more)


def test_a_late_job_is_created_by_the_clock(client):
    """The client has no answer and the service no job, until the sandbox's time has come."""
    late(client, 45)
    before = datetime.now(UTC)
    with pytest.raises(requests.ConnectionError):
        client.create(FriendlyName="late")
    client.sandbox.advance(44)
    assert (listed(client), client.sandbox.ledger()["charged_days"]) == ([], 0)
    client.sandbox.advance(1)
    (job,) = client.sandbox.jobs()
    assert listed(client) == [job["job_sid"]]
    assert client.sandbox.ledger()["charged_days"] == 1
    waited = datetime.fromisoformat(job["created_at"]) - before
    assert 45 <= waited.total_seconds() < 46
    assert client.sandbox.requests("create_job") == 1


def test_a_late_job_may_have_an_answer_that_says_nothing(client):
    """A gateway may give up with a status before the service has acted."""
    late(client, 1, status=504)
    assert client.create().status_code == 504
    assert client.sandbox.jobs() == []
    client.sandbox.advance(1)
    assert len(client.sandbox.jobs()) == 1


def test_a_late_job_is_only_for_who_may_create(client):
    """Without a login there is nothing to create later; the next request is struck."""
    late(client, 1)
    form = {"StartDay": "2026-01-01", "EndDay": "2026-01-01", "FriendlyName": "name"}
    assert client.call("POST", JOBS, data=form, auth=("AC", "x")).status_code == 401
    with pytest.raises(requests.ConnectionError):
        client.create()


def test_late_jobs_meet_the_quota_in_the_order_of_time(start):
    """What comes later finds the quota used up by what came earlier, whoever asked first."""
    client = start(quota_days=2)
    for seconds, name in ((20, "second"), (10, "first"), (15, "between")):
        late(client, seconds, status=504)
        end = "2026-01-02" if name == "second" else "2026-01-01"
        client.create(FriendlyName=name, EndDay=end)
    client.sandbox.advance(60)
    assert [job["friendly_name"] for job in client.sandbox.jobs()] == ["first", "between"]
    assert client.sandbox.ledger()["charged_days"] == 2
    assert client.create().status_code == 400


def test_a_late_job_has_its_end_day_judged_late(start):
    """A day that may not be exported yet may be so when the request gets there."""
    noon = datetime(2026, 1, 3, 12, tzinfo=UTC).timestamp()
    client = start(now=lambda: noon)
    assert client.create(StartDay="2026-01-02", EndDay="2026-01-02").status_code == 400
    late(client, 86_400, status=504)
    client.create(StartDay="2026-01-02", EndDay="2026-01-02")
    client.sandbox.advance(2 * 86_400)
    (job,) = client.sandbox.jobs()
    assert job["created_at"] == "2026-01-04T12:00:00+00:00"


@pytest.mark.parametrize("seconds", [0, 20])
def test_a_request_that_is_delivered_twice(client, seconds):
    """A second job comes from the same request; the client hears of the first."""
    client.sandbox.add_fault({"kind": "twice", "seconds": seconds})
    answer = client.create()
    assert answer.status_code == 201
    assert len(client.sandbox.jobs()) == (1 if seconds else 2)
    client.sandbox.advance(seconds)
    first, second = client.sandbox.jobs()
    assert first["job_sid"] == answer.json()["job_sid"]
    assert first["friendly_name"] == second["friendly_name"]
    assert client.sandbox.ledger()["charged_days"] == 2
    assert client.sandbox.requests("create_job") == 1
    assert listed(client) == [first["job_sid"], second["job_sid"]]


def test_the_second_delivery_may_be_answered(client):
    """Told to, the client hears of the second job only."""
    client.sandbox.add_fault({"kind": "twice", "answer": "second"})
    sid = client.create().json()["job_sid"]
    assert [job["job_sid"] for job in client.sandbox.jobs()][1] == sid


def test_lag_hides_young_jobs(client):
    """A job may not be listed yet, nor be found, although it exists."""
    sid = client.create().json()["job_sid"]
    client.sandbox.add_fault({"route": "list_jobs", "kind": "lag", "seconds": 3, "times": -1})
    assert listed(client) == []
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 200
    client.sandbox.add_fault({"route": "fetch_job", "kind": "lag", "seconds": 3, "times": -1})
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 404
    client.sandbox.advance(3.1)
    assert listed(client) == [sid]
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 200


def test_lag_hides_young_day_files(client):
    """A day file may not be listed yet, nor be had, although the job is done."""
    client.create()
    client.sandbox.add_fault({"kind": "lag", "seconds": 3, "times": -1})
    days, day = "/v1/Exports/Messages/Days", "/v1/Exports/Messages/Days/2026-01-01"
    assert client.get(days).json()["days"] == []
    assert client.get(day).status_code == 404
    client.sandbox.advance(3.1)
    assert len(client.get(days).json()["days"]) == 1
    assert client.get(day).status_code == 307


def test_lag_may_omit_a_share_always_the_same(client):
    """Some jobs of a list are missing for as long as the fault lasts, and always the same."""
    sids = [client.create().json()["job_sid"] for _ in range(40)]
    client.sandbox.add_fault({"route": "list_jobs", "kind": "lag", "omit": 0.3, "times": 2})
    shown = listed(client)
    assert 20 <= len(shown) < 36
    assert listed(client) == shown
    assert listed(client) == sids


def test_stale_shows_what_was(start):
    """A stale answer has the words of a while ago, knows no deletion since, and no younger job."""
    client = start(job_seconds=100)
    old = client.create().json()["job_sid"]
    client.sandbox.advance(50)
    young = client.create().json()["job_sid"]
    client.call("DELETE", f"/v1/Exports/Jobs/{old}")
    words = client.details(old)
    client.sandbox.add_fault({"kind": "stale", "seconds": 49, "times": 3})
    assert listed(client) == [old]
    assert client.details(old) == {"Submitted": 1}
    assert client.get(f"/v1/Exports/Jobs/{young}").status_code == 404
    assert client.details(old) == words == {"RunningToBeDeleted": 1}
    assert listed(client) == [old, young]
    client.sandbox.advance(10)
    client.sandbox.add_fault({"kind": "stale", "seconds": 20})
    assert client.details(old) == {"Running": 1}
    assert client.details(old) == {"DeletedByUserRequest": 1}
