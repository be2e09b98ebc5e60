"""What a task does until its job's days are final."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta

import pytest
from in_process import (
    DAY,
    FETCH,
    POST,
    Running,
    TaskDeferred,
    TaskInstance,
    context_of,
    create,
    deferral_of,
    jobs_of,
    requests_of,
    run_task,
    wait_for,
)

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.sandbox.server import Sandbox

UNKNOWN = "JS" + "0" * 32


@pytest.fixture(params=[False, True], ids=["in the worker", "deferred"])
def deferrable(request):
    return request.param


def test_both_ways_of_waiting_give_the_same(sandbox, deferrable):
    """Deferrable or not: the job's SID, at once, and its days by status."""
    ti = TaskInstance()
    sid = run_task(create(deferrable=deferrable), ti)

    assert ti.xcoms["job_sid"] == sid
    assert ti.xcoms["job"] == {
        "job_sid": sid,
        "friendly_name": sandbox.ledger()["jobs"][0]["friendly_name"],
        "resource_type": "Messages",
        "start_day": DAY,
        "end_day": DAY,
        "state": "completed",
        "days": {"Completed": [DAY]},
    }
    assert set(ti.xcoms) == {"job_sid", "job"}


def test_without_waiting_the_sid_comes_at_once(sandbox, deferrable):
    """With wait_for_completion=False the task ends as soon as the job exists."""
    ti = TaskInstance()
    sid = create(wait_for_completion=False, deferrable=deferrable).execute(context_of(ti))

    assert jobs_of(sandbox)[0]["job_sid"] == sid
    assert ti.xcoms["job"]["state"] == "active"
    assert ti.xcoms["job_sid"] == sid
    assert requests_of(sandbox, FETCH) == 0


def test_no_job_xcom_where_xcoms_are_off(sandbox):
    """do_xcom_push=False leaves out all."""
    ti = TaskInstance()
    run_task(create(do_xcom_push=False), ti)

    assert ti.xcoms == {}


def test_a_failed_job_fails_the_task_with_a_table(sandbox, deferrable):
    """One failed day of three: the error lists the days by status, and the XCom has them too."""
    sandbox.add_fault(
        {
            "route": "create_job",
            "kind": "job_outcome",
            "outcome": "Failed",
            "days": ["2026-01-06"],
        }
    )
    ti = TaskInstance()
    with pytest.raises(AirflowException) as caught:
        run_task(create(end_day="2026-01-07", deferrable=deferrable), ti)
    lines = str(caught.value).splitlines()

    assert not isinstance(caught.value, AirflowFailException)
    assert sorted(line.split() for line in lines[1:]) == [
        ["Completed", "2", "2026-01-05,", "2026-01-07"],
        ["Failed", "1", "2026-01-06"],
    ]
    assert ti.xcoms["job"]["state"] == "failed"


def test_an_error_that_twilio_mends_is_waited_out(sandbox, deferrable):
    """ErrorDuringRun and words nobody knows are not final."""
    walk = ["ErrorDuringRun", "Pondering", "Completed"]
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": walk})

    assert run_task(create(deferrable=deferrable)) == jobs_of(sandbox)[0]["job_sid"]


@pytest.mark.parametrize(
    "limit",
    [
        {"timeout": timedelta(seconds=0.4)},
        {"timeout": 0.4},
        {"execution_timeout": timedelta(seconds=0.4)},
        {"timeout": 900, "execution_timeout": timedelta(seconds=0.4)},
    ],
    ids=["timedelta", "seconds", "execution_timeout", "the shorter one"],
)
def test_the_timeout_ends_the_wait(sandbox, deferrable, limit):
    """After the timeout the task fails with how far the job is; the job stays for a retry."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    started = time.monotonic()
    with pytest.raises(AirflowException, match=r"not done within the timeout.*\n") as caught:
        run_task(create(deferrable=deferrable, **limit))

    assert 0.3 < time.monotonic() - started < 3
    assert "It keeps running" in str(caught.value)
    assert len(jobs_of(sandbox)) == 1


def test_the_timeout_deletes_the_job_if_asked_to(sandbox, deferrable):
    """With cancel_on_kill the timeout deletes the job."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    with pytest.raises(AirflowException, match="was deleted"):
        run_task(create(deferrable=deferrable, timeout=0.4, cancel_on_kill=True))

    assert jobs_of(sandbox) == []


