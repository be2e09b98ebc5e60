"""A listing is whole or an error."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BadData, BulkExportsError, Retryable
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES
LISTS = {"list_jobs": "/v1/Exports/Messages/Jobs", "list_days": "/v1/Exports/Messages/Days"}


def test_all_jobs_are_listed(crowded):
    """65 jobs come on three pages, and all arrive, although a plain listing shows ten."""
    with crowded.client() as client:
        listing = client.list_jobs(MESSAGES)
    assert [job.sid for job in listing.jobs] == [job["job_sid"] for job in crowded.jobs()]
    assert crowded.asked("list_jobs") == listing.pages == 3


def test_all_days_are_listed(crowded):
    """65 day files come on three pages, and all arrive."""
    with crowded.client() as client:
        days = client.list_days(MESSAGES)
    assert len({day.day for day in days}) == 65
    assert crowded.asked("list_days") == 3


def test_other_types_have_their_own_lists(crowded):
    """A listing holds the jobs of its type only."""
    with crowded.client() as client:
        assert client.list_jobs(ResourceType.CALLS).jobs == ()
        assert client.list_days(ResourceType.CALLS) == []


@pytest.mark.parametrize("route", LISTS)
@pytest.mark.parametrize("after", [0, 1])
def test_a_list_that_leads_back_to_itself_ends(crowded, route, after):
    """A next page that was read before is an error, not an endless loop."""
    crowded.fault(route, "loop_page", times=-1, after=after)
    with crowded.client() as client, pytest.raises(BadData, match="leads back") as caught:
        getattr(client, route)(MESSAGES)
    asked = after + 1 + (after == 0)
    assert crowded.asked(route) == asked
    assert f"{asked} pages with {30 * asked} items" in str(caught.value)


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
        {"kind": "loop_page"},
        {"kind": "evil_page", "url": "https://evil.example/"},
    ],
    ids=lambda fault: "-".join(str(part) for part in fault.values()),
)
@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_list_without_one_of_its_pages_is_no_list(crowded, fault, page):
    """A listing that fails on any page is never taken for a shorter one."""
    crowded.fault("list_jobs", **fault, after=page, times=-1)
    with crowded.client() as client, pytest.raises(BulkExportsError):
        client.list_jobs(MESSAGES)


def test_a_page_that_fails_in_passing_is_asked_for_again(crowded):
    """A 503 in the middle of a listing costs a second, not the listing."""
    crowded.fault("list_jobs", "status", status=503, after=1)
    with crowded.client(pace=Pace(tries=2)) as client:
        assert len(client.list_jobs(MESSAGES).jobs) == 65
    assert crowded.asked("list_jobs") == 4


@pytest.fixture
def endless(speak, route):
    """Serve a list whose every page has another after it, and say how often it was asked."""
    turns = itertools.count(1)

    def page(connection):
        turn = next(turns)
        item = {"job_sid": f"JS{turn:032x}", "day": "2026-01-01", "size": turn}
        key = {"jobs": [item], "days": [item]}
        body = json.dumps(
            key | {"meta": {"next_page_url": f"{LISTS[route]}?PageToken={turn}"}}
        ).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with speak(page) as url:
        yield url, lambda: next(turns) - 1


@pytest.mark.parametrize("route", LISTS)
def test_a_list_that_grows_for_ever_ends_by_its_pages(endless, route):
    """After so many pages nothing true can follow, and the error says how many there were."""
    url, asked = endless
    with (
        Client("AC1", "token", base_url=url, pace=Pace(pages=7)) as client,
        pytest.raises(BadData, match=r"does not end: 7 pages with 7 items were read, .* most"),
    ):
        getattr(client, route)(MESSAGES)
    assert asked() == 7


@pytest.mark.parametrize("route", LISTS)
def test_a_list_that_is_slow_ends_by_its_time(endless, route):
    """A listing has its time as a whole, and the error may be repeated."""
    url, asked = endless
    clock = itertools.count(step=5)
    pace = Pace(now=lambda: float(next(clock)))
    with (
        Client("AC1", "token", base_url=url, pace=pace) as client,
        pytest.raises(
            Retryable, match=r"not whole after 60 s: [0-9]+ pages with .* try again later"
        ),
    ):
        getattr(client, route)(MESSAGES)
    assert 1 < asked() < 14


def test_tries_of_a_page_end_with_the_listings_time(crowded):
    """A page that keeps failing does not carry a listing past its time."""
    waited = []

    def sleep(seconds):
        waited.append(seconds)

    pace = Pace(tries=50, listing=10, now=lambda: 1e9 + sum(waited), sleep=sleep)
    crowded.fault("list_jobs", "status", status=503, times=-1, after=1)
    with crowded.client(pace=pace) as client, pytest.raises(Retryable, match="HTTP 503"):
        client.list_jobs(MESSAGES)
    assert 3 < sum(waited) <= 10


def test_an_advice_is_followed_up_to_the_longest_pause(service):
    """What is slept between two tries is the pace's to say, and nobody sleeps in secret."""
    waited = []
    pace = Pace(tries=3, longest_pause=20, sleep=waited.append)
    service.fault("list_jobs", "status", status=429, retry_after=20)
    service.fault("list_jobs", "status", status=429, retry_after=21)
    with service.client(pace=pace) as client, pytest.raises(Retryable) as caught:
        client.list_jobs(MESSAGES)
    assert waited == [20]
    assert caught.value.retry_after == 21
    with service.client(pace=replace(pace, tries=1)) as client:
        assert client.list_jobs(MESSAGES).jobs == ()
