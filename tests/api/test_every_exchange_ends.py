"""Every exchange is over in time and in size, whatever the other end does."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    Fatal,
    OutcomeUnknown,
    Retryable,
)
from airflow_provider_bulkexports.api.exchange import _inflated, _UnreadableError
from airflow_provider_bulkexports.api.pace import PACE, Pace
from airflow_provider_bulkexports.api.request import ResourceType

MESSAGES = ResourceType.MESSAGES
SHORT = Pace(connect=0.5, read=0.5, exchange=1.0, tries=1)
BODY = b'{"job_sid": "JS%s", "links": {}, "enabled": true}' % (b"0" * 32)
OPEN_ENDED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def whole(body, *headers, status="200 OK"):
    lines = [f"HTTP/1.1 {status}".encode(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def trickle(data, begin=b"", pause=0.1):
    def speech(connection):
        connection.sendall(begin)
        for byte in data:
            time.sleep(pause)
            connection.sendall(bytes([byte]))
        connection.close()

    return speech


def failure(call):
    """Return a call's error and how long it took."""
    began = time.monotonic()
    with pytest.raises(BulkExportsError) as caught:
        call()
    return caught.value, time.monotonic() - began


TRICKLES = {
    "a status line": trickle(b"HTTP/1.1 200 " + b"O" * 40),
    "a header": trickle(b"X: " + b"y" * 40, begin=b"HTTP/1.1 200 OK\r\n"),
    "interim answers": trickle(b"HTTP/1.1 100 Continue\r\n\r\n" * 9, pause=0.02),
    "a body": trickle(BODY, begin=whole(BODY)[: -len(BODY)]),
    "a body that ends with its connection": trickle(BODY.ljust(80), begin=OPEN_ENDED),
    # It looks whole from the moment on at which this end is cut.
    "blanks after a body": trickle(b" " * 80, begin=OPEN_ENDED + BODY),
    "a chunk": trickle(b" " * 80, begin=CHUNKED + b"ffff\r\n"),
    "the length of a chunk": trickle(b"0" * 80, begin=CHUNKED),
    "trailers": trickle(b"X: y\r\n" * 20, begin=CHUNKED + b"1\r\n \r\n0\r\n"),
    "a refusal's body": trickle(b"x" * 80, begin=whole(b"x" * 80, status="400 Bad")[:-80]),
}


@pytest.mark.parametrize("trickles", TRICKLES.values(), ids=TRICKLES)
def test_what_trickles_is_lost_when_its_time_is_over(speak, request_for, trickles):
    """A byte now and then is never silence, and ends all the same: lost, and open for a POST."""
    with speak(trickles) as url, Client("AC1", "token", base_url=url, pace=SHORT) as client:
        error, took = failure(lambda: client.fetch_export(MESSAGES))
        assert type(error) is Retryable
        assert took < 3
        assert "the answer was lost" in str(error)
        error, took = failure(lambda: client.create_job(request_for()))
        assert type(error) is OutcomeUnknown
        assert took < 3


def test_a_reused_connection_has_its_time_too(speak):
    """The second exchange over one connection is cut like the first."""
    turns = itertools.count()

    def speech(connection):
        if next(turns) == 0:
            connection.sendall(whole(BODY))
        else:
            trickle(BODY, begin=whole(BODY)[: -len(BODY)])(connection)

    pace = Pace(exchange=1.0, tries=1)
    with speak(speech) as url, Client("AC1", "token", base_url=url, pace=pace) as client:
        client.fetch_export(MESSAGES)
        error, took = failure(lambda: client.fetch_export(MESSAGES))
    assert type(error) is Retryable
    assert took < 3
    assert next(turns) == 2


def test_the_client_is_as_good_as_new_after_a_cut(speak):
    """A connection that was cut is not used again."""
    turns = itertools.count()

    def speech(connection):
        if next(turns) == 0:
            trickle(BODY, begin=whole(BODY)[: -len(BODY)])(connection)
        else:
            connection.sendall(whole(BODY))

    with speak(speech) as url, Client("AC1", "token", base_url=url, pace=SHORT) as client:
        with pytest.raises(Retryable):
            client.fetch_export(MESSAGES)
        assert client.fetch_export(MESSAGES).links == ()