def test_the_timeout_deletes_a_job_that_cannot_be_read(sandbox, deferrable, one_try):
    """With cancel_on_kill the timeout deletes the job also where Twilio does not show it."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    for route in ({"route": "list_jobs", "after": 2}, {"route": "fetch_job"}):
        sandbox.add_fault({"kind": "status", "status": 503, "times": -1} | route)
    with pytest.raises(AirflowException, match="was deleted"):
        run_task(create(deferrable=deferrable, timeout=0.4, cancel_on_kill=True))

    assert jobs_of(sandbox) == []


def test_an_outage_while_waiting_is_ridden_out(sandbox, deferrable, one_try):
    """The service fails, drops connections and talks nonsense; the task succeeds all the same."""
    outage = [
        {"kind": "status", "status": 503},
        {"kind": "drop_before"},
        {"kind": "bad_json"},
        {"kind": "status", "status": 429},
    ]
    # The deferred task reads the list, the other fetches the job; creating takes two lists.
    route = {"route": "list_jobs", "after": 2} if deferrable else {"route": "fetch_job"}
    for fault in outage:
        sandbox.add_fault(fault | route)

    assert run_task(create(deferrable=deferrable)) == jobs_of(sandbox)[0]["job_sid"]
    assert requests_of(sandbox, POST) == 1
    if not deferrable:
        assert requests_of(sandbox, FETCH) > len(outage)


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "bad_json"}])
def test_an_outage_on_resuming_is_ridden_out(sandbox, one_try, fault):
    """The trigger fired, but the service fails just then: the task waits on."""
    sandbox.add_fault(fault | {"route": "fetch_job", "times": 2})

    assert run_task(create(deferrable=True)) == jobs_of(sandbox)[0]["job_sid"]


def test_an_outage_on_resuming_does_not_outlast_the_deadline(sandbox, one_try):
    """After the deadline the outage is what the task fails with, and a retry may come."""
    outage = {"kind": "status", "status": 503, "times": -1}
    sandbox.add_fault(outage | {"route": "fetch_job"})
    sandbox.add_fault(outage | {"route": "list_jobs", "after": 2})  # creating takes two
    with pytest.raises(AirflowException, match="HTTP 503") as caught:
        run_task(create(deferrable=True, timeout=0.5))

    assert not isinstance(caught.value, AirflowFailException)


def test_an_outage_before_the_job_submits_nothing(sandbox, one_try):
    """Without a listing there is no knowing whether the job exists, so none is made."""
    sandbox.add_fault({"route": "list_jobs", "kind": "status", "status": 503})
    with pytest.raises(AirflowException, match="HTTP 503") as caught:
        run_task(create())

    assert not isinstance(caught.value, AirflowFailException)
    assert requests_of(sandbox, POST) == 0


def event(sid, over="done", trouble="", owned=True):
    return {"job_sid": sid, "owned": owned, "over": over, "trouble": trouble}


def events(sid):
    return {
        "good": event(sid),
        "none": None,
        "empty": {},
        "text": "done",
        "list": [1],
        "no verdict": {"job_sid": sid, "owned": True},
        "unknown verdict": event(sid, over="paused"),
        "malformed job": event("../Jobs"),
        "unknown job": event(UNKNOWN),
    }


def resumed(task, deferral, ti, what):
    """Resume a task as Airflow does, with what it kept of the deferral."""
    facts = {"event": what, **(deferral.kwargs or {})}
    return task.resume_execution(deferral.method_name, facts, context_of(ti))


@pytest.mark.parametrize("name", list(events("")))
def test_the_event_is_only_a_hint(sandbox, name):
    """Whatever wakes the task, it returns its own job and makes no second one."""
    ti, task = TaskInstance(), create(deferrable=True)
    deferral = deferral_of(task, ti)
    sid = jobs_of(sandbox)[0]["job_sid"]
    sandbox.advance(60)

    assert resumed(task, deferral, ti, events(sid)[name]) == sid
    assert requests_of(sandbox, POST) == 1


@pytest.mark.parametrize("name", ["good", "none", "unknown job"])
def test_an_early_event_waits_on(sandbox, name):
    """Woken before the job is done, the task defers again for the same job."""
    ti, task = TaskInstance(), create(deferrable=True)
    first = deferral_of(task, ti)
    sid = jobs_of(sandbox)[0]["job_sid"]
    with pytest.raises(TaskDeferred) as again:
        task.execute_complete(context_of(ti), events(sid)[name])

    assert again.value.method_name == "execute_complete"
    assert again.value.trigger.job_sid == first.trigger.job_sid == sid
    assert requests_of(sandbox, POST) == 1


def test_waiting_on_keeps_the_deadline(sandbox):
    """A second deferral ends when the first would have, also if Airflow forgets its facts."""
    ti, task = TaskInstance(), create(deferrable=True, timeout=100)
    first = deferral_of(task, ti)
    for what in (first.kwargs, {}):
        with pytest.raises(TaskDeferred) as again:
            task.execute_complete(context_of(ti), event(first.trigger.job_sid), **what)

        assert again.value.trigger.deadline == first.trigger.deadline
    assert first.trigger.deadline == ti.start_date.timestamp() + 100


def test_a_trigger_carries_plain_json_and_no_secret(sandbox):
    """What Airflow stores of the wait are ids, days and times."""
    deferral = deferral_of(create(deferrable=True))
    path, kwargs = deferral.trigger.serialize()

    assert path == "airflow_provider_bulkexports.triggers.BulkExportsJobTrigger"
    assert json.loads(json.dumps(kwargs)) == kwargs
    assert json.loads(json.dumps(deferral.kwargs)) == deferral.kwargs
    assert sandbox.auth_token not in json.dumps(kwargs)
    assert set(kwargs) == {
        "bulkexports_conn_id",
        "resource_type",
        "job_sid",
        "start_day",
        "end_day",
        "started_at",
        "deadline",
        "owned",
        "cancel_on_kill",
    }


def test_a_finished_job_is_not_deferred_for(sandbox):
    """The job is looked at before deferring: a retry of a finished one returns at once."""
    task = create(deferrable=True, retries=1)
    sid = run_task(task, TaskInstance(max_tries=1))

    assert task.execute(context_of(TaskInstance(max_tries=1, try_number=2))) == sid


def delete(sandbox, sid):
    from airflow_provider_bulkexports.api.client import Client

    with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
        client.delete_job(sid)


@pytest.mark.parametrize("fate", ["deleted", "expired"])
def test_a_job_that_is_gone_fails_the_task_without_retry(sandbox, deferrable, fate):
    """A retry would pay for what somebody stopped, so the task fails for good and says why."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    running = Running(create(deferrable=deferrable))
    wait_for(lambda: jobs_of(sandbox))
    time.sleep(0.3)
    if fate == "deleted":
        delete(sandbox, jobs_of(sandbox)[0]["job_sid"])
        sandbox.advance(20)
    else:
        sandbox.add_fault({"route": "*", "kind": "lag", "seconds": 10**9, "times": -1})
    running.join(20)

    assert isinstance(running.error, AirflowFailException)
    assert "deleted there, expired after 7 days, or another account's" in str(running.error)
    assert requests_of(sandbox, POST) == 1


