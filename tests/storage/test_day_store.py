"""Stored days on every kind of storage: what one listing says, and that nothing is guessed."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import re
import threading
import time
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from stand_ins.publisher import FIRST, PART, prepare, store_of
from stand_ins.stores import Place

from airflow_provider_bulkexports.api.errors import InvalidRequest, Locked, Stopped, StorageError
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage import folders
from airflow_provider_bulkexports.storage.lock import Publication
from airflow_provider_bulkexports.storage.manifest import Archive, rejected_name
from airflow_provider_bulkexports.storage.store import DayState, DayStore, check_destination

SECOND = FIRST + timedelta(days=1)
RAW = Archive("AC" + "0" * 32, "raw")


def publish(store, tmp_path, day=FIRST, records=3, **changes):
    """Publish a day, and return its manifest."""
    wanted = prepare(tmp_path, day, records)
    return store.publish(day, lambda _: wanted, size=100, stop=Stop(), **changes)


def publish_empty(store, tmp_path, day=FIRST):
    from dataclasses import replace

    manifest = replace(prepare(tmp_path, day, 1).manifest, records=0, files=())
    return store.publish(day, lambda _: Publication(manifest), size=0, stop=Stop())


def put(place, path, content=b"x"):
    """Write a file as somebody else would."""
    fs = place.filesystem()
    if place.kind == "file":
        Path(place.root, path).parent.mkdir(parents=True, exist_ok=True)
    fs.pipe_file(f"{place.root}/{path}", content)


def names(place, day=FIRST):
    fs = place.filesystem()
    folder = f"{place.root}/Messages/day={day}"
    return sorted(path.removeprefix(f"{folder}/") for path in fs.find(folder))


def test_a_day_is_stored_then_empty_then_stored(place, tmp_path):
    """Each time the listing says so, and only what belongs to it lies in the folder."""
    store = store_of(place)
    assert store.list_days() == {}
    assert (store.list_day(FIRST).state, store.read_manifest(FIRST)) == (DayState.ABSENT, None)
    manifest = publish(store, tmp_path)
    assert names(place) == ["_manifest.json", PART]
    assert store.list_days()[FIRST].state is DayState.STORED
    assert store.list_days()[FIRST].files[PART] == manifest.files[0].bytes
    assert store.read_manifest(FIRST).files == manifest.files
    publish_empty(store, tmp_path)
    assert names(place) == ["_manifest.empty.json"]
    assert store.list_day(FIRST).state is DayState.EMPTY
    assert store.read_manifests([FIRST, SECOND])[FIRST].is_empty
    publish(store, tmp_path)
    assert names(place) == ["_manifest.json", PART]


def test_only_the_days_between_two_are_listed(place, tmp_path):
    store = store_of(place)
    for number in range(4):
        publish(store, tmp_path, FIRST + timedelta(days=number))
    assert list(store.list_days(SECOND, SECOND)) == [SECOND]
    assert len(store.list_days(SECOND)) == 3
    assert list(store.list_days(None, SECOND)) == [FIRST, SECOND]


def test_what_others_left_in_a_folder_hides_no_day(place, tmp_path):
    """A folder inside a day's folder, odd names, a glob character: the day is there."""
    place = Place(place.kind, f"{place.root}/a[b]*", place.options)
    store = store_of(place)
    publish(store, tmp_path)
    put(place, f"Messages/day={FIRST}/_temporary/0/file")
    put(place, f"Messages/day={FIRST}/notes.txt")
    put(place, "Messages/day=2026-13-99/part-0.json.gz")
    assert list(store.list_days()) == [FIRST]
    assert store.list_day(FIRST).state is DayState.STORED
    assert store.read_manifest(FIRST) is not None
    publish(store, tmp_path)
    assert "notes.txt" in names(place)


def test_doubled_slashes_are_one(place, tmp_path):
    publish(store_of(place), tmp_path)
    folder, _, name = place.root.rpartition("/")
    for root in (f"{folder}//{name}", f"{place.root}//"):
        store = DayStore(place.filesystem(), root, ResourceType.MESSAGES)
        assert list(store.list_days()) == [FIRST]
        assert store.address() == store_of(place).address()


