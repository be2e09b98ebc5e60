"""What a triggerer does for many tasks that wait."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack

import pytest
from in_process import (
    CONNECTION,
    DAY,
    FETCH,
    LISTING,
    change_pace,
    connection,
    fire,
    jobs_of,
    rebuilt,
    requests_of,
    wait_for,
)

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.shared_poll import PORTION, SharedPoll
from airflow_provider_bulkexports.triggers import BulkExportsDaysTrigger, BulkExportsJobTrigger

UNKNOWN = "JS" + "0" * 32
DAYS_LISTING = "list_days"
TYPES = [*(kind.value for kind in ResourceType), None]


def watch(sid, seconds=5.0, conn_id=CONNECTION, **changes):
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
        bulkexports_conn_id=CONNECTION,
        resource_type="Messages",
        start_day=start,
        end_day=end,
        started_at=now,
        deadline=now + seconds,
    )


async def timed(trigger):
    """Return a trigger's event and how long it took."""
    started = time.monotonic()
    event = (await anext(trigger.run())).payload
    return event, time.monotonic() - started


def fire_all(waiting):
    """Run triggers in one event loop, as a triggerer does, and return their events and times."""

    async def together():
        return await asyncio.gather(*map(timed, waiting))

    return asyncio.run(together())


def make(sandbox, count=1, outcome=None):
    """Create jobs of one day each and return their SIDs."""
    if outcome:
        fault = {"route": "create_job", "kind": "job_outcome", "outcome": outcome}
        sandbox.add_fault(fault | {"times": count})
    with BulkExportsHook().get_conn() as client:
        return [
            client.create_job(
                ExportRequest.parse(
                    resource_type="Messages",
                    start_day=DAY,
                    end_day=DAY,
                    friendly_name=f"test_{number}",
                )
            ).sid
            for number in range(count)
        ]


@pytest.fixture
def interval(monkeypatch):
    """Make the interval long against a request, so that requests can be counted."""
    change_pace(monkeypatch, shortest_poll=0.4)
    return 0.4


def gets(sandbox):
    return requests_of(sandbox, LISTING) + requests_of(sandbox, FETCH)


# What a poll costs.


def test_fifty_tasks_cost_one_listing_an_interval(sandbox, interval):
    """Fifty tasks on one connection and type share one poll."""
    sids = make(sandbox, 50, "Running")
    events = fire_all([watch(sid, seconds=2.5 * interval) for sid in sids])

    assert [event["job_sid"] for event, _ in events] == sids
    # At 1 and 2 intervals and at the deadline, which comes at slightly different times; a
    # listing has two pages.
    assert 4 <= requests_of(sandbox, LISTING) <= 12
    assert requests_of(sandbox, FETCH) == 0


def test_one_reading_answers_all(sandbox, interval):
    """When the jobs are done, a single listing ends the wait of all."""
    sids = make(sandbox, 20)
    sandbox.advance(60)
    events = fire_all([watch(sid) for sid in sids])

    assert {event["over"] for event, _ in events} == {"done"}
    assert (requests_of(sandbox, LISTING), requests_of(sandbox, FETCH)) == (1, 0)


def test_one_waiting_job_among_many_costs_one_request_a_poll(sandbox, interval):
    """A task that waits alone does not read a list of pages."""
    *_, sid = make(sandbox, 100, "Running")
    fire(watch(sid, seconds=2.5 * interval))

    assert 2 <= requests_of(sandbox, FETCH) <= 4
    assert requests_of(sandbox, LISTING) == 0


def test_two_waiting_jobs_among_many_cost_two_requests_a_poll(sandbox, interval):
    """A list that turned out to be longer than its jobs are many is not read again."""
    *_, first, second = make(sandbox, 100, "Running")
    fire_all([watch(first, seconds=3.5 * interval), watch(second, seconds=3.5 * interval)])

    assert requests_of(sandbox, LISTING) == 4
    assert 4 <= requests_of(sandbox, FETCH) <= 10


