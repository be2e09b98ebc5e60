from __future__ import annotations

import gzip
import itertools
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

import pytest
from day_downloads import DAY, exported
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api import gzip_check
from airflow_provider_bulkexports.api.gzip_check import DayFileCheck
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.signed_links import LinkFacts

MIB = 1024 * 1024
ACCOUNT = "AC" + "0a" * 16
# As Twilio's documentation shows one.
DOCUMENTED = (
    f"https://com-twilio-prod-exports.s3.amazonaws.com/daily/day%3D2020-02-02/type%3DMessages/"
    f"account%3D{ACCOUNT}/created_time%3D20200204123456/part-00000.json.gz"
    "?X-Amz-Expires=240&X-Amz-Signature=canary"
)


def samples_of(text: bytes, step: int = 65_536) -> tuple[bytes, ...]:
    check, content = DayFileCheck(), gzip.compress(text, 1)
    for start in range(0, len(content), step):
        check.feed(content[start : start + step])
    check.finish()
    return check.samples


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        (b"", ()),
        (b"a", (b"a",)),
        (b"a\n", (b"a",)),
        (b"a\nb", (b"a", b"b")),
        (b"a\nb\nc\n", (b"a", b"c")),
        (b"\n", (b"",)),
        (b"\n\n\n", (b"", b"")),
        (b"a\n\n", (b"a", b"")),
    ],
)
def test_first_and_last_line_are_samples(text, samples):
    """They are whole, without their ends; a blank line is one as well."""
    assert samples_of(text) == samples


def test_there_is_a_whole_line_for_each_mib_of_text():
    """Over the whole file, in its order, none of them a piece of a line."""
    lines = [b'{"number":%d,"padding":"%s"}' % (number, b"x" * 900) for number in range(10_000)]
    got = samples_of(b"\n".join(lines))
    numbers = [lines.index(line) for line in got]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 9_999)
    gaps = [after - before for before, after in itertools.pairwise(numbers[1:])]
    assert all(gap <= 1.3 * MIB / 900 for gap in gaps)
    assert 7 <= len(got) <= 11


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), min_size=1))
def test_samples_are_always_lines_of_the_text(lines):
    """Whatever the text, what is handed on is among its lines, ends included."""
    text = b"\n".join(lines)
    if text.startswith(b"\x1f\x8b"):
        return
    whole = text.split(b"\n")[: text.count(b"\n") + (text[-1:] not in (b"", b"\n"))]
    got = samples_of(text, 7)
    assert set(got) <= set(whole)
    assert (got[:1], got[-1:]) == (tuple(whole[:1]), tuple(whole[-1:]))


def test_samples_of_long_lines_are_cut():
    """A line of several MiB is a sample of one, also as the first and the last."""
    text = b"\n".join(bytes([letter]) * 3 * MIB for letter in b"abcd")
    assert [(line[:1], len(line)) for line in samples_of(text)] == [
        (bytes([letter]), MIB) for letter in b"abcd"
    ]


def test_samples_are_bounded_however_long_the_text(monkeypatch):
    """Where they become too many or too large, they are further apart, and of the whole file."""
    monkeypatch.setattr(gzip_check, "_MOST_SAMPLES", 10)
    lines = [b"%06d%s" % (number, b"x" * 1000) for number in range(40_000)]
    numbers = [int(line[:6]) for line in samples_of(b"\n".join(lines))]
    assert 5 <= len(numbers) <= 10
    assert (numbers[0], numbers[-1]) == (0, 39_999)
    assert max(b - a for a, b in itertools.pairwise(numbers)) < 15_000

    monkeypatch.setattr(gzip_check, "_MOST_SAMPLES", 4096)
    monkeypatch.setattr(gzip_check, "_SAMPLES_SIZE", 8 * MIB)
    long = b"\n".join(b"x" * 2 * MIB for _ in range(40))
    assert sum(map(len, samples_of(long))) <= 9 * MIB


def test_a_fetched_day_has_its_samples_and_what_its_link_says():
    """First and last line come with the file, and type, day, account and instant of its path."""
    with exported() as day:
        got = day.fetch()
        lines = gzip.decompress(day.held).splitlines()
        assert got.samples == (lines[0], lines[-1])
        (job,) = day.sandbox.ledger()["jobs"]
        finished = datetime.fromisoformat(job["finished_at"]).replace(microsecond=0)
        assert got.link == LinkFacts(ResourceType.MESSAGES, DAY, day.sandbox.account_sid, finished)


def test_a_day_without_a_file_has_neither():
    """There is no line to look at, and no link."""
    with exported("absent") as day:
        got = day.fetch(may_be_empty=True)
        assert (got.samples, got.link) == ((), None)


def test_a_day_without_records_has_no_samples():
    """A gzip of nothing has a link all the same."""
    with exported("empty_gzip") as day:
        got = day.fetch(may_be_empty=True)
        assert (got.samples, got.link and got.link.day) == ((), DAY)


def test_the_documented_path_is_read():
    """As Twilio shows it, escaped or not, and behind a bucket's name in the path."""
    facts = LinkFacts(
        ResourceType.MESSAGES,
        date(2020, 2, 2),
        ACCOUNT,
        datetime(2020, 2, 4, 12, 34, 56, tzinfo=UTC),
    )
    for url in (
        DOCUMENTED,
        DOCUMENTED.replace("%3D", "="),
        DOCUMENTED.replace("com/daily", "com/a/bucket/daily"),
        DOCUMENTED.replace("/daily", ""),
    ):
        assert LinkFacts.parse(url) == facts
    assert "canary" not in repr(facts)


@pytest.mark.parametrize("moment", ["2020020412345", "20201304123456", "yesterday", "1580819696"])
def test_an_unreadable_instant_leaves_the_rest(moment):
    """Type, day and account are known all the same."""
    facts = LinkFacts.parse(DOCUMENTED.replace("20200204123456", moment))
    assert facts is not None
    assert (facts.day, facts.created_time) == (date(2020, 2, 2), None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2020-02-02", "2020-02-30"),
        ("2020-02-02", "20200202"),
        ("type", "kind"),
        ("Messages", "SMS"),
        (ACCOUNT, "AC1"),
        ("/part-00000.json.gz", ""),
        ("part-00000.json.gz", "x/part-00000.json.gz"),
        (f"account%3D{ACCOUNT}/", ""),
    ],
)
def test_a_path_of_another_shape_says_nothing(old, new):
    """What is not written as documented is not guessed at."""
    assert LinkFacts.parse(DOCUMENTED.replace(old, new)) is None


@given(st.text())
def test_no_path_raises(path):
    """Whatever a link that passed the check holds, reading it does not fail."""
    url = f"https://bucket.s3.amazonaws.com/{path}"
    try:
        urlsplit(url)
    except ValueError:
        return
    LinkFacts.parse(url)