def test_another_version_with_more_keys_is_read(place, tmp_path):
    store = store_of(place)
    manifest = publish(store, tmp_path)
    text = json.loads(manifest.json()) | {"later": 1}
    put(place, f"Messages/day={FIRST}/_manifest.json", json.dumps(text).encode())
    assert store.read_manifest(FIRST).files == manifest.files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x00", "not a manifest"),
        (b"[" * 100_000, "not a manifest"),
        (b'{"version": 2}', "version 2"),
        (b'{"version": 1}', "not a manifest"),
    ],
)
def test_a_manifest_that_is_none_is_an_error(tmp_path, content, said):
    """It is not taken for a day that is missing, which would be paid for again."""
    place = Place("file", str(tmp_path / "days"))
    store = store_of(place)
    publish(store, tmp_path)
    put(place, f"Messages/day={FIRST}/_manifest.json", content)
    with pytest.raises(StorageError, match=said) as error:
        store.read_manifest(FIRST)
    assert store.address(FIRST) in str(error.value)
    with pytest.raises(StorageError, match=said):
        publish(store, tmp_path)


def test_an_archive_is_of_one_account_and_format(place):
    """Another is refused, and both are named."""
    store = store_of(place)
    assert store.read_archive() is None
    assert store.claim(RAW) == RAW
    assert store.claim(RAW) == RAW
    with pytest.raises(InvalidRequest, match=r"'AC0+' there and 'AC1' here.*'raw'.*'parquet'"):
        store.claim(Archive("AC1", "parquet"))
    assert store.read_archive() == RAW


@pytest.mark.parametrize("kind", ["s3", "azure", "google"])
def test_a_bucket_that_does_not_exist_is_no_empty_one(request, kind, tmp_path):
    """Whatever is tried, the storage's own words come back, with the address."""
    store = store_of(request.getfixturevalue(kind).place("nowhere"))
    tries = [
        store.list_days,
        lambda: store.list_day(FIRST),
        lambda: store.read_manifest(FIRST),
        store.read_archive,
        lambda: store.claim(RAW),
        lambda: publish(store, tmp_path),
        lambda: store.repair(FIRST),
    ]
    for attempt in tries:
        with pytest.raises(StorageError, match=r"not exist|no such bucket") as error:
            attempt()
        assert "nowhere/" in str(error.value)
        assert "404" in str(error.value)


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (500, "InternalError"), (503, "SlowDown")]
)
@pytest.mark.parametrize("call", ["list", "manifest", "archive"])
def test_an_error_of_the_storage_is_no_missing_day(s3, tmp_path, status, code, call):
    store = store_of(s3.place(tries=1))
    publish(store, tmp_path)
    attempt = {
        "list": store.list_days,
        "manifest": lambda: store.read_manifests([FIRST]),
        "archive": store.read_archive,
    }[call]
    s3.faults({"match": "^GET", "status": status, "code": code, "message": "Our own words"})
    try:
        with pytest.raises(StorageError, match=rf"Our own words \({code}, HTTP {status}\)"):
            attempt()
    finally:
        s3.faults()


def test_a_refused_key_of_azure_is_an_error(azure):
    key = "A" * 86 + "=="
    store = store_of(azure.place(key=key))
    with pytest.raises(StorageError, match="HTTP 403") as error:
        store.list_days()
    assert key not in str(error.value)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    """A folder that is not there is empty; one that says nothing is not."""
    place = Place("file", str(tmp_path / "days"))
    store = store_of(place)
    publish(store, tmp_path)

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(folders.os, "listdir", refuse)
    with pytest.raises(StorageError, match=r"Permission denied \(EACCES\)") as error:
        store.list_days()
    assert "days/Messages" in str(error.value)


@pytest.mark.parametrize("path", ["out", "./out", "file://out", "file:out", "../x"])
def test_a_relative_path_is_refused(path):
    """It would lead into the folder in which a worker happens to run."""
    with pytest.raises(InvalidRequest, match="absolute"):
        check_destination(path)
    with pytest.raises(InvalidRequest, match="absolute"):
        DayStore(fsspec.filesystem("file"), path, ResourceType.MESSAGES)


def test_a_query_is_refused():
    """It is part of a name for some storages, and for others says which version is read."""
    with pytest.raises(InvalidRequest, match=r"without a '\?'"):
        check_destination("s3://bucket/folder?versionId=3")


