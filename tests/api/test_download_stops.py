"""A download ends when it is stopped or the bucket is too slow, and not because it is large."""

from __future__ import annotations

import gzip
import random
import threading
import time
from dataclasses import replace

import pytest
from day_downloads import FILE, LINK, exported

from airflow_provider_bulkexports.api import download
from airflow_provider_bulkexports.api.errors import BadData, Retryable, Stopped
from airflow_provider_bulkexports.api.pace import PACE
from airflow_provider_bulkexports.api.stop import Stop

SOON = 1.5  # a second, and what a busy machine adds

HOLDS = {
    "an API that hangs": {"kind": "hang", "route": LINK},
    "an API that trickles": {"kind": "trickle", "route": LINK, "seconds": 0.3},
    "an API that fails": {"kind": "status", "route": LINK, "status": 503, "retry_after": 50},
    "a bucket that hangs": {"kind": "hang"},
    "a bucket whose head trickles": {"kind": "trickle", "from": "head", "seconds": 0.3},
    "a bucket whose body trickles": {"kind": "trickle", "seconds": 0.3},
    "a bucket whose refusal trickles": {"kind": "trickle", "seconds": 0.3, "refuses": True},
    "a bucket that falls silent": {"kind": "trickle", "bytes": 1000, "seconds": 60},
    "the pause before another try": {"kind": "status", "status": 503, "retry_after": 50},
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_a_stop_ends_whatever_a_download_waits_for(hold):
    """Within a second, and with an empty target."""
    with exported() as day:
        fault = dict(hold)
        if fault.pop("refuses", False):
            day.fault("status_after", times=-1, status=400)
        day.fault(**({"times": -1} | fault))
        stop = Stop()
        timer = threading.Timer(0.7, stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            day.fetch(stop=stop)
        assert 0.6 < time.monotonic() - began < 0.7 + SOON
        assert day.held == b""
        timer.join()


def test_a_stop_ends_a_large_download_in_the_middle():
    """Not only waits: also where all goes well."""
    content = gzip.compress(random.Random(1).randbytes(8_000_000).hex().encode(), 1)
    with exported() as day:
        day.serve(content)
        stop, seen = Stop(), []

        def progress(size: int) -> None:
            seen.append(size)
            stop.set()

        with pytest.raises(Stopped):
            day.fetch(stop=stop, progress=progress)
        assert seen[-1] < len(content) / 2
        assert (day.asked(FILE), day.held) == (1, b"")


def test_who_is_stopped_before_sends_nothing():
    """Not even the link is asked for."""
    with exported() as day:
        stop = Stop()
        stop.set()
        with pytest.raises(Stopped):
            day.fetch(stop=stop)
        assert day.asked(LINK) == 0


def test_a_sleep_ends_soon_after_the_signal():
    """Within 0.2 s; without a signal it takes its time."""
    stop = Stop()
    began = time.monotonic()
    stop.sleep(0.3)
    assert 0.3 <= time.monotonic() - began < 0.5
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        stop.sleep(30)
    assert time.monotonic() - began < 0.5
    with pytest.raises(Stopped):
        stop.sleep(0)


def paced(day, **changes):
    """Let the client keep another pace."""
    day.client.pace = replace(PACE, **changes)
    return day


@pytest.mark.parametrize("no_length", [False, True])
def test_a_bucket_that_trickles_is_left_after_a_stretch_of_time(no_length):
    """Although it is never silent: each try ends when too few bytes came in the time for them."""
    with exported() as day:
        paced(day, stretch=1000, stretch_seconds=0.5)
        day.serve(random.Random(1).randbytes(40), no_length=no_length)
        day.fault("trickle", seconds=0.1, times=-1)
        began = time.monotonic()
        with pytest.raises(BadData, match=r"3 tries.* less than 1000 bytes in 0\.5 s"):
            day.fetch()
        assert 1.4 < time.monotonic() - began < 4
        assert (day.asked(FILE), day.held) == (3, b"")


def test_a_bucket_that_hangs_is_asked_again():
    """Its head has the time of an exchange; the next try may be served."""
    with exported() as day:
        paced(day, exchange=0.5)
        day.fault("hang")
        assert day.fetch().records == 200
        assert day.asked(FILE) == 2
        day.fault("trickle", **{"from": "head"}, seconds=0.1, times=-1)
        with pytest.raises(Retryable, match=r"did not answer within 0\.5 s"):
            day.fetch()


def test_a_refusal_that_trickles_has_the_time_of_an_exchange():
    """Its status counts although the rest does not come."""
    with exported() as day:
        paced(day, exchange=0.5)
        day.fault("status_after", times=-1, status=403)
        day.fault("trickle", seconds=0.1, times=-1)
        began = time.monotonic()
        with pytest.raises(BadData, match=r"HTTP 403\."):
            day.fetch()
        assert 1.4 < time.monotonic() - began < 4


def test_a_slow_bucket_may_take_its_time(monkeypatch):
    """A file takes as long as it needs at the rate that is asked for: here six stretches."""
    monkeypatch.setattr(download, "_BLOCK", 100)
    with exported() as day:
        size = day.listed_size
        paced(day, stretch=size // 6, stretch_seconds=0.6)
        day.fault("trickle", bytes=size // 12 + 1, seconds=0.25)
        began = time.monotonic()
        assert day.fetch().size == size
        assert time.monotonic() - began > 2
        assert day.asked(FILE) == 1
