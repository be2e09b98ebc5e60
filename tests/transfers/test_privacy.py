"""Columns that are left out or hashed on their way into the storage."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json

import pytest
from day_transfers import day, range_of

from airflow_provider_bulkexports.compat import AirflowFailException

pytest.importorskip("pyarrow", reason="needs airflow-provider-bulkexports[parquet]")

SECRET = "correct horse battery staple"


@pytest.fixture
def private(transfers, monkeypatch):
    """Run a sandbox whose connection has a secret for hashes, and Messages of two days."""
    set_secret(transfers, monkeypatch, SECRET)
    transfers.export(2)
    return transfers


def set_secret(transfers, monkeypatch, secret):
    extra = {"base_url": transfers.sandbox.url, "hash_secret": secret}
    monkeypatch.setenv(
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT", transfers.sandbox.connection(extra=extra)
    )


OPTIONS = {"output_format": "parquet", "drop_columns": ["body"], "hash_columns": ["from", "to"]}


def rows_of(transfers, number):
    from pyarrow import parquet

    return parquet.ParquetFile(transfers.folder(number) / "part-0.parquet").read().to_pylist()


def test_columns_are_left_out_and_hashed(private):
    """Nobody finds a number or a text in the storage, and equal numbers stay equal."""
    private.transfer(**range_of(1), **OPTIONS)
    records = [json.loads(line) for line in gzip.decompress(private.served(0)).splitlines()]

    rows = rows_of(private, 0)
    assert all("body" not in row and "_extra" not in row for row in rows)
    for name in ("from", "to"):
        assert [row[name] for row in rows] == [
            hmac.new(SECRET.encode(), record[name].encode(), hashlib.sha256).hexdigest()
            for record in records
        ]
    stored = b"".join(path.read_bytes() for path in private.folder(0).iterdir())
    assert SECRET.encode() not in stored
    assert not any(record["from"].encode() in stored for record in records)


@pytest.mark.parametrize(
    "changes",
    [{"drop_columns": []}, {"hash_columns": ["from", "to", "sid"]}, {"drop_columns": ["status"]}],
)
def test_other_options_are_refused_for_the_same_archive(private, changes):
    """Half of the days with a text and half without is not what anybody asked for."""
    private.transfer(**range_of(1), **OPTIONS)
    with pytest.raises(AirflowFailException, match="_columns is"):
        private.transfer(**range_of(2), **OPTIONS | changes)

    assert private.downloads() == [day(0)]


def test_another_secret_is_refused_for_the_same_archive(private, monkeypatch):
    """Hashes of two secrets would never meet in a join."""
    private.transfer(**range_of(1), **OPTIONS)
    set_secret(private, monkeypatch, SECRET[::-1])
    with pytest.raises(AirflowFailException, match="hash_key_id"):
        private.transfer(**range_of(2), **OPTIONS)

    assert private.downloads() == [day(0)]


def test_the_account_is_checked_though_its_column_is_left_out(private):
    """What is dropped is looked at before."""
    private.fault("other_contents", what="other_account", times=-1)
    with pytest.raises(Exception, match="is of account"):
        private.transfer(
            **range_of(1), output_format="parquet", drop_columns=["account_sid", "sid"]
        )

    assert private.missing(1) == [0]
