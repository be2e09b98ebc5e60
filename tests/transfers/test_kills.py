"""SIGKILL at random moments of a transfer: no half file, and a rerun stores the rest."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
from day_downloads import FILE
from day_transfers import PARTS, day, lines_of, sha256
from in_process import wait_for
from killed_transfers import Worker

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 4
NEW, OLD = 2000, 1800
"""Records of a day; either file is more than one block long."""
PLACES = {
    "being fetched",
    "locked, not there",
    "locked, old file",
    "half a file under another name",
    "locked, new file without its manifest",
    "locked, published",
    "published",
}


def parts_of(transfers, name):
    """Return the content of each day's file, None where there is none."""
    paths = [transfers.folder(number) / name for number in range(DAYS)]
    return [path.read_bytes() if path.exists() else None for path in paths]


def records_in(path):
    """Count a file's records by reading all of it."""
    if path.suffix == ".gz":
        return lines_of(path)
    from pyarrow import parquet

    return parquet.read_table(path).num_rows


def place_of(content, new, *, has_manifest, is_locked, is_asked):
    """Say how far a day has come."""
    if content == new:
        place = "published" if has_manifest else "new file without its manifest"
    elif is_locked:
        place = "not there" if content is None else "old file"
    else:
        return "being fetched" if is_asked else "waiting"
    return f"locked, {place}" if is_locked else place


def whole_names(transfers, number):
    """Return a day's files, but for the copies of a lock or manifest that may stay beside them."""
    return [name for name in transfers.names(number) if not name.startswith("_copy.")]


def locks_in(storage):
    return list(storage.rglob("_lock.*"))


def let_locks_end(storage):
    """Have the locks been written long ago, as if a quarter of an hour went by."""
    for lock in locks_in(storage):
        os.utime(lock, (0, 0))


class Kill(NamedTuple):
    """A killed transfer: its storage, the days that it asked for, and its last step."""

    storage: Path
    replaces: bool
    asked: Counter[str]
    step: str


def kill(kills, transfers, old, tmp_path, **options):
    """Run the transfer whole, then several times with a kill, each at another moment."""
    rng = random.Random(20260101)
    (tmp_path / "spool").mkdir()
    with Worker(tmp_path / "spool") as worker:

        def run(name, kill_at=None, *, replaces, parallel=1):
            storage = tmp_path / name
            if replaces:
                shutil.copytree(old, storage)
            places = {"destination": storage.as_uri(), "max_parallel_days": parallel}
            known = Counter(transfers.downloads())
            worker.start(options | places, kill_at)
            end = worker.end()
            return end, Kill(storage, replaces, Counter(transfers.downloads()) - known, str(end))

        whole = {replaces: run(f"whole-{replaces}", replaces=replaces)[0] for replaces in (0, 1)}
        for number in range(kills):
            replaces = int(number % 3 > 0)
            first, last = whole[replaces]["first"], whole[replaces]["steps"]
            # At random in one of as many stretches of the transfer as there are kills.
            kill_at = first + int((number + rng.random()) / kills * (last - first + 1))
            end, killed = run(f"{number}", kill_at, replaces=replaces, parallel=1 + number % 2)
            assert end["killed"], f"not killed at call {kill_at} of {last}"
            assert killed.asked, "killed before its first download"
            yield killed


def check(transfers, name, after, before, killed):
    """Check what a killed transfer left; return the days that are done, and how far each came."""
    done, places = [], []
    not_there = transfers.missing(DAYS)
    for number, content in enumerate(parts_of(transfers, name)):
        folder = transfers.folder(number)
        new, old = after[number], before[number] if killed.replaces else None
        assert content in (None, new, old), killed.step
        manifest = transfers.manifest(number) if (folder / "_manifest.json").exists() else None
        is_whole = (
            manifest is not None
            and content is not None
            and manifest["files"][0]["sha256"] == sha256(content)
        )
        is_locked = bool(locks_in(folder)) if folder.exists() else False
        assert is_whole or number in not_there, killed.step
        assert (is_whole and not is_locked) or number in not_there, killed.step
        if killed.replaces:
            assert content is not None, killed.step
        if is_whole:
            assert manifest["records"] == (NEW if content == new else OLD), killed.step
            assert manifest["records"] == records_in(folder / name), killed.step
            if content == new:
                done.append(day(number))
        is_asked = day(number) in killed.asked
        places.append(
            place_of(content, new, has_manifest=is_whole, is_locked=is_locked, is_asked=is_asked)
        )
        if any(0 < path.stat().st_size < len(new) for path in folder.glob("_part.*")):
            places.append("half a file under another name")
    return done, places


@pytest.mark.parametrize(("output_format", "kills"), [("raw", 50), ("parquet", 30)])
def test_a_killed_transfer_leaves_whole_days_and_missing_ones(
    start_transfers, tmp_path, output_format, kills
):
    """A day that a killed worker left is whole or not there; the rerun fetches what is not done."""
    if output_format == "parquet":
        pytest.importorskip("pyarrow")
    name = PARTS[output_format]
    old = start_transfers(seed=1, records=OLD)
    old.transfer(old.export(DAYS), output_format=output_format)
    before = parts_of(old, name)
    transfers = start_transfers(records=NEW)
    options = {"job_sid": transfers.export(DAYS), "output_format": output_format}
    all_killed = list(kill(kills, transfers, old.storage, tmp_path, **options))
    transfers.storage = tmp_path / "whole-0"
    after = parts_of(transfers, name)
    if output_format == "raw":
        assert after == [transfers.served(number) for number in range(DAYS)]
    transfers.transfer(**options)  # answered later than all that the killed ones asked

    places = Counter()
    for killed in all_killed:
        transfers.storage = killed.storage
        done, reached = check(transfers, name, after, before, killed)
        places.update(reached)
        known = Counter(transfers.downloads())
        let_locks_end(killed.storage)
        transfers.transfer(**options)
        rest = {day(number) for number in range(DAYS)} - set(done)
        assert Counter(transfers.downloads()) - known == Counter(rest), killed.step
        assert transfers.missing(DAYS) == []
        assert parts_of(transfers, name) == after
        for number in range(DAYS):
            assert whole_names(transfers, number) == ["_manifest.json", name], killed.step

    assert places.keys() >= PLACES, places


def test_a_killed_worker_spool_goes_with_the_next_transfer(transfers, tmp_path, monkeypatch):
    """Records that a killed worker left on its machine are removed, those of a live one are not."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    transfers.fault("delay", seconds=60)
    options = {"job_sid": transfers.export(1), "destination": transfers.destination}
    with Worker(spool) as worker:
        pid = worker.start(options)
        wait_for(lambda: transfers.sandbox.requests(FILE))
        (left,) = spool.glob("bulkexports-spool-*")
        os.utime(left, (0, 0))
        transfers.transfer(**options)
        assert left.exists()
        os.kill(pid, signal.SIGKILL)
        assert worker.end()["killed"]
    assert left.exists()
    transfers.transfer(**options)
    assert list(spool.iterdir()) == []
