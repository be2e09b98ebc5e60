from __future__ import annotations

import gzip
import hashlib

import pytest
from day_downloads import FILE, TWO_MEMBERS, exported

from airflow_provider_bulkexports.api.errors import BadData, NotFound

FORMS = ["absent", "not_found", "zero_bytes", "empty_gzip"]


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_day_is_no_records(form):
    """Whatever an empty day looks like, it is zero records and no bytes, without a wait."""
    with exported(form) as day:
        day.target.write(b"old")
        got = day.fetch(may_be_empty=True)
        assert (got.size, got.records) == (0, 0)
        assert got.sha256 == hashlib.sha256(b"").hexdigest()
        assert (day.held, day.waits) == (b"", [])


@pytest.mark.parametrize("form", FORMS)
def test_a_day_with_records_cannot_look_empty(form):
    """Where the job did not call the day empty, the same answers are errors."""
    with exported(form) as day:
        expected = NotFound if form in ("absent", "not_found") else BadData
        with pytest.raises(expected, match="tries"):
            day.fetch()
        assert day.held == b""


def test_a_listed_size_speaks_against_no_bytes():
    """An empty body is not believed where the day was listed with a size."""
    with exported() as day:
        day.serve(b"", no_length=True)
        with pytest.raises(BadData, match="0 bytes, and 100 were listed"):
            day.fetch(may_be_empty=True, listed_size=100)
        assert day.asked(FILE) == 3


def test_a_damaged_file_is_no_empty_day():
    """That a day may be empty excuses no damage."""
    with exported() as day:
        day.serve(TWO_MEMBERS[:-1])
        with pytest.raises(BadData, match="within a gzip member"):
            day.fetch(may_be_empty=True)
        day.sandbox.clear_faults()
        day.serve(gzip.compress(b"")[:-8])
        with pytest.raises(BadData, match="within a gzip member"):
            day.fetch(may_be_empty=True)


def test_a_day_that_may_be_empty_may_have_records():
    """A file with records is fetched as it is."""
    with exported() as day:
        assert day.fetch(may_be_empty=True).records == 200
