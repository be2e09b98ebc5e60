from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "provider"))
sys.path.append(str(Path(__file__).parent))

# First: it gives Airflow a home before anything imports Airflow.
import in_process  # noqa: F401
import pytest
from day_transfers import Transfers, transfers_from


@pytest.fixture
def transfers(monkeypatch, tmp_path):
    """Storage in a folder, and a sandbox with three records a day and no empty days."""
    with transfers_from(tmp_path / "storage", monkeypatch) as made:
        yield made


@pytest.fixture
def start_transfers(monkeypatch, tmp_path):
    """Start further sandboxes that share one storage."""
    running = []

    def start(**settings) -> Transfers:
        manager = transfers_from(tmp_path / "storage", monkeypatch, **settings)
        running.append(manager)
        return manager.__enter__()

    yield start
    for manager in reversed(running):
        manager.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Shorten the waits between two tries of a file, and for its listing."""
    from airflow_provider_bulkexports.api import download
    from airflow_provider_bulkexports.storage import transfer

    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(transfer, "LISTING_PAUSES", (0.01, 0.01, 0.01))