def test_a_job_whose_reads_lag_is_not_gone(sandbox, deferrable):
    """For a moment neither list nor job shows what was created: that is no verdict."""
    sandbox.add_fault({"route": "fetch_job", "kind": "lag", "seconds": 1, "lasting": 0.25})
    sandbox.add_fault({"route": "list_jobs", "kind": "lag", "seconds": 1, "lasting": 0.25})

    assert run_task(create(deferrable=deferrable)) == jobs_of(sandbox)[0]["job_sid"]
    assert requests_of(sandbox, POST) == 1


def test_a_task_whose_job_went_goes_on_with_the_twin(sandbox, deferrable):
    """The middlebox delivered the POST twice; the other worker deleted ours: no failure."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    task = create(deferrable=True)
    deferral = deferral_of(task)
    name, first = sandbox.ledger()["jobs"][0]["friendly_name"], deferral.trigger.job_sid
    twin = create_directly(name)
    delete(sandbox, first)
    sandbox.advance(60)

    assert resumed(task, deferral, TaskInstance(), event(first, over="gone")) == twin
    assert requests_of(sandbox, POST) == 2


def create_directly(name):
    from airflow_provider_bulkexports.hooks import BulkExportsHook

    return (
        BulkExportsHook()
        .create_job(resource_type="Messages", start_day=DAY, end_day=DAY, friendly_name=name)
        .sid
    )


def test_the_end_repairs_what_a_middlebox_did_twice(monkeypatch, deferrable):
    """Delivered again after a while, a POST leaves a second job; none behind the first goes on."""
    with Sandbox(job_seconds=1, empty_every=0) as sandbox:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", sandbox.connection())
        sandbox.add_fault({"route": "create_job", "kind": "twice", "seconds": 0.6})
        sid = run_task(create(deferrable=deferrable))
        jobs = sandbox.jobs(live=True)

        first, *others = sorted(jobs, key=lambda job: job["job_sid"])
        assert sandbox.ledger()["charged_days"] == 2
        assert sid in [job["job_sid"] for job in jobs if job["state"] == "completed"]
        assert all(job["state"] == "completed" for job in others)
        assert first["job_sid"] <= sid


def test_refused_credentials_are_ridden_out(sandbox, deferrable):
    """A token that is refused for a moment while the job is awaited fails no task."""
    sandbox.add_fault(
        {"route": "fetch_job", "kind": "status", "status": 401, "code": 20003, "times": 3}
    )
    assert run_task(create(deferrable=deferrable)) == jobs_of(sandbox)[0]["job_sid"]


def test_credentials_that_stay_refused_fail_the_task_with_one_line(sandbox, deferrable):
    """After a while of nothing else the task fails, with its retries, and the job goes on."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
    refused = {"kind": "status", "status": 401, "code": 20003, "times": -1}
    sandbox.add_fault(refused | {"route": "fetch_job"})
    with pytest.raises(AirflowException) as caught:
        run_task(create(deferrable=deferrable))
    sid = jobs_of(sandbox)[0]["job_sid"]

    assert not isinstance(caught.value, AirflowFailException)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(
        "Connection 'bulkexports_default': Twilio refused its credentials for "
    )
    assert f"Job {sid} goes on; mend the connection, a retry or clear adopts it." in str(
        caught.value
    )
    assert "401" in str(caught.value)
    assert "20003" in str(caught.value)
    sandbox.clear_faults()
    retry = create(wait_for_completion=False)
    assert run_task(retry, TaskInstance(try_number=2)) == sid


def test_progress_is_a_line_a_change(sandbox, deferrable, caplog, capsys):
    """The log says how many days are done, what else they do, and what Twilio expects."""
    caplog.set_level("INFO")
    run_task(create(start_day="2026-01-01", end_day="2026-01-30", deferrable=deferrable))
    # Airflow 3 writes an operator's own lines to the standard output.
    text = caplog.text + capsys.readouterr().out
    lines = re.findall(r"\d+ of 30 days done, [^.]*; Twilio expects \d\d:\d\d UTC\.", text)

    assert lines
    assert "30 of 30 days done." in text
