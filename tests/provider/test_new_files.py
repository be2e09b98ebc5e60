"""What an AssetWatcher learns: new day files, over outages, kills and restarts."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from contextlib import aclosing

import pytest
from in_process import DAY, change_pace, connection, rebuilt, requests_of

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.compat import AIRFLOW_3
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.triggers import BulkExportsNewFilesTrigger

NEXT = "2026-01-06"
MEMORY = "bulkexports_default/Messages/reported"
LISTING = "list_days"


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
        resource_type=kind, start_day=start, end_day=end, friendly_name="created_by_a_test"
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


async def reported(trigger, seconds=1.5):
    """Return the days that a watcher reports within some time, a list for each event."""
    looks = []

    async def listen():
        async with aclosing(trigger.run()) as events:
            async for event in events:
                looks.append([file["day"] for file in event.payload["days"]])  # noqa: PERF401

    listener = asyncio.ensure_future(listen())
    await asyncio.sleep(seconds)
    assert not listener.done(), "the watcher gave up"
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)
    return looks


async def first_event(trigger):
    """Return a watcher's first event and kill it right after."""
    async with aclosing(trigger.run()) as events:
        return (await anext(events)).payload


def restarted(trigger):
    again = rebuilt(trigger)
    again.asset_state_store = trigger.asset_state_store
    return again


def test_all_new_files_of_a_look_are_one_event(sandbox):
    """Airflow may show a DAG run the first of several events only, so there is one."""
    export(sandbox, DAY, "2026-01-30")
    [days] = asyncio.run(reported(watch()))

    assert days == [f"2026-01-{day:02}" for day in range(5, 31)]
    assert requests_of(sandbox, LISTING) > 3


def test_an_event_says_what_came(sandbox):
    """The payload is plain, and says which files they are."""
    export(sandbox)
    payload = asyncio.run(first_event(watch()))

    assert json.loads(json.dumps(payload)) == payload
    assert payload["resource_type"] == "Messages"
    [file] = payload["days"]
    assert set(file) == {"day", "size", "create_date"}
    assert file["day"] == DAY
    assert file["size"] > 0
    assert file["create_date"]


def test_a_file_that_comes_later_is_reported(sandbox):
    """A watcher waits for what comes, and reports that alone."""
    export(sandbox)

    async def watched():
        listener = asyncio.ensure_future(reported(watch(), 3))
        await asyncio.sleep(1)
        await asyncio.to_thread(export, sandbox, NEXT, NEXT)
        return await listener

    assert asyncio.run(watched()) == [[DAY], [NEXT]]


def test_a_restart_reports_nothing_twice(sandbox):
    """What was reported is kept with the asset, so a new triggerer goes on from there."""
    trigger = watch(AssetStore())
    export(sandbox)
    first = asyncio.run(reported(trigger))
    export(sandbox, NEXT, NEXT)
    second = asyncio.run(reported(restarted(trigger)))

    assert (first, second) == ([[DAY]], [[NEXT]])


def test_a_kill_right_after_an_event_loses_nothing(sandbox):
    """Airflow may not have kept the event yet, so the next triggerer reports its files again."""
    trigger = watch(AssetStore())
    export(sandbox, DAY, NEXT)
    asyncio.run(first_event(trigger))

    assert asyncio.run(reported(restarted(trigger))) == [[DAY, NEXT]]


def test_what_was_reported_is_kept_a_look_later(sandbox, monkeypatch):
    """Nor does the look of another watcher, which may come at once, count as later."""
    change_pace(monkeypatch, shortest_poll=0.4)
    store = AssetStore()
    export(sandbox)

    async def together():
        first = asyncio.ensure_future(reported(watch(store, poll_interval=0.5), 0.8))
        await asyncio.sleep(0.2)
        second = asyncio.ensure_future(reported(watch(poll_interval=0.5), 0.1))
        await second
        early = dict(store.kept)
        return early, await first

    early, days = asyncio.run(together())

    assert (early, days) == ({}, [[DAY]])
    assert requests_of(sandbox, LISTING) == 3
    assert list(json.loads(store.kept[MEMORY])) == [DAY]


