"""Which days are missing: a look at the storage, and none at Twilio."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta

import pytest
from day_transfers import FIRST, day

from airflow_provider_bulkexports.compat import AirflowFailException, object_storage_path
from airflow_provider_bulkexports.hooks import BulkExportsHook


def gap(first, last, kind="Messages"):
    return {"resource_type": kind, "start_day": day(first), "end_day": day(last)}


@pytest.fixture
def stored(transfers):
    """Ten stored days; the fifth is empty."""
    transfers.fault("empty_day", "create_job", days=[day(4)])
    transfers.bring(transfers.export(10))
    return transfers


def no_part(stored, number):
    (stored.folder(number) / "part-0.json.gz").unlink()


def no_folder(stored, number):
    shutil.rmtree(stored.folder(number))


def no_manifest(stored, number):
    (stored.folder(number) / "_manifest.json").unlink()


def cut_part(stored, number):
    part = stored.folder(number) / "part-0.json.gz"
    part.write_bytes(part.read_bytes()[:-5])


def manifest_of(text):
    def harm(stored, number):
        (stored.folder(number) / "_manifest.json").write_text(text)

    return harm


def other(**changes):
    def harm(stored, number):
        manifest = stored.manifest(number) | changes
        (stored.folder(number) / "_manifest.json").write_text(json.dumps(manifest))

    return harm


def other_file(**changes):
    def harm(stored, number):
        (file,) = stored.manifest(number)["files"]
        other(files=[file | changes])(stored, number)

    return harm


def without(*names):
    def harm(stored, number):
        manifest = stored.manifest(number)
        for name in names:
            del manifest[name]
        (stored.folder(number) / "_manifest.json").write_text(json.dumps(manifest))

    return harm


HARMS = {
    "a part that was deleted": no_part,
    "a folder that was deleted": no_folder,
    "a manifest that was deleted": no_manifest,
    "a part that was cut": cut_part,
    "an empty manifest": manifest_of(""),
    "a manifest that was cut": manifest_of('{"resource_type": "Mess'),
    "a manifest of null": manifest_of("null"),
    "a manifest that is a list": manifest_of("[1, 2]"),
    "a manifest of null fields": manifest_of('{"files": null, "schema": null}'),
    "a manifest nested too deep": manifest_of("[" * 100_000),
    "a manifest without files": without("files"),
    "a manifest without its digest": without("source_sha256"),
    "a manifest of another day": other(day=day(7)),
    "a manifest of another type": other(resource_type="Calls"),
    "a manifest whose records are a text": other(records="3"),
    "a manifest whose records are negative": other(records=-1),
    "a manifest whose format is a list": other(format=[]),
    "a manifest whose digest is a number": other(source_sha256=5),
    "a manifest of another folder's file": other_file(name=f"../day={day(7)}/part-0.json.gz"),
    "a manifest of a file of no size": other_file(bytes=None),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_day_counts_as_missing(stored, harm):
    """A day is there when its manifest is whole, and every file that it names."""
    HARMS[harm](stored, 6)

    assert stored.missing(10) == [gap(6, 6)]


def test_a_manifest_that_is_no_text_counts_as_missing(stored):
    """Bytes that are no UTF-8 are no manifest."""
    (stored.folder(6) / "_manifest.json").write_bytes(b"\xff\xfe{}")

    assert stored.missing(10) == [gap(6, 6)]


def test_nothing_is_missing(stored):
    """Where all days are there, the empty one too, there is nothing to do."""
    assert stored.missing(10) == []


def test_gaps_are_ranges(stored):
    """Days that follow each other are one range, ready for one job."""
    for number in (0, 3, 4, 5, 9):
        no_folder(stored, number)

    assert stored.missing(12) == [gap(0, 0), gap(3, 5), gap(9, 11)]


def test_an_empty_storage_lacks_everything(transfers):
    """Before the first transfer, the whole range is one gap."""
    assert transfers.missing(10) == [gap(0, 9)]
    assert transfers.missing(10, "Calls") == [gap(0, 9, "Calls")]


def test_types_are_stored_apart(stored):
    """The stored days of one type say nothing about another."""
    assert stored.missing(10, "Calls") == [gap(0, 9, "Calls")]


def test_a_gap_of_more_than_a_year_is_split(stored):
    """One job may have 366 days, so a longer gap comes as several ranges."""
    ranges = stored.missing(10 + 366 + 366 + 5)

    assert ranges == [gap(10, 375), gap(376, 741), gap(742, 746)]


def test_twilio_is_not_asked(stored):
    """The storage alone says what is missing."""
    before = stored.requests()
    no_part(stored, 2)
    stored.missing(400)

    assert stored.requests() == before


def test_no_connection_is_needed(stored, monkeypatch):
    """Where no connection to Twilio is, the storage can be looked at all the same."""
    monkeypatch.delenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT")

    assert stored.missing(10) == []


def test_the_hook_tells_the_same(stored):
    """From Python, the hook tells the gaps of an ObjectStoragePath."""
    no_part(stored, 2)
    no_part(stored, 3)
    root = object_storage_path(stored.destination, None)
    end = FIRST + timedelta(days=9)

    assert BulkExportsHook.missing_days(root, "Messages", FIRST, end) == [gap(2, 3)]


def test_other_files_in_a_day_do_not_matter(stored):
    """What others put into a day's folder is no reason to export the day anew."""
    (stored.folder(2) / "_SUCCESS").write_text("")
    (stored.folder(2) / "notes.txt").write_text("mine")

    assert stored.missing(10) == []


def test_the_ranges_fill_the_gaps(stored):
    """The ranges, exported and brought home, leave nothing missing."""
    for number in (0, 3, 4):
        no_folder(stored, number)
    for item in stored.missing(10):
        first = (ranged(item["start_day"]) - FIRST).days
        days = (ranged(item["end_day"]) - ranged(item["start_day"])).days + 1
        stored.bring(stored.export(days, first=first))

    assert stored.missing(10) == []


def ranged(text):
    return FIRST.fromisoformat(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resource_type": "Faxes"}, "allowed are"),
        ({"start_day": "2026-02-01"}, "reversed"),
        ({"end_day": "tomorrow"}, "end_day"),
    ],
)
def test_wrong_arguments_are_refused(transfers, change, message):
    """A wrong type or range fails the task at once."""
    with pytest.raises(AirflowFailException, match=message):
        transfers.missing(10, **change)

    assert transfers.requests() == 0
