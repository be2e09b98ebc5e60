"""Lines and files that are odd, and days that are mostly so."""

from __future__ import annotations

import gzip
import threading
import time
from decimal import Decimal

import pytest

from airflow_provider_bulkexports.api.errors import Stopped
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage.columns import SCHEMAS, ColumnType, Privacy
from airflow_provider_bulkexports.storage.records import Malformed, read_line

GOOD = b'{"sid":"good"}'


def nested(depth, opening, closing):
    return b'{"new":' + opening * depth + b"1" + closing * depth + b"}"


@pytest.mark.parametrize("depth", [99, 100, 300, 450, 600, 900, 3000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_line_too_deep_is_malformed_wherever_the_limit_of_python_is(
    folder, depth, opening, closing
):
    """A hundred levels are kept; with more the line is refused, and the day goes on."""
    line = nested(depth, opening, closing)
    outcome = folder.convert(b"\n".join([GOOD, line, GOOD]))
    if depth < 100:
        assert len(outcome.rows[1]["_extra"]) == len(line)
    else:
        assert (outcome.result.records, outcome.result.rejected) == (2, 1)
        assert outcome.refused[0]["record"] == line.decode()


def test_a_line_too_deep_is_malformed_when_read_by_itself():
    """Whoever looks at single lines gets a refusal, never a RecursionError."""
    for line in (nested(100_000, b"[", b"]"), b'{"body":"' + b"x" * 2**24 + b'"}'):
        with pytest.raises(Malformed):
            read_line(line)


@pytest.mark.parametrize("name", ["to", "date_sent", "flags"])
def test_a_deep_value_in_a_column_is_not_of_its_type(folder, name):
    """A column has no lists."""
    text = b'{"%s":' % name.encode() + b"[" * 500 + b"]" * 500 + b"}\n"
    assert folder.convert(text + GOOD).refused[0]["column"] == name


def test_a_record_on_two_lines_is_two_malformed_lines(folder):
    """A line is a record: what needs the next one is none, and both are counted."""
    outcome = folder.convert(GOOD + b'\n{"sid":"a",\n"flags":1}\n' + GOOD + b"\n")
    assert [row["sid"] for row in outcome.rows] == ["good", "good"]
    assert [entry["line"] for entry in outcome.refused] == [2, 3]


@pytest.mark.parametrize("kind", list(ResourceType))
def test_an_empty_string_is_nothing_in_a_column_of_another_type(folder, kind):
    """Where a number, an instant, a date or a truth value is "", it is null; text stays empty."""
    columns = SCHEMAS[kind]
    text = ("{" + ",".join(f'"{name}":""' for name in columns) + "}\n").encode()
    outcome = folder.convert(text * 3000, kind, block_bytes=20_000)
    assert (outcome.result.records, outcome.result.rejected) == (3000, 0)
    expected = {name: "" if type_ is ColumnType.STRING else None for name, type_ in columns.items()}
    assert outcome.rows == [expected | {"_extra": None}] * 3000


def test_empty_strings_among_values_change_no_value(folder):
    """A column may have numbers and empty strings by turns, and bodies that look like them."""
    body = '"error_code":"","price":""'
    records = [
        {"error_code": "", "price": "-0.00750", "body": body, "new": ""},
        {"error_code": 30007, "price": "", "body": "", "new": body},
        {"error_code": None, "date_sent": "", "start": "", "body": "x"},
    ]
    rows = folder.convert_records(*records * 2000, block_bytes=30_000).rows
    assert [row["error_code"] for row in rows] == [None, 30007, None] * 2000
    assert [row["price"] for row in rows] == [Decimal("-0.0075"), None, None] * 2000
    assert [row["body"] for row in rows] == [body, "", "x"] * 2000
    extra = '{"new":"\\"error_code\\":\\"\\",\\"price\\":\\"\\""}'
    assert [row["_extra"] for row in rows] == ['{"new":""}', extra, None] * 2000


def test_a_file_of_many_gzip_members_is_one_day(folder):
    """Members follow each other, within lines and between them."""
    text = b"".join(b'{"sid":"%d"}\n' % number for number in range(1000))
    members = [gzip.compress(text[begin : begin + 777]) for begin in range(0, len(text), 777)]
    outcome = folder.convert_file(b"".join(members), block_bytes=500)
    assert [row["sid"] for row in outcome.rows] == [str(number) for number in range(1000)]


BAD = {
    "an instant": b'{"sid":"%d","date_sent":"2026-02-30T00:00:00Z"}',
    "a date": b'{"sid":"%d","start":"tomorrow"}',
    "a whole number": b'{"sid":"%d","flags":1.5}',
    "a word": b'{"sid":"%d","flags":"many"}',
    "a price": b'{"sid":"%d","price":"free"}',
    "a list": b"[%d]",
    "a blank line": b" " * 3,
    "no JSON": b'{"sid":%d',
    "two records": b'{"sid":"a"}{"sid":"%d"}',
}
"""Also ones that are right, but that pyarrow does not read."""
ODD = {"a number as text": b'{"sid":%d}', "another form": b'{"sid":"%d","flags":1E2}'}


@pytest.mark.parametrize("name", [*BAD, *ODD])
@pytest.mark.parametrize("every", [2, 40, 1000])
def test_odd_lines_are_found_among_good_ones(folder, name, every):
    """However many there are, rows keep their order, and refusals their lines."""
    odd = (BAD | ODD)[name]
    lines = []
    for number in range(3000):
        line = b'{"sid":"%d","flags":1,"date_sent":"2026-01-31T00:00:00Z"}' % number
        if number % every == 1:
            line = odd % number if b"%" in odd else odd
        lines.append(line)
    outcome = folder.convert(b"\n".join(lines), block_bytes=50_000)
    refused = list(range(2, 3001, every)) if name in BAD else []
    assert [entry["line"] for entry in outcome.refused] == refused
    kept = [str(number) for number in range(3000) if number + 1 not in refused]
    assert [row["sid"] for row in outcome.rows] == kept


def test_a_stopped_conversion_leaves_nothing_behind(folder):
    """After the signal no file appears, and no thread goes on."""
    stop = Stop()
    seen = []

    def look(table):
        seen.append(table.num_rows)
        if len(seen) == 2:
            stop.set()

    threads = threading.active_count()
    text = GOOD + b"\n"
    began = time.monotonic()
    with pytest.raises(Stopped):
        folder.convert(text * 200_000, look=look, stop=stop, block_bytes=20_000)
    assert len(seen) == 2
    assert time.monotonic() - began < 20
    assert threading.active_count() == threads
    assert [path.name for path in folder.source.parent.iterdir()] == [folder.source.name]


def test_a_long_line_leaves_no_text_with_privacy(folder):
    """The beginning of a line that is too long is kept, but not where columns are hidden."""
    line = b'{"body":"' + b"x" * (17 * 2**20) + b'"}'
    assert folder.convert(line).refused[0]["record"] == line[: 2**16].decode()
    hidden = Privacy.parse(ResourceType.MESSAGES, ["body"])
    (entry,) = folder.convert(line, privacy=hidden).refused
    assert entry == {"line": 1, "column": None, "reason": "is longer than 16 MiB"}
