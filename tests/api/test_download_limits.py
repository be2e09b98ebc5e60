from __future__ import annotations

import gzip
import random
import time
import tracemalloc
import zlib

import pytest
from day_downloads import LINES, TWO_MEMBERS, exported
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.gzip_check import DayFileCheck, Limits


def bomb(block: bytes, times: int) -> bytes:
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(press.compress(block) for _ in range(times)), press.flush()])


def fed(data: bytes, step: int = 65_536, limits: Limits | None = None) -> DayFileCheck:
    check = DayFileCheck(limits)
    for start in range(0, len(data), step):
        check.feed(data[start : start + step])
    check.finish()
    return check


@pytest.mark.parametrize(
    ("content", "limits", "text"),
    [
        (bomb(b"0" * 1_000_000, 300), {}, "a line is longer than the limit of 16777216 bytes"),
        (bomb(b'{"a":0}\n' * 100_000, 300), {"free": 10**8}, "400 times larger than the file"),
        (bomb(b'{"a":0}\n' * 100_000, 300), {"text": 10**8}, "larger than the limit of 100000000"),
    ],
    ids=["one line", "many lines", "too many lines"],
)
def test_a_decompression_bomb_is_refused(content, limits, text):
    """A small file of much text is refused early, and in little memory."""
    with exported() as day:
        day.serve(content)
        tracemalloc.start()
        with pytest.raises(BadData, match=text):
            day.fetch(limits=Limits(**limits))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert day.held == b""
        assert peak < 8_000_000  # with the sandbox's own copies of the file


def test_what_a_bomb_costs_is_bounded():
    """At the limits as they are, 10 MB of the densest gzip are refused within seconds."""
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = press.compress(b"{}\n" * 350_000) + press.flush(zlib.Z_FULL_FLUSH)
    # Nothing refers to what is before a full flush, so what follows it can be repeated.
    again = press.compress(b"{}\n" * 350_000) + press.flush(zlib.Z_FULL_FLUSH)
    content += again * (10_000_000 // len(again))
    check, began = DayFileCheck(), time.process_time()
    with pytest.raises(BadData, match="400 times larger"):
        check.feed(content)
    assert check.text_size < 6 * 1024**3
    assert time.process_time() - began < 30


def test_an_honest_day_of_equal_bodies_is_far_from_the_limits():
    """20,000 records with equal bodies of 10 kB pass at a fifth of what their file may hold."""
    body = "Your parcel is on its way. " * 370
    rng = random.Random(1)
    lines = (
        b'{"sid":"SM%s","to":"+1555%07d","body":"%s"}\n'
        % (rng.randbytes(16).hex().encode(), rng.randrange(10**7), body.encode())
        for _ in range(20_000)
    )
    content = gzip.compress(b"".join(lines), 9)
    limits = Limits()
    check = fed(content)
    assert check.records == 20_000
    assert check.text_size / len(content) > 140
    assert check.text_size < (limits.free + limits.ratio * len(content)) / 5
    # Nor would a hundred times as many come near.
    assert 100 * check.text_size < (limits.free + limits.ratio * 100 * len(content)) / 2


@pytest.mark.parametrize("mib", [1, 15, 16])
def test_a_line_of_16_mib_passes(mib):
    """As on the Parquet side; a byte more does not."""
    line = random.Random(mib).randbytes(mib * 512 * 1024).hex().encode()
    assert fed(gzip.compress(line + b"\n{}\n", 1)).records == 2
    if mib == 16:
        with pytest.raises(BadData, match="a line is longer"):
            fed(gzip.compress(line + b"x\n{}\n", 1))


def test_a_file_of_too_many_bytes_is_refused():
    """The caller's limit on a file's size holds."""
    with exported() as day:
        day.serve(TWO_MEMBERS)
        with pytest.raises(BadData, match="larger than the limit of 1000 bytes"):
            day.fetch(limits=Limits(size=1000))
        assert day.fetch(limits=Limits(size=len(TWO_MEMBERS))).records == 500


@pytest.mark.parametrize("length", [1, 7, 100, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("step", [1000, 65_536])
def test_a_line_may_be_as_long_as_the_limit(length, step):
    """A line of the limit's length passes wherever it lies, and one byte more does not."""
    rng = random.Random(length)
    line = bytes(rng.choices(b"abcdef", k=length))
    limits = Limits(line=length)
    for text, records in (
        (line, 1),
        (b"a\n" + line + b"\na\n", 3),
        (b"\n" * 70_000 + line, 70_001),
    ):
        assert fed(gzip.compress(text), step, limits).records == records
        with pytest.raises(BadData, match="a line is longer"):
            fed(gzip.compress(text.replace(line, line + b"x")), step, limits)


def test_a_gzip_within_a_gzip_is_refused():
    """A file that was compressed twice has no lines to count."""
    with pytest.raises(BadData, match="holds another gzip"):
        fed(gzip.compress(TWO_MEMBERS))


@pytest.mark.parametrize("tail", [b"\x00", b"\x00" * 512, b"x", b"\x1f", b"\x1f\x8b", b"\n"])
def test_nothing_may_follow_the_last_member(tail):
    """What comes after a member is a member, or the file is damaged."""
    with pytest.raises(BadData, match=r"not gzip|within a gzip member"):
        fed(TWO_MEMBERS + tail)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.binary(max_size=50), max_size=20), min_size=1, max_size=6),
    st.integers(0, 9),
    st.integers(1, 5000),
)
def test_any_text_in_any_members_is_counted_right(members, level, step):
    """Members, compression and the size of the pieces do not change what is counted."""
    texts = [b"\n".join(lines) for lines in members]
    text = b"".join(texts)
    content = b"".join(gzip.compress(one, level) for one in texts)
    if text.startswith(b"\x1f\x8b"):
        return
    check = fed(content, step)
    assert check.records == text.count(b"\n") + (text[-1:] not in (b"", b"\n"))
    assert (check.size, check.text_size) == (len(content), len(text))


def test_a_file_of_many_small_members_is_followed():
    """Every line may be a member of its own."""
    lines = LINES.splitlines(keepends=True)
    assert fed(b"".join(map(gzip.compress, lines))).records == len(lines)
