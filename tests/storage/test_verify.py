"""Whether stored days are still what was published is found out by reading them again."""

from __future__ import annotations

import gzip
import hashlib
import json
from datetime import date

import pendulum
import pytest
from stand_ins.stores import Place

from airflow_provider_bulkexports.api.errors import Stopped, StorageError
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage.columns import schema_of
from airflow_provider_bulkexports.storage.manifest import (
    Archive,
    Manifest,
    Source,
    StoredFile,
    rejected_name,
)
from airflow_provider_bulkexports.storage.store import DayStore, Publication
from airflow_provider_bulkexports.storage.verify import verify

KIND = ResourceType.MESSAGES
DAY, EMPTY = date(2026, 1, 5), date(2026, 1, 6)
NOW = pendulum.datetime(2026, 1, 9)
LINES = b'{"sid":"a"}\n{"sid":"b"}\n'


class Stored:
    """Days in a place, published as a transfer does, and the means to spoil them."""

    def __init__(self, place, folder, file_format):
        self.fs = place.filesystem()
        self.store = DayStore(self.fs, place.root, KIND)
        self.root = f"{place.root}/Messages"
        self.folder = f"{self.root}/day={DAY}"
        self.part = {"raw": "part-0.json.gz", "parquet": "part-0.parquet"}[file_format]
        schema = schema_of(KIND) if file_format == "parquet" else ()
        self.store.claim(Archive("AC1", file_format, schema=schema))
        files, rejected = {self.part: folder.source}, 0
        folder.source.write_bytes(gzip.compress(LINES))
        if file_format == "parquet":
            made = folder.convert(LINES + b"[]\n")
            rejected = made.result.rejected
            digest = hashlib.sha256(made.target.read_bytes()).hexdigest()
            files = {self.part: made.target, rejected_name(digest): made.rejected}
        self._publish(DAY, files, file_format, schema, 2, rejected)
        self._publish(EMPTY, {}, file_format, (), 0, 0)

    def _publish(self, day, files, file_format, schema, records, rejected):
        stored = tuple(
            StoredFile(name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            for name, path in files.items()
        )
        manifest = Manifest(
            KIND, day, "AC1", file_format, records, rejected, None, NOW, NOW, Source("", 0),
            schema, stored,
        )  # fmt: skip
        publication = Publication(manifest, files)
        self.store.publish(day, lambda _: publication, size=1, stop=Stop())

    def verify(self, *days):
        return [
            (found.address.rpartition("Messages")[2].strip("/"), found.problem)
            for found in verify(self.store, days or self.store.list_days())
        ]

    def change(self, name, content):
        with self.fs.open(f"{self.folder}/{name}", "wb") as file:
            file.write(content)

    def edit_manifest(self, **fields):
        text = self.fs.cat_file(f"{self.folder}/_manifest.json")
        self.change("_manifest.json", json.dumps(json.loads(text) | fields).encode())

    def everything(self):
        return {path: self.fs.cat_file(path) for path in self.fs.find(self.root)}


@pytest.fixture(params=["raw", "parquet"])
def stored(request, tmp_path, folder):
    return Stored(Place("file", f"{tmp_path}/days"), folder, request.param)


def test_days_as_published_have_no_findings(stored):
    """Full and empty days, with rejected records or without, are in order, and stay untouched."""
    before = stored.everything()
    assert stored.verify() == []
    assert stored.everything() == before


def test_a_file_zeroed_at_its_size_is_found(stored):
    """The size in a listing says nothing about the content."""
    size = len(stored.everything()[f"{stored.folder}/{stored.part}"])
    stored.change(stored.part, bytes(size))
    assert stored.store.list_day(DAY).state == "stored"
    ((address, problem),) = stored.verify()
    assert address == f"day={DAY}/{stored.part}"
    assert problem.startswith("is not what was published: ")


def test_other_records_of_the_same_size_are_found(stored, folder):
    """A whole file with other content has another digest."""
    path = f"{stored.folder}/{stored.part}"
    before = stored.everything()[path]
    if stored.part.endswith(".gz"):
        changed = gzip.compress(LINES.replace(b"b", b"c"))
    else:
        changed = folder.convert(LINES.replace(b"b", b"c") + b"[]\n").target.read_bytes()
    changed = changed[: len(before)]
    assert len(changed) == len(before) != 0
    stored.change(stored.part, changed)
    ((_, problem),) = stored.verify()
    assert problem == "is not what was published: its digest is another"


def test_lost_and_cut_files_are_found(stored):
    """A file that is missing or shorter is named, from the listing alone."""
    stored.change(stored.part, b"cut")
    ((_, problem),) = stored.verify()
    assert problem.startswith("has 3 bytes, where ")
    stored.fs.rm_file(f"{stored.folder}/{stored.part}")
    ((address, problem),) = stored.verify(DAY)
    assert (address, problem) == (f"day={DAY}/{stored.part}", "is missing")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"account_sid": "AC2"}, ["has the account_sid 'AC2', where the archive has 'AC1'"]),
        ({"records": 3}, ["has 2 records, where the manifest has 3"]),
        (
            {"schema": [["sid", "int64"]]},
            ["has other columns than the archive", "has other columns than the manifest"],
        ),
    ],
)
def test_a_manifest_that_says_something_else_is_found(stored, fields, told):
    """Account and columns are held against the archive, the count against the file."""
    stored.edit_manifest(**fields)
    assert [problem for _, problem in stored.verify(DAY)] == told


