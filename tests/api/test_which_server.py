"""Credentials go to the configured server and nowhere else."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.client import BASE_URL, Client, check_base_url
from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest
from airflow_provider_bulkexports.api.request import ResourceType

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PATH = "/v1/Exports/Messages/Jobs"

pieces = st.lists(
    st.sampled_from(
        [
            "http",
            "https",
            "ftp",
            "://",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "?",
            "#",
            "[",
            "]",
            "%2f",
            "é",
            "user",
            "..",
            ".",
            "localhost",
            "127.0.0.1",
            "::1",
            "8010",
            "0",
            "bulkexports.twilio.com",
            "evil.example",
            "/v1/Exports/Messages/Jobs",
            "PageToken=x",
            "\t",
            "\n",
        ]
    ),
    max_size=9,
).map("".join)
urls = pieces | st.text(max_size=40).map("https://{}".format) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("given_url", "origin"),
    [
        ("https://bulkexports.twilio.com", "https://bulkexports.twilio.com"),
        ("https://bulkexports.twilio.com/", "https://bulkexports.twilio.com"),
        ("HTTPS://Proxy.Example:8443", "https://proxy.example:8443"),
        ("http://127.0.0.1:8010", "http://127.0.0.1:8010"),
        ("http://localhost:8010/", "http://localhost:8010"),
        ("http://[::1]:8010", "http://[::1]:8010"),
    ],
)
def test_https_anywhere_and_http_on_this_machine(given_url, origin):
    """A base URL is https, or http for the sandbox."""
    assert check_base_url(given_url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bulkexports.twilio.com",
        "http://bulkexports.twilio.com",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "https://user:password@bulkexports.twilio.com",
        "https://bulkexports.twilio.com/v1",
        "https://bulkexports.twilio.com?x=1",
        "https://bulkexports.twilio.com#x",
        "https://",
        "https://[::1",
        "https://host:port",
        "https://host:99999",
        "file:///etc/passwd",
        "ftp://localhost",
    ],
)
def test_any_other_base_url_is_refused_before_any_traffic(url):
    """Plain http to another machine, paths, queries and credentials in the URL are refused."""
    with pytest.raises(InvalidRequest, match="base_url must be https"):
        check_base_url(url)
    if url:
        with pytest.raises(InvalidRequest):
            Client("AC1", "token", base_url=url)


@given(urls)
@example("http://[::1]")
@example("https://[")
def test_a_base_url_is_an_origin_or_refused(url):
    """Whatever is given, what is accepted is scheme, host and port, and safe for a password."""
    try:
        origin = check_base_url(url)
    except InvalidRequest:
        return
    parts = urlsplit(origin)
    assert parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
    assert check_base_url(origin) == origin


@given(urls, st.sampled_from([BASE_URL, "http://127.0.0.1:8010", "http://[::1]:8010"]))
@example(f"https://bulkexports.twilio.com@evil.example{PATH}?a=1", BASE_URL)
@example(f"//evil.example{PATH}", BASE_URL)
@example(f"https://bulkexports.twilio.com{PATH}?PageSize=30&PageToken=x", BASE_URL)
@example(f"{PATH}?PageToken=%2f", "http://127.0.0.1:8010")
def test_a_next_page_is_on_the_same_server_and_of_the_same_list(url, base_url):
    """Whatever the service names as the next page, only its own list is ever asked for."""
    client = Client("AC1", "token", base_url=base_url)
    try:
        following = client._next_page(url, PATH)
    except BadData:
        return
    assume(following is not None)
    sent = requests.Request("GET", client.base_url + following).prepare()
    assert sent.url.partition("?")[0] == f"{base_url}{PATH}"


@pytest.mark.parametrize(
    "url",
    [
        f"https://evil.example{PATH}?PageToken=x",
        f"//evil.example{PATH}?PageToken=x",
        "/v1/Exports/Calls/Jobs?PageToken=x",
        "/v1/Exports/Messages/Jobs/../../Calls/Jobs",
        f"http://user@127.0.0.1{PATH}",
        "http://[broken",
        7,
    ],
)
def test_a_page_elsewhere_is_never_asked_for(service, client, url):
    """A listing that points to another server or list is an error, not an adventure."""
    service.fault("list_jobs", "evil_page", url=url)
    with pytest.raises(BadData, match="not part of it"):
        client.list_jobs(ResourceType.MESSAGES)
    assert service.asked() == 1


def test_a_page_on_another_local_port_gets_no_credentials(start):
    """Not even another server of the same machine is the configured server."""
    service, other = start(), start()
    service.fault("list_jobs", "evil_page", url=f"{other.sandbox.url}{PATH}?PageToken=x")
    with service.client() as client, pytest.raises(BadData):
        client.list_jobs(ResourceType.MESSAGES)
    assert other.asked() == 0


@pytest.mark.parametrize(
    ("login", "secret"),
    [("", "hidden"), ("AC1", ""), ("AC1", "tok\nen"), ("AC1", "tökén"), ("AC\x00", "hidden")],
)
def test_incomplete_or_odd_credentials_are_refused_here(login, secret):
    """Missing credentials and such with line breaks never reach a request."""
    with pytest.raises(InvalidRequest, match="credentials") as caught:
        Client(login, secret)
    assert not secret or secret not in str(caught.value)
