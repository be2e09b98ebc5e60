"""10,000 damaged downloads: none is taken for a day's file."""

from __future__ import annotations

import contextlib
import gzip
import random

import pytest
import requests
from day_downloads import BORDER, DAY, LINES, TWO_MEMBERS, exported

from airflow_provider_bulkexports.api.errors import BadData, BulkExportsError
from airflow_provider_bulkexports.api.gzip_check import DayFileCheck, Limits
from airflow_provider_bulkexports.api.request import ResourceType

FED = 9_700
SENT = 300
HEADER = 10
"""Bytes of a gzip member before its data; time, level and system in them are not checksummed."""

XML = b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code><Message>expired</Message></Error>"
ONE_MEMBER = gzip.compress(LINES, mtime=0)


def cut(rng: random.Random, whole: bytes) -> bytes:
    """Cut the file: at either end, near a border, or anywhere."""
    near = rng.choice([0, len(whole), BORDER, HEADER, len(whole) - 8])
    places = [near + rng.randrange(-12, 13), rng.randrange(len(whole))]
    return whole[: min(max(rng.choice(places), 1), len(whole) - 1)]


def flipped(rng: random.Random, whole: bytes) -> bytes:
    """Flip some bits, of what a gzip's checksums are about."""
    damaged = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 30])):
        at = rng.randrange(HEADER, len(whole))
        if not BORDER <= at < BORDER + HEADER:
            damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def another_length(rng: random.Random, whole: bytes) -> bytes:
    """Add to the end, repeat a piece, or leave one out."""
    at, count = rng.randrange(HEADER, len(whole) - 20), rng.randrange(1, 20)
    return rng.choice(
        [
            whole + rng.randbytes(count),
            whole + bytes(count),
            whole[:at] + whole[at - 5 :],
            whole[:at] + whole[at + count :],
            whole[:at] + rng.randbytes(count) + whole[at:],
        ]
    )


def other(rng: random.Random, whole: bytes) -> bytes:
    """Send something else: an error's XML, also behind or before the file, noise, zeros."""
    at = rng.randrange(1, len(whole))
    return rng.choice(
        [
            XML,
            whole[:at] + XML,
            XML + whole,
            gzip.compress(XML),
            rng.randbytes(at),
            bytes(len(whole)),
            whole[:at] + bytes(len(whole) - at),
        ]
    )


def damage(rng: random.Random, whole: bytes) -> bytes:
    damaged = whole
    while damaged == whole:
        damaged = rng.choice([cut, cut, flipped, flipped, another_length, other])(rng, whole)
    return damaged


def is_accepted(data: bytes, listed: int, step: int) -> bool:
    """Do what a download does with the bytes of a body of no announced length."""
    check = DayFileCheck(Limits())
    try:
        for start in range(0, len(data), step):
            check.feed(data[start : start + step])
        check.finish()
    except BadData:
        return False
    return listed in (check.size, check.text_size)


def test_damaged_bytes_are_never_accepted():
    """Of the bytes of 9,700 damaged downloads none pass; both whole files do."""
    rng = random.Random(1)
    wholes = [ONE_MEMBER, TWO_MEMBERS]
    assert all(is_accepted(whole, len(whole), 999) for whole in wholes)
    accepted = harmless = 0
    for _ in range(FED):
        whole = rng.choice(wholes)
        damaged = damage(rng, whole)
        if is_accepted(damaged, len(whole), rng.choice([1, 100, 65_536])):
            accepted += 1
            # Bits that fill up the last byte before a trailer mean nothing to anyone.
            harmless += gzip.decompress(damaged) == LINES
    print(
        f"\n{FED} damaged files fed: {accepted - harmless} accepted, {harmless} with no harm done"
    )
    assert accepted == harmless
    assert harmless < FED // 1000


def way_to_fail(rng: random.Random, number: int) -> dict:
    """Return a fault of the bucket, by turns of every kind."""
    content = {"base64": "", "kind": "other_file", "no_length": rng.random() < 0.7}
    return rng.choice(
        [
            content | {"content": damage(rng, TWO_MEMBERS)},
            content | {"content": TWO_MEMBERS[:BORDER], "no_length": True},
            content | {"content": XML},
            content | {"content": b""},
            {"kind": "truncate", "bytes": rng.randrange(2000), "reset": number % 2 == 0},
            {"kind": "corrupt", "at": rng.randrange(HEADER, 2000)},
            {"kind": "bad_json"},
            {"kind": "status", "status": rng.choice([403, 404, 500, 503])},
            {"kind": "drop_before"},
            {"kind": "delay", "seconds": 0, "link": "expired"},
            {"kind": "delay", "seconds": 0, "link": "used"},
        ]
    )


def control(link: str) -> bool:
    """Download as many scripts do: what comes is written, and a bad status is the only error."""
    try:
        answer = requests.get(link, timeout=5, stream=True)
        answer.raise_for_status()
        return answer.raw.read(decode_content=False) is not None
    except (requests.RequestException, OSError):
        return False
    except Exception:  # noqa: BLE001 - urllib3's own errors differ by its version
        return False


@pytest.mark.parametrize("seed", [1])
def test_damaged_downloads_are_never_published(seed):
    """Over HTTP 300 damaged downloads give 300 errors; the control publishes some of them."""
    rng = random.Random(seed)
    ours = theirs = tries = 0
    with exported(records=100) as day:
        for number in range(SENT):
            fault = way_to_fail(rng, number)
            spoilt = fault.pop("link", None)
            content = fault.pop("content", None)
            if content is None:
                day.fault(times=-1, **fault)
            else:
                day.serve(content, no_length=fault["no_length"])
            listed = len(TWO_MEMBERS) if content is not None else day.listed_size
            before = len(day.sandbox.ledger()["downloads"])
            with spoil(day, spoilt), contextlib.suppress(BulkExportsError):
                day.fetch(listed_size=listed)
                ours += 1
            assert day.held == b""
            tries += len(day.sandbox.ledger()["downloads"]) - before
            link = day.client.fetch_day(ResourceType.MESSAGES, DAY).url
            if spoilt:
                spoil_link(day, link, spoilt)
            theirs += control(link)
            day.sandbox.clear_faults()
        assert day.fetch(listed_size=day.listed_size).records == 100
    print(f"\n{SENT} damaged downloads: {ours} published by us, {theirs} by the control")
    assert ours == 0
    assert theirs > SENT // 10
    assert tries > SENT


def spoil_link(day, url: str, how: str) -> None:
    """Use a link up, or let it grow too old."""
    if how == "used":
        requests.get(url, timeout=5)
    else:
        day.sandbox.advance(300)


@contextlib.contextmanager
def spoil(day, how: str | None):
    """Let every link be spoilt before it is used, where ``how`` says so."""
    if how is None:
        yield
        return
    client, real = day.client, type(day.client)

    class Slow(real):
        def fetch_day(self, resource_type, wanted):
            link = super().fetch_day(resource_type, wanted)
            spoil_link(day, link.url, how)
            return link

    with Slow(day.sandbox.account_sid, day.sandbox.auth_token, base_url=day.sandbox.url) as slow:
        day.client = slow
        yield
    day.client = client
