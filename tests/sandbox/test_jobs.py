import re
from datetime import datetime

import pytest

WEEK = 7 * 86_400


def test_a_created_job_has_no_details_yet(client):
    """The answer to a creation is 201, with null details and the resource type."""
    answer = client.create("Calls", EndDay="2026-01-03", Email="a@example.org")
    body = answer.json()
    assert answer.status_code == 201
    assert body["details"] is None
    assert re.fullmatch(r"JS[0-9a-f]{32}", body["job_sid"])
    assert (body["resource_type"], body["email"]) == ("Calls", "a@example.org")
    assert (body["start_day"], body["end_day"]) == ("2026-01-01", "2026-01-03")
    assert "status" not in body
    assert "url" not in body


def test_days_finish_out_of_order(start):
    """Days wait, run and complete one by one, and not from the first to the last."""
    client = start(job_seconds=100)
    sid = client.create(EndDay="2026-01-20").json()["job_sid"]
    assert client.details(sid) == {"Submitted": 20}
    client.sandbox.advance(60)
    details = client.get(f"/v1/Exports/Jobs/{sid}").json()["details"]
    groups = {group["status"]: group["days"] for group in details}
    assert set(groups) == {"Submitted", "Running", "Completed"}
    assert sum(len(days) for days in groups.values()) == 20
    assert all(days == sorted(days) for days in groups.values())
    assert groups["Completed"] != [
        f"2026-01-{day + 1:02}" for day in range(len(groups["Completed"]))
    ]
    client.sandbox.advance(41)
    assert client.details(sid) == {"Completed": 20}


def test_the_place_in_the_queue_only_falls(start):
    """A new job is second or later, a running one first, a finished one nought; all strings."""
    client = start(job_seconds=100)
    sids = [client.create().json()["job_sid"] for _ in range(3)]

    def positions():
        return [client.get(f"/v1/Exports/Jobs/{sid}").json()["job_queue_position"] for sid in sids]

    assert positions() == ["2", "3", "4"]
    client.sandbox.advance(50)
    assert positions() == ["1", "1", "1"]
    client.sandbox.advance(51)
    assert positions() == ["0", "0", "0"]


def test_estimates_have_three_six_or_nine_digits_and_no_zone(client):
    """Estimated completion times come in the three lengths that have been seen."""
    estimates = [client.create().json()["estimated_completion_time"] for _ in range(3)]
    fractions = [re.fullmatch(r"[\d-]{10}T[\d:]{8}\.(\d+)", text)[1] for text in estimates]
    assert sorted(len(fraction) for fraction in fractions) == [3, 6, 9]


def test_speed_shortens_jobs(start):
    """At a thousand times the speed a job takes a thousandth of its 33 seconds."""
    client = start(job_seconds=None, speed=1000)
    sid = client.create().json()["job_sid"]
    client.sandbox.advance(0.034)
    assert client.details(sid) == {"Completed": 1}


def test_creating_twice_makes_two_jobs(client):
    """A repeated request with the same name makes another job and is charged again."""
    assert client.create().json()["job_sid"] != client.create().json()["job_sid"]
    ledger = client.sandbox.ledger()
    assert len(ledger["jobs"]) == ledger["charged_days"] == 2


@pytest.mark.parametrize(
    "form",
    [
        {"StartDay": None},
        {"EndDay": None},
        {"FriendlyName": None},
        {"FriendlyName": ""},
        {"StartDay": "2026-1-1"},
        {"EndDay": "2026-02-30"},
        {"StartDay": "2026-01-02"},
        {"StartDay": "2024-12-31"},
        {"WebhookUrl": "https://example.org"},
        {"WebhookMethod": "GET"},
        {"WebhookUrl": "https://example.org", "WebhookMethod": "PUT"},
        {"WebhookUrl": "example", "WebhookMethod": "GET"},
    ],
)
def test_wrong_fields_are_refused(client, form):
    """A wrong request answers 400 in Twilio's form, and makes and charges nothing."""
    answer = client.create(**form)
    assert answer.status_code == answer.json()["status"] == 400
    assert set(answer.json()) == {"code", "message", "more_info", "status"}
    ledger = client.sandbox.ledger()
    assert (ledger["jobs"], ledger["charged_days"]) == ([], 0)
    assert ledger["rejected"] == {"400": 1}


def test_the_end_day_is_at_most_the_day_before_yesterday(client, days_ago):
    """The end day may be two UTC days ago by the sandbox's clock, and no later."""
    day = days_ago(1)
    assert client.create(StartDay=day, EndDay=day).status_code == 400
    client.sandbox.advance(86_400)
    assert client.create(StartDay=day, EndDay=day).status_code == 201


def test_the_quota_is_shared_and_never_given_back(start):
    """Parent and subaccounts have 366 days together, which deletion does not give back."""
    client = start(job_seconds=100)
    parent = client.sandbox.account_sid
    client.sandbox.add_account("AC-child", "child-token", parent=parent)
    sid = client.create(StartDay="2025-01-01", EndDay="2025-12-31").json()["job_sid"]
    assert client.call("DELETE", f"/v1/Exports/Jobs/{sid}").status_code == 204
    client.auth = ("AC-child", "child-token")
    answer = client.create(EndDay="2026-01-02")
    assert answer.status_code == 400
    assert "quota" in answer.json()["message"]
    assert "366 days" in answer.json()["message"]
    assert client.create().status_code == 201
    assert client.create().status_code == 400
    assert client.sandbox.ledger()["charged_days"] == 366
    client.sandbox.advance(86_400)
    assert client.create().status_code == 201


