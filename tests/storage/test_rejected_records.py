"""What a malformed record becomes."""

import base64
import gzip
import json

import pytest

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.request import ResourceType

GOOD = b'{"sid":"good"}'
LINES = {
    "a date of the documentation's own sample": (
        b'{"date_created":"2020-01-013T00:00:00Z"}',
        "date_created",
    ),
    "a day that does not exist": (b'{"date_sent":"2026-02-30T00:00:00Z"}', "date_sent"),
    "a time without a zone": (b'{"date_sent":"2026-02-03T00:00:00"}', "date_sent"),
    "a date without a time": (b'{"date_sent":"2026-02-03"}', "date_sent"),
    "a date as in the REST API": (b'{"date_sent":"Sun, 26 Jul 2020 22:21:20 +0000"}', "date_sent"),
    "a year beyond 9999": (b'{"date_sent":"9999-12-31T23:59:59-10:00"}', "date_sent"),
    "a number for a date": (b'{"date_sent":1595802080}', "date_sent"),
    "nanoseconds": (b'{"date_sent":"2020-07-26T22:21:20.1234567Z"}', "date_sent"),
    "a word for a number": (b'{"num_segments":"abc"}', "num_segments"),
    "a blank for a number": (b'{"num_segments":" "}', "num_segments"),
    "an instant for a date": (b'{"start":"2026-02-03T00:00:00Z"}', "start"),
    "a date that does not exist": (b'{"start":"2026-02-30"}', "start"),
    "the year 0": (b'{"start":"0000-01-01"}', "start"),
    "a number for a day": (b'{"start":20260203}', "start"),
    "half of a number": (b'{"num_segments":1.5}', "num_segments"),
    "more than 64 bits": (b'{"flags":9223372036854775808}', "flags"),
    "a number without end": (b'{"flags":1e999999999}', "flags"),
    "true for a number": (b'{"flags":true}', "flags"),
    "a word for a price": (b'{"price":"free"}', "price"),
    "a price with seven digits after the point": (b'{"price":"0.0000001"}', "price"),
    "a price with thirteen before it": (b'{"price":"1000000000000"}', "price"),
    "a price that is no number": (b'{"price":"NaN"}', "price"),
    "an object for text": (b'{"to":{}}', "to"),
    "a field given twice": (b'{"sid":"a","sid":"b"}', "sid"),
    "an unknown field given twice": (b'{"new":1,"new":1}', "new"),
    "half of a surrogate pair": (b'{"body":"\\ud83d"}', None),
    "half of a surrogate pair in a new field": (b'{"new":["\\uDE00"]}', None),
    "a list": (b"[1]", None),
    "null": (b"null", None),
    "half a record": (b'{"sid":"a"', None),
    "two records": (b'{"sid":"a"}{"sid":"b"}', None),
    "no JSON": (b"<html>", None),
    "NaN": (b'{"new":NaN}', None),
    "a blank line": (b"", None),
    "lists in lists without end": (b'{"new":' + b"[" * 200_000 + b"}", None),
}


@pytest.mark.parametrize("name", LINES)
def test_a_malformed_record_goes_to_the_side_file(folder, name):
    """A malformed record is refused with its line, column and text; its neighbours are kept."""
    line, column = LINES[name]
    outcome = folder.convert(b"\n".join([GOOD, line, GOOD, b""]))
    assert [row["sid"] for row in outcome.rows] == ["good", "good"]
    assert (outcome.result.records, outcome.result.rejected) == (2, 1)
    (entry,) = outcome.refused
    assert (entry["line"], entry["column"], entry["record"]) == (2, column, line.decode())
    assert entry["reason"]


def test_a_line_that_is_not_utf_8_is_kept_byte_by_byte(folder):
    """Bytes that are no text come as base64, so nothing of them is lost."""
    line = b'{"body":"\xff"}'
    (entry,) = folder.convert(line + b"\n").refused
    assert base64.b64decode(entry["record_base64"]) == line
    assert entry["reason"] == "is not UTF-8"


def test_lines_are_counted_over_the_whole_file(folder):
    """Line numbers are those of an editor, however many blocks the file is read in."""
    lines = [b'{"price":"x"}' if number % 97 == 0 else GOOD for number in range(1, 5001)]
    outcome = folder.convert(b"\n".join(lines), block_bytes=1000)
    assert [entry["line"] for entry in outcome.refused] == list(range(97, 5001, 97))
    assert outcome.result.records + outcome.result.rejected == 5000


def test_records_that_share_lines_do_not_hide_a_bad_one(folder):
    """Two records on one line and one on two lines are three malformed lines, not three rows."""
    outcome = folder.convert(b'{"sid":"a"}{"sid":"b"}\n{"sid":\n"c"}\n')
    assert (outcome.result.records, outcome.result.rejected) == (0, 3)


def test_a_line_of_any_length_is_bounded(folder):
    """A line beyond 16 MiB is refused with its beginning, and the next record is kept."""
    huge = b'{"body":"' + b"x" * (40 * 2**20) + b'"}'
    outcome = folder.convert(b"\n".join([GOOD, huge, GOOD]))
    assert outcome.result.records == 2
    (entry,) = outcome.refused
    assert entry["line"] == 2
    assert entry["record"] == huge[: 64 * 2**10].decode()
    assert "16 MiB" in entry["reason"]


def test_the_side_file_may_be_compressed(folder):
    """A side file whose name ends in .gz is gzip."""
    folder.rejected = folder.rejected.with_suffix(".jsonl.gz")
    folder.convert(b"x\n")
    assert json.loads(gzip.decompress(folder.rejected.read_bytes()))["record"] == "x"


def test_an_old_side_file_does_not_stay(folder):
    """A day converted again without malformed records leaves no side file behind."""
    assert folder.convert(b"x\n").rejected.exists()
    assert not folder.convert(GOOD).rejected.exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "no gzip"])
def test_a_damaged_file_gives_no_parquet(folder, damage):
    """A file that is not whole is an error, and no file is left that looks finished."""
    content = gzip.compress(b"".join(b'{"sid":"%d"}\n' % number for number in range(50_000)))
    content = {
        "cut": content[:-20],
        "changed": content[:9000] + b"\0\1\2\3" + content[9004:],
        "no gzip": b"<Error/>",
    }[damage]
    with pytest.raises(BadData, match="not a whole gzip file"):
        folder.convert_file(content)
    assert [path.name for path in folder.source.parent.iterdir()] == [folder.source.name]


def test_truth_values_are_not_guessed(folder):
    """A participant's flag is true or false; the word "yes" is malformed."""
    text = b'{"muted":true}\n{"muted":"yes"}\n'
    outcome = folder.convert(text, ResourceType.PARTICIPANTS)
    assert outcome.rows[0]["muted"] is True
    assert outcome.refused[0]["column"] == "muted"
