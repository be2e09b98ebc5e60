"""What a right record becomes."""

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.sandbox.records import FileKey, day_file, records

AT = datetime(2026, 1, 5, 22, 21, 20, tzinfo=UTC)


@pytest.mark.parametrize("kind", list(ResourceType))
def test_every_type_of_the_sandbox_is_converted(folder, kind):
    """A day of each resource type becomes typed rows, in the order of the file."""
    key = FileKey("AC" + "0" * 32, kind, date(2026, 1, 5))
    outcome = folder.convert_file(b"".join(day_file(7, key, 500)), kind)
    expected = list(records(7, key, 500))
    assert (outcome.result.records, outcome.result.rejected) == (500, 0)
    assert not outcome.rejected.exists()
    for row, record in zip(outcome.rows, expected, strict=True):
        assert row.pop("_extra") is None
        for name, value in row.items():
            given = record.get(name)
            if isinstance(value, datetime):
                assert value.strftime("%Y-%m-%dT%H:%M:%SZ") == given
            elif isinstance(value, date):
                assert value.isoformat() == given
            elif isinstance(value, Decimal) or name == "queue_time":
                assert value == Decimal(given)
            else:
                assert value == given


@pytest.mark.parametrize("kind", list(ResourceType))
def test_the_schema_is_told_and_never_depends_on_the_data(folder, kind):
    """The result names each column with its type, the same for an empty day."""
    empty = folder.convert(b"", kind)
    told = tuple((field.name, str(field.type)) for field in empty.table.schema)
    assert empty.result.schema == told
    assert told[-1] == ("_extra", "string")
    full = folder.convert(b'{"sid":"x","new":[1]}\n', kind)
    assert full.table.schema == empty.table.schema


@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b"")], ids=["no bytes", "a gzip of nothing"]
)
def test_an_empty_day_is_a_table_without_rows(folder, content):
    """No bytes, or a gzip of nothing, give a Parquet file with columns and no rows."""
    outcome = folder.convert_file(content)
    assert outcome.table.num_rows == outcome.result.records == 0
    assert "num_segments" in outcome.table.column_names


def test_prices_are_exact(folder):
    """A price is a decimal, whether Twilio writes it as text or as a number."""
    outcome = folder.convert(b'{"price":"-0.00750"}\n{"price":-0.0075}\n{"price":"1e3"}\n')
    assert [row["price"] for row in outcome.rows] == [
        Decimal("-0.007500"),
        Decimal("-0.007500"),
        Decimal("1000.000000"),
    ]


def test_whole_numbers_may_come_as_strings(folder):
    """An integer column takes 1, "1" and 1.0 alike."""
    outcome = folder.convert_records(*({"num_media": value} for value in (1, "1", 1.0)))
    assert [row["num_media"] for row in outcome.rows] == [1, 1, 1]


def test_rows_of_many_blocks_keep_their_values(folder):
    """Blocks share buffers, and what is learned of one block is used for the next."""
    values = [str(n) if n % 700 == 0 else f"{n}.0" if n % 900 == 0 else n for n in range(5000)]
    outcome = folder.convert_records(
        *({"sid": f"SM{n}", "flags": value} for n, value in enumerate(values)), block_bytes=1000
    )
    read = [(row["sid"], row["flags"]) for row in outcome.rows]
    assert read == [(f"SM{n}", n) for n in range(5000)]


def test_other_zones_become_utc(folder):
    """A time with an offset is converted, not cut."""
    outcome = folder.convert_records({"date_sent": "2026-01-06T00:21:20+02:00"})
    assert outcome.rows[0]["date_sent"] == AT


def test_missing_and_null_are_null(folder):
    """A field that is absent or null is null in the row, and no reason to refuse it."""
    outcome = folder.convert(b'{}\n{"price":null,"date_sent":null,"flags":null,"to":null}\n')
    assert outcome.result.records == 2
    assert all(value is None for row in outcome.rows for value in row.values())


def test_a_number_in_a_text_column_keeps_its_digits(folder):
    """A short code written as a number is text, digit by digit."""
    outcome = folder.convert(b'{"to":72345}\n{"to":1234567890123456789012.50}\n')
    assert [row["to"] for row in outcome.rows] == ["72345", "1234567890123456789012.50"]


def test_nul_and_long_text_are_kept(folder):
    """Text may hold a NUL, an emoji, and more than a block of characters."""
    body = "\0☕" * 400_000
    assert folder.convert_records({"body": body}, {"body": "b"}).rows[0]["body"] == body


def test_windows_line_ends_do_no_harm(folder):
    """Lines may end in CR LF, and the last one in nothing."""
    outcome = folder.convert(b'{"sid":"a"}\r\n{"sid":"b"}')
    assert [row["sid"] for row in outcome.rows] == ["a", "b"]


def test_unknown_fields_are_kept(folder):
    """A field that Twilio adds goes to _extra as JSON, in every record that has it."""
    fields = [
        {"new": 'é"\n', "b": True},
        {"new": 5},
        {"new": None},
        {},
        {"new": {"x": [1.50, None]}, "a": 1},
    ]
    outcome = folder.convert_records(*fields * 500, block_bytes=2000)
    texts = [
        '{"b":true,"new":"é\\"\\n"}',
        '{"new":5}',
        None,
        None,
        '{"a":1,"new":{"x":[1.5,null]}}',
    ]
    assert [row["_extra"] for row in outcome.rows] == texts * 500


def test_row_groups_are_closed_at_the_asked_size(folder):
    """Row groups have the asked number of rows, give or take a block."""
    from pyarrow import parquet

    folder.convert(b'{"sid":"x"}\n' * 10_000, row_group_rows=2_000, block_bytes=1_200)
    metadata = parquet.ParquetFile(folder.target).metadata
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(sizes) == 10_000
    assert all(2_000 <= size <= 2_200 for size in sizes[:-1])


def test_the_same_day_gives_the_same_bytes(folder):
    """Converting again, on as many threads as there are, changes no byte."""
    text = b'{"sid":"x","new":1}\n{"flags":"bad"}\n{"new":"text"}\n' * 300
    contents = {folder.convert(text, block_bytes=900).target.read_bytes() for _ in range(3)}
    assert len(contents) == 1
