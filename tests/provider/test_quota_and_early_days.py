"""A used-up quota and a day that is not over yet: fail with the instant, or wait for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from in_process import (
    POST,
    TaskDeferred,
    TaskInstance,
    connection,
    context_of,
    create,
    deferral_of,
    jobs_of,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports.api import request
from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.sandbox.server import Sandbox


def midnights():
    """Return the next UTC midnights, as of now and as of a minute ago."""
    now = datetime.now(UTC)
    return {
        datetime(day.year, day.month, day.day, tzinfo=UTC)
        for moment in (now, now - timedelta(minutes=1))
        for day in [moment.date() + timedelta(days=1)]
    }


@pytest.fixture
def spent(monkeypatch):
    """Run a sandbox whose quota of one day is spent."""
    with Sandbox(job_seconds=0.2, quota_days=1, empty_every=0) as running:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(running))
        run_task(create(wait_for_completion=False), TaskInstance(map_index=0))
        yield running


def test_a_spent_quota_fails_with_the_next_midnight(spent):
    """No retry can help today: the task fails at once and says when the count starts anew."""
    with pytest.raises(AirflowFailException) as caught:
        run_task(create())

    assert any(f"{moment:%Y-%m-%dT%H:%M:%SZ}" in str(caught.value) for moment in midnights())
    assert requests_of(spent, POST) == 2
    assert len(jobs_of(spent)) == 1


def test_waiting_for_the_quota(spent):
    """With wait_for_quota the task sleeps in the triggerer past midnight, then submits once."""
    ti, task = TaskInstance(), create(deferrable=True, wait_for_quota=True)
    waiting = deferral_of(task, ti)
    moment = waiting.trigger.moment

    assert type(waiting.trigger).__name__ == "DateTimeTrigger"
    assert any(0 <= (moment - midnight).total_seconds() <= 61 for midnight in midnights())
    assert waiting.method_name == "resume"

    spent.advance(moment.timestamp() - time.time())
    with pytest.raises(TaskDeferred) as again:
        task.resume_execution("resume", {"event": f"{moment}"}, context_of(ti))
    made = spent.ledger()["jobs"][1:]

    assert [job["job_sid"] for job in made] == [again.value.trigger.job_sid]
    assert again.value.method_name == "execute_complete"
    assert requests_of(spent, POST) == 3


def test_woken_too_early_the_task_waits_again(spent):
    """Another task took the new day's quota first: wait for the next midnight."""
    ti, task = TaskInstance(), create(deferrable=True, wait_for_quota=True)
    deferral_of(task, ti)
    with pytest.raises(TaskDeferred) as again:
        task.resume_execution("resume", {"event": None}, context_of(ti))

    assert type(again.value.trigger).__name__ == "DateTimeTrigger"
    assert len(jobs_of(spent)) == 1


@pytest.fixture
def yesterday():
    """Give the newest day that is over but not exportable, and when it will be."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=2)
    return day, moment


def test_an_early_day_is_refused_with_the_instant(sandbox, yesterday):
    """Without wait_until_exportable the task fails before any request and says from when."""
    day, moment = yesterday
    with pytest.raises(AirflowFailException, match=f"{moment:%Y-%m-%dT%H:%M:%SZ}"):
        run_task(create(start_day=day, end_day=day))

    assert sandbox.ledger()["requests"] == {}


def test_waiting_for_a_day(sandbox, yesterday, monkeypatch):
    """With wait_until_exportable the task sleeps until the day is available, then submits once."""
    day, moment = yesterday
    ti = TaskInstance()
    task = create(start_day=day, end_day=day, deferrable=True, wait_until_exportable=True)
    waiting = deferral_of(task, ti)

    assert type(waiting.trigger).__name__ == "DateTimeTrigger"
    assert 0 <= (waiting.trigger.moment - moment).total_seconds() <= 61
    assert waiting.method_name == "resume"
    assert sandbox.ledger()["requests"] == {}

    # A day later, by both clocks.
    sandbox.advance(86_400)
    monkeypatch.setattr(request, "EXPORT_DELAY", timedelta(days=1))
    with pytest.raises(TaskDeferred) as again:
        task.resume_execution("resume", {"event": None}, context_of(ti))

    assert [job["job_sid"] for job in jobs_of(sandbox)] == [again.value.trigger.job_sid]
    assert jobs_of(sandbox)[0]["end_day"] == f"{day}"


def test_a_range_is_not_shrunk_in_silence(sandbox, yesterday):
    """A range of which only the last day is too early waits as a whole."""
    day, _ = yesterday
    task = create(end_day=day, deferrable=True, wait_until_exportable=True)
    deferral_of(task)

    assert sandbox.ledger()["requests"] == {}
    assert task.end_day == day


def test_a_wait_for_the_quota_ends_with_the_timeout(spent):
    """A job that never fits beside the day's other jobs fails in the end, naming what it asked."""
    ti = TaskInstance(start_date=datetime.now(UTC) - timedelta(hours=24))
    task = create(end_day="2026-01-07", deferrable=True, wait_for_quota=True)
    with pytest.raises(AirflowException, match=r"within the timeout.* the request for 3 days"):
        task.execute(context_of(ti))

    assert requests_of(spent, POST) == 2


def test_the_advice_is_given_where_it_helps(sandbox, yesterday, caplog, capsys):
    """Who waits for a day is not told to wait for it."""
    day, _ = yesterday
    with pytest.raises(AirflowFailException, match="or set wait_until_exportable=True"):
        run_task(create(start_day=day, end_day=day))
    capsys.readouterr()
    caplog.clear()
    deferral_of(create(start_day=day, end_day=day, deferrable=True, wait_until_exportable=True))

    assert "wait_until_exportable" not in caplog.text + capsys.readouterr().out
