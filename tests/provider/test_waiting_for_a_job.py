"""What a task does until its job's days are final."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import pytest
from in_process import (
    DAY,
    DELETE,
    FETCH,
    LINK,
    POST,
    TaskInstance,
    context_of,
    create,
    deferral_of,
    fire,
    jobs_of,
    rebuilt,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException

UNKNOWN = "JS" + "0" * 32


@pytest.fixture(params=[False, True], ids=["in the worker", "deferred"])
def deferrable(request):
    return request.param


def test_both_ways_of_waiting_give_the_same(sandbox, deferrable):
    """Deferrable or not: the job's SID, its days by status, and the link."""
    ti = TaskInstance()
    sid = run_task(create(deferrable=deferrable), ti)

    assert ti.xcoms[LINK] == f"{sandbox.url}/v1/Exports/Jobs/{sid}"
    assert ti.xcoms["job"] == {
        "job_sid": sid,
        "friendly_name": sandbox.ledger()["jobs"][0]["friendly_name"],
        "resource_type": "Messages",
        "start_day": DAY,
        "end_day": DAY,
        "state": "completed",
        "days": {"Completed": [DAY]},
    }
    assert set(ti.xcoms) == {LINK, "job"}


def test_without_waiting_the_sid_comes_at_once(sandbox, deferrable):
    """With wait_for_completion=False the task ends as soon as the job exists."""
    ti = TaskInstance()
    sid = create(wait_for_completion=False, deferrable=deferrable).execute(context_of(ti))

    assert jobs_of(sandbox)[0]["job_sid"] == sid
    assert ti.xcoms["job"]["state"] == "active"
    assert LINK in ti.xcoms
    assert requests_of(sandbox, FETCH) == 0


def test_no_job_xcom_where_xcoms_are_off(sandbox):
    """do_xcom_push=False leaves out all but the link."""
    ti = TaskInstance()
    run_task(create(do_xcom_push=False), ti)

    assert set(ti.xcoms) == {LINK}


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
    with pytest.raises(AirflowException, match=r"not done within its timeout.*\n") as caught:
        run_task(create(deferrable=deferrable, **limit))

    assert 0.3 < time.monotonic() - started < 3
    assert "a retry adopts it" in str(caught.value)
    assert len(jobs_of(sandbox)) == 1


def test_the_timeout_deletes_the_job_if_asked_to(sandbox, deferrable):
    """With cancel_on_kill the timeout deletes the job."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
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
    sandbox.add_fault({"route": "fetch_job", "kind": "status", "status": 503, "times": -1})
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


def events(sid):
    later = time.time() + 60
    return {
        "good": {"job_sid": sid, "deadline": later},
        "none": None,
        "empty": {},
        "text": "done",
        "list": [1],
        "no deadline": {"job_sid": sid},
        "unreadable deadline": {"job_sid": sid, "deadline": "soon"},
        "malformed job": {"job_sid": "../Jobs", "deadline": later},
        "unknown job": {"job_sid": UNKNOWN, "deadline": later},
    }


@pytest.mark.parametrize("name", list(events("")))
def test_the_event_is_only_a_hint(sandbox, name):
    """Whatever wakes the task, it returns its own job and makes no second one."""
    ti, task = TaskInstance(), create(deferrable=True)
    deferral_of(task, ti)
    sid = jobs_of(sandbox)[0]["job_sid"]
    sandbox.advance(60)
    result = task.resume_execution("execute_complete", {"event": events(sid)[name]}, context_of(ti))

    assert result == sid
    assert requests_of(sandbox, POST) == 1


@pytest.mark.parametrize("name", ["good", "none", "unknown job"])
def test_an_early_event_waits_on(sandbox, name):
    """Woken before the job is done, the task defers again for the same job."""
    from in_process import TaskDeferred

    ti, task = TaskInstance(), create(deferrable=True)
    first = deferral_of(task, ti)
    sid = jobs_of(sandbox)[0]["job_sid"]
    with pytest.raises(TaskDeferred) as again:
        task.execute_complete(context_of(ti), events(sid)[name])

    assert again.value.method_name == "execute_complete"
    assert again.value.trigger.job_sid == first.trigger.job_sid == sid
    assert requests_of(sandbox, POST) == 1


def test_waiting_on_keeps_the_deadline(sandbox):
    """A second deferral ends when the first would have."""
    from in_process import TaskDeferred

    ti, task = TaskInstance(), create(deferrable=True, timeout=100)
    first = deferral_of(task, ti)
    event = {"job_sid": first.trigger.job_sid, "deadline": first.trigger.deadline}
    with pytest.raises(TaskDeferred) as again:
        task.execute_complete(context_of(ti), event)

    assert again.value.trigger.deadline == first.trigger.deadline
    assert abs(first.trigger.deadline - time.time() - 100) < 5


def test_a_trigger_carries_plain_json_and_no_secret(sandbox):
    """What Airflow stores of the wait are ids, days and times."""
    trigger = deferral_of(create(deferrable=True)).trigger
    path, kwargs = trigger.serialize()

    assert path == "airflow_provider_bulkexports.triggers.BulkExportsJobTrigger"
    assert json.loads(json.dumps(kwargs)) == kwargs
    assert sandbox.auth_token not in json.dumps(kwargs)
    assert set(kwargs) == {
        "bulkexports_conn_id",
        "resource_type",
        "job_sid",
        "start_day",
        "end_day",
        "started_at",
        "deadline",
        "cancel_on_kill",
    }


def test_a_finished_job_is_not_deferred_for(sandbox):
    """The job is looked at before deferring: a retry of a finished one returns at once."""
    task = create(deferrable=True, retries=1)
    sid = run_task(task, TaskInstance(max_tries=1))

    assert task.execute(context_of(TaskInstance(max_tries=1, try_number=2))) == sid


def test_a_job_deleted_by_somebody_fails_the_task(sandbox):
    """A deleted job is not a success; the table says what became of its days."""
    from airflow_provider_bulkexports.api.client import Client

    ti, task = TaskInstance(), create(deferrable=True)
    deferral = deferral_of(task, ti)
    with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
        client.delete_job(deferral.trigger.job_sid)
    sandbox.advance(10)
    event = fire(rebuilt(deferral.trigger))
    with pytest.raises(AirflowException, match="DeletedByUserRequest"):
        task.execute_complete(context_of(ti), event)

    assert requests_of(sandbox, DELETE) == 1


def test_a_job_that_is_gone_is_not_made_anew(sandbox):
    """A job that Twilio no longer knows fails the task, and says why; no days are charged again."""
    from airflow_provider_bulkexports.compat import AirflowFailException

    ti, task = TaskInstance(), create(deferrable=True)
    deferral_of(task, ti)
    sandbox.advance(9 * 24 * 3600)
    with pytest.raises(AirflowFailException, match="7 days"):
        task.execute_complete(context_of(ti), events(UNKNOWN)["unknown job"])
    assert requests_of(sandbox, POST) == 1
