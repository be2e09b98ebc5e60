"""What becomes of the job when somebody ends the task."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from in_process import (
    CONNECTION,
    DAY,
    DELETE,
    POST,
    Running,
    TaskInstance,
    change_pace,
    context_of,
    create,
    deferral_of,
    jobs_of,
    rebuilt,
    requests_of,
    run_task,
    wait_for,
)

from airflow_provider_bulkexports import triggers
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.compat import TRIGGER_HAS_ON_KILL, AirflowException
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger


@pytest.fixture(autouse=True)
def _endless_job(sandbox):
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})


@pytest.mark.parametrize("cancel", [False, True], ids=["by default", "with cancel_on_kill"])
def test_killed_while_polling(sandbox, cancel):
    """The task stops within a second; the job stays unless cancel_on_kill says otherwise."""
    ti, task = TaskInstance(), create(cancel_on_kill=cancel)
    running = Running(task, ti)
    wait_for(lambda: requests_of(sandbox, "fetch_job") > 0)
    started = time.monotonic()
    task.on_kill()
    assert time.monotonic() - started < 1
    assert running.join() < 1

    assert isinstance(running.error, AirflowException)
    assert len(jobs_of(sandbox)) == (0 if cancel else 1)
    assert bool(requests_of(sandbox, DELETE)) is cancel


@pytest.mark.parametrize("cancel", [False, True], ids=["by default", "with cancel_on_kill"])
def test_killed_while_the_post_is_in_flight(sandbox, cancel):
    """The job exists but its answer is on the way; it is deleted as soon as it is known."""
    sandbox.add_fault({"route": "create_job", "kind": "delay_after", "seconds": 0.6})
    task = create(cancel_on_kill=cancel)
    running = Running(task)
    wait_for(lambda: sandbox.ledger()["jobs"])
    task.on_kill()
    assert running.join() < 2

    assert isinstance(running.error, AirflowException)
    assert requests_of(sandbox, POST) == 1
    assert len(jobs_of(sandbox)) == (0 if cancel else 1)


class Terminated(BaseException):
    """What Airflow 2.11 raises in the task when it is told to end."""


@pytest.mark.parametrize("raises", [False, True], ids=["as on 3.x", "as on 2.11"])
def test_a_signal_while_the_post_is_in_flight(sandbox, raises):
    """The signal's handler runs amid the POST, and goes on or raises; the job is deleted."""
    sandbox.add_fault({"route": "create_job", "kind": "delay_after", "seconds": 0.8})
    task = create(cancel_on_kill=True)

    def handle(*_):
        task.on_kill()
        if raises:
            raise Terminated

    def strike():
        wait_for(lambda: sandbox.ledger()["jobs"])
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handle)
    striking = threading.Thread(target=strike)
    try:
        striking.start()
        with pytest.raises(Terminated if raises else AirflowException):
            task.execute(context_of(TaskInstance()))
    finally:
        striking.join()
        signal.signal(signal.SIGALRM, before)

    assert len(sandbox.ledger()["jobs"]) == 1
    assert jobs_of(sandbox) == []


def test_a_killed_task_that_cannot_push_still_deletes(sandbox):
    """Airflow may refuse XComs of a stopped task; the job is deleted before they are sent."""

    class Ended(TaskInstance):
        def xcom_push(self, key, value):
            raise RuntimeError("the task has been ended")

    sandbox.add_fault({"route": "create_job", "kind": "delay_after", "seconds": 0.5})
    task = create(cancel_on_kill=True)
    running = Running(task, Ended())
    wait_for(lambda: sandbox.ledger()["jobs"])
    task.on_kill()
    running.join()

    assert jobs_of(sandbox) == []


@pytest.mark.parametrize("cancel", [False, True])
def test_killed_between_two_looks(sandbox, monkeypatch, cancel):
    """Killed while it waits to look again after a lost answer, the task leaves no job behind."""
    change_pace(monkeypatch, looks=(5.0,))
    sandbox.add_fault({"route": "create_job", "kind": "drop_after"})
    task = create(cancel_on_kill=cancel)
    running = Running(task)
    wait_for(lambda: sandbox.ledger()["jobs"])
    time.sleep(0.1)
    task.on_kill()
    assert running.join() < 3

    assert len(jobs_of(sandbox)) == (0 if cancel else 1)


