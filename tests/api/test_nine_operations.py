"""Each operation of the API, against a service that keeps to the published contract."""

from __future__ import annotations

import json
from datetime import date
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import (
    BadData,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Retryable,
    Unauthorized,
)
from airflow_provider_bulkexports.api.job import ExportConfiguration, ExportLinks, JobState, Status
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES
NO_JOB = "JS" + "0" * 32


@pytest.fixture
def finished(start, request_for):
    """Give a service with one finished job of three days."""
    service = start(job_seconds=0)
    with service.client() as client:
        client.create_job(request_for())
    return service


@pytest.mark.parametrize("kind", ResourceType)
def test_fetch_export(service, client, kind):
    """A resource type's entry point names where its jobs and days are."""
    export = client.fetch_export(kind)
    assert export.resource_type is kind
    assert set(dict(export.links)) == {"days", "export_custom_jobs", "jobs"}


def test_an_export_without_links_has_none(service, client):
    """Links that are missing are no failure."""
    service.fault("fetch_export", "bad_json", body='{"links": null}')
    assert client.fetch_export(MESSAGES) == ExportLinks(MESSAGES, ())


@pytest.mark.parametrize("kind", ResourceType)
def test_create_job(service, client, request_for, kind):
    """A new job is active, has no details yet, and is charged for its days."""
    request = request_for(
        resource_type=kind,
        webhook_url="https://example.com/hook",
        webhook_method="POST",
        email="team@example.com",
    )
    job = client.create_job(request)
    assert (job.resource_type, job.friendly_name) == (kind, request.friendly_name)
    assert (job.start_day, job.end_day) == (request.start_day, request.end_day)
    assert (job.webhook_url, job.webhook_method) == ("https://example.com/hook", "POST")
    assert job.email == "team@example.com"
    assert job.groups == ()
    assert job.state() is JobState.ACTIVE
    assert job.queue_position == 2
    assert job.estimated_completion.timezone_name == "UTC"
    assert [listed["job_sid"] for listed in service.jobs()] == [job.sid]
    assert service.charged() == 3


SID = "JS" + "5" * 32


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, {"job_sid": SID}),
        (204, {}),
        (302, {"job_sid": SID}),
        (201, {}),
        (201, {"job_sid": None}),
        (201, {"job_sid": "JS5"}),
        (200, {"job_sid": 7}),
        (201, [SID]),
    ],
)
def test_a_new_job_without_a_sid_may_be_there(answer_with, request_for, status, body):
    """Neither 201 nor 200, or no job SID: the service said yes, but not to what."""
    text = b"" if status == 204 else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} Hm\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    with (
        answer_with(head + text) as url,
        Client("AC1", "token", base_url=url) as client,
        pytest.raises(OutcomeUnknown) as caught,
    ):
        client.create_job(request_for())
    assert caught.value.status == status
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "odd",
    [
        {"details": {"0": {}}},
        {"details": "Submitted"},
        {"start_day": "2026-01-013"},
        {"end_day": 7},
        {"resource_type": "Faxes"},
        {"details": [{"status": "Submitted", "count": "3"}], "job_queue_position": "2"},
    ],
    ids=str,
)
def test_a_new_jobs_sid_is_never_lost_over_its_other_fields(answer_with, request_for, caplog, odd):
    """A job whose SID is known is known, whatever else its answer holds."""
    text = json.dumps({"job_sid": SID} | odd).encode()
    head = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(text)
    request = request_for()
    with answer_with(head + text) as url, Client("AC1", "token", base_url=url) as client:
        job = client.create_job(request)
    assert (job.sid, job.friendly_name) == (SID, request.friendly_name)
    assert (job.resource_type, job.start_day, job.end_day) == (
        request.resource_type,
        request.start_day,
        request.end_day,
    )
    assert job.queue_position == (2 if "job_queue_position" in odd else None)
    assert job.state() is JobState.ACTIVE
    assert [record.levelname for record in caplog.records if SID in record.getMessage()] == [
        "WARNING"
    ]