@pytest.mark.parametrize("path", ["s3://bucket/.", "s3://bucket/../x", "file:///a/../b"])
def test_an_address_that_walks_is_refused(path):
    """One version of a library resolves it, and the next takes it for a name."""
    with pytest.raises(InvalidRequest, match=r"without '\.' and '\.\.'"):
        check_destination(path)


def test_a_folder_may_be_given_as_an_address(tmp_path):
    store = DayStore(fsspec.filesystem("file"), f"file://{tmp_path}//x/", ResourceType.CALLS)
    assert store.address(FIRST, PART) == f"file://{tmp_path}/x/Calls/day={FIRST}/{PART}"


@pytest.mark.parametrize("scheme", ["sftp", "ftp", "http", "github"])
def test_a_storage_that_cannot_publish_is_refused_by_name(scheme):
    """Before anything is asked of it."""

    class Other(fsspec.AbstractFileSystem):
        protocol = scheme

    with pytest.raises(InvalidRequest, match=f"{scheme}://.*s3://"):
        DayStore(Other(), "/days", ResourceType.MESSAGES)


def test_three_years_of_four_types_take_twelve_listings(s3):
    """What is missing among 4,380 days is known from that, without any other request."""
    place = s3.place()
    days = [FIRST - timedelta(days=back) for back in range(1095)]
    s3.fill(
        [
            f"{place.root}/{kind}/day={day}/{name}"
            for kind in ResourceType
            for day in days
            for name in (PART, "_manifest.json")
        ]
    )
    s3.forget()
    for kind in ResourceType:
        store = DayStore(place.filesystem(), place.root, kind)
        assert len(store.list_days(days[-1], days[0])) == 1095
    assert len(s3.log()) == 12
    assert all("list-type=2" in line for line in s3.log())
    s3.forget()
    assert len(store.list_days(days[3], days[0])) == 4
    assert len(s3.log()) == 1


def test_a_publication_takes_few_requests(s3, tmp_path):
    """The day's folder is listed, never the type; a second create is tried once a run."""
    place = s3.place()
    store = store_of(place)
    publish(store, tmp_path)
    s3.forget()
    publish(store, tmp_path, SECOND)
    requests = [re.sub(r"(\?).*|/days/.*/", r"\1", line) for line in s3.log()]
    assert requests == [
        "GET /days?", "PUT _lock.1", "GET /days?",
        f"PUT {PART}", "PUT _manifest.json", "DELETE _lock.1",
    ]  # fmt: skip


def test_unfinished_uploads_end_under_the_lock_of_their_day_alone(s3, tmp_path):
    """Those that a killed publisher left below its day; never another's, nor a whole bucket's."""
    place = s3.place()
    store = store_of(place)
    publish(store, tmp_path)
    own = f"{place.root}/Messages/day={FIRST}".removeprefix("days/")
    others = f"{place.root}/Messages/day={SECOND}".removeprefix("days/")
    for folder in (own, own, own, others):
        s3.begin_upload(f"{folder}/{PART}")
    put(place, f"Messages/day={FIRST}/_lock.1", b'{"seconds": -10, "holder": "dead"}')
    publish(store, tmp_path)
    assert s3.uploads(place.root.removeprefix("days/")) == [f"{others}/{PART}"]
    assert names(place) == ["_manifest.json", PART]


def test_a_big_part_is_uploaded_whole(s3, tmp_path):
    place = s3.place()
    store = store_of(place)
    wanted = prepare(tmp_path, FIRST, 1)
    source = wanted.files[PART]
    source.write_bytes(bytes(1 << 20) * 110)
    s3.forget()
    store.publish(FIRST, lambda _: wanted, size=100 << 20, stop=Stop())
    assert any("uploadId" in line for line in s3.log())
    assert store.list_day(FIRST).files[PART] == 110 << 20
    with store.open(FIRST, PART) as stored:
        assert stored.read(1 << 20) == source.read_bytes()[: 1 << 20]


def test_a_second_create_is_refused_or_warned_of(place, tmp_path, caplog):
    """Google's emulator lets it pass, so that only one publisher is safe there; once it is said."""
    store = store_of(place)
    with caplog.at_level(logging.WARNING):
        publish(store, tmp_path)
        publish(store, tmp_path)
    warnings = [record for record in caplog.records if "one transfer" in record.getMessage()]
    assert len(warnings) == (1 if place.kind == "gs" else 0)


