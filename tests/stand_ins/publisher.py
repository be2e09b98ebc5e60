"""
A publisher that pauses before each thing it does, in a thread or in a process of its own.

As a process it reads its options, as JSON, from its one argument, and ends when all is published.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import sys
import tempfile
import time
import uuid
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pendulum
from stand_ins.stores import Place

from airflow_provider_bulkexports.api.errors import StorageError
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage.lock import Publication
from airflow_provider_bulkexports.storage.manifest import Manifest, Source, StoredFile
from airflow_provider_bulkexports.storage.store import DayStore

FIRST = date(2026, 1, 1)
DAYS = 4
PART = "part-0.json.gz"


def store_of(place: Place, lock_seconds: float = 60) -> DayStore:
    store = DayStore(place.filesystem(), place.root, ResourceType.MESSAGES)
    store.lock_seconds = lock_seconds
    return store


def prepare(folder: Path, day: date, records: int) -> Publication:
    """Return a day file unlike any other, and its manifest."""
    mark = uuid.uuid4().hex
    content = gzip.compress(f'{{"mark": "{mark}"}}\n'.encode() * records, 1)
    source = folder / mark
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    now = pendulum.now("UTC")
    manifest = Manifest(
        resource_type=ResourceType.MESSAGES,
        day=day,
        account_sid="AC" + "0" * 32,
        format="raw",
        records=records,
        rejected=0,
        job_sid=None,
        exported_at=now,
        published_at=now,
        source=Source(digest, len(content)),
        schema=(),
        files=(StoredFile(PART, len(content), digest),),
    )
    return Publication(manifest, {PART: source})


class OldPublishing:
    """What was done before: temporary names by process, and the old manifest removed first."""

    def __init__(self, store: DayStore, pause: Any) -> None:
        self._store, self._pause = store, pause

    def publish(self, day: date, decide: Any, **_: Any) -> None:
        wanted = decide(self._store.read_manifest(day))
        if wanted is None:
            return
        folder = Path(self._store._path(day))
        folder.mkdir(parents=True, exist_ok=True)
        self._pause()
        (folder / "_manifest.json").unlink(missing_ok=True)
        for name, source in wanted.files.items():
            self._put(source.read_bytes(), folder / name)
        self._put(wanted.manifest.json().encode(), folder / "_manifest.json")

    def _put(self, content: bytes, target: Path) -> None:
        beside = target.with_name(f"._{os.getpid()}_{target.name}")
        with beside.open("wb") as file:
            for start in range(0, len(content), 64):
                file.write(content[start : start + 64])
                file.flush()
            self._pause()
        self._pause()
        beside.replace(target)


def publish_all(
    place: Place,
    *,
    rounds: int,
    seed: int,
    pause: float,
    lock_seconds: float,
    old: bool = False,
) -> int:
    """Publish a day a round, if it has more records than what stands; return how often it did."""
    chance = random.Random(seed)

    def rest() -> None:
        time.sleep(chance.uniform(0, pause))

    store = store_of(place, lock_seconds)
    carry_out = store._carry_out

    def slowly(*step: Any) -> Any:
        rest()
        return carry_out(*step)

    store._carry_out = slowly
    publishing: Any = OldPublishing(store, rest) if old else store
    published = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            day = FIRST + timedelta(days=number % DAYS)
            wanted = prepare(Path(folder), day, chance.randint(1, 50) + number)

            def decide(
                current: Manifest | None, wanted: Publication = wanted
            ) -> Publication | None:
                rest()
                is_more = current is None or current.records <= wanted.manifest.records
                return wanted if is_more else None

            try:
                publishing.publish(day, decide, size=100, stop=Stop())
                published += 1
            except (StorageError, FileNotFoundError) as error:
                print(f"round {number}: {error!r}", file=sys.stderr, flush=True)
    return published


def main() -> None:
    options = json.loads(sys.argv[1])
    publish_all(Place(**options.pop("place")), **options)


if __name__ == "__main__":
    main()
