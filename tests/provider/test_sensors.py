"""The two sensors, in a worker and deferred."""

from __future__ import annotations

import pytest
from in_process import (
    DAY,
    TaskDeferred,
    TaskInstance,
    context_of,
    create,
    fire,
    jobs_of,
    rebuilt,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports.compat import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow_provider_bulkexports.operators import BulkExportsDeleteJobOperator
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

UNKNOWN = "JS" + "0" * 32


@pytest.fixture(params=[False, True], ids=["poking", "deferred"])
def deferrable(request):
    return request.param


def make(sandbox, outcome=None, **options):
    if outcome:
        sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": outcome})
    return run_task(create(wait_for_completion=False, **options))


def job_sensor(sid, **options):
    defaults = {"task_id": "wait", "job_sid": sid, "poke_interval": 0.1, "timeout": 5}
    return BulkExportsJobSensor(**defaults | options)


def days_sensor(start=DAY, end=DAY, **options):
    defaults = {
        "task_id": "wait",
        "resource_type": "Messages",
        "start_day": start,
        "end_day": end,
        "poke_interval": 0.1,
        "timeout": 5,
    }
    return BulkExportsDaysSensor(**defaults | options)


def test_a_job_is_waited_for(sandbox, deferrable):
    """The sensor ends when every day of the job is final."""
    run_task(job_sensor(make(sandbox), deferrable=deferrable))

    assert jobs_of(sandbox)[0]["state"] == "completed"


def test_days_are_waited_for(sandbox, deferrable):
    """The sensor ends when the last day of the range is available."""
    make(sandbox, end_day="2026-01-07")
    run_task(days_sensor(end="2026-01-07", deferrable=deferrable))

    assert jobs_of(sandbox)[0]["state"] == "completed"


def test_days_of_several_jobs_count_together(sandbox, deferrable):
    """It does not matter which job exported a day."""
    make(sandbox)
    make(sandbox, start_day="2026-01-06", end_day="2026-01-06")
    run_task(days_sensor(end="2026-01-06", deferrable=deferrable))


def test_an_empty_day_without_a_file_counts(sandbox, deferrable):
    """A day with no records may have no file at all; it is there all the same."""
    sandbox.add_fault({"route": "create_job", "kind": "empty_day", "how": "absent"})
    make(sandbox)

    run_task(days_sensor(deferrable=deferrable))


def test_what_is_done_is_not_deferred_for(sandbox):
    """A deferrable sensor looks first."""
    sid = make(sandbox)
    sandbox.advance(60)

    for sensor in (job_sensor(sid, deferrable=True), days_sensor(deferrable=True)):
        assert sensor.execute(context_of(TaskInstance())) is None


def test_a_failed_job_fails_the_sensor(sandbox, deferrable):
    """The error has the days by status, and no retry of the sensor can change it."""
    sid = make(sandbox, "Failed")
    with pytest.raises(AirflowFailException, match=r"(?s)failed: not every day.*Failed +1"):
        run_task(job_sensor(sid, deferrable=deferrable))


@pytest.mark.parametrize("finished", [False, True], ids=["later", "already"])
def test_a_failed_job_skips_a_soft_sensor(sandbox, deferrable, finished):
    """With soft_fail a failed job means skipped, whenever it is found out."""
    sid = make(sandbox, "Failed")
    if finished:
        sandbox.advance(60)
    with pytest.raises(AirflowSkipException):
        run_task(job_sensor(sid, deferrable=deferrable, soft_fail=True))


def test_the_timeout_fails_the_sensor(sandbox, deferrable):
    """After its timeout a sensor fails with Airflow's own error, which is not retried."""
    sid = make(sandbox, "Running")
    with pytest.raises(AirflowSensorTimeout):
        run_task(job_sensor(sid, deferrable=deferrable, timeout=0.5))
    with pytest.raises(AirflowSensorTimeout):
        run_task(days_sensor(deferrable=deferrable, timeout=0.5))


def test_the_timeout_skips_a_soft_sensor(sandbox, deferrable):
    """With soft_fail the timeout means skipped."""
    with pytest.raises(AirflowSkipException):
        run_task(days_sensor(deferrable=deferrable, timeout=0.5, soft_fail=True))


@pytest.mark.parametrize("how", ["status", "drop_before", "bad_json"])
def test_an_outage_is_ridden_out(sandbox, deferrable, one_try, how):
    """A failed look is no answer."""
    sid = make(sandbox)
    fault = {"route": "*", "kind": how, "times": 4}
    sandbox.add_fault(fault | ({"status": 503} if how == "status" else {}))

    run_task(job_sensor(sid, deferrable=deferrable))
    run_task(days_sensor(deferrable=deferrable))


def test_an_unknown_job_fails_after_a_second_look(sandbox, deferrable):
    """Neither it nor any list knows the job, twice: the error says why it may be gone."""
    with pytest.raises(AirflowFailException, match="expired after 7 days, or another account's"):
        run_task(job_sensor(UNKNOWN, deferrable=deferrable))

    assert sandbox.requests("fetch_job") >= 2
    assert sandbox.requests("list_jobs") >= 2 * 4


def test_a_job_whose_reads_lag_is_waited_for(sandbox, deferrable):
    """A 404 for a moment, as for a job that was created just now, is no verdict."""
    sid = make(sandbox)
    sandbox.add_fault({"route": "*", "kind": "lag", "seconds": 5, "lasting": 0.2})

    run_task(job_sensor(sid, deferrable=deferrable))


def test_a_job_that_is_gone_in_every_poke_is_noticed_in_one(sandbox):
    """With mode="reschedule" each poke is another process, so that one poke looks twice."""
    sensor = job_sensor(UNKNOWN, mode="reschedule")
    with pytest.raises(AirflowFailException, match="Twilio no longer knows"):
        sensor.poke(context_of(TaskInstance()))


def test_refused_credentials_are_ridden_out(sandbox, deferrable):
    """A token that is being rotated fails no sensor."""
    sid = make(sandbox)
    sandbox.add_fault({"route": "*", "kind": "status", "status": 401, "lasting": 0.3})

    run_task(job_sensor(sid, deferrable=deferrable))


def test_credentials_that_stay_refused_fail_the_sensor(sandbox, deferrable):
    """After a while of nothing else it fails with one line, and its retries apply."""
    sid = make(sandbox, "Running")
    sandbox.add_fault({"route": "*", "kind": "status", "status": 401, "times": -1})
    with pytest.raises(AirflowException, match="refused its credentials for") as caught:
        run_task(job_sensor(sid, deferrable=deferrable, timeout=60))

    assert not isinstance(caught.value, AirflowFailException)
    assert "\n" not in str(caught.value)


BAD = {
    "short SID": (job_sensor, {"sid": "JS1"}, "32 hexadecimal"),
    "path as SID": (job_sensor, {"sid": "../Jobs"}, "32 hexadecimal"),
    "reversed": (days_sensor, {"end": "2026-01-04"}, "Swap them"),
    "no day": (days_sensor, {"start": "yesterday"}, "start_day"),
    "no type": (days_sensor, {"resource_type": "Faxes"}, "Messages, Calls"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_argument_is_refused_before_any_request(sandbox, name):
    """Sensors check before they ask."""
    sensor, options, message = BAD[name]
    with pytest.raises(AirflowFailException, match=message):
        run_task(sensor(**options))

    assert sandbox.ledger()["requests"] == {}


@pytest.mark.parametrize("event", [None, {}, "junk", {"over": "soon"}], ids=repr)
def test_the_event_is_only_a_hint(sandbox, event):
    """Whatever wakes a sensor, it looks again, and waits on if it must."""
    sid = make(sandbox)
    sensor = job_sensor(sid, deferrable=True)
    with pytest.raises(TaskDeferred) as waiting:
        sensor.resume_execution("execute_complete", {"event": event}, context_of(TaskInstance()))
    assert fire(rebuilt(waiting.value.trigger))["job_sid"] == sid
    sensor.resume_execution("execute_complete", {"event": event}, context_of(TaskInstance()))


def test_a_job_is_deleted_by_its_operator(sandbox):
    """An unfinished job is deleted; a second deletion finds nothing and is no error."""
    sid = make(sandbox, "Running")
    for _ in range(2):
        BulkExportsDeleteJobOperator(task_id="delete", job_sid=sid).execute({})

    assert jobs_of(sandbox) == []
    assert requests_of(sandbox, "delete_job") == 2


def test_deleting_a_malformed_sid_asks_nobody(sandbox):
    """The delete operator checks the SID first."""
    with pytest.raises(AirflowFailException, match="32 hexadecimal"):
        BulkExportsDeleteJobOperator(task_id="delete", job_sid="JS/..").execute({})

    assert sandbox.ledger()["requests"] == {}