def test_different_connections_and_types_do_not_share(sandbox, interval, monkeypatch):
    """Each connection and each type is read on its own."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox))
    [sid] = make(sandbox)
    sandbox.advance(60)
    fire_all([watch(sid), watch(sid, conn_id="other"), watch(sid, resource_type="Calls")])

    assert gets(sandbox) == 3


def test_days_share_a_poll_too(sandbox, interval):
    """Many days sensors on one connection and type cost one reading an interval."""
    make(sandbox)
    sandbox.advance(60)
    fire_all([watch_days() for _ in range(20)])

    assert requests_of(sandbox, DAYS_LISTING) == 1


def test_answers_are_handed_out_in_portions(sandbox):
    """Two thousand tasks that are answered at once leave the loop turns for other triggers."""
    turns, answered = 0, []

    async def together():
        nonlocal turns
        poll = SharedPoll(CONNECTION, lambda _, keys: dict.fromkeys(keys, frozenset()))

        async def wait():
            await poll.look("days", 0)
            answered.append(turns)

        waiting = asyncio.gather(*(wait() for _ in range(2000)))
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(together())

    assert len(answered) == 2000
    assert max(answered.count(turn) for turn in set(answered)) <= 2 * PORTION


def test_the_event_loop_is_never_held_up(sandbox):
    """While a slow service answers for a hundred triggers, the triggerer's loop keeps running."""
    sids = make(sandbox, 20)
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


# Who hangs holds nobody else.


@pytest.fixture
def silent(monkeypatch):
    """Run a service that never answers and one that never ends, each as a connection."""
    faults = {"silent": {"kind": "hang"}, "trickling": {"kind": "trickle", "seconds": 0.2}}
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(Sandbox(faults=[fault | {"route": "*", "times": -1}]))
            for name, fault in faults.items()
        }
        for name, service in services.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", service.connection())
        yield services


def stuck(names, seconds):
    return [
        watch(UNKNOWN, seconds, conn_id=name, resource_type=kind)
        for name in names
        for kind in TYPES
    ]


def test_a_connection_that_hangs_holds_no_other(sandbox, silent):
    """Ten polls hang, yet a healthy job's event and every deadline come in time."""
    [sid] = make(sandbox)
    waiting = [*stuck(silent, 0.8), watch(sid, 60)]
    *late, (event, took) = fire_all(waiting)

    assert event["over"] == "done"
    assert took < 1.5
    for event, took in late:
        assert event["over"] == "late"
        assert "did not answer" in event["trouble"]
        assert 0.7 < took < 2.5


def test_a_reading_that_hangs_does_not_hold_the_exit(silent):
    """A triggerer that is told to stop is gone at once, whatever its polls wait for."""
    script = """
        import asyncio, os, sys
        from dataclasses import replace
        import in_process
        from airflow_provider_bulkexports.api import pace
        from test_shared_polling import stuck

        os.environ["AIRFLOW_CONN_SILENT"] = sys.argv[1]
        pace.PACE = replace(pace.PACE, shortest_poll=0.05)

        async def run_until_told():
            waiting = [asyncio.ensure_future(anext(one.run())) for one in stuck(["silent"], 60)]
            await asyncio.to_thread(sys.stdin.readline)

        asyncio.run(run_until_told())
    """
    service = silent["silent"]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), service.connection()],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        wait_for(lambda: service.requests() >= len(TYPES), 30)
        started = time.monotonic()
        process.stdin.close()
        assert process.wait(60) == 0
        assert time.monotonic() - started < 5


def test_an_airflow_that_hangs_is_not_waited_for(sandbox, monkeypatch):
    """Its one thread for lookups is stuck; a poll that knows its connection goes on with that."""
    change_pace(monkeypatch, lookup=0.2)
    [sid] = make(sandbox, outcome="Running")
    released, look_up = threading.Event(), BulkExportsHook.get_conn

    def get_conn(hook):
        if hook.bulkexports_conn_id == "slow":
            released.wait(10)
        return look_up(hook)

    async def together():
        healthy = asyncio.ensure_future(timed(watch(sid)))
        await asyncio.sleep(0.3)
        slow = asyncio.ensure_future(timed(watch(sid, 1, conn_id="slow")))
        await asyncio.sleep(0.3)
        before = requests_of(sandbox, FETCH)
        await asyncio.sleep(0.6)
        assert requests_of(sandbox, FETCH) > before
        event, _ = await slow
        assert "did not look up connection 'slow'" in event["trouble"]
        released.set()
        healthy.cancel()

    monkeypatch.setattr(BulkExportsHook, "get_conn", get_conn)
    asyncio.run(together())


# What is ridden out, and what is not.


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429},
        {"kind": "status", "status": 401},
        {"kind": "status", "status": 403},
        {"kind": "drop_before"},
        {"kind": "bad_json"},
        {"kind": "wrong_type"},
        {"kind": "loop_page"},
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}".strip(),
)
def test_an_outage_is_ridden_out(sandbox, one_try, fault):
    """The service fails for a while; the trigger fires when the job is done, not before."""
    sids = make(sandbox, 2)
    sandbox.add_fault(fault | {"route": "list_jobs", "times": 3})
    events = fire_all([watch(sid) for sid in sids])

    assert {(event["over"], event["trouble"]) for event, _ in events} == {("done", "")}
    assert {job["state"] for job in jobs_of(sandbox)} == {"completed"}