def test_another_format_than_the_archive_s_is_found(stored):
    """A day in the other format is not read by those who read the archive."""
    other = {"raw": "parquet", "parquet": "raw"}[stored.store.read_archive().format]
    stored.edit_manifest(format=other)
    (address, problem), *_ = stored.verify(DAY)
    assert address == f"day={DAY}/_manifest.json"
    assert problem.startswith(f"has the format {other!r}")


def test_a_broken_manifest_does_not_hide_other_days(stored):
    """It is one finding of its day; the other days are read all the same."""
    stored.change("_manifest.json", b"{}")
    stored.fs.rm_file(f"{stored.root}/day={EMPTY}/_manifest.empty.json")
    (broken, problem), absent = stored.verify(DAY, EMPTY)
    assert broken == f"day={DAY}/_manifest.json"
    assert problem.startswith("cannot be read: ")
    assert absent == (f"day={EMPTY}", "is not there")


def test_days_in_between_are_told(stored):
    """A day under a lock, one without manifest and one with a part too many are findings."""
    stored.change("part-0.json.gz" if "parquet" in stored.part else "part-0.parquet", b"x")
    ((_, problem),) = stored.verify(DAY)
    assert problem == "is not in the manifest, and readers find it beside what is"
    stored.change("_lock.1", b"x")
    assert stored.verify(DAY) == [(f"day={DAY}", "is locked: a publisher works on it, or died")]
    stored.fs.rm_file(f"{stored.folder}/_lock.1")
    stored.fs.rm_file(f"{stored.folder}/_manifest.json")
    ((_, problem),) = stored.verify(DAY)
    assert problem.startswith("has no manifest, but ")


def test_rejected_records_are_counted(tmp_path, folder):
    """The side file is read too."""
    stored = Stored(Place("file", f"{tmp_path}/days"), folder, "parquet")
    stored.edit_manifest(rejected=2)
    ((address, problem),) = stored.verify(DAY)
    assert "_rejected-" in address
    assert problem == "has 1 records, where the manifest has 2"


def test_an_archive_that_is_not_there_is_an_error(tmp_path):
    """Nothing is in order or out of it where nothing is."""
    store = DayStore(Place("file", f"{tmp_path}").filesystem(), f"{tmp_path}/none", KIND)
    with pytest.raises(StorageError, match="lacks its description"):
        verify(store, [DAY])


def test_verifying_can_be_stopped(stored):
    """The signal ends it between two days."""
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        verify(stored.store, [DAY, EMPTY], stop=stop)
