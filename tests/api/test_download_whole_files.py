from __future__ import annotations

import gzip
import hashlib
import io
import logging
import random

import pytest
from day_downloads import BORDER, FILE, LINES, LINK, TWO_MEMBERS, Hasty, exported

from airflow_provider_bulkexports.api.errors import BadData, NotFound, Retryable, Unauthorized

LARGE = gzip.compress(b"%b\n" % random.Random(1).randbytes(4_000_000).hex().encode(), 1)


@pytest.fixture
def day():
    with exported() as running:
        yield running


def test_a_day_is_fetched_as_it_is_in_the_bucket(day):
    """The target holds the file's bytes; size, records and digest are those of these bytes."""
    got = day.fetch(listed_size=day.listed_size)

    assert got.size == len(day.held) == day.listed_size
    assert got.sha256 == hashlib.sha256(day.held).hexdigest()
    assert got.records == gzip.decompress(day.held).count(b"\n") == 200
    assert (day.asked(LINK), day.asked(FILE), day.waits) == (1, 1, [])
    assert [one["complete"] for one in day.sandbox.ledger()["downloads"]] == [True]


def test_what_the_target_held_is_overwritten(day):
    """Nothing of an earlier and longer content is left."""
    day.target.write(b"old" * 1_000_000)
    assert len(day.held) == 3_000_000
    assert day.fetch().size == len(day.held)


def test_a_large_file_reports_its_progress(day):
    """The caller is told the bytes so far, which only grow and end at the size."""
    day.serve(LARGE)
    told: list[int] = []
    got = day.fetch(progress=told.append)
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == got.size == len(LARGE)


def test_a_caller_may_give_a_download_up(day):
    """What progress raises ends the download and leaves the target empty."""

    class Enough(Exception):
        pass

    def give_up(_: int) -> None:
        raise Enough

    day.serve(LARGE)
    with pytest.raises(Enough):
        day.fetch(progress=give_up)
    assert day.held == b""


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_damage_in_the_middle_of_a_large_file_is_found(day, at):
    """Whichever batch it is in, and however many follow it."""
    day.serve(LARGE)
    day.fault("corrupt", at=int(len(LARGE) * at), times=-1)
    with pytest.raises(BadData, match="gzip"):
        day.fetch()
    assert day.held == b""


def test_a_file_of_two_members_is_followed_through_both(day):
    """Lines of all gzip members count, also one that begins in one and ends in the next."""
    day.serve(TWO_MEMBERS)
    assert day.fetch(listed_size=len(TWO_MEMBERS)).records == LINES.count(b"\n")
    assert day.held == TWO_MEMBERS


def test_a_last_line_without_an_end_counts(day):
    """A file may end without a newline."""
    day.serve(gzip.compress(b'{"a":1}\n{"a":2}'))
    assert day.fetch().records == 2


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_the_bytes_are_stored_as_sent(day, headers):
    """A Content-Encoding header changes nothing: the file stays gzip, the digest the same."""
    day.serve(TWO_MEMBERS, headers=headers)
    assert day.fetch().sha256 == hashlib.sha256(TWO_MEMBERS).hexdigest()