def test_advice_to_wait_is_taken_by_all(sandbox, one_try):
    """After a 429 with Retry-After nobody asks before, not even a task that comes later."""
    first, second = make(sandbox, 2)
    sandbox.advance(60)
    sandbox.add_fault({"route": "fetch_job", "kind": "status", "status": 429, "retry_after": 1})

    async def together():
        waiting = asyncio.ensure_future(timed(watch(first)))
        await asyncio.sleep(0.3)
        newcomer = asyncio.ensure_future(timed(watch(second)))
        await asyncio.sleep(0.5)
        assert gets(sandbox) == 1
        return await asyncio.gather(waiting, newcomer)

    (_, waited), (_, newcomer_waited) = asyncio.run(together())

    assert 1 < waited < 2
    assert newcomer_waited > 0.7


@pytest.mark.parametrize("problem", ["wrong token", "no connection", "wrong connection"])
def test_refused_credentials_are_ridden_out_for_a_while(sandbox, monkeypatch, problem):
    """Only when nothing else comes for long does the trigger give up, and says why."""
    if problem != "no connection":
        change = {"password": "wrong-token"} if problem == "wrong token" else {"login": "nobody"}
        monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection(sandbox, **change))
    [(event, took)] = fire_all([watch(UNKNOWN, 60, conn_id="wrong")])

    assert event["over"] == "refused"
    said = {"wrong token": "401", "no connection": "no connection 'wrong'"}
    assert said.get(problem, "login must be") in event["trouble"]
    assert pace_module.PACE.refused < took < pace_module.PACE.refused + 1


@pytest.mark.parametrize("problem", ["wrong token", "no connection"])
def test_a_connection_that_is_mended_meanwhile_is_used(sandbox, monkeypatch, problem):
    """A token that is rotated, or a connection that is replaced, does not end the wait."""
    if problem == "wrong token":
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox, password="wrong-token"))
    [sid] = make(sandbox)

    async def together():
        waiting = asyncio.ensure_future(timed(watch(sid, 60, conn_id="other")))
        await asyncio.sleep(0.5)
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", connection(sandbox))
        return await waiting

    event, took = asyncio.run(together())

    assert event["over"] == "done"
    assert took > 0.5


def test_a_bug_of_airflow_s_is_ridden_out(sandbox, monkeypatch):
    """Whatever Airflow raises is told by its name, and the next look may do better."""
    [sid] = make(sandbox)
    look_up, calls = BulkExportsHook.get_conn, []

    def get_conn(hook):
        calls.append(hook)
        if len(calls) < 4:
            raise RuntimeError("the API server is down\nforged line")
        return look_up(hook)

    monkeypatch.setattr(BulkExportsHook, "get_conn", get_conn)
    assert fire(watch(sid))["over"] == "done"

    calls.clear()
    event = fire(watch(sid, seconds=0.1))
    assert event["over"] == "late"
    assert r"RuntimeError: the API server is down\nforged line" in event["trouble"]


def test_a_job_that_is_missing_twice_is_gone(sandbox):
    """Neither its own page nor the list knows the job, and no later look either."""
    [(event, took)] = fire_all([watch(UNKNOWN, 60)])

    assert event == {"job_sid": UNKNOWN, "owned": False, "over": "gone", "trouble": ""}
    assert took > pace_module.PACE.gone


def test_a_job_that_is_missing_once_is_not_gone(sandbox):
    """Pages and lists may lag: the next look finds the job, and the wait goes on."""
    [sid] = make(sandbox)
    sandbox.add_fault({"route": "fetch_job", "kind": "status", "status": 404, "times": 1})
    sandbox.add_fault({"route": "list_jobs", "kind": "lag", "seconds": 1000, "times": 1})

    assert fire(watch(sid))["over"] == "done"
    assert requests_of(sandbox, LISTING) == 1


def test_a_job_that_somebody_deleted_is_gone(sandbox):
    """The task is woken and told, rather than left to wait for its deadline."""
    [sid] = make(sandbox, outcome="Running")
    with BulkExportsHook().get_conn() as client:
        assert client.delete_job(sid)

    assert fire(watch(sid, 60))["over"] == "gone"


@pytest.mark.parametrize("count", [2, 3])
def test_a_job_that_left_the_list_is_fetched(sandbox, count):
    """The listing need not show every job; a missing one is asked for by its SID."""
    sids = make(sandbox, count)
    sandbox.add_fault({"route": "list_jobs", "kind": "lag", "seconds": 1000, "times": -1})
    events = fire_all([watch(sid) for sid in sids])

    assert {event["over"] for event, _ in events} == {"done"}
    assert requests_of(sandbox, FETCH) >= count