def test_list_jobs(service, client, request_for):
    """Listed jobs have their days by status."""
    made = [client.create_job(request_for(name)) for name in ("one", "two")]
    listing = client.list_jobs(MESSAGES)
    listed = listing.jobs
    assert (listing.odd, listing.pages) == ((), 1)
    assert [job.sid for job in listed] == [job.sid for job in made]
    assert set(listed[0].day_statuses()) == {date(2026, 1, number) for number in (1, 2, 3)}


def test_fetch_job(finished):
    """A finished job is completed for all its days."""
    with finished.client() as client:
        job = client.fetch_job(finished.jobs()[0]["job_sid"])
    assert job.state() is JobState.COMPLETED
    assert set(job.day_statuses().values()) == {Status.COMPLETED}
    assert job.queue_position == 0


def test_an_unknown_job_is_explained(service, client):
    """The error names the job and says why Twilio may not know it."""
    with pytest.raises(NotFound, match=f"no job {NO_JOB}.*7 days.*Check the SID") as caught:
        client.fetch_job(NO_JOB)
    assert (caught.value.status, caught.value.code) == (404, 20404)
    assert caught.value.request_id


def test_a_job_is_gone_seven_days_after_its_end(finished):
    """Finished jobs leave the list after a week; the client says so."""
    finished.sandbox.advance(8 * 86_400)
    with finished.client() as client:
        assert client.list_jobs(MESSAGES).jobs == ()
        with pytest.raises(NotFound, match="7 days"):
            client.fetch_job(finished.jobs()[0]["job_sid"])


def test_another_job_than_asked_for_is_refused(service, client):
    """An answer about another job is not believed."""
    service.fault("fetch_job", "bad_json", body=f'{{"job_sid": "JS{"1" * 32}"}}')
    with pytest.raises(BadData, match=f"Asked for job {NO_JOB}"):
        client.fetch_job(NO_JOB)


@pytest.mark.parametrize("sid", ["", "JS1", "JS" + "g" * 32, "../Messages", None, f"{NO_JOB}\n"])
def test_what_is_no_job_sid_never_reaches_a_path(service, client, sid):
    """A job SID is checked before it becomes part of an address."""
    for call in (client.fetch_job, client.delete_job):
        with pytest.raises(InvalidRequest, match="job_sid"):
            call(sid)
    assert service.asked() == 0


def test_delete_job(service, client, request_for):
    """An unfinished job can be deleted; once deleted or finished it is no longer known."""
    sid = client.create_job(request_for()).sid
    assert client.delete_job(sid) is True
    assert service.live() == []
    assert client.delete_job(sid) is False
    assert client.delete_job(NO_JOB) is False


def test_a_delete_is_repeated(service, request_for):
    """Deleting twice does no harm, so a lost answer is asked for again."""
    with service.client(pace=Pace(tries=2)) as client:
        sid = client.create_job(request_for()).sid
        service.fault("delete_job", "drop_before")
        assert client.delete_job(sid) is True
    assert service.asked("delete_job") == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["redirect", "page", "accepted"],
)
def test_only_a_204_means_deleted(answer_with, answer):
    """What a proxy's login page answers is no word of Twilio's that the job is gone."""
    with (
        answer_with(answer) as url,
        Client("AC1", "token", base_url=url) as client,
        pytest.raises(BadData, match=f"DELETE .*{NO_JOB}: HTTP {answer[9:12].decode()} .* 204"),
    ):
        client.delete_job(NO_JOB)


def test_list_days(finished):
    """Day files are listed with size, job and the day they were made."""
    with finished.client() as client:
        days = client.list_days(MESSAGES)
    assert {day.day for day in days} == {date(2026, 1, number) for number in (1, 2, 3)}
    assert all(day.size > 0 and day.create_date and day.friendly_name for day in days)