def test_what_was_reported_is_kept_during_an_outage_too(sandbox, one_try):
    """A look that fails comes later all the same."""
    store = AssetStore()
    export(sandbox)
    fault = {"route": "list_days", "kind": "status", "status": 500, "after": 1, "times": -1}
    sandbox.add_fault(fault)

    assert asyncio.run(reported(watch(store))) == [[DAY]]
    assert MEMORY in store.kept


def test_two_watchers_of_one_asset_keep_apart_what_they_reported(sandbox):
    """An asset may watch two types: neither forgets its own, or takes the other's for its."""
    store = AssetStore()
    export(sandbox)
    messages, calls = (watch(store, resource_type=kind) for kind in ("Messages", "Calls"))
    first = [asyncio.run(reported(trigger)) for trigger in (messages, calls)]
    export(sandbox, DAY, NEXT, "Calls")
    second = [asyncio.run(reported(restarted(trigger))) for trigger in (calls, messages)]

    assert first == [[[DAY]], []]
    assert second == [[[DAY, NEXT]], []]


@pytest.mark.parametrize("store", [None, AssetStore(assets=2)], ids=["before 3.3", "two assets"])
def test_without_a_store_a_restart_reports_again(sandbox, store):
    """Where nothing can be kept, a file is reported twice rather than never."""
    export(sandbox)
    trigger = watch(store)

    assert asyncio.run(reported(trigger)) == [[DAY]]
    assert asyncio.run(reported(restarted(trigger))) == [[DAY]]


def test_a_store_that_fails_does_not_end_the_watch(sandbox):
    """Where Airflow cannot be asked what was reported, files are reported all the same."""

    class Broken(AssetStore):
        def _one(self):
            raise RuntimeError("API_SERVER_ERROR")

    export(sandbox)

    assert asyncio.run(reported(watch(Broken()))) == [[DAY]]


def test_a_file_that_comes_back_to_the_list_is_not_new(sandbox, monkeypatch):
    """A list that lacks a file for a while, as a lagging one does, reports nothing twice."""
    export(sandbox)
    list_days, looks = Client.list_days, itertools.count()

    def blinking(client, kind):
        found = list_days(client, kind)
        return [] if next(looks) % 2 else found

    monkeypatch.setattr(Client, "list_days", blinking)

    assert asyncio.run(reported(watch())) == [[DAY]]
    assert next(looks) > 3


@pytest.mark.parametrize("kept", ["null", "[]", '"x"', "7"])
def test_a_store_of_nonsense_is_no_store(sandbox, kept):
    """What is kept is not trusted to be ours."""
    store = AssetStore()
    store.kept[MEMORY] = kept
    export(sandbox)

    assert asyncio.run(reported(watch(store))) == [[DAY]]


@pytest.mark.parametrize("status", [500, 401, 404])
def test_an_outage_is_waited_out(sandbox, one_try, status):
    """A watcher never ends, so no error ends it."""
    export(sandbox)
    sandbox.add_fault({"route": "list_days", "kind": "status", "status": status, "times": 3})

    assert asyncio.run(reported(watch(), 1)) == [[DAY]]


def test_watchers_share_a_poll(sandbox):
    """Ten watchers of one type cost what one costs; another type is read by itself."""
    export(sandbox)

    async def together():
        watchers = [watch(poll_interval=5) for _ in range(10)]
        watchers += [watch(poll_interval=5, resource_type="Calls")]
        return await asyncio.gather(*map(reported, watchers))

    assert asyncio.run(together()) == [[[DAY]]] * 10 + [[]]
    assert requests_of(sandbox, LISTING) == 2


def test_another_connection_is_another_poll(sandbox, monkeypatch):
    """A watcher reads by its own connection."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox, password="wrong-token"))
    export(sandbox)

    assert asyncio.run(reported(watch(bulkexports_conn_id="other"))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resource_type": "Faxes"}, "allowed are"),
        *(
            ({"poll_interval": wrong}, "must be a number of seconds, 0.05 or more")
            for wrong in (0.01, -1, float("nan"), float("inf"), True, "60", None)
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    """A DAG file with a wrong watcher does not load."""
    with pytest.raises(InvalidRequest, match=message):
        watch(**options)


def test_a_watcher_survives_storage():
    """A trigger created anew from what was stored is the same one, with no argument left out."""
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
