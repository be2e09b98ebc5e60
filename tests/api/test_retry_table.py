"""Every way a call can fail, and what the caller may do next: for reads and for creating a job."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
import urllib3.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    Fatal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Retryable,
    Unauthorized,
)
from airflow_provider_bulkexports.api.job import JobListing
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.retry import Failure, failure_of_status, verdict

MESSAGES = ResourceType.MESSAGES

AT_HTTP_LEVEL = [
    # fault, error of a read, error of creating a job, jobs made
    ({"kind": "drop_before"}, Retryable, OutcomeUnknown, 0),
    ({"kind": "drop_before", "reset": True}, Retryable, OutcomeUnknown, 0),
    ({"kind": "drop_after"}, Retryable, OutcomeUnknown, 1),
    ({"kind": "drop_after", "reset": True}, Retryable, OutcomeUnknown, 1),
    ({"kind": "truncate"}, Retryable, OutcomeUnknown, 1),
    ({"kind": "delay", "seconds": 0.6}, Retryable, OutcomeUnknown, None),
    ({"kind": "delay_after", "seconds": 0.6}, Retryable, OutcomeUnknown, 1),
    ({"kind": "status", "status": 429}, Retryable, Retryable, 0),
    ({"kind": "status", "status": 429, "retry_after": 7}, Retryable, Retryable, 0),
    *(
        ({"kind": kind, "status": status}, Retryable, OutcomeUnknown, jobs)
        for status in (408, 500, 502, 503, 504)
        for kind, jobs in (("status", 0), ("status_after", 1))
    ),
    ({"kind": "status", "status": 400}, Fatal, Fatal, 0),
    ({"kind": "status", "status": 401}, Unauthorized, Unauthorized, 0),
    ({"kind": "status", "status": 403}, Unauthorized, Unauthorized, 0),
    # A list is always there: that it should be missing is no verdict.
    ({"kind": "status", "status": 404}, Retryable, NotFound, 0),
    ({"kind": "status", "status": 405}, Fatal, Fatal, 0),
    ({"kind": "status", "status": 422}, Fatal, Fatal, 0),
    ({"kind": "bad_json"}, BadData, OutcomeUnknown, 1),
    ({"kind": "wrong_type"}, BadData, OutcomeUnknown, 1),
    ({"kind": "bad_json", "body": "{}"}, BadData, OutcomeUnknown, 1),
    ({"kind": "bad_json", "body": '{"n": ' + "9" * 5000 + "}"}, BadData, OutcomeUnknown, 1),
    ({"kind": "bad_json", "body": "[" * 200_000}, BadData, OutcomeUnknown, 1),
    # A 201 whose first byte is broken.
    ({"kind": "corrupt", "at": 0}, BadData, OutcomeUnknown, 1),
]


def name_of(fault):
    parts = (str(part)[:9] for part in fault.values()) if isinstance(fault, dict) else ()
    return "-".join(parts) or None


@pytest.mark.parametrize(("fault", "expected"), [row[:2] for row in AT_HTTP_LEVEL], ids=name_of)
def test_a_failed_read_says_whether_to_repeat(service, fault, expected):
    """A read that fails in passing may be repeated; one that was refused may not."""
    service.fault("list_jobs", **fault)
    with (
        service.client(pace=Pace(read=0.3, tries=1)) as client,
        pytest.raises(BulkExportsError) as caught,
    ):
        client.list_jobs(MESSAGES)
    assert type(caught.value) is expected
    assert service.asked("list_jobs") == 1


@pytest.mark.parametrize(
    ("fault", "expected", "jobs"), [(row[0], *row[2:]) for row in AT_HTTP_LEVEL], ids=name_of
)
def test_creating_a_job_is_never_repeated_blindly(service, request_for, fault, expected, jobs):
    """Whatever breaks, one call is one POST, and a job that may exist is never called absent."""
    service.fault("create_job", **fault)
    with (
        service.client(pace=Pace(read=0.3, tries=5)) as client,
        pytest.raises(BulkExportsError) as caught,
    ):
        client.create_job(request_for())
    assert type(caught.value) is expected
    assert service.asked("create_job") == 1
    if jobs is not None:
        assert len(service.jobs()) == jobs
    if len(service.jobs()) == 1:
        assert isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop_after"},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 503},
    ],
    ids=name_of,
)
def test_a_read_is_repeated_until_it_is_answered(service, fault):
    """A read rides out lost connections, 429 and 5xx by itself."""
    service.fault("list_jobs", **fault)
    with service.client(pace=Pace(tries=2)) as client:
        assert client.list_jobs(MESSAGES) == JobListing(())
    assert service.asked("list_jobs") == 2


def test_a_read_is_given_up_after_its_tries(service):
    """A read is not repeated for ever."""
    service.fault("list_jobs", "status", status=503, times=-1)
    with service.client(pace=Pace(tries=2)) as client, pytest.raises(Retryable):
        client.list_jobs(MESSAGES)
    assert service.asked("list_jobs") == 2


@pytest.mark.parametrize("status", [400, 405, 422])
def test_a_refused_read_is_not_repeated(service, status):
    """What was refused once would be refused again."""
    service.fault("list_jobs", "status", status=status, times=-1)
    with service.client(pace=Pace(tries=5)) as client, pytest.raises(Fatal):
        client.list_jobs(MESSAGES)
    assert service.asked("list_jobs") == 1


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_the_callers_to_try_again(service, status):
    """A token that is being rotated is refused for a while, which is longer than a call lasts."""
    service.fault("*", "status", status=status, times=-1)
    with service.client(pace=Pace(tries=5)) as client, pytest.raises(Unauthorized) as caught:
        client.list_jobs(MESSAGES)
    assert not isinstance(caught.value, Fatal)
    assert service.asked("list_jobs") == 1


@pytest.mark.parametrize("call", ["list_jobs", "list_days", "fetch_export"])
def test_a_404_of_what_is_always_there_passes(service, call):
    """A list exists for every account, so a 404 is repeated like any failure of the service."""
    service.fault(call, "status", status=404)
    with service.client(pace=Pace(tries=2, sleep=lambda _: None)) as client:
        getattr(client, call)(MESSAGES)
    assert service.asked(call) == 2


def test_a_404_of_a_list_that_stays_is_no_empty_list(service):
    """Tries end, and what remains is an error that may be repeated."""
    service.fault("list_jobs", "status", status=404, times=-1)
    with (
        service.client(pace=Pace(tries=3, sleep=lambda _: None)) as client,
        pytest.raises(Retryable, match="HTTP 404"),
    ):
        client.list_jobs(MESSAGES)
    assert service.asked("list_jobs") == 3


def test_a_long_retry_after_is_left_to_the_caller(service):
    """A read does not hold its worker for an hour because the service asked for one."""
    service.fault("list_jobs", "status", status=429, retry_after=3600)
    with service.client(pace=Pace(tries=5)) as client, pytest.raises(Retryable) as caught:
        client.list_jobs(MESSAGES)
    assert caught.value.retry_after == 3600
    assert service.asked("list_jobs") == 1


@pytest.mark.parametrize(("header", "advice"), [(7, 7.0), (None, None), ("soon", None)])
def test_the_advice_of_a_429_reaches_the_caller(service, request_for, client, header, advice):
    """Retry-After travels with the error, where there is one that can be read."""
    service.fault("create_job", "status", status=429, retry_after=header)
    with pytest.raises(Retryable) as caught:
        client.create_job(request_for())
    assert caught.value.retry_after == advice


def test_an_error_says_what_twilio_said(service, client):
    """An error carries Twilio's status, code, page and request id, and shows them."""
    service.fault("list_jobs", "status", status=400, code=20001, message="StartDay is missing.")
    with pytest.raises(Fatal) as caught:
        client.list_jobs(MESSAGES)
    error = caught.value
    assert (error.status, error.code) == (400, 20001)
    assert error.more_info == "https://www.twilio.com/docs/errors/20001"
    assert error.request_id.startswith("RQ")
    for part in ("HTTP 400", "20001", "StartDay is missing.", error.more_info, error.request_id):
        assert part in str(error)
    assert ".." not in str(error)


