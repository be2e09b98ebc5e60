from __future__ import annotations

import gzip
import random
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
    ("content", "text"),
    [
        (bomb(b"0" * 1_000_000, 300), "a line is longer than the limit of 1048576 bytes"),
        (bomb(b'{"a":0}\n' * 100_000, 300), "200 times larger than the file"),
    ],
    ids=["one line", "many lines"],
)
def test_a_decompression_bomb_is_refused(content, text):
    """A small file of much text is refused early, and in little memory."""
    with exported() as day:
        day.serve(content)
        tracemalloc.start()
        with pytest.raises(BadData, match=text):
            day.fetch()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert day.held == b""
        assert peak < 8_000_000  # with the sandbox's own copies of the file


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
    limits = Limits(line=length, ratio=10**6)
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