def test_fetch_day(finished):
    """A day's link is given out, not followed, and never shown."""
    with finished.client() as client:
        link = client.fetch_day(MESSAGES, date(2026, 1, 2))
    assert finished.sandbox.ledger()["downloads"] == []
    assert urlsplit(link.url).path not in repr(link)
    assert "Signature" not in repr(link)
    assert requests.get(link.url, timeout=5).status_code == 200


def test_a_link_may_stand_in_the_header_only(finished):
    """Where the body cannot be read, the Location header counts."""
    finished.fault("fetch_day", "corrupt", at=0)
    with finished.client() as client:
        assert "/_files/" in client.fetch_day(MESSAGES, date(2026, 1, 2)).url


def test_a_day_without_a_link_is_bad_data(finished):
    """A 200 that names no link is an error."""
    for body in ("{}", '{"redirect_to": null}', '{"redirect_to": 7}', "<html>"):
        finished.fault("fetch_day", "bad_json", body=body)
        with finished.client() as client, pytest.raises(BadData, match="no link"):
            client.fetch_day(MESSAGES, date(2026, 2, 1))


def test_a_day_without_a_file_is_not_found(finished):
    """There is no link to a day that was not exported."""
    with finished.client() as client, pytest.raises(NotFound):
        client.fetch_day(MESSAGES, date(2026, 2, 1))


def test_fetch_and_update_configuration(service, client):
    """The daily export is read and changed; what is not given stays."""
    off = ExportConfiguration(MESSAGES, enabled=False)
    assert client.fetch_configuration(MESSAGES) == off
    hook = {"webhook_url": "https://example.com/hook", "webhook_method": "GET"}
    on = ExportConfiguration(MESSAGES, enabled=True, **hook)
    assert client.update_configuration(MESSAGES, enabled=True, **hook) == on
    assert client.update_configuration(MESSAGES) == on
    assert client.fetch_configuration(MESSAGES) == on
    assert client.update_configuration(MESSAGES, enabled=False).enabled is False
    assert client.fetch_configuration(ResourceType.CALLS).enabled is False


def test_a_configuration_can_be_set_twice(service):
    """Setting the same twice does no harm, so an update is repeated."""
    service.fault("update_configuration", "drop_after")
    with service.client(pace=Pace(tries=2)) as client:
        assert client.update_configuration(MESSAGES, enabled=True).enabled is True


def test_an_account_without_editions_is_refused(start):
    """Twilio's refusal arrives as it is."""
    service = start(editions=False)
    with service.client() as client, pytest.raises(Unauthorized, match="Editions"):
        client.update_configuration(MESSAGES, enabled=True)


def test_an_api_key_works_as_a_token_does(service, request_for):
    """A key's SID and secret log in to its account."""
    service.sandbox.add_key("SK" + "1" * 32, "key-secret")
    with service.client(login="SK" + "1" * 32, secret="key-secret") as client:
        sid = client.create_job(request_for()).sid
    assert service.jobs()[0]["job_sid"] == sid


def test_a_wrong_token_is_unauthorized(service):
    """Refused credentials are told apart from other refusals."""
    with service.client(secret="wrong") as client, pytest.raises(Unauthorized) as caught:
        client.list_jobs(MESSAGES)
    assert (caught.value.status, caught.value.code) == (401, 20003)


def test_hurried_asks_once(service):
    """A hurried client does not repeat itself, for the moment before a kill."""
    service.fault("list_jobs", "status", status=503, times=-1)
    with (
        service.client(pace=Pace()) as client,
        client.hurried() as hurried,
        pytest.raises(Retryable),
    ):
        hurried.list_jobs(MESSAGES)
    assert service.asked("list_jobs") == 1


def test_hurried_is_the_same_account(service, client, request_for):
    """A hurried client deletes what the patient one made."""
    sid = client.create_job(request_for()).sid
    with client.hurried() as hurried:
        assert hurried.delete_job(sid) is True


def test_the_environment_has_no_say_on_this_machine(service, client, monkeypatch):
    """A proxy of the environment never sees requests to the sandbox."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client.list_jobs(MESSAGES).jobs == ()
