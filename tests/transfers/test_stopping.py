"""A transfer that is stopped or out of time ends within seconds, whatever it waits for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from day_downloads import FILE
from day_transfers import day, range_of
from in_process import Running, TaskInstance, context_of, wait_for

try:
    from airflow.sdk.exceptions import AirflowTaskTimeout
except ImportError:  # before 3.2
    from airflow.exceptions import AirflowTaskTimeout
try:  # what Airflow puts around a task that has an execution_timeout
    from airflow.sdk.execution_time.timeout import TimeoutPosix as ExecutionTimeout
except ImportError:  # before 3.1
    from airflow.utils.timeout import timeout as ExecutionTimeout  # noqa: N812

from airflow_provider_bulkexports.storage import transfer  # noqa: F401 - not within a timeout

SOON = 5.0
"""Seconds in which a stopped transfer has ended at the latest."""
HANGS = {
    "trickle": {"kind": "trickle", "bytes": 1, "seconds": 0.5},
    "silence": {"kind": "delay", "seconds": 120},
}


@pytest.fixture
def spool(tmp_path, monkeypatch):
    """Give this machine a temporary folder that is empty."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(params=HANGS)
def hanging(request, start_transfers):
    """Let the bucket take for ever with every file."""
    transfers = start_transfers(records=2000)
    transfers.export(6)
    fault = dict(HANGS[request.param])
    transfers.fault(fault.pop("kind"), times=-1, **fault)
    return transfers


def test_a_stopped_transfer_ends_whatever_the_bucket_does(hanging, spool):
    """The task does not wait for the files that are on their way, and leaves none on the disk."""
    task = hanging.task(**range_of(6), max_parallel_days=3)
    running = Running(task)
    wait_for(lambda: hanging.sandbox.requests(FILE) >= 3)
    assert list(spool.iterdir()) != []
    task.on_kill()

    assert running.join() < SOON
    assert "stopped" in str(running.error)
    assert list(spool.iterdir()) == []
    assert hanging.missing(6) == list(range(6))
    assert hanging.sandbox.requests(FILE) == 3


def test_an_execution_timeout_ends_a_transfer_in_time(hanging, spool):
    """What Airflow raises when the time is up is not held up by days that are under way."""
    task = hanging.task(**range_of(6))
    began = time.monotonic()
    with pytest.raises(AirflowTaskTimeout), ExecutionTimeout(3):
        task.execute(context_of(TaskInstance()))

    assert 3 <= time.monotonic() - began < 3 + SOON
    assert hanging.sandbox.requests(FILE) >= 1
    assert list(spool.iterdir()) == []
    assert hanging.missing(6) == list(range(6))


def test_what_is_published_stays_when_the_rest_is_stopped(start_transfers, spool):
    """A stop loses no day that is done, and the next run fetches the others only."""
    transfers = start_transfers(records=2000)
    transfers.export(4)
    transfers.fault("trickle", after=2, times=-1, bytes=1, seconds=0.5)
    task = transfers.task(**range_of(4), max_parallel_days=1)
    running = Running(task)
    wait_for(lambda: transfers.sandbox.requests(FILE) == 3)
    task.on_kill()
    running.join()

    assert transfers.missing(4) == [2, 3]
    transfers.sandbox.clear_faults()
    transfers.transfer_range(4)
    assert transfers.missing(4) == []
    assert transfers.downloads() == [day(0), day(1), day(2), day(2), day(3)]


PROGRAM = """
import os, signal, sys
sys.path[:0] = {paths!r}
from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.calendar import days_between, parse_day
from airflow_provider_bulkexports.api.errors import Stopped
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage.store import DayStore
from airflow_provider_bulkexports.storage.transfer import Options, transfer
from fsspec.implementations.local import LocalFileSystem

login, token, url, root, first, last = sys.argv[1:]
stop = Stop()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
client = Client(login, token, base_url=url)
days = list(days_between(parse_day(first, "first"), parse_day(last, "last")))
store = DayStore(LocalFileSystem(), root, ResourceType.MESSAGES)
try:
    transfer(client, store, days, Options(), stop=stop, progress=lambda progress: None)
except Stopped:
    sys.exit(7)
"""


def test_a_process_of_its_own_exits_at_once(hanging, spool, tmp_path):
    """No thread that hangs keeps the interpreter, and the transfer needs no Airflow."""
    sandbox = hanging.sandbox
    program = PROGRAM.format(paths=[str(Path(__file__).parents[2])])
    arguments = [sandbox.account_sid, sandbox.auth_token, sandbox.url]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments, str(tmp_path / "own"), day(0), day(5)],
        env=os.environ | {"TMPDIR": str(spool)},
    ) as process:
        wait_for(lambda: sandbox.requests(FILE) >= 4)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7
        took = time.monotonic() - began

    assert took < SOON
    assert list(spool.iterdir()) == []