def test_a_file_without_a_length_is_checked_by_its_trailer(day):
    """A whole file is accepted where the bucket does not say how long it is."""
    day.serve(TWO_MEMBERS, no_length=True)
    assert day.fetch(listed_size=len(TWO_MEMBERS)).size == len(TWO_MEMBERS)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "truncate"},
        {"kind": "truncate", "bytes": 0, "reset": True},
        {"kind": "corrupt"},
        {"kind": "bad_json", "body": "<?xml version='1.0'?><Error><Code>Slow</Code></Error>"},
        {"kind": "status", "status": 403},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 404},
        {"kind": "drop_before"},
        {"kind": "drop_after", "reset": True},
    ],
    ids=str,
)
def test_a_damaged_download_is_repeated_over_a_new_link(day, fault):
    """Each try has a link of its own; the last one's file is the whole one."""
    day.fault(times=2, **fault)
    got = day.fetch(listed_size=day.listed_size)

    assert got.records == 200
    assert len(day.held) == got.size
    assert day.asked(LINK) == day.asked(FILE) == 3
    assert len(day.waits) == 2


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ({"kind": "truncate"}, BadData, "connection broke"),
        ({"kind": "corrupt"}, BadData, "the gzip is damaged"),
        ({"kind": "bad_json"}, BadData, "byte 0 is not gzip"),
        ({"kind": "status", "status": 403}, BadData, r"HTTP 403 \(AccessDenied\)"),
        ({"kind": "status", "status": 503}, Retryable, r"HTTP 503 \(InternalError\)"),
        ({"kind": "drop_before"}, Retryable, "did not answer"),
    ],
    ids=str,
)
def test_a_file_that_stays_damaged_is_an_error(day, fault, error, text):
    """After three tries the error says what was wrong, and the target is empty."""
    day.fault(times=-1, **fault)
    with pytest.raises(error, match=text) as caught:
        day.fetch()

    assert "Messages of 2026-01-01" in str(caught.value)
    assert "3 tries" in str(caught.value)
    assert (day.asked(LINK), day.held) == (3, b"")


def test_a_file_may_come_later_than_its_day():
    """A file that is not there yet is waited for."""
    with exported(file_lag=30) as day:

        def sleep(seconds: float) -> None:
            day.waits.append(seconds)
            day.sandbox.advance(10)

        assert day.fetch(stop=Hasty(sleep)).records == 200
        assert len(day.waits) in (3, 4)


def test_a_file_that_never_comes_is_not_found():
    """After five tries the error says how long Twilio keeps a file."""
    with exported(file_lag=30) as day:
        with pytest.raises(NotFound, match="5 tries: Twilio keeps files for 7 days") as caught:
            day.fetch()
        assert caught.value.status == 404
        assert (day.asked(LINK), len(day.waits)) == (5, 4)
        assert sum(day.waits) < 25


def test_a_cut_between_two_members_is_noticed_by_the_listed_size(day):
    """Half a file that is itself a proper gzip, of no announced length, is never accepted."""
    day.serve(TWO_MEMBERS[:BORDER], no_length=True)
    with pytest.raises(BadData, match=f"{BORDER} bytes, and {len(TWO_MEMBERS)} were listed"):
        day.fetch(listed_size=len(TWO_MEMBERS))
    assert (day.asked(FILE), day.held) == (3, b"")


def test_a_wrong_listing_does_not_hide_a_right_file(day, caplog):
    """Where the same whole bytes come twice, the listed size is wrong, which is logged."""
    with caplog.at_level(logging.WARNING):
        got = day.fetch(listed_size=day.listed_size + 1)
    assert got.size == len(day.held) == day.listed_size
    assert day.asked(FILE) == 2
    assert "it came twice the same and whole" in caplog.text


def test_a_listing_may_tell_the_size_of_the_text(day):
    """What the listed size counts is not documented; the text's bytes are right at once."""
    day.serve(TWO_MEMBERS)
    day.fetch(listed_size=len(LINES))
    assert day.asked(FILE) == 1


def test_a_listing_of_size_0_says_nothing(day):
    """Twilio's default for a size that it does not tell is 0."""
    assert day.fetch(listed_size=0).records == 200


def test_wrong_credentials_are_not_tried_again(day):
    """An error of the API that repeating cannot help is raised at once."""
    day.fault("status", "fetch_day", status=401)
    with pytest.raises(Unauthorized):
        day.fetch()
    assert day.asked(LINK) == 1


def test_the_clients_own_tries_are_enough(day):
    """When the API does not answer, its tries are not multiplied by the file's."""
    day.fault("status", "fetch_day", status=503, times=-1)
    day.client = day.client.hurried()
    with pytest.raises(Retryable):
        day.fetch()
    assert day.asked(LINK) == 1


def test_a_target_that_cannot_be_written_is_its_own_error(day):
    """What the caller's file raises is not taken for the bucket's fault."""

    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        day.fetch(target=Full())
    assert day.asked(FILE) == 1