def test_a_dead_publishers_day_is_rebuilt_from_its_part(place, tmp_path):
    """It had put the part, and neither its manifest nor what had been rejected went with it."""
    store = store_of(place)
    store.claim(RAW)
    publish(store, tmp_path, records=2)
    wanted = prepare(tmp_path, FIRST, 5)
    part = wanted.manifest.files[0]
    put(place, f"Messages/day={FIRST}/{rejected_name(part.sha256)}", b"{}\n{}\n")
    put(place, f"Messages/day={FIRST}/{PART}", wanted.files[PART].read_bytes())
    put(place, f"Messages/day={FIRST}/_lock.7", b'{"seconds": -10, "holder": "dead"}')
    assert store.list_days()[FIRST].state is DayState.LOCKED
    assert store.lock_until(FIRST) is None
    manifest = store.repair(FIRST)
    assert (manifest.records, manifest.rejected) == (5, 2)
    assert manifest.files[0] == part
    assert (manifest.account_sid, manifest.job_sid) == (RAW.account_sid, None)
    assert store.list_days()[FIRST].state is DayState.STORED
    assert store.read_manifest(FIRST) == manifest


def test_a_living_publishers_day_is_left_alone(place):
    store = store_of(place)
    put(place, f"Messages/day={FIRST}/_lock.1", b'{"seconds": 900, "holder": "host 1"}')
    with pytest.raises(Locked, match="host 1") as error:
        store.repair(FIRST)
    assert 800 < error.value.until.timestamp() - time.time() < 1000
    assert 800 < store.lock_until(FIRST).timestamp() - time.time() < 1000
    assert names(place) == ["_lock.1"]


