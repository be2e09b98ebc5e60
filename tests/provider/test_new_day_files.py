"""What an AssetWatcher learns: each new day's file, once, over outages and restarts."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from contextlib import aclosing

import pytest
from in_process import DAY, connection, rebuilt, requests_of

from airflow_provider_bulkexports import triggers
from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.compat import AIRFLOW_3
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.triggers import BulkExportsNewFilesTrigger

NEXT = "2026-01-06"
LISTING = "GET /v1/Exports/{ResourceType}/Days"


class AssetStore:
    """What Airflow 3.3 keeps with an asset; with several assets it does not know which is meant."""

    def __init__(self, *, assets=1):
        self.kept = {}
        self._assets = assets

    async def aget(self, key):
        self._one()
        return json.loads(self.kept.get(key, "null"))

    async def aset(self, key, value):
        self._one()
        self.kept[key] = json.dumps(value)

    def _one(self):
        if self._assets != 1:
            raise ValueError


def export(sandbox, start=DAY, end=DAY, kind="Messages"):
    wish = ExportRequest.parse(
        resource_type=kind, start_day=start, end_day=end, friendly_name="made_by_a_test"
    )
    with BulkExportsHook().get_conn() as client:
        client.create_job(wish)
    sandbox.advance(60)


def watch(store=None, **options):
    trigger = BulkExportsNewFilesTrigger(
        **{"resource_type": "Messages", "poll_interval": 0.05} | options
    )
    trigger.asset_state_store = store
    return trigger


async def told(trigger, seconds=0.6):
    """Return the days that a watcher is told of within some time."""
    days = []

    async def listen():
        async with aclosing(trigger.run()) as events:
            async for event in events:
                days.append(event.payload["day"])  # noqa: PERF401 - kept when it is cancelled

    listener = asyncio.ensure_future(listen())
    await asyncio.sleep(seconds)
    assert not listener.done(), "the watcher gave up"
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    return days


def test_each_file_is_told_once(sandbox):
    """However often the list is read, a file that is in it is news once."""
    export(sandbox, DAY, NEXT)

    assert asyncio.run(told(watch())) == [DAY, NEXT]
    assert requests_of(sandbox, LISTING) > 3


def test_an_event_says_what_came(sandbox):
    """The payload is plain, and says which file it is."""
    export(sandbox)

    async def first():
        async with aclosing(watch().run()) as events:
            return (await anext(events)).payload

    payload = asyncio.run(first())
    assert json.loads(json.dumps(payload)) == payload
    assert payload["resource_type"] == "Messages"
    assert payload["day"] == DAY
    assert payload["size"] > 0
    assert payload["create_date"]


def test_a_file_that_comes_later_is_told(sandbox):
    """A watcher waits for what comes, and tells of that alone."""
    export(sandbox)

    async def watched():
        listener = asyncio.ensure_future(told(watch(), 3))
        await asyncio.sleep(1)
        await asyncio.to_thread(export, sandbox, NEXT, NEXT)
        return await listener

    assert asyncio.run(watched()) == [DAY, NEXT]


def test_a_restart_tells_nothing_twice(sandbox):
    """What was told is kept with the asset, so a new triggerer goes on from there."""
    store = AssetStore()
    export(sandbox)
    first = asyncio.run(told(watch(store)))
    export(sandbox, NEXT, NEXT)
    second = asyncio.run(told(rebuilt_with(watch(store), store)))

    assert (first, second) == ([DAY], [NEXT])


def test_two_watchers_of_one_asset_keep_apart_what_they_told(sandbox):
    """An asset may watch two types: neither forgets what it told, or takes the other's for its."""
    store = AssetStore()
    export(sandbox)
    first = [asyncio.run(told(watch(store, resource_type=kind))) for kind in ("Messages", "Calls")]
    export(sandbox, DAY, NEXT, "Calls")
    second = [asyncio.run(told(watch(store, resource_type=kind))) for kind in ("Calls", "Messages")]

    assert first == [[DAY], []]
    assert second == [[DAY, NEXT], []]