def test_killed_while_waiting_for_a_day(sandbox):
    """A worker that waits for a day to become exportable stops within a second."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    task = create(start_day=yesterday, end_day=yesterday, wait_until_exportable=True)
    running = Running(task)
    time.sleep(0.2)
    task.on_kill()
    assert running.join() < 1

    assert isinstance(running.error, AirflowException)
    assert sandbox.ledger()["jobs"] == []


def test_killed_on_resuming(sandbox):
    """The task is stopped just when it has been woken: the job it waited for is deleted."""
    task = create(deferrable=True, cancel_on_kill=True)
    trigger = deferral_of(task).trigger
    woken = create(deferrable=True, cancel_on_kill=True)
    sandbox.add_fault({"route": "list_jobs", "kind": "delay", "seconds": 0.5})
    before = signal.signal(signal.SIGALRM, lambda *_: woken.on_kill())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(BaseException):  # noqa: B017, PT011 - it may be a deferral
            woken.execute_complete(
                context_of(TaskInstance()),
                {"job_sid": trigger.job_sid, "owned": True, "over": "late", "trouble": ""},
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert jobs_of(sandbox) == []


def test_on_kill_before_the_start_does_nothing(sandbox):
    """A task that has not begun has nothing to delete."""
    create(cancel_on_kill=True).on_kill()

    assert sandbox.ledger()["requests"] == {}


def test_a_job_that_cannot_be_deleted_is_only_a_warning(sandbox):
    """The service refuses to delete: the task ends all the same."""
    sandbox.add_fault({"route": "delete_job", "kind": "status", "status": 500, "times": -1})
    task = create(cancel_on_kill=True)
    running = Running(task)
    wait_for(lambda: requests_of(sandbox, "fetch_job") > 0)
    task.on_kill()
    running.join()

    assert isinstance(running.error, AirflowException)
    assert len(jobs_of(sandbox)) == 1


FINAL = ["failed", "success", "skipped", "upstream_failed", "removed"]


def waiting_trigger(**options):
    """Return a trigger that waits for a new job, as a triggerer has it."""
    request = ExportRequest.parse(
        resource_type="Messages", start_day=DAY, end_day=DAY, friendly_name="waited_for"
    )
    with BulkExportsHook().get_conn() as client:
        sid = client.create_job(request).sid
    now = time.time()
    arguments = {
        "bulkexports_conn_id": CONNECTION,
        "resource_type": "Messages",
        "job_sid": sid,
        "start_day": DAY,
        "end_day": DAY,
        "started_at": now,
        "deadline": now + 60,
        "owned": True,
        "cancel_on_kill": True,
    }
    trigger = rebuilt(BulkExportsJobTrigger(**arguments | options))
    trigger.task_instance = TaskInstance()
    return trigger


def in_state(monkeypatch, state):
    monkeypatch.setattr(triggers, "task_instance_state", lambda _: state)


@pytest.mark.parametrize("state", [*FINAL, "deferred", "scheduled", "queued", "running", None])
def test_a_trigger_deletes_the_job_of_a_task_that_is_over(sandbox, monkeypatch, state):
    """A task that moves to another triggerer waits on, a cleared one adopts its job."""
    in_state(monkeypatch, state)
    asyncio.run(waiting_trigger().on_kill())

    assert len(jobs_of(sandbox)) == (0 if state in FINAL else 1)


@pytest.mark.parametrize("options", [{"owned": False}, {"cancel_on_kill": False}])
def test_a_trigger_deletes_only_its_own_job_and_if_asked_to(sandbox, monkeypatch, options):
    """A job that another run created is not this task's to delete."""
    in_state(monkeypatch, "failed")
    asyncio.run(waiting_trigger(**options).on_kill())

    assert requests_of(sandbox, DELETE) == 0


def test_a_trigger_that_cannot_learn_the_state_leaves_the_job(sandbox, monkeypatch, caplog):
    """What Airflow does not say is no leave to delete."""

    def state(_):
        raise RuntimeError("the API server is down")

    monkeypatch.setattr(triggers, "task_instance_state", state)
    trigger = waiting_trigger()
    with told_in(caplog):
        asyncio.run(trigger.on_kill())

    assert requests_of(sandbox, DELETE) == 0
    assert f"job {trigger.job_sid} stays: RuntimeError: the API server is down" in caplog.text


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (None, "Deleted job {}."),
        ({"status": 404}, "Twilio no longer knows job {}."),
        ({"status": 500}, "Could not delete job {}, which goes on: Retryable"),
    ],
    ids=["deleted", "unknown", "refused"],
)
def test_a_trigger_says_what_became_of_the_job(sandbox, monkeypatch, caplog, fault, line):
    """The last line of the task's log is true."""
    in_state(monkeypatch, "failed")
    trigger = waiting_trigger()
    if fault:
        sandbox.add_fault({"route": "delete_job", "kind": "status", "times": -1, **fault})
    with told_in(caplog):
        asyncio.run(trigger.on_kill())

    assert line.format(trigger.job_sid) in caplog.messages[-1]


