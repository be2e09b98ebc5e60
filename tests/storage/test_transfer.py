"""A transfer without Airflow: a client, a store and days in, manifests and what failed out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import InvalidRequest, StorageError
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.storage.decision import Action
from airflow_provider_bulkexports.storage.store import DayState, DayStore
from airflow_provider_bulkexports.storage.transfer import Options, Progress, days_of_job, transfer

if TYPE_CHECKING:
    from pathlib import Path

FIRST = date(2026, 1, 1)
RECORDS = 50


def days(count, first=0):
    return [FIRST + timedelta(days=number) for number in range(first, first + count)]


@dataclass
class Transfers:
    """A sandbox with a client, and a store in a folder."""

    sandbox: Sandbox
    client: Client
    store: DayStore
    root: Path

    def export(self, count: int, first: int = 0, name: str = "export") -> str:
        wanted = days(count, first)
        request = ExportRequest(ResourceType.MESSAGES, wanted[0], wanted[-1], name)
        return self.client.create_job(request).sid

    def transfer(self, wanted: Any, job_sid: str | None = None, **options: Any) -> Any:
        self.reports: list[Progress] = []
        return transfer(
            self.client,
            self.store,
            wanted,
            Options(**options),
            job_sid=job_sid,
            stop=Stop(),
            progress=self.reports.append,
        )

    def downloads(self) -> list[str]:
        return [item["day"] for item in self.sandbox.ledger()["downloads"]]


@pytest.fixture
def transfers(tmp_path):
    root = tmp_path / "storage"
    with (
        Sandbox(job_seconds=0, records=RECORDS, empty_every=0, quota_days=5000) as sandbox,
        Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client,
    ):
        store = DayStore(LocalFileSystem(), str(root), ResourceType.MESSAGES)
        yield Transfers(sandbox, client, store, root)


def test_the_outcome_says_what_was_done_about_each_day(transfers):
    """Stored, renewed, replaced, refused and unchanged days are told apart and counted."""
    transfers.export(5, name="first")
    outcome = transfers.transfer(days(4))
    assert outcome.failed == {}
    assert set(outcome.actions.values()) == {Action.STORE}

    for number, what in ((1, "early"), (2, "fewer")):
        fault = {"kind": "job_contents", "route": "create_job", "what": what}
        transfers.sandbox.add_fault(fault)
        transfers.export(1, number, name=f"changed_{number}")
    transfers.export(1, 3, name="the_same")
    outcome = transfers.transfer(days(5))
    done = [Action.LEAVE, Action.REPLACE, Action.REFUSE, Action.RENEW, Action.STORE]
    assert [outcome.actions[day] for day in days(5)] == done
    assert outcome.counts() == {
        "stored": 1, "replaced": 1, "renewed": 1, "unchanged": 1, "refused": 1,
    }  # fmt: skip
    assert [outcome.manifests[day].refused for day in days(5)] == [None, None, 5, None, None]
    for day in days(5):
        assert outcome.manifests[day].day == day
        stored = transfers.store.read_manifest(day)
        assert stored.json() == outcome.manifests[day].json()


def test_scattered_days_are_wanted_and_nothing_between(transfers):
    """Days are a set, in any order; those between them are not touched."""
    transfers.export(9)
    outcome = transfers.transfer({FIRST + timedelta(days=8), FIRST, FIRST + timedelta(days=4)})

    assert sorted(outcome.manifests) == [FIRST, *days(1, 4), *days(1, 8)]
    assert sorted(transfers.downloads()) == [f"{day}" for day in sorted(outcome.manifests)]
    assert sorted(transfers.store.list_days()) == sorted(outcome.manifests)


def test_no_day_is_no_work(transfers):
    """Nothing wanted is nothing asked, of Twilio or of the storage."""
    before = transfers.sandbox.requests()
    outcome = transfers.transfer([])

    assert (outcome.manifests, outcome.failed) == ({}, {})
    assert transfers.sandbox.requests() == before
    assert not transfers.root.exists()


def test_what_failed_is_named_and_the_rest_is_there(transfers):
    """A day that cannot be had keeps no other, and what went wrong is in words."""
    transfers.export(3)
    transfers.sandbox.add_fault(
        {"kind": "other_contents", "route": "download", "what": "html", "after": 1, "times": 3}
    )
    outcome = transfers.transfer(days(3), max_parallel_days=1)

    assert list(outcome.failed) == days(1, 1)
    assert "no export" in outcome.failed[days(1, 1)[0]]
    assert sorted(outcome.manifests) == [FIRST, *days(1, 2)]
    assert outcome.counts()["stored"] == 2


def test_progress_is_reported_to_the_end(transfers):
    """The last report counts all days and all bytes."""
    transfers.export(6)
    outcome = transfers.transfer(days(6), max_parallel_days=2)

    last = transfers.reports[-1]
    assert (last.days, last.done, last.failed) == (6, 6, 0)
    assert last.bytes == sum(manifest.source.bytes for manifest in outcome.manifests.values())
    assert [report.done for report in transfers.reports] == sorted(
        report.done for report in transfers.reports
    )


@pytest.mark.parametrize("if_exists", ["replace", "skip", "fail"])
def test_settled_days_cost_no_download_and_few_requests(transfers, if_exists):
    """A hundred days that are there take as many requests to Twilio as three."""
    job = transfers.export(100)
    transfers.transfer(days(100), max_parallel_days=8)
    before, served = transfers.sandbox.requests(), len(transfers.downloads())
    few = transfers.transfer(days(3), if_exists=if_exists)
    asked = transfers.sandbox.requests() - before
    before = transfers.sandbox.requests()
    outcome = transfers.transfer(days(100), if_exists=if_exists)

    assert transfers.sandbox.requests() - before == asked
    assert asked == 0 if if_exists == "skip" else asked > 0
    assert len(transfers.downloads()) == served
    assert outcome.counts()["unchanged"] == 100
    assert few.counts()["unchanged"] == 3
    assert {manifest.job_sid for manifest in outcome.manifests.values()} == {job}


def test_a_job_says_which_days_it_has(transfers):
    """For whoever has a job and no days."""
    job = transfers.export(4, first=2)
    assert days_of_job(transfers.client, job) == (ResourceType.MESSAGES, days(4, 2))


def test_a_locked_day_of_a_dead_publisher_is_brought_in_order(transfers):
    """Its part is kept, its manifest written anew, and nothing is exported or lost."""
    transfers.export(1)
    transfers.transfer(days(1))
    folder = transfers.root / "Messages" / f"day={FIRST}"
    part = (folder / "part-0.json.gz").read_bytes()
    (folder / "_lock.1").write_text('{"seconds": -900, "holder": "a dead one"}')
    (folder / "_manifest.json").unlink()
    assert transfers.store.list_day(FIRST).state is DayState.LOCKED
    transfers.sandbox.advance(8 * 86_400)  # its file is gone at Twilio
    outcome = transfers.transfer(days(1))

    assert outcome.failed == {}
    assert outcome.manifests[FIRST].records == RECORDS
    assert transfers.store.list_day(FIRST).state is DayState.STORED
    assert (folder / "part-0.json.gz").read_bytes() == part


def test_a_storage_that_cannot_be_read_stops_everything(transfers):
    """It is an error of the storage and not a reason to fetch: nobody knows what is there."""
    transfers.export(1)
    transfers.root.mkdir()
    (transfers.root / "Messages").mkdir()
    (transfers.root / "Messages" / "_archive.json").write_text("<html>")
    with pytest.raises(StorageError, match="_archive"):
        transfers.transfer(days(1))

    assert transfers.downloads() == []


@pytest.mark.parametrize(
    "options",
    [
        {"format": "csv"},
        {"if_exists": "append"},
        {"max_parallel_days": 0},
        {"max_rejected": -0.1},
        {"max_rejected": 1.1},
        {"max_rejected": float("nan")},
        {"drop_columns": ["body"]},
    ],
)
def test_wrong_options_are_refused(options):
    """Before anything is asked of anybody."""
    with pytest.raises(InvalidRequest):
        Options(**options)


def test_a_secret_is_not_shown():
    """Options may be logged."""
    options = Options(format="parquet", hash_columns=("from", "to"), hash_secret=b"hush")
    assert "hush" not in repr(options)


def test_a_transfer_imports_no_airflow():
    """A page or a command line may use it where no Airflow runs."""
    code = (
        "import sys, airflow_provider_bulkexports.storage.transfer\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'airflow'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