def test_a_refused_connection_means_not_sent(service, request_for):
    """Where nobody listens, nothing was sent, so the job may be posted again."""
    service.sandbox.stop()
    with service.client() as client:
        for call in (lambda: client.create_job(request_for()), lambda: client.list_jobs(MESSAGES)):
            with pytest.raises(Retryable, match="could not be made"):
                call()


def test_a_connect_timeout_means_not_sent(request_for):
    """A connection that never comes about has carried nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = [socket.socket() for _ in range(3)]
        for waiting in crowd:
            waiting.setblocking(False)  # noqa: FBT003 - the socket's own API
            waiting.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        with (
            Client("AC1", "token", base_url=url, pace=Pace(connect=0.3, tries=1)) as client,
            pytest.raises(Retryable, match=r"could not be made \(timed out after 0.3 s\)"),
        ):
            client.create_job(request_for())
        for waiting in crowd:
            waiting.close()


def test_an_untrusted_certificate_means_not_sent(request_for, tmp_path):
    """A server that cannot prove its name is told nothing, so nothing was sent."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    encoding = serialization.Encoding.PEM
    pem.write_bytes(
        certificate.public_bytes(encoding)
        + key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    received = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    received.append(secured.recv(100))
            except OSError:
                pass

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with (
            Client("AC1", "token", base_url=url, pace=Pace(tries=1)) as client,
            pytest.raises(
                Retryable, match=r"could not be made \(its certificate is not trusted: self"
            ),
        ):
            client.create_job(request_for())
        thread.join(5)
    assert received in ([], [b""])


def test_a_lost_answer_is_not_mistaken_for_an_earlier_failure(service, client, request_for):
    """A job posted while another error is being handled is judged by its own failure alone."""
    service.fault("create_job", "drop_after")
    try:
        raise urllib3.exceptions.ConnectTimeoutError  # noqa: TRY301 - the error being handled
    except urllib3.exceptions.ConnectTimeoutError:
        with pytest.raises(OutcomeUnknown):
            client.create_job(request_for())
    assert len(service.jobs()) == 1


@pytest.mark.parametrize(
    ("header", "advice"),
    [("1000000000", 999_999_999), ("9" * 5000, 999_999_999), ("0", 0), ("-5", None), ("1e9", None)],
)
def test_an_absurd_advice_overflows_nothing(answer_with, header, advice):
    """However long the service asks to wait, the call ends now and the advice is a number."""
    head = f"HTTP/1.1 429 Slow\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n"
    pace = Pace(tries=1)
    with (
        answer_with(head.encode()) as url,
        Client("AC1", "token", base_url=url, pace=pace) as client,
        pytest.raises(Retryable) as caught,
    ):
        client.fetch_export(MESSAGES)
    assert caught.value.retry_after == advice
    assert datetime.now(UTC) + timedelta(seconds=advice or 0)


def test_a_redirect_is_not_followed_and_not_believed(answer_with, request_for):
    """A redirect leads the credentials nowhere, and its body is no answer even if it looks it."""
    body = b'{"job_sid": "JS%s"}' % (b"0" * 32)
    head = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: %d\r\n\r\n"
    with (
        answer_with(head % len(body) + body) as url,
        Client("AC1", "token", base_url=url, pace=Pace(tries=1)) as client,
    ):
        with pytest.raises(OutcomeUnknown):
            client.create_job(request_for())
        with pytest.raises(BadData):
            client.fetch_export(MESSAGES)


@pytest.mark.parametrize("failure", Failure)
@pytest.mark.parametrize("creates", [False, True])
def test_only_certain_failures_let_a_post_be_repeated(failure, creates):
    """Creating a job is repeatable after exactly two failures: never sent, and 429."""
    kind = verdict(failure, creates=creates)
    assert issubclass(kind, Fatal) == (failure in {Failure.REFUSED, Failure.MISSING})
    assert (kind is Unauthorized) == (failure is Failure.UNAUTHORIZED)
    if creates:
        assert (kind is Retryable) == (failure in {Failure.NOT_SENT, Failure.THROTTLED})
    else:
        assert kind is not OutcomeUnknown


@given(st.integers(100, 999))
def test_every_status_has_one_meaning(status):
    """Below 400 nothing failed; 429 was not processed; 408 and 5xx are open; others are said."""
    failure = failure_of_status(status)
    if status < 400:
        assert failure is None
    elif status == 429:
        assert failure is Failure.THROTTLED
    else:
        named = {401: Failure.UNAUTHORIZED, 403: Failure.UNAUTHORIZED, 404: Failure.MISSING}
        said = named.get(status, Failure.REFUSED)
        assert failure is (Failure.SERVER if status == 408 or status >= 500 else said)


def test_every_error_answers_one_question():
    """Repeat, look, ask again and give up exclude each other."""
    kinds = (Retryable, OutcomeUnknown, Unauthorized, BadData, Fatal)
    for one, other in itertools.permutations(kinds, 2):
        assert not issubclass(one, other)
    assert all(issubclass(kind, BulkExportsError) for kind in kinds)
    assert issubclass(InvalidRequest, ValueError)