def test_silence_ends_earlier_than_a_trickle(speak):
    """An answer that never begins is waited for as long as silence may last."""
    pace = replace(SHORT, read=0.3, exchange=5.0)
    silent = threading.Event()
    with (
        speak(lambda _: silent.wait(3)) as url,
        Client("AC1", "token", base_url=url, pace=pace) as client,
    ):
        error, took = failure(lambda: client.fetch_export(MESSAGES))
        silent.set()
    assert took < 3
    assert "nothing came for 0.3 s" in str(error)


def test_a_handshake_that_hangs_ends(request_for):
    """A server that trickles its part of a TLS handshake holds nobody, and was sent nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                for byte in b"\x16\x03\x03\x3f\xff" + bytes(80):
                    time.sleep(0.1)
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with Client("AC1", "token", base_url=url, pace=SHORT) as client:
            error, took = failure(lambda: client.create_job(request_for()))
        thread.join(5)
    assert type(error) is Retryable
    assert "could not be made" in str(error)
    assert took < 3


def test_a_dead_host_with_many_addresses_ends(monkeypatch):
    """Each address may take its time, but none is begun when the exchange's time is over."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = [socket.socket() for _ in range(3)]
        for waiting in crowd:
            waiting.setblocking(False)  # noqa: FBT003 - the socket's own API
            waiting.connect_ex(address)
        known = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: known(*a, **k)[:1] * 8)
        url = f"http://127.0.0.1:{address[1]}"
        with Client("AC1", "token", base_url=url, pace=SHORT) as client:
            error, took = failure(lambda: client.fetch_export(MESSAGES))
        for waiting in crowd:
            waiting.close()
    assert type(error) is Retryable
    assert took < 3


def test_a_hurried_client_ends_within_four_seconds(speak):
    """Before a kill there is one try, and it is short even if every byte comes late."""
    with (
        speak(TRICKLES["a body"]) as url,
        Client("AC1", "token", base_url=url) as client,
        client.hurried() as hurried,
    ):
        _, took = failure(lambda: hurried.fetch_export(MESSAGES))
    assert hurried is not client
    assert hurried.pace.tries == 1
    assert took < 4


BOMB_SIZE = 2 * 2**30

READ_THE_BOMB = """
import resource, sys
from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.request import ResourceType

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

with Client("AC1", "token", base_url=sys.argv[1]) as client:
    client.fetch_configuration(ResourceType.MESSAGES)
    before = peak()
    try:
        client.fetch_export(ResourceType.MESSAGES)
    except BulkExportsError as error:
        print(peak() - before, error)
"""


def test_a_bomb_is_not_inflated(speak):
    """Two megabytes on the wire that are two gigabytes of blanks cost next to no memory."""
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = head + block * (BOMB_SIZE // 2**20)
    assert len(bomb) < 2.2 * 2**20
    turns = itertools.count()
    answers = [whole(BODY), whole(bomb, b"Content-Encoding: gzip")]
    with speak(lambda connection: connection.sendall(answers[next(turns)])) as url:
        done = subprocess.run(
            [sys.executable, "-c", READ_THE_BOMB, url],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
        )
    grown, _, message = done.stdout.partition(" ")
    assert "it has more than 16777216 bytes when inflated" in message
    assert int(grown) < 64


TOO_LARGE = {
    "plain": whole(b" " * 5000),
    "open ended": OPEN_ENDED + b" " * 5000,
    "chunked": CHUNKED + b"1388\r\n" + b" " * 5000 + b"\r\n0\r\n\r\n",
    "inflated": whole(gzip.compress(b" " * 5000), b"Content-Encoding: gzip"),
}
DAMAGED = {
    "no gzip": whole(BODY, b"Content-Encoding: gzip"),
    "cut": whole(gzip.compress(BODY)[:-9], b"Content-Encoding: gzip"),
    "wrong checksum": whole(gzip.compress(BODY)[:-8] + b"12345678", b"Content-Encoding: gzip"),
    "followed": whole(gzip.compress(BODY) + b"x", b"Content-Encoding: gzip"),
    "brotli": whole(BODY, b"Content-Encoding: br"),
    # To http.client such headers are whole, but then there is no body.
    "in its headers": b"HTTP/1.1 200 OK\r\nContent-Le",
    "twice": whole(gzip.compress(gzip.compress(BODY)), b"Content-Encoding: gzip, gzip"),
}
CUT = {
    "shorter than announced": whole(BODY)[:-1],
    "without its last chunk": CHUNKED + b"%x\r\n%s\r\n" % (len(BODY), BODY),
    "in a chunk": CHUNKED + b"ff\r\n" + BODY,
    "no chunk": CHUNKED + b"zz\r\n" + BODY,
    "an endless chunk length": CHUNKED + b"0" * 200_000,
    "no HTTP": b"220 mail.example ESMTP\r\n",
}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        *((answer, BadData) for answer in (TOO_LARGE | DAMAGED).values()),
        *((answer, Retryable) for answer in CUT.values()),
    ],
    ids=[*TOO_LARGE, *DAMAGED, *CUT],
)
def test_no_body_that_is_not_whole_is_accepted(speak, request_for, answer, expected):
    """Too large, damaged or cut: an answer is whole or none, and a new job's fate is open."""

    def speech(connection):
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    pace = Pace(tries=1, body=4096)
    with speak(speech) as url, Client("AC1", "token", base_url=url, pace=pace) as client:
        with pytest.raises(expected):
            client.fetch_export(MESSAGES)
        with pytest.raises(OutcomeUnknown):
            client.create_job(request_for())


