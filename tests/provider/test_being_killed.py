"""What becomes of the job when somebody ends the task."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest
from in_process import (
    DELETE,
    POST,
    Running,
    TaskInstance,
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
from airflow_provider_bulkexports.compat import TRIGGER_HAS_ON_KILL, AirflowException


@pytest.fixture(autouse=True)
def _endless_job(sandbox):
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})


@pytest.mark.parametrize("cancel", [False, True], ids=["by default", "with cancel_on_kill"])
def test_killed_while_polling(sandbox, cancel):
    """The task stops within a second; the job stays unless cancel_on_kill says otherwise."""
    ti, task = TaskInstance(), create(cancel_on_kill=cancel)
    running = Running(task, ti)
    wait_for(lambda: requests_of(sandbox, "GET /v1/Exports/Jobs/{JobSid}") > 0)
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

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(Terminated if raises else AirflowException):
            task.execute(context_of(TaskInstance()))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert len(sandbox.ledger()["jobs"]) == 1
    assert jobs_of(sandbox) == []


def test_a_killed_task_that_cannot_push_still_deletes(sandbox):
    """Airflow may refuse XComs of an ended task; the job is deleted before they are sent."""

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
    from airflow_provider_bulkexports.api import submit

    monkeypatch.setitem(submit.submit_once.__kwdefaults__, "settle", 5)
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
    """The task is ended just when it has been woken: the job it waited for is deleted."""
    task = create(deferrable=True, cancel_on_kill=True)
    trigger = deferral_of(task).trigger
    woken = create(deferrable=True, cancel_on_kill=True)
    sandbox.add_fault({"route": "fetch_job", "kind": "delay", "seconds": 0.5})
    before = signal.signal(signal.SIGALRM, lambda *_: woken.on_kill())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(BaseException):  # noqa: B017, PT011 - it may be a deferral
            woken.execute_complete(
                context_of(TaskInstance()),
                {"job_sid": trigger.job_sid, "deadline": trigger.deadline},
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
    wait_for(lambda: requests_of(sandbox, "GET /v1/Exports/Jobs/{JobSid}") > 0)
    task.on_kill()
    running.join()

    assert isinstance(running.error, AirflowException)
    assert len(jobs_of(sandbox)) == 1


@pytest.fixture(params=["deferred", "failed", None], ids=["deferred", "failed", "cleared"])
def state(request, monkeypatch):
    """Give the state of a deferred task when its trigger is taken away."""
    monkeypatch.setattr(triggers, "task_instance_state", lambda _: request.param)
    return request.param


@pytest.mark.parametrize("cancel", [False, True], ids=["by default", "with cancel_on_kill"])
def test_a_deferred_task_is_ended(sandbox, state, cancel):
    """A trigger that moves deletes nothing; one whose task was ended deletes if asked to."""
    trigger = rebuilt(deferral_of(create(deferrable=True, cancel_on_kill=cancel)).trigger)
    trigger.task_instance = TaskInstance()
    asyncio.run(trigger.on_kill())

    assert len(jobs_of(sandbox)) == (0 if cancel and state != "deferred" else 1)


def test_a_cancelled_trigger(sandbox, state):
    """Before Airflow 3.3 being cancelled is all a trigger learns; from 3.3 on there is on_kill."""
    trigger = rebuilt(deferral_of(create(deferrable=True, cancel_on_kill=True)).trigger)
    trigger.task_instance = TaskInstance()

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
    assert deferral.trigger.cancel_on_kill is False
    event = {"job_sid": owner.trigger.job_sid, "deadline": deferral.trigger.deadline}
    with pytest.raises(TaskDeferred):
        guest.execute_complete(context_of(ti), event)
    guest.on_kill()
    with pytest.raises(AirflowException, match="It goes on"):
        create(reattach="range", cancel_on_kill=True, timeout=0).execute(context_of(ti))
    assert requests_of(sandbox, DELETE) == 0


def test_killed_while_looking_posts_nothing(sandbox):
    """A task that is ended during the look before its POST creates no job."""
    sandbox.add_fault({"route": "list_jobs", "kind": "delay_after", "seconds": 0.6})
    task = create()
    running = Running(task)
    wait_for(lambda: sandbox.ledger()["requests"])
    task.on_kill()
    assert running.join() < 2

    assert isinstance(running.error, AirflowException)
    assert requests_of(sandbox, POST) == 0


def test_a_second_cancel_does_not_break_off_the_deletion(sandbox, monkeypatch):
    """Airflow cancels an ended task's trigger again while it deletes; the job goes all the same."""

    def slowly(_):
        time.sleep(0.3)
        return "failed"

    monkeypatch.setattr(triggers, "task_instance_state", slowly)
    trigger = rebuilt(deferral_of(create(deferrable=True, cancel_on_kill=True)).trigger)

    async def cancelled_twice():
        killing = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0.1)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        await asyncio.sleep(1)

    asyncio.run(cancelled_twice())
    assert requests_of(sandbox, DELETE) == 1