def test_the_refusal_over_the_quota_can_be_chosen(start):
    """Twilio documents no status for it, so a test may choose one."""
    client = start(quota_days=0, quota_status=403, quota_code=20429)
    answer = client.create()
    assert (answer.status_code, answer.json()["code"]) == (403, 20429)


def test_a_finished_job_is_known_for_seven_days(client):
    """A finished job stays on the list for seven days; then it is gone, but in the ledger."""
    sid = client.create().json()["job_sid"]
    client.sandbox.advance(WEEK - 60)
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 200
    client.sandbox.advance(61)
    assert client.get(f"/v1/Exports/Jobs/{sid}").status_code == 404
    assert client.get("/v1/Exports/Messages/Jobs").json()["jobs"] == []
    assert [job["job_sid"] for job in client.sandbox.ledger()["jobs"]] == [sid]


def test_deleting_a_waiting_job(start):
    """The days of a waiting job become DeletedByUserRequest at once."""
    client = start(job_seconds=100)
    path = f"/v1/Exports/Jobs/{client.create().json()['job_sid']}"
    answer = client.call("DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(path).json()["details"][0]["status"] == "DeletedByUserRequest"
    assert client.call("DELETE", path).status_code == 404
    assert [(job["deleted"], job["state"]) for job in client.sandbox.ledger()["jobs"]] == [
        (True, "failed")
    ]


def test_deleting_a_running_job(start):
    """Running days pass through RunningToBeDeleted; completed ones keep their files."""
    client = start(job_seconds=100)
    sid = client.create(EndDay="2026-01-20").json()["job_sid"]
    client.sandbox.advance(60)
    before = client.details(sid)
    client.call("DELETE", f"/v1/Exports/Jobs/{sid}")
    assert client.details(sid) == {
        "Completed": before["Completed"],
        "RunningToBeDeleted": before["Running"],
        "DeletedByUserRequest": before["Submitted"],
    }
    client.sandbox.advance(60)
    assert client.details(sid) == {
        "Completed": before["Completed"],
        "DeletedByUserRequest": 20 - before["Completed"],
    }
    listed = client.get("/v1/Exports/Messages/Days?PageSize=30").json()["days"]
    assert len(listed) == before["Completed"]


@pytest.mark.parametrize("status", [404, 204])
def test_deleting_a_finished_job(start, status):
    """What Twilio answers is unknown, so both answers can be had; the job stays done."""
    client = start(delete_finished=str(status))
    path = f"/v1/Exports/Jobs/{client.create().json()['job_sid']}"
    assert client.call("DELETE", path).status_code == status
    assert client.get(path).json()["details"][0]["status"] == "Completed"
    assert client.call("DELETE", path).status_code == status


def test_deleting_a_finished_job_may_remove_it(start):
    """Told to, the sandbox takes a finished job off list and fetch; its file stays."""
    client = start(delete_finished="removes")
    path = f"/v1/Exports/Jobs/{client.create().json()['job_sid']}"
    assert client.call("DELETE", path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.call("DELETE", path).status_code == 404
    assert client.get("/v1/Exports/Messages/Jobs").json()["jobs"] == []
    assert client.file().status_code == 200
    (job,) = client.sandbox.jobs(live=True)
    assert (job["state"], job["deleted_at"]) == ("completed", None)


def test_a_deleted_job_may_be_gone_at_once(start):
    """Told to, the sandbox does not list a job that was deleted before its end; it is charged."""
    client = start(deleted_jobs="gone", job_seconds=100)
    path = f"/v1/Exports/Jobs/{client.create().json()['job_sid']}"
    assert client.call("DELETE", path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.get("/v1/Exports/Messages/Jobs").json()["jobs"] == []
    ledger = client.sandbox.ledger()
    assert [job["deleted"] for job in ledger["jobs"]] == [True]
    assert ledger["charged_days"] == 1


@pytest.mark.parametrize(
    "settings", [{"delete_finished": 204}, {"deleted_jobs": "hidden"}], ids=str
)
def test_a_setting_that_is_none_is_refused(start, settings):
    """A word that a setting does not know is an error that names those it does."""
    with pytest.raises(ValueError, match="is one of"):
        start(**settings)


def test_the_ledger_has_the_times_of_a_job(start):
    """Each job has its days, and when it was created, deleted and done, null for not yet."""
    client = start(job_seconds=100)
    done, deleted = (client.create(EndDay=f"2026-01-0{last}").json()["job_sid"] for last in (1, 3))
    client.call("DELETE", f"/v1/Exports/Jobs/{deleted}")
    first, second = client.sandbox.jobs()
    assert (first["job_sid"], first["days"], second["days"]) == (done, 1, 3)
    assert (first["finished_at"], first["deleted_at"]) == (None, None)
    assert second["created_at"] <= second["deleted_at"] == second["finished_at"]
    client.sandbox.advance(100)
    first, _ = client.sandbox.jobs()
    took = [datetime.fromisoformat(first[name]) for name in ("created_at", "finished_at")]
    assert (took[1] - took[0]).total_seconds() == pytest.approx(100)