@pytest.mark.parametrize(
    "answer",
    [
        whole(gzip.compress(BODY), b"Content-Encoding: gzip"),
        whole(gzip.compress(BODY), b"Content-Encoding: X-GZIP"),
        whole(BODY, b"Content-Encoding: identity"),
        CHUNKED + b"%x;ext=1\r\n%s\r\n0\r\nTrailer: x\r\n\r\n" % (len(BODY), BODY),
        OPEN_ENDED + BODY,
        whole(BODY.ljust(4096)),
    ],
    ids=["gzip", "x-gzip", "identity", "chunked", "open ended", "the largest"],
)
def test_a_whole_body_is_accepted_however_it_comes(speak, answer):
    """Compressed, in chunks or ended by its connection, an answer is read."""

    def speech(connection):
        connection.sendall(answer)
        if answer.startswith(OPEN_ENDED):
            connection.shutdown(socket.SHUT_WR)

    pace = Pace(tries=1, body=4096)
    with speak(speech) as url, Client("AC1", "token", base_url=url, pace=pace) as client:
        assert client.fetch_configuration(MESSAGES).enabled is True


def test_a_refusal_counts_even_if_its_words_cannot_be_read(speak, request_for):
    """What a status says holds without its body."""
    answer = whole(b"not gzip", b"Content-Encoding: gzip", status="422 Unprocessable")
    with (
        speak(lambda connection: connection.sendall(answer)) as url,
        Client("AC1", "token", base_url=url) as client,
        pytest.raises(Fatal, match=r"HTTP 422.*Unprocessable"),
    ):
        client.create_job(request_for())


def test_no_thread_and_no_descriptor_is_left(service, client):
    """Fifty exchanges leave nothing behind, whether they were answered or not."""
    client.list_jobs(MESSAGES)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(50):
        if number % 2:
            service.fault("list_jobs", "status", status=503)
            with pytest.raises(Retryable):
                client.list_jobs(MESSAGES)
        else:
            client.list_jobs(MESSAGES)
    # The sandbox runs in this process too, and lets go of a connection in its own time.
    assert threading.active_count() <= threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2  # noqa: PTH208


def test_the_pace_is_the_one_of_the_moment(monkeypatch):
    """A client keeps the pace that everything keeps when it is created."""
    pace = replace(PACE, tries=3)
    monkeypatch.setattr(pace_module, "PACE", pace)
    client = Client("AC1", "token")
    assert client.pace is pace
    assert client.copy().pace is pace


@given(st.binary(max_size=2000), st.lists(st.integers(1, 300), max_size=9), st.integers(0, 2000))
def test_inflating_gives_all_or_nothing(data, cuts, limit):
    """However a gzip is cut into pieces, it is inflated whole, or refused as too large."""
    packed, ends = gzip.compress(data), [0, *itertools.accumulate(cuts), None]
    pieces = (piece for a, b in itertools.pairwise(ends) if (piece := packed[a:b]))
    if len(data) > limit:
        with pytest.raises(_UnreadableError):
            _inflated(pieces, limit)
    else:
        assert _inflated(pieces, limit) == data


@given(st.binary(max_size=300))
def test_what_is_no_gzip_is_refused(data):
    """Any other bytes are refused by one error."""
    with contextlib.suppress(_UnreadableError):
        assert _inflated(iter([data] if data else []), 10_000) == gzip.decompress(data)
