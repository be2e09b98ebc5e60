"""Where no connection comes about, the error says to where, and why."""

from __future__ import annotations

import socket
import ssl

import pytest

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import OutcomeUnknown, Retryable
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES
ONCE = Pace(tries=1)
HOST = "bulkexports.twilio.com:443"


@pytest.fixture
def twilio(monkeypatch):
    """Give a client of the real address on a machine without any proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Client("AC1", "token-of-the-account", pace=ONCE) as client:
        yield client


def fails(error):
    def instead(*_, **__):
        raise error

    return instead


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such host"),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "temporary failure in name resolution",
        ),
        (ConnectionRefusedError(111, "whatever"), "connection refused"),
        (OSError(101, "Network is unreachable"), "network is unreachable"),
        (OSError(113, "No route to host"), "no route to host"),
        (TimeoutError("timed out"), "timed out after 5 s"),
        (ssl.SSLError(1, "[SSL] odd"), "TLS: no agreement"),
        (OSError("odd"), "odd"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_dead_network_names_host_and_reason(twilio, monkeypatch, request_for, error, reason):
    """Who reads the error knows which name, which port and what the machine said."""
    monkeypatch.setattr(socket, "getaddrinfo", fails(error))
    calls = {
        "GET /v1/Exports/Messages/Jobs": lambda: twilio.list_jobs(MESSAGES),
        "POST /v1/Exports/Messages/Jobs": lambda: twilio.create_job(request_for()),
    }
    for path, call in calls.items():
        with pytest.raises(Retryable) as caught:
            call()
        text = str(caught.value)
        begin = f"{path}: the connection to {HOST} could not be made ("
        assert text.startswith(begin)
        assert text == f"{begin}{reason})."
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        assert "PageSize" not in text


def test_a_port_where_nobody_listens(request_for):
    """The real thing: a refused connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        Client("AC1", "token", base_url=f"http://localhost:{port}", pace=ONCE) as client,
        pytest.raises(Retryable) as caught,
    ):
        client.create_job(request_for())
    assert f"to localhost:{port} could not be made (connection refused)." in str(caught.value)


def test_a_server_that_speaks_no_tls(speak, request_for):
    """A port that answers in clear text is a TLS error, and was sent nothing."""
    with speak(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as url:
        other = url.replace("http:", "https:")
        with (
            socket.create_server(("127.0.0.1", 0)),
            Client("AC1", "token", base_url=other, pace=Pace(connect=0.5, tries=1)) as client,
            pytest.raises(Retryable, match=r"could not be made \((TLS: |timed out)"),
        ):
            client.create_job(request_for())


def test_a_dead_proxy_is_named(twilio, monkeypatch, request_for):
    """Where a proxy stands in between, it is the proxy that cannot be reached."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:proxy-password@127.0.0.1:9")
    with pytest.raises(Retryable) as caught:
        twilio.create_job(request_for())
    assert str(caught.value).endswith(
        f"to {HOST} could not be made (connection refused, by way of the proxy 127.0.0.1:9)."
    )
    assert "proxy-password" not in str(caught.value)


def test_a_proxy_that_refuses_lets_nothing_through(twilio, speak, monkeypatch, request_for):
    """A tunnel that was not opened carried no POST, so the POST may be repeated."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with speak(lambda connection: connection.sendall(refusal)) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        with pytest.raises(Retryable, match="407 Proxy Authentication Required, by way of"):
            twilio.create_job(request_for())


def test_a_connection_that_breaks_after_the_request_is_no_dead_network(speak, request_for):
    """What was sent may have acted."""
    with (
        speak(lambda connection: connection.shutdown(socket.SHUT_RDWR)) as url,
        Client("AC1", "token", base_url=url, pace=ONCE) as client,
        pytest.raises(OutcomeUnknown, match=r"the answer was lost \(the connection broke: "),
    ):
        client.create_job(request_for())


def test_a_connection_that_breaks_when_it_is_used_again_may_have_carried_a_post(speak, request_for):
    """A kept connection's end is seen only after the request was written to it."""
    turns = []

    def speech(connection):
        turns.append(1)
        if len(turns) == 1:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        else:
            connection.shutdown(socket.SHUT_RDWR)

    with speak(speech) as url, Client("AC1", "token", base_url=url, pace=ONCE) as client:
        client.fetch_export(MESSAGES)
        with pytest.raises(OutcomeUnknown):
            client.create_job(request_for())
    assert len(turns) == 2
