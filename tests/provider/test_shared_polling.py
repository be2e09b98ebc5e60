"""What a triggerer does for many tasks that wait."""

from __future__ import annotations

import asyncio
import inspect
import json
import time

import pytest
from in_process import (
    DAY,
    FETCH,
    LISTING,
    TaskInstance,
    connection,
    create,
    fire,
    jobs_of,
    rebuilt,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports import triggers
from airflow_provider_bulkexports.api import polling
from airflow_provider_bulkexports.triggers import BulkExportsDaysTrigger, BulkExportsJobTrigger

UNKNOWN = "JS" + "0" * 32
DAYS_LISTING = "GET /v1/Exports/{ResourceType}/Days"


def watch(sid, seconds=5.0, conn_id="bulkexports_default", **changes):
    now = time.time()
    options = {
        "bulkexports_conn_id": conn_id,
        "resource_type": "Messages",
        "job_sid": sid,
        "start_day": DAY,
        "end_day": DAY,
        "started_at": now,
        "deadline": now + seconds,
    }
    return BulkExportsJobTrigger(**options | changes)


def watch_days(start=DAY, end=DAY, seconds=5.0):
    now = time.time()
    return BulkExportsDaysTrigger(
        bulkexports_conn_id="bulkexports_default",
        resource_type="Messages",
        start_day=start,
        end_day=end,
        started_at=now,
        deadline=now + seconds,
    )


def fire_all(waiting):
    """Run triggers in one event loop, as a triggerer does, and return their events' payloads."""

    async def first(trigger):
        return (await anext(trigger.run())).payload

    async def together():
        return await asyncio.gather(*map(first, waiting))

    return asyncio.run(together())


def make(sandbox, outcome=None):
    if outcome:
        sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": outcome})
    return run_task(create(wait_for_completion=False))


def make_many(sandbox, count):
    return [
        run_task(create(wait_for_completion=False), TaskInstance(map_index=index))
        for index in range(count)
    ]


@pytest.fixture
def interval(monkeypatch):
    """Make the interval long against a request, so that listings can be counted."""
    for module in (polling, triggers):
        monkeypatch.setattr(module, "SHORTEST_WAIT", 0.4)
    return 0.4


def test_fifty_tasks_cost_one_listing_an_interval(sandbox, interval):
    """Fifty tasks on one connection and type share one poll."""
    sandbox.add_fault(
        {"route": "create_job", "kind": "job_outcome", "outcome": "Running", "times": -1}
    )
    sids = make_many(sandbox, 50)
    before = requests_of(sandbox, LISTING)
    events = fire_all([watch(sid, seconds=2.5 * interval) for sid in sids])
    listings = requests_of(sandbox, LISTING) - before

    assert [event["job_sid"] for event in events] == sids
    # At 1 and 2 intervals and at the deadline, which comes at slightly different times.
    assert 2 <= listings <= 6
    assert requests_of(sandbox, FETCH) == 0


def test_one_reading_answers_all(sandbox, interval):
    """When the jobs are done, a single listing ends the wait of all."""
    sids = make_many(sandbox, 20)
    sandbox.advance(60)
    before = requests_of(sandbox, LISTING)
    fire_all([watch(sid) for sid in sids])

    assert requests_of(sandbox, LISTING) - before == 1


def test_different_connections_and_types_do_not_share(sandbox, interval, monkeypatch):
    """Each connection and each type is read on its own."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox))
    sid = make(sandbox)
    sandbox.advance(60)
    before = requests_of(sandbox, LISTING)
    fire_all([watch(sid), watch(sid, conn_id="other"), watch(sid, resource_type="Calls")])

    assert requests_of(sandbox, LISTING) - before == 3


def test_a_job_that_left_the_list_is_fetched(sandbox):
    """The listing need not show every job; a missing one is asked for by its SID."""
    sid = make(sandbox)
    sandbox.add_fault({"route": "list_jobs", "kind": "list_lag", "seconds": 1000, "times": -1})

    assert fire(watch(sid))["job_sid"] == sid
    assert requests_of(sandbox, FETCH) > 0
    assert jobs_of(sandbox)[0]["state"] == "completed"


def test_without_a_type_the_job_is_fetched(sandbox):
    """A trigger that knows only the SID reads the job by itself."""
    sid = make(sandbox)
    before = requests_of(sandbox, LISTING)
    fire(watch(sid, resource_type=None, start_day=None, end_day=None))

    assert requests_of(sandbox, LISTING) == before
    assert requests_of(sandbox, FETCH) > 0


@pytest.mark.parametrize("problem", ["unknown job", "no connection", "wrong token"])
def test_what_waiting_cannot_mend_wakes_the_task(sandbox, monkeypatch, problem):
    """The trigger does not raise: the task is woken at once and fails with the reason."""
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection(sandbox, password="wrong-token"))
    sid = UNKNOWN if problem == "unknown job" else make(sandbox, "Running")
    conn_id = {"no connection": "missing", "wrong token": "wrong"}.get(problem)
    started = time.monotonic()
    event = fire(watch(sid, seconds=60, conn_id=conn_id or "bulkexports_default"))

    assert event["job_sid"] == sid
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429},
        {"kind": "drop_before"},
        {"kind": "bad_json"},
        {"kind": "wrong_type"},
        {"kind": "loop_page"},
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}".strip(),
)
def test_an_outage_is_ridden_out(sandbox, one_try, fault):
    """The service fails for a while; the trigger fires when the job is done, not before."""
    sid = make(sandbox)
    sandbox.add_fault(fault | {"route": "list_jobs", "times": 3})
    fire(watch(sid))

    assert jobs_of(sandbox)[0]["state"] == "completed"


def test_an_outage_hits_all_who_wait(sandbox, one_try):
    """One failed reading is told to every waiter, and each waits on."""
    sids = make_many(sandbox, 5)
    sandbox.add_fault({"route": "list_jobs", "kind": "status", "status": 503, "times": 2})
    fire_all([watch(sid) for sid in sids])

    assert {job["state"] for job in jobs_of(sandbox)} == {"completed"}


def test_the_deadline_wakes_the_task(sandbox):
    """At the deadline the trigger fires, and the event carries it."""
    sid = make(sandbox, "Running")
    trigger = watch(sid, seconds=0.6)
    started = time.monotonic()
    event = fire(trigger)

    assert event == {"job_sid": sid, "deadline": trigger.deadline}
    assert 0.5 < time.monotonic() - started < 2


@pytest.mark.parametrize("case", ["finished job", "deadline passed", "unknown job", "days"])
def test_no_trigger_fires_at_once(sandbox, interval, case):
    """Airflow can lose a deferral that ends at once, so every trigger waits the shortest wait."""
    sid = make(sandbox)
    sandbox.advance(60)
    trigger = {
        "finished job": watch(sid),
        "deadline passed": watch(sid, seconds=-10),
        "unknown job": watch(UNKNOWN),
        "days": watch_days(),
    }[case]
    started = time.monotonic()
    fire(trigger)

    assert interval * 0.95 <= time.monotonic() - started < interval + 2


def test_a_newcomer_does_not_wait_for_the_others(sandbox, interval):
    """A task that starts to wait while others sleep for long is looked at when it is due."""
    sids = make_many(sandbox, 2)
    sandbox.advance(60)
    patient = watch(sids[0], started_at=time.time() - 200)

    async def together():
        first = asyncio.ensure_future(anext(patient.run()))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await anext(watch(sids[1]).run())
        await first
        return time.monotonic() - started

    assert asyncio.run(together()) < interval + 1


def test_one_cancelled_trigger_does_not_disturb_the_rest(sandbox):
    """Taking one task's trigger away leaves the shared poll to the others."""
    sids = make_many(sandbox, 3)

    async def together():
        waiting = [asyncio.ensure_future(anext(watch(sid).run())) for sid in sids]
        await asyncio.sleep(0.1)
        waiting[0].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, *rest = asyncio.run(together())

    assert isinstance(first, asyncio.CancelledError)
    assert [event.payload["job_sid"] for event in rest] == sids[1:]


def test_days_wake_the_task_when_all_are_there(sandbox):
    """The days trigger waits until the last of its days has been exported."""
    make(sandbox)
    started = time.monotonic()
    event = fire(watch_days())

    assert set(event) == {"deadline"}
    assert time.monotonic() - started > 0.1
    assert requests_of(sandbox, DAYS_LISTING) > 1


def test_days_share_a_poll_too(sandbox, interval):
    """Many days sensors on one connection and type cost one reading an interval."""
    make(sandbox)
    sandbox.advance(60)
    fire_all([watch_days() for _ in range(20)])

    assert requests_of(sandbox, DAYS_LISTING) == 1


@pytest.mark.parametrize("trigger", [watch(UNKNOWN), watch_days()], ids=["job", "days"])
def test_a_trigger_survives_storage(trigger):
    """A trigger made anew from what was stored is the same one, with no argument left out."""
    path, kwargs = trigger.serialize()

    assert json.loads(json.dumps(kwargs)) == kwargs
    assert rebuilt(trigger).serialize() == (path, kwargs)
    assert set(kwargs) == set(inspect.signature(type(trigger).__init__).parameters) - {"self"}


def test_the_event_loop_is_never_held_up(sandbox):
    """While a slow service answers for a hundred triggers, the triggerer's loop keeps running."""
    sids = make_many(sandbox, 20)
    sandbox.add_fault({"route": "list_jobs", "kind": "delay", "seconds": 0.3, "times": -1})
    gaps = []

    async def feel():
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async def together():
        probe = asyncio.ensure_future(feel())
        await asyncio.gather(*(anext(watch(sid).run()) for sid in sids * 5))
        probe.cancel()

    asyncio.run(together())

    assert len(gaps) > 20
    assert max(gaps) < 0.2