def test_without_a_type_the_job_is_fetched(sandbox):
    """A trigger that knows only the SID reads the job by itself."""
    [sid] = make(sandbox)
    event = fire(watch(sid, resource_type=None, start_day=None, end_day=None))

    assert event["over"] == "done"
    assert requests_of(sandbox, LISTING) == 0
    assert requests_of(sandbox, FETCH) > 0


def test_an_odd_item_of_somebody_else_disturbs_nobody(sandbox):
    """A listed job that cannot be read says nothing about the others."""
    *sids, odd = make(sandbox, 3)
    fault = {"kind": "odd_item", "job_sid": odd, "fields": {"details": "soon"}, "times": -1}
    sandbox.add_fault(fault | {"route": "list_jobs"})
    events = fire_all([watch(sid) for sid in sids])

    assert {(event["over"], event["trouble"]) for event, _ in events} == {("done", "")}
    # On a busy machine the two may look apart, and one alone is fetched by itself.
    assert requests_of(sandbox, FETCH) <= 1


# When a trigger fires, and what it says.


def test_the_deadline_wakes_the_task(sandbox):
    """At the deadline the trigger fires, whatever it has seen."""
    [sid] = make(sandbox, outcome="Running")
    [(event, took)] = fire_all([watch(sid, seconds=0.6, owned=True)])

    assert event == {"job_sid": sid, "owned": True, "over": "late", "trouble": ""}
    assert 0.5 < took < 1.2


@pytest.mark.parametrize("case", ["finished job", "deadline passed", "days"])
def test_no_trigger_fires_at_once(sandbox, interval, case):
    """Airflow can lose a deferral that ends at once, so every trigger waits the shortest wait."""
    [sid] = make(sandbox)
    sandbox.advance(60)
    trigger = {
        "finished job": watch(sid),
        "deadline passed": watch(sid, seconds=-10),
        "days": watch_days(),
    }[case]
    [(event, took)] = fire_all([trigger])

    assert event["over"] == "done"
    assert interval * 0.95 <= took < interval + 2


def test_a_newcomer_does_not_wait_for_the_others(sandbox, interval):
    """A task that starts to wait while others sleep for long is looked at when it is due."""
    sids = make(sandbox, 2)
    sandbox.advance(60)
    patient = watch(sids[0], started_at=time.time() - 200)

    async def together():
        first = asyncio.ensure_future(anext(patient.run()))
        await asyncio.sleep(0.1)
        _, took = await timed(watch(sids[1]))
        await first
        return took

    assert asyncio.run(together()) < interval + 1


def test_one_cancelled_trigger_does_not_disturb_the_rest(sandbox):
    """Taking one task's trigger away leaves the shared poll to the others."""
    sids = make(sandbox, 3)

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
    [(event, took)] = fire_all([watch_days()])

    assert event == {"over": "done", "trouble": ""}
    assert took > 0.1
    assert requests_of(sandbox, DAYS_LISTING) > 1


def test_each_task_s_log_has_its_own_lines(sandbox, monkeypatch):
    """Airflow sorts lines by the context of who writes them; the shared reader's are nobody's."""
    sids = make(sandbox, 3)
    task, lines = contextvars.ContextVar("task", default="nobody"), []
    look_up = BulkExportsHook.get_conn

    def get_conn(hook):
        logging.getLogger("airflow_provider_bulkexports.hooks").info("Looked up.")
        return look_up(hook)

    monkeypatch.setattr(BulkExportsHook, "get_conn", get_conn)

    class Sorted(logging.Handler):
        def emit(self, record):
            lines.append((task.get(), record.getMessage()))

    async def run(sid):
        task.set(sid)
        return await timed(watch(sid))

    async def together():
        await asyncio.gather(*map(run, sids))

    logger = logging.getLogger("airflow_provider_bulkexports")
    handler = Sorted(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        asyncio.run(together())
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)

    for sid in sids:
        assert [line for who, line in lines if who == sid][-1] == "1 of 1 day done."
    assert {line for who, line in lines if who == "nobody"} == {"Looked up."}


@pytest.mark.parametrize("trigger", [watch(UNKNOWN, owned=True), watch_days()], ids=["job", "days"])
def test_a_trigger_survives_storage(trigger):
    """A trigger created anew from what was stored is the same one, with no argument left out."""
    path, kwargs = trigger.serialize()

    assert json.loads(json.dumps(kwargs)) == kwargs
    assert rebuilt(trigger).serialize() == (path, kwargs)
    assert set(kwargs) == set(inspect.signature(type(trigger).__init__).parameters) - {"self"}
