"""SIGKILL at 50 moments of a transfer: no half file, and a rerun brings the rest."""

from __future__ import annotations

import json
import random
import shutil

from day_transfers import day, sha256
from killed_transfers import start_transfers as start_killed

KILLS = 50
DAYS = 4


def test_a_killed_transfer_leaves_whole_days_and_missing_ones(start_transfers, tmp_path):
    """A day that a killed worker left is whole or missing; the rerun fetches the missing ones."""
    old = start_transfers(seed=1, records=900)
    old.bring(old.export(DAYS))
    before = [(old.folder(number) / "part-0.json.gz").read_bytes() for number in range(DAYS)]
    transfers = start_transfers(records=1000)
    served = [transfers.served(number) for number in range(DAYS)]
    job = transfers.export(DAYS)
    rng = random.Random(20260101)
    storages = [tmp_path / f"storage-{number}" for number in range(KILLS + 2)]
    for storage in storages[1::2]:
        shutil.copytree(old.storage, storage)
    (tmp_path / "spool").mkdir()
    rounds = [
        {
            "options": {"destination": storage.as_uri(), "job_sid": job, "max_parallel_days": 2},
            "share": rng.random(),
        }
        for storage in storages
    ]
    for item in rounds[:2]:
        del item["share"]
    with start_killed(rounds, tmp_path / "spool") as process:
        killed = json.loads(process.stdout.read().splitlines()[-1])
    assert process.returncode == 0

    for number, storage in list(enumerate(storages))[2:]:
        transfers.storage = storage
        there = []
        for of_day in range(DAYS):
            part = transfers.folder(of_day) / "part-0.json.gz"
            content = part.read_bytes() if part.exists() else None
            assert content in (None, served[of_day], before[of_day] if number % 2 else None)
            if not (transfers.folder(of_day) / "_manifest.json").exists():
                continue
            manifest = transfers.manifest(of_day)
            assert manifest["files"][0]["sha256"] == sha256(content)
            assert manifest["records"] == (1000 if content == served[of_day] else 900)
            if content == served[of_day]:
                there.append(day(of_day))
        downloads = transfers.downloads()
        transfers.bring(job)
        fetched = transfers.downloads()
        for known in downloads:
            fetched.remove(known)
        assert fetched == [day(of_day) for of_day in range(DAYS) if day(of_day) not in there]
        assert transfers.missing(DAYS) == []
        for of_day in range(DAYS):
            assert transfers.names(of_day) == ["_manifest.json", "part-0.json.gz"]
            assert (transfers.folder(of_day) / "part-0.json.gz").read_bytes() == served[of_day]

    assert sum(killed) >= KILLS // 5
