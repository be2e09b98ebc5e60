"""No credential and no signed link turns up in an error or a log."""

from __future__ import annotations

import base64
import logging
import pickle
import time
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.job import Job, SignedLink
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.redact import safe_text, spellings
from airflow_provider_bulkexports.api.request import ResourceType

LOGIN = "AC" + "7" * 32
SECRET = "canary/3cret+tok%en&Zq9"
BASIC = base64.b64encode(f"{LOGIN}:{SECRET}".encode()).decode()
FORMS = (SECRET, quote(SECRET, safe=""), BASIC)
SIGNATURE = "5ca1ab1e" * 8
SIGNED = f"https://files.example/day.gz?X-Amz-Expires=240&X-Amz-Signature={SIGNATURE}"

noise = st.text(max_size=40)
secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=40)


def reachable(error, depth=6):
    """Yield the text of everything that hangs on an error, as an error tracker would find it."""
    seen, pending = set(), [(error, 0)]
    while pending:
        item, level = pending.pop()
        if id(item) in seen or level > depth:
            continue
        seen.add(id(item))
        yield str(item)
        yield repr(item)
        children = []
        if isinstance(item, BaseException):
            children += [item.__cause__, item.__context__, *item.args]
        if isinstance(item, dict):
            children += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple, set)):
            children += item
        elif hasattr(item, "items") and hasattr(item, "keys"):
            children += [*item.items()]
        children += [*getattr(item, "__dict__", {}).values()]
        pending += [(child, level + 1) for child in children if child is not None]


def own_locals(error):
    """Yield what a traceback with local variables would show of this package's frames."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "/airflow_provider_bulkexports/" in frame.f_code.co_filename:
            yield from map(repr, frame.f_locals.values())


def assert_clean(error, caplog):
    shown = [
        *reachable(error),
        pickle.dumps(error.args).decode("latin-1"),
        *own_locals(error),
        *(record.getMessage() for record in caplog.records),
        *(str(record.__dict__) for record in caplog.records),
    ]
    for text in shown:
        for form in (*FORMS, SIGNATURE):
            assert form not in text


FAULTS = [
    {"kind": "drop_before"},
    {"kind": "drop_after", "reset": True},
    {"kind": "truncate"},
    {"kind": "delay", "seconds": 0.6},
    {"kind": "bad_json", "body": f"<html>{SECRET} {BASIC} {SIGNED}</html>"},
    {"kind": "wrong_type"},
    *(
        {"kind": "status", "status": status, "message": f"You sent {form} to {SIGNED}\x1b[2J"}
        for status in (400, 401, 403, 404, 429, 500)
        for form in FORMS
    ),
    {"kind": "status", "status": 400, "message": f"quota of {BASIC}: {SECRET}"},
]


@pytest.fixture
def canary(start, caplog):
    """Give a service and a client whose secret is told apart anywhere, and log everything."""
    caplog.set_level(logging.DEBUG)
    for name in ("requests", "urllib3", "airflow_provider_bulkexports"):
        caplog.set_level(logging.DEBUG, logger=name)
    service = start()
    service.sandbox.add_account(LOGIN, SECRET)
    with service.client(login=LOGIN, secret=SECRET, pace=Pace(read=0.3, tries=1)) as client:
        yield service, client


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(ascii, fault.values())))
def test_no_failure_shows_a_secret(canary, caplog, request_for, fault):
    """Whatever goes wrong, error, its chain, its frames and all logs are fit to be published."""
    service, client = canary
    calls = (
        lambda: client.list_jobs(ResourceType.MESSAGES),
        lambda: client.create_job(request_for()),
        lambda: client.fetch_job("JS" + "0" * 32),
    )
    for call in calls:
        service.sandbox.clear_faults()
        service.fault("*", **fault, times=-1)
        with pytest.raises(BulkExportsError) as caught:
            call()
        assert_clean(caught.value, caplog)
    assert any(record.name.startswith("urllib3") for record in caplog.records)


def test_no_success_logs_a_secret(canary, caplog, request_for):
    """A job's whole life at DEBUG shows neither the token nor a signed link."""
    service, client = canary
    job = client.create_job(request_for(webhook_url="https://x.example/?k=1", webhook_method="GET"))
    service.sandbox.advance(20_000)
    link = client.fetch_day(ResourceType.MESSAGES, job.start_day)
    client.delete_job(job.sid)
    signature = link.url.partition("X-Amz-Signature=")[2]
    logged = " ".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "urllib3" in logged
    for form in (*FORMS, signature):
        assert form not in logged


