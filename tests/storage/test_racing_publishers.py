"""
Two publishers of the same days, on real storages, with pauses at every step, and with kills.

The model test goes through all orders of operations; here the operations are real. How often:
``BULKEXPORTS_RACE_ROUNDS``.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stand_ins.publisher import PART, publish_all, store_of
from stand_ins.stores import Place

from airflow_provider_bulkexports.storage.store import DayState

ROUNDS = int(os.environ.get("BULKEXPORTS_RACE_ROUNDS", "10"))
STORES = ["folder", "s3", "azure"]
"""Google's emulator lets two create one object, so that it proves nothing here."""
TESTS = Path(__file__).parents[1]


class Watch:
    """Readers that look at the days all the time while they are published."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._end = threading.Event()
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()

    def __enter__(self):
        self._threads = [
            threading.Thread(target=self._repeat, args=(look,))
            for look in (self._look_at_manifests, self._look_at_parts)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, look) -> None:
        state = {}
        store, fs = store_of(self._place), self._place.filesystem()
        while not self._end.is_set():
            try:
                look(store, fs, state)
            except Exception as error:  # noqa: BLE001 - it fails the test
                self.wrong.append(repr(error))
                return

    def _look_at_manifests(self, store, fs, _) -> None:
        for day, found in store.list_days().items():
            self.seen[found.state] += 1
            if found.state is DayState.STORED:
                # What is equal before and after was so in between: no two publications are.
                before = store.read_manifest(day)
                content = store._backend.read(store._path(day, PART))
                unchanged = store.read_manifest(day) == before
                if unchanged and store.list_day(day).state is DayState.STORED:
                    self.seen["compared"] += 1
                    if content is None or not agrees(before, content):
                        self.wrong.append(f"{day} disagrees with its manifest")

    def _look_at_parts(self, store, fs, there) -> None:
        fs.invalidate_cache()
        paths = fs.glob(f"{self._place.root}/Messages/*/part-*")
        folders = Counter(path.rsplit("/", 1)[0] for path in paths)
        self.wrong += [f"{folder} twice" for folder, count in folders.items() if count > 1]
        self.wrong += [f"{folder} not at all" for folder in set(there) - set(folders)]
        for path in paths:
            folder = path.rsplit("/", 1)[0]
            try:
                records = gzip.decompress(fs.cat_file(path)).count(b"\n")
            except (OSError, EOFError, ValueError) as error:
                self.wrong.append(f"{path} half: {error!r}")
                continue
            if records < there.get(folder, 0):
                self.wrong.append(f"{path} fewer than before")
            there[folder] = records
            self.seen["parts"] += 1


def agrees(manifest, content) -> bool:
    return (
        manifest is not None
        and manifest.files[0].sha256 == hashlib.sha256(content).hexdigest()
        and manifest.records == gzip.decompress(content).count(b"\n")
    )


def check_end(place, lock_seconds: float) -> None:
    """Assert that all days are whole, after the repair of those whose publishers died."""
    store = store_of(place, lock_seconds)
    for day, found in store.list_days().items():
        if found.state is DayState.LOCKED:
            end = time.monotonic() + lock_seconds + 10
            while store.list_day(day).state is DayState.LOCKED:
                assert time.monotonic() < end
                time.sleep(0.5)
                try:
                    store.repair(day)
                except Exception as error:  # noqa: BLE001 - it lives until its time is up
                    print(error)
        content = store._backend.read(store._path(day, PART))
        manifest = store.read_manifest(day)
        assert (content is None) == (manifest is None)
        assert content is None or agrees(manifest, content)
        assert not [name for name in store.list_day(day).files if name.startswith("_part.")]


@pytest.mark.parametrize("place", STORES, indirect=True)
def test_two_threads_never_mix_a_day(place):
    """Pods that share a folder have equal process ids, as two threads have."""
    with Watch(place) as watch, ThreadPoolExecutor(2) as threads:
        done = [
            threads.submit(
                publish_all, place, rounds=ROUNDS, seed=seed, pause=0.01, lock_seconds=60
            )
            for seed in (1, 2)
        ]
        assert [each.result() for each in done] == [ROUNDS, ROUNDS]
    print(dict(watch.seen))
    assert not watch.wrong
    assert watch.seen["compared"]
    check_end(place, 60)


def test_the_old_publishing_fails_the_same_test(tmp_path):
    """Temporary names by process, and a manifest that is removed first, mix days."""
    place = Place("file", str(tmp_path / "days"))
    with Watch(place) as watch, ThreadPoolExecutor(2) as threads:
        for seed in (1, 2):
            threads.submit(
                publish_all, place, rounds=100, seed=seed, pause=0.01, lock_seconds=60, old=True
            )
    print(Counter(text.split()[-1] for text in watch.wrong))
    assert any("disagrees" in text for text in watch.wrong)


def start(place: Place, **options) -> subprocess.Popen:
    options["place"] = dataclasses.asdict(place)
    return subprocess.Popen(
        [sys.executable, "-m", "stand_ins.publisher", json.dumps(options)],
        cwd=TESTS,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )


@pytest.mark.parametrize("place", STORES, indirect=True)
def test_killed_processes_leave_a_lock_or_a_whole_day(place):
    """Processes are killed at any step; others go on when the locks of the dead have ended."""
    chance, kills = random.Random(3), 0
    options = {"rounds": ROUNDS, "pause": 0.02, "lock_seconds": 4}
    with Watch(place) as watch:
        running = [start(place, seed=seed, **options) for seed in (1, 2)]
        victims = max(1, ROUNDS // 8)
        while kills < victims:
            time.sleep(chance.uniform(1.5, 2.5))
            number = chance.randrange(2)
            kills += running[number].poll() is None
            running[number].kill()
            running[number].wait()
            running[number] = start(place, seed=10 + kills, **options)
        codes = [process.wait(300 + 10 * ROUNDS) for process in running]
    print(f"{kills} kills", dict(watch.seen))
    assert codes == [0, 0]
    assert not watch.wrong
    assert watch.seen[DayState.LOCKED]
    check_end(place, 4)