@pytest.mark.parametrize("store", [None, AssetStore(assets=2)], ids=["before 3.3", "two assets"])
def test_without_a_store_a_restart_tells_again(sandbox, store):
    """Where nothing can be kept, a file is told twice rather than never."""
    export(sandbox)

    assert asyncio.run(told(watch(store))) == [DAY]
    assert asyncio.run(told(rebuilt_with(watch(store), store))) == [DAY]


def test_a_store_that_fails_does_not_end_the_watch(sandbox):
    """Where Airflow cannot be asked what was told, files are told all the same."""

    class Broken(AssetStore):
        def _one(self):
            raise RuntimeError("API_SERVER_ERROR")

    export(sandbox)

    assert asyncio.run(told(watch(Broken()))) == [DAY]


def test_a_file_that_comes_back_to_the_list_is_no_news(sandbox, monkeypatch):
    """A list that lacks a file for a while, as a lagging one does, tells nothing twice."""
    export(sandbox)
    read, looks = triggers._read_files, itertools.count()

    def blinking(*asked):
        found = read(*asked)
        return {key: {} for key in found} if next(looks) % 2 else found

    monkeypatch.setattr(triggers, "_read_files", blinking)

    assert asyncio.run(told(watch())) == [DAY]
    assert next(looks) > 3


@pytest.mark.parametrize("kept", ["null", "[]", '"x"', "7"])
def test_a_store_of_nonsense_is_no_store(sandbox, kept):
    """What is kept is not trusted to be ours."""
    store = AssetStore()
    store.kept["bulkexports_default/Messages/told"] = kept
    export(sandbox)

    assert asyncio.run(told(watch(store))) == [DAY]


@pytest.mark.parametrize("status", [500, 401, 404])
def test_an_outage_is_waited_out(sandbox, one_try, status):
    """A watcher never ends, so no error ends it."""
    export(sandbox)
    sandbox.add_fault({"route": "list_days", "kind": "status", "status": status, "times": 3})

    assert asyncio.run(told(watch(), 1)) == [DAY]


def test_watchers_share_a_poll(sandbox):
    """Ten watchers of one type cost what one costs; another type is read by itself."""
    export(sandbox)

    async def together():
        watchers = [watch(poll_interval=5) for _ in range(10)]
        watchers += [watch(poll_interval=5, resource_type="Calls")]
        return await asyncio.gather(*map(told, watchers))

    before = requests_of(sandbox, LISTING)
    assert asyncio.run(together()) == [[DAY]] * 10 + [[]]
    assert requests_of(sandbox, LISTING) - before == 2


def test_another_connection_is_another_poll(sandbox, monkeypatch):
    """A watcher reads by its own connection."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox, password="wrong-token"))
    export(sandbox)

    assert asyncio.run(told(watch(bulkexports_conn_id="other"))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resource_type": "Faxes"}, "allowed are"),
        ({"poll_interval": 0.01}, "seconds or more"),
        ({"poll_interval": float("nan")}, "seconds or more"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    """A DAG file with a wrong watcher does not load."""
    with pytest.raises(InvalidRequest, match=message):
        watch(**options)


def test_a_watcher_survives_storage():
    """A trigger made anew from what was stored is the same one, with no argument left out."""
    trigger = watch(poll_interval=60.0)
    path, kwargs = trigger.serialize()

    assert rebuilt(trigger).serialize() == (path, json.loads(json.dumps(kwargs)))
    assert set(kwargs) == set(inspect.signature(BulkExportsNewFilesTrigger.__init__).parameters) - {
        "self"
    }


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2.11 watches no assets")
def test_airflow_takes_it_as_a_watchers_trigger():
    """AssetWatcher refuses any trigger that is not made for events."""
    from airflow.sdk import Asset, AssetWatcher

    watcher = AssetWatcher("files", trigger=watch(poll_interval=60.0))
    assert Asset("twilio_messages", watchers=[watcher]).watchers == [watcher]


def rebuilt_with(trigger, store):
    again = rebuilt(trigger)
    again.asset_state_store = store
    return again
