"""A listing is whole or an error."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import BadData, BulkExportsError, Retryable
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES


def test_all_jobs_are_listed(crowded):
    """65 jobs come on three pages, and all arrive, although a plain listing shows ten."""
    with crowded.client() as client:
        jobs = client.list_jobs(MESSAGES)
    assert [job.sid for job in jobs] == [job["job_sid"] for job in crowded.jobs()]
    assert crowded.asked("list_jobs") == 3


def test_all_days_are_listed(crowded):
    """65 day files come on three pages, and all arrive."""
    with crowded.client() as client:
        days = client.list_days(MESSAGES)
    assert len({day.day for day in days}) == 65
    assert crowded.asked("list_days") == 3


def test_other_types_have_their_own_lists(crowded):
    """A listing holds the jobs of its type only."""
    with crowded.client() as client:
        assert client.list_jobs(ResourceType.CALLS) == []
        assert client.list_days(ResourceType.CALLS) == []


def test_the_job_on_the_last_page_is_found(crowded, request_for):
    """The 65th job is adopted: nothing is made anew because a listing was cut short."""
    day = "2025-03-09"
    request = request_for("task 64", start_day=day, end_day=day)
    assert crowded.submit(request).sid == crowded.jobs()[-1]["job_sid"]
    assert len(crowded.jobs()) == 65


@pytest.mark.parametrize("route", ["list_jobs", "list_days"])
@pytest.mark.parametrize("after", [0, 1])
def test_a_list_that_leads_back_to_itself_ends(crowded, route, after):
    """A next page that was read before is an error, not an endless loop."""
    crowded.fault(route, "loop_page", times=-1, after=after)
    with crowded.client() as client, pytest.raises(BadData, match="does not end"):
        getattr(client, route)(MESSAGES)
    assert crowded.asked(route) == after + 1 + (after == 0)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 404},
        {"kind": "drop_before"},
        {"kind": "truncate"},
        {"kind": "bad_json"},
        {"kind": "wrong_type"},
        {"kind": "bad_json", "body": '{"jobs": []}'},
        {"kind": "bad_json", "body": '{"jobs": null, "meta": {}}'},
        {"kind": "bad_json", "body": '{"jobs": [7], "meta": {}}'},
        {"kind": "bad_json", "body": '{"jobs": [{}], "meta": {}}'},
        {"kind": "loop_page"},
        {"kind": "evil_page", "url": "https://evil.example/"},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values()),
)
@pytest.mark.parametrize("page", [0, 1, 2])
def test_nothing_is_submitted_without_the_whole_list(crowded, request_for, fault, page):
    """A listing that fails on any page is never taken for a listing without our job."""
    crowded.fault("list_jobs", **fault, after=page, times=-1)
    with pytest.raises(BulkExportsError):
        crowded.submit(request_for("somebody new"))
    assert len(crowded.jobs()) == 65
    assert crowded.asked("create_job") == 0


def test_a_page_that_fails_in_passing_is_asked_for_again(crowded):
    """A 503 in the middle of a listing costs a second, not the listing."""
    crowded.fault("list_jobs", "status", status=503, after=1)
    with crowded.client(tries=2) as client:
        assert len(client.list_jobs(MESSAGES)) == 65
    assert crowded.asked("list_jobs") == 4


def test_a_job_that_comes_twice_is_listed_once(answer_with, start):
    """A list that grows between two pages may repeat an item; the job is still one."""
    sid = "JS" + "0" * 32
    body = f'{{"jobs": [{{"job_sid": "{sid}"}}, {{"job_sid": "{sid}"}}], "meta": {{}}}}'.encode()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    service = start()
    with answer_with(head + body) as url, service.client() as client:
        client.base_url = url
        assert [job.sid for job in client.list_jobs(MESSAGES)] == [sid]


def test_an_outage_while_listing_is_repeatable(service, request_for):
    """A listing that failed in passing says so: the submission may simply be tried again."""
    service.fault("list_jobs", "status", status=503)
    with pytest.raises(Retryable):
        service.submit(request_for())
    assert service.submit(request_for()).sid == service.jobs()[0]["job_sid"]
    assert len(service.jobs()) == 1