@contextmanager
def told_in(caplog):
    """Catch what the package logs, whatever Airflow has set its loggers to."""
    logger = logging.getLogger("airflow_provider_bulkexports")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger.name):
            yield
    finally:
        logger.removeHandler(caplog.handler)


def test_a_trigger_deletes_in_time_while_other_connections_hang(sandbox, monkeypatch):
    """A person who stops a task does not pay for a host that is silent."""
    in_state(monkeypatch, "failed")
    killed = waiting_trigger()
    fault = {"kind": "hang", "route": "*", "times": -1}
    with Sandbox(faults=[fault]) as silent:
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", silent.connection())

        async def kill():
            stuck = [
                asyncio.ensure_future(
                    anext(waiting_trigger(bulkexports_conn_id="silent", resource_type=kind).run())
                )
                for kind in ResourceType
            ]
            await asyncio.sleep(0.5)
            started = time.monotonic()
            await killed.on_kill()
            took = time.monotonic() - started
            for one in stuck:
                one.cancel()
            return took

        took = asyncio.run(kill())

    assert took < 1
    assert killed.job_sid not in {job["job_sid"] for job in jobs_of(sandbox)}


@pytest.mark.parametrize("state", ["failed", "deferred"])
def test_a_cancelled_trigger(sandbox, monkeypatch, state):
    """Before Airflow 3.3 being cancelled is all a trigger learns; from 3.3 on there is on_kill."""
    in_state(monkeypatch, state)
    trigger = waiting_trigger()

    async def cancel_soon():
        waiting = asyncio.ensure_future(anext(trigger.run()))
        await asyncio.sleep(0.3)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel_soon())

    assert len(jobs_of(sandbox)) == (1 if TRIGGER_HAS_ON_KILL or state == "deferred" else 0)


def test_a_retry_after_a_kill_adopts_the_job_that_stayed(sandbox):
    """By default the killed task's job is not lost: the next try takes it over."""
    task = create(retries=1)
    running = Running(task, TaskInstance(max_tries=1))
    wait_for(lambda: sandbox.ledger()["jobs"])
    task.on_kill()
    running.join()
    retry = create(retries=1, wait_for_completion=False)
    sid = run_task(retry, TaskInstance(max_tries=1, try_number=2))

    assert [job["job_sid"] for job in sandbox.ledger()["jobs"]] == [sid]


def test_another_run_s_job_is_never_deleted(sandbox):
    """A task that adopted a job by its range leaves it to the run that made it."""
    from in_process import TaskDeferred

    owner = deferral_of(create(deferrable=True), TaskInstance(run_id="owner"))
    guest = create(reattach="range", cancel_on_kill=True, deferrable=True, timeout=100)
    ti = TaskInstance(run_id="guest")
    deferral = deferral_of(guest, ti)

    assert deferral.trigger.job_sid == owner.trigger.job_sid
    assert deferral.trigger.owned is False
    event = {"job_sid": owner.trigger.job_sid, "owned": False, "over": "late", "trouble": ""}
    with pytest.raises(TaskDeferred):
        guest.execute_complete(context_of(ti), event)
    guest.on_kill()
    with pytest.raises(AirflowException, match="It keeps running"):
        create(reattach="range", cancel_on_kill=True, timeout=0).execute(context_of(ti))
    assert requests_of(sandbox, DELETE) == 0


def test_killed_while_looking_posts_nothing(sandbox):
    """A task that is stopped during the look before its POST creates no job."""
    sandbox.add_fault({"route": "list_jobs", "kind": "delay_after", "seconds": 0.6})
    task = create()
    running = Running(task)
    wait_for(lambda: sandbox.ledger()["requests"])
    task.on_kill()
    assert running.join() < 2

    assert isinstance(running.error, AirflowException)
    assert requests_of(sandbox, POST) == 0


def test_a_second_cancel_does_not_break_off_the_deletion(sandbox, monkeypatch):
    """Airflow cancels a stopped task's trigger again while it deletes: the job goes nonetheless."""

    def slowly(_):
        time.sleep(0.3)
        return "failed"

    monkeypatch.setattr(triggers, "task_instance_state", slowly)
    trigger = waiting_trigger()

    async def cancelled_twice():
        killing = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0.1)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        await asyncio.sleep(1)

    asyncio.run(cancelled_twice())
    assert requests_of(sandbox, DELETE) == 1
