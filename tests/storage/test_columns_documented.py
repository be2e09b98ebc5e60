"""The page about columns says what the files have, and what warehouses make of them."""

import re
from pathlib import Path

import pytest

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.storage.columns import EXTRA, SCHEMAS, ColumnType, schema_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "columns.md").read_text()
BIGQUERY = {
    ColumnType.STRING: "STRING",
    ColumnType.INTEGER: "INT64",
    ColumnType.DECIMAL: "NUMERIC(18, 6)",
    ColumnType.TIMESTAMP: "TIMESTAMP",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOL",
}
SNOWFLAKE = {
    ColumnType.STRING: "VARCHAR",
    ColumnType.INTEGER: "NUMBER(19, 0)",
    ColumnType.DECIMAL: "NUMBER(18, 6)",
    ColumnType.TIMESTAMP: "TIMESTAMP_TZ",
    ColumnType.DATE: "DATE",
    ColumnType.BOOLEAN: "BOOLEAN",
}


def documented(kind):
    """Return the rows of a type's table, without the marks of code."""
    section = PAGE.split(f"## {kind.value}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in re.split(r"\s\|\s", row.strip("| "))] for row in rows]


@pytest.mark.parametrize("kind", list(ResourceType))
def test_the_table_has_the_columns_of_the_files(folder, kind):
    """Names, order, Arrow's types and what may be null are those of a written file."""
    fields = folder.convert(b"", kind).table.schema
    told = [(name, arrow, null) for name, arrow, _, _, _, null, meaning in documented(kind)
            if meaning]  # fmt: skip
    assert told == [(f.name, str(f.type), {True: "yes", False: "no"}[f.nullable]) for f in fields]
    assert [(name, arrow) for name, arrow, _ in told] == list(schema_of(kind))


@pytest.mark.parametrize("kind", list(ResourceType))
def test_duckdb_reads_the_types_that_the_table_says(folder, kind):
    """DuckDB's column is what DuckDB describes the file as."""
    duckdb = pytest.importorskip("duckdb")
    outcome = folder.convert(b"{}\n", kind)
    found = duckdb.connect().read_parquet(f"{outcome.target}")
    told = [(row[0], row[4]) for row in documented(kind)]
    assert list(zip(found.columns, map(str, found.types), strict=True)) == told


@pytest.mark.parametrize("kind", list(ResourceType))
def test_a_type_is_the_same_in_all_tables(kind):
    """BigQuery's and Snowflake's words go with Arrow's."""
    columns = SCHEMAS[kind] | {EXTRA: ColumnType.STRING}
    told = [(row[0], row[2], row[3]) for row in documented(kind)]
    assert told == [(name, BIGQUERY[type_], SNOWFLAKE[type_]) for name, type_ in columns.items()]


def test_instants_are_utc_in_duckdb(folder):
    """An instant is the same instant there."""
    duckdb = pytest.importorskip("duckdb")
    outcome = folder.convert(b'{"date_sent":"2026-01-05T23:59:59Z","start":"2026-01-05"}\n')
    connection = duckdb.connect()
    connection.execute("SET TimeZone='UTC'")
    day = connection.read_parquet(f"{outcome.target}")
    found = day.project("date_sent::VARCHAR, start::VARCHAR")
    assert found.fetchall() == [("2026-01-05 23:59:59+00", "2026-01-05")]