def test_a_stopped_publisher_stops_waiting_within_a_second(place):
    """It takes its own lock away, and leaves the other's."""
    store, stop = store_of(place), Stop()
    put(place, f"Messages/day={FIRST}/_lock.1", b'{"seconds": 900, "holder": "host 1"}')
    threading.Timer(1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        store.publish(FIRST, lambda _: None, size=0, stop=stop)
    assert time.monotonic() - began < 3
    assert names(place) == ["_lock.1"]


def test_a_stopped_publisher_does_not_wait_for_its_storage(s3, tmp_path):
    """The storage does not answer an upload: the lock stays, as the upload may still arrive."""
    store, stop = store_of(s3.place()), Stop()
    wanted = prepare(tmp_path, FIRST, 3)
    s3.faults({"match": f"^PUT.*{PART}", "seconds": 6})
    threading.Timer(1, stop.set).start()
    began = time.monotonic()
    try:
        with pytest.raises(Stopped):
            store.publish(FIRST, lambda _: wanted, size=0, stop=stop)
    finally:
        s3.faults()
    assert time.monotonic() - began < 4
    assert store.list_day(FIRST).state is DayState.LOCKED


def test_an_upload_ends_when_half_of_its_lock_is_gone(s3, tmp_path):
    """Whoever holds the day next must not be overwritten by what arrives late."""
    store = store_of(s3.place())
    store.lock_seconds = 6.0
    wanted = prepare(tmp_path, FIRST, 3)
    s3.faults({"match": f"^PUT.*{PART}", "seconds": 8})
    began = time.monotonic()
    try:
        with pytest.raises(Locked, match="half of it is gone"):
            store.publish(FIRST, lambda _: wanted, size=0, stop=Stop())
    finally:
        s3.faults()
    assert time.monotonic() - began < 6
    assert store.list_day(FIRST).state is DayState.LOCKED


def test_a_folder_that_cannot_be_synced_fails_no_publication(tmp_path, monkeypatch):
    """What is renamed is there, and must not count as failed."""
    store = store_of(Place("file", str(tmp_path / "days")))
    opened = os.open

    def refuse(path, flags, *rest):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return opened(path, flags, *rest)

    monkeypatch.setattr(folders.os, "open", refuse)
    manifest = publish(store, tmp_path)
    monkeypatch.undo()
    assert store.list_day(FIRST).state is DayState.STORED
    assert store.read_manifest(FIRST).files == manifest.files


def test_a_create_whose_answer_was_lost_is_known_again(s3, tmp_path):
    """A repeated create finds the first one's lock: it is no other publisher's."""
    store = store_of(s3.place())
    store._is_proven = True
    s3.faults(
        {"match": "^PUT.*_lock", "status": 503, "code": "SlowDown", "after": True, "times": 1}
    )
    began = time.monotonic()
    try:
        publish(store, tmp_path)
    finally:
        s3.faults()
    assert time.monotonic() - began < 5
    assert store.list_day(FIRST).state is DayState.STORED


def test_a_refused_upload_leaves_no_lock_and_the_old_day(s3, tmp_path):
    place = s3.place()
    store = store_of(place)
    manifest = publish(store, tmp_path)
    s3.faults({"match": f"^PUT.*{PART}", "status": 403, "code": "AccessDenied"})
    try:
        with pytest.raises(StorageError, match="AccessDenied"):
            publish(store, tmp_path)
    finally:
        s3.faults()
    assert store.list_day(FIRST).state is DayState.STORED
    assert store.read_manifest(FIRST).files == manifest.files


def test_temporary_files_match_no_readers_pattern(tmp_path, monkeypatch):
    """Not the pattern of parts, nor of all Parquet files; and two writers' are never the same."""
    place = Place("file", str(tmp_path / "days"))
    store, seen = store_of(place), []
    replace = Path.replace

    def look(path, target):
        seen.append(path.name)
        found = [*tmp_path.glob("days/**/*.parquet"), *tmp_path.glob("days/*/*/part-*")]
        assert path not in found
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", look)
    publish(store, tmp_path)
    publish(store, tmp_path)
    assert len(set(seen)) == len(seen) == 4
    assert all(name.startswith("_") and "." not in name[6:] for name in seen)


def test_only_dead_publishers_copies_are_removed(tmp_path):
    """A copy of a living publisher stays; under a dead one's lock, nobody lives."""
    place = Place("file", str(tmp_path / "days"))
    store = store_of(place)
    publish(store, tmp_path)
    put(place, f"Messages/day={FIRST}/_part.alive")
    publish(store, tmp_path)
    assert "_part.alive" in names(place)
    put(place, f"Messages/day={FIRST}/_lock.1", b'{"seconds": -10, "holder": "dead"}')
    publish(store, tmp_path)
    assert names(place) == ["_manifest.json", PART]


def test_a_folder_without_hard_links_has_locks_too(tmp_path, monkeypatch):
    """Some network shares have none."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(folders.os, "link", refuse)
    place = Place("file", str(tmp_path / "days"))
    store = store_of(place)
    publish(store, tmp_path)
    assert store._is_proven
    assert names(place) == ["_manifest.json", PART]
    put(place, f"Messages/day={FIRST}/_lock.1", b"")
    assert store.lock_until(FIRST) is not None
    put(place, "Messages/_archive.json", b"")
    assert store.claim(RAW) == store.read_archive() == RAW


def test_the_index_of_a_run_lies_beside_the_days(place):
    store = store_of(place)
    address = store.write_index([{"day": "2026-01-01"}, {"day": "2026-01-02"}])
    assert address.endswith("/Messages/_manifest_2026-01-01_2026-01-02.json")
    assert store.list_days() == {}


def test_days_in_memory_are_days(tmp_path):
    """For trials."""
    store = store_of(Place("memory", "/trial"))
    publish(store, tmp_path)
    assert store.list_days()[FIRST].state is DayState.STORED
    with store.open(FIRST, PART) as file:
        assert gzip.decompress(file.read()).count(b"\n") == 3


def test_a_login_that_may_not_list_uploads_can_still_repair_a_day(s3, tmp_path):
    """Ending what a dead publisher began is a courtesy: its day does not wait for ever."""
    place = s3.place()
    store = store_of(place)
    manifest = publish(store, tmp_path)
    put(place, f"Messages/day={FIRST}/_lock.1", b'{"seconds": 0, "holder": "dead"}')
    time.sleep(2.5)
    s3.faults({"match": r"^GET .*\?.*uploads", "status": 403, "code": "AccessDenied"})
    try:
        assert store.repair(FIRST).files == manifest.files
    finally:
        s3.faults()
    assert store.list_day(FIRST).state is DayState.STORED