def test_a_lost_connection_shows_no_secret(caplog, request_for):
    """An unreachable server's error does not carry the request that could not be sent."""
    caplog.set_level(logging.DEBUG)
    with Client(LOGIN, SECRET, base_url="http://127.0.0.1:9", pace=Pace(tries=1)) as client:
        for call in (client.list_jobs, client.fetch_configuration):
            with pytest.raises(BulkExportsError) as caught:
                call(ResourceType.MESSAGES)
            assert_clean(caught.value, caplog)
        with pytest.raises(BulkExportsError) as caught:
            client.create_job(request_for())
    assert_clean(caught.value, caplog)
    assert caught.value.__context__ is None


def test_a_status_line_is_as_foreign_as_a_body(answer_with, caplog):
    """The reason of a proxy's answer is cleaned like any other text from outside."""
    line = f"HTTP/1.1 400 {SECRET} \x1b[2J {'x' * 5000}".encode()
    with (
        answer_with(line + b"\r\nContent-Length: 0\r\n\r\n") as url,
        Client(LOGIN, SECRET, base_url=url, pace=Pace(tries=1)) as client,
        pytest.raises(BulkExportsError, match="400") as caught,
    ):
        client.list_jobs(ResourceType.MESSAGES)
    assert_clean(caught.value, caplog)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_header_is_as_foreign_as_a_body(answer_with, caplog):
    """A request id that is none is cut and cleaned."""
    head = (
        f"HTTP/1.1 400 Bad\r\nTwilio-Request-Id: {SECRET}{'x' * 900}\r\nContent-Length: 0\r\n\r\n"
    )
    with (
        answer_with(head.encode()) as url,
        Client(LOGIN, SECRET, base_url=url, pace=Pace(tries=1)) as client,
        pytest.raises(BulkExportsError) as caught,
    ):
        client.list_jobs(ResourceType.MESSAGES)
    assert_clean(caught.value, caplog)
    assert len(caught.value.request_id) <= 40


def test_the_values_show_no_link():
    """A signed link, a webhook and a mail address are left out of what values show."""
    assert SIGNATURE not in repr(SignedLink(SIGNED))
    body = {"job_sid": "JS" + "0" * 32, "webhook_url": SIGNED, "email": "someone@example.com"}
    shown = repr(Job.parse(body)) + Job.parse(body).report() + str(Job.parse(body).as_xcom())
    assert SIGNATURE not in shown
    assert "someone" not in shown


@given(secrets, st.lists(st.tuples(noise, st.integers(0, 3)), max_size=5), noise)
def test_no_spelling_of_a_secret_survives(secret, parts, tail):
    """Plain, quoted or as basic authentication: a secret is replaced wherever it stands."""
    known = spellings(LOGIN, secret)
    text = "".join(before + known[which % len(known)] for before, which in parts) + tail
    cleaned = safe_text(text, known, limit=10_000)
    for form in known:
        assert form not in cleaned
    assert quote(secret, safe="") in known
    assert base64.b64encode(f"{LOGIN}:{secret}".encode()).decode() in known


@given(noise, st.sampled_from(["X-Amz-Signature", "x-amz-signature", "Signature"]), noise)
def test_no_signed_query_survives(before, name, after):
    """A signed link's query is replaced whole, whatever stands around it."""
    text = f"{before} https://files.example/a?b=c&{name}={SIGNATURE}&d {after}"
    assert SIGNATURE not in safe_text(text, [], limit=10_000)


@given(st.text(), st.integers(10, 300))
def test_text_from_outside_is_one_short_printable_line(text, limit):
    """What is logged cannot forge a line, move the cursor or flood the log."""
    cleaned = safe_text(text, [], limit)
    assert cleaned.isprintable()
    assert len(cleaned) <= limit


def test_cleaning_takes_no_longer_for_odd_text():
    """Text that is made to be slow to search is cleaned at once."""
    began = time.perf_counter()
    for text in ("?" * 10_000, "?a" * 10_000, "?X-Amz-" * 5_000, "?" + "X-Amz" * 10_000):
        safe_text(text, [SECRET])
    assert time.perf_counter() - began < 1
