"""Which tries of a task share a job, and which make a new one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from in_process import (
    DELETE,
    FETCH,
    POST,
    Running,
    TaskInstance,
    create,
    deferral_of,
    jobs_of,
    rebuilt,
    requests_of,
    run_task,
    wait_for,
)

from airflow_provider_bulkexports import triggers
from airflow_provider_bulkexports.compat import AirflowException

RUNS_ON = {"route": "create_job", "kind": "job_outcome", "outcome": "Running"}


@pytest.fixture(params=[False, True], ids=["in the worker", "deferred"])
def deferrable(request):
    return request.param


def test_a_retry_adopts_the_job(sandbox, deferrable):
    """The second try of a task returns the first try's job; nothing is charged twice."""
    task = create(retries=3, deferrable=deferrable)
    first = run_task(task, TaskInstance(max_tries=3))
    second = run_task(task, TaskInstance(max_tries=3, try_number=2))

    assert first == second
    assert requests_of(sandbox, POST) == 1
    assert sandbox.ledger()["charged_days"] == 1


def test_a_retry_adopts_the_job_whose_answer_was_lost(sandbox):
    """The POST's answer never comes; the same try finds the job in the list."""
    sandbox.add_fault({"route": "create_job", "kind": "drop_after"})
    sid = run_task(create())

    assert [job["job_sid"] for job in jobs_of(sandbox)] == [sid]
    assert requests_of(sandbox, POST) == 1


def test_a_cleared_task_creates_a_new_job(sandbox):
    """Airflow raises max_tries when a finished task is cleared, which starts a new cycle."""
    task = create(retries=3)
    first = run_task(task, TaskInstance(max_tries=3))
    cleared = run_task(task, TaskInstance(max_tries=4, try_number=2))
    retried = run_task(task, TaskInstance(max_tries=4, try_number=3))

    assert first != cleared == retried
    assert len(jobs_of(sandbox)) == 2


def test_a_task_cleared_while_its_job_runs_adopts_it(sandbox):
    """To clear waiting tasks, to mend a connection say, must not pay for their days again."""
    sandbox.add_fault(RUNS_ON)
    task = create(retries=3, wait_for_completion=False)
    first = run_task(task, TaskInstance(max_tries=3))
    cleared = run_task(task, TaskInstance(max_tries=4, try_number=2))
    again = run_task(task, TaskInstance(max_tries=5, try_number=3))

    assert first == cleared == again
    assert sandbox.ledger()["charged_days"] == 1


def test_an_edit_of_retries_between_two_tries_changes_nothing(sandbox):
    """What the author does to the file is not what Airflow counts."""
    first = run_task(create(retries=3), TaskInstance(max_tries=3))
    second = run_task(create(retries=5), TaskInstance(max_tries=3, try_number=2))

    assert first == second
    assert sandbox.ledger()["charged_days"] == 1


@pytest.fixture
def namespace(sandbox, monkeypatch):
    """Change the connection's namespace, as another deployment has another."""

    def change(name):
        extra = {"base_url": sandbox.url, "namespace": name}
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", sandbox.connection(extra=extra))

    return change


def test_deployments_with_a_namespace_each_have_a_job_each(sandbox, namespace):
    """Two deployments may share an account, DAG ids and run ids."""
    namespace("prod")
    prod = run_task(create())
    namespace("dev")
    dev = run_task(create())

    assert prod != dev
    assert requests_of(sandbox, POST) == 2


@pytest.mark.parametrize("ends", ["killed", "timeout", "killed in the triggerer"])
def test_without_a_namespace_the_second_deployment_never_deletes_the_job(
    sandbox, capsys, caplog, monkeypatch, ends
):
    """It adopts what it finds before its own POST, says what may be wrong, and leaves the job."""
    sandbox.add_fault(RUNS_ON)
    prod = run_task(create(wait_for_completion=False))
    dev = create(cancel_on_kill=True, deferrable=ends == "killed in the triggerer", timeout=1)
    if ends == "killed":
        running = Running(dev)
        wait_for(lambda: requests_of(sandbox, FETCH) > 0)
        dev.on_kill()
        running.join()
    elif ends == "timeout":
        with pytest.raises(AirflowException, match="It keeps running"):
            run_task(dev)
    else:
        trigger = rebuilt(deferral_of(dev).trigger)
        monkeypatch.setattr(triggers, "task_instance_state", lambda _: "failed")
        trigger.task_instance = TaskInstance()
        asyncio.run(trigger.on_kill())

    assert [job["job_sid"] for job in jobs_of(sandbox)] == [prod]
    assert requests_of(sandbox, POST) == 1
    assert "namespace" in caplog.text + capsys.readouterr().out


def test_a_post_that_acts_late_is_waited_for(sandbox, deferrable):
    """The answer was lost and the service acts later: the same task finds the one job."""
    sandbox.add_fault({"route": "create_job", "kind": "late", "seconds": 0.25})
    sid = run_task(create(deferrable=deferrable))

    assert [job["job_sid"] for job in sandbox.jobs()] == [sid]
    assert requests_of(sandbox, POST) == 1


def test_while_a_post_may_act_no_worker_is_held(sandbox):
    """After a few looks the task sleeps in the triggerer until a POST can act no more."""
    sandbox.add_fault({"route": "create_job", "kind": "drop_before"})
    ti, task = TaskInstance(), create(deferrable=True)
    first = deferral_of(task, ti)

    assert type(first.trigger).__name__ == "DateTimeTrigger"
    assert (first.method_name, first.kwargs["posts"]) == ("resume", 1)
    assert first.trigger.moment.timestamp() >= first.kwargs["not_before"]
    assert first.kwargs["deadline"] == ti.start_date.timestamp() + 24 * 3600
    assert requests_of(sandbox, POST) == 1


def test_a_later_try_does_not_post_while_an_earlier_post_may_act(sandbox):
    """The try before it was killed with its POST on the way, which acts a little later."""
    sandbox.add_fault({"route": "create_job", "kind": "late", "seconds": 0.25})
    running = Running(create(retries=1), TaskInstance(max_tries=1))
    wait_for(lambda: requests_of(sandbox, POST) == 1)
    sid = run_task(create(retries=1), TaskInstance(max_tries=1, try_number=2))
    running.join()

    assert [job["job_sid"] for job in sandbox.jobs()] == [sid]
    assert requests_of(sandbox, POST) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"map_index": 1},
        {"run_id": "manual__2026-01-06"},
        {"dag_id": "invoices"},
        {"task_id": "export_again"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_task_instance_creates_its_own_job(sandbox, other):
    """Mapped tasks, runs, DAGs and tasks do not share jobs."""
    first = run_task(create(wait_for_completion=False), TaskInstance(map_index=0))
    second = run_task(create(wait_for_completion=False), TaskInstance(**{"map_index": 0} | other))

    assert first != second
    assert len(jobs_of(sandbox)) == 2


def test_the_name_is_readable_and_ends_in_a_key(sandbox):
    """The job is named after the task, or as the author says, and then comes the key."""
    run_task(create(task_id="a.b-c", wait_for_completion=False), TaskInstance(task_id="a.b-c"))
    run_task(create(friendly_name="orders", wait_for_completion=False), TaskInstance(map_index=1))
    names = [job["friendly_name"] for job in jobs_of(sandbox)]

    assert [name[:-21] for name in names] == ["a_b_c", "orders"]
    assert all(len(name.rpartition("_")[2]) == 20 for name in names)


def test_a_long_task_id_is_cut(sandbox):
    """A task may have a longer id than a job may have a name."""
    sid = run_task(create(task_id="t" * 200), TaskInstance(task_id="t" * 200))

    assert [job["job_sid"] for job in jobs_of(sandbox)] == [sid]


def test_range_adopts_a_wider_job(sandbox):
    """With reattach='range' a finished job that covers the day is taken, whoever made it."""
    wide = run_task(create(start_day="2026-01-01", end_day="2026-01-31"))
    narrow = run_task(create(reattach="range"), TaskInstance(dag_id="invoices"))
    outside = run_task(
        create(reattach="range", end_day="2026-02-01"), TaskInstance(dag_id="invoices")
    )

    assert narrow == wide != outside
    assert sandbox.ledger()["charged_days"] == 31 + 28


def test_range_adopts_no_job_whose_files_are_older_than_wanted(sandbox):
    """With not_before a refresh is a new export, unless somebody has made one since that day."""
    today = datetime.now(UTC).date()
    wide = run_task(create(start_day="2026-01-01", end_day="2026-01-31"))
    since = {"reattach": "range", "not_before": f"{today - timedelta(days=1)}"}
    same = run_task(create(**since), TaskInstance(dag_id="invoices"))
    since["not_before"] = today + timedelta(days=1)
    newer = run_task(create(**since), TaskInstance(dag_id="refresh"))

    assert same == wide != newer
    assert sandbox.ledger()["charged_days"] == 31 + 1


def test_range_does_not_adopt_another_type_or_a_failed_job(sandbox):
    """What cannot serve is not adopted."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Failed"})
    with pytest.raises(AirflowException):
        run_task(create())
    other = run_task(create(reattach="range", resource_type="Calls"), TaskInstance(map_index=1))
    again = run_task(create(reattach="range"), TaskInstance(map_index=2))

    assert len({other, again}) == 2
    assert requests_of(sandbox, POST) == 3


def test_never_creates_a_new_job_each_try(sandbox):
    """With reattach='never' the second try pays again; nothing is deleted."""
    task = create(reattach="never", retries=1)
    first = run_task(task, TaskInstance(max_tries=1))
    second = run_task(task, TaskInstance(max_tries=1, try_number=2))

    assert first != second
    assert len(jobs_of(sandbox)) == 2
    assert requests_of(sandbox, DELETE) == 0


def test_never_still_creates_one_job_a_try(sandbox, deferrable):
    """Also with reattach='never' a lost answer or a deferral does not make a second job."""
    sandbox.add_fault({"route": "create_job", "kind": "status_after", "status": 502})
    sid = run_task(create(reattach="never", deferrable=deferrable))

    assert [job["job_sid"] for job in sandbox.ledger()["jobs"]] == [sid]


def test_a_retry_after_a_failed_job_creates_the_next_generation(sandbox, deferrable):
    """A job that failed is not adopted: the retry creates g2, which the next retry adopts."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Failed"})
    task = create(retries=2, deferrable=deferrable)
    with pytest.raises(AirflowException):
        run_task(task, TaskInstance(max_tries=2))
    second = run_task(task, TaskInstance(max_tries=2, try_number=2))
    third = run_task(task, TaskInstance(max_tries=2, try_number=3))
    failed, made = [job["friendly_name"] for job in sandbox.ledger()["jobs"]]

    assert second == third
    assert made == f"{failed}g2"


def test_two_workers_at_once_leave_one_job(sandbox):
    """A zombie and its retry create at the same time; one job stays."""
    sandbox.add_fault({"route": "create_job", "kind": "delay", "seconds": 0.3, "times": 2})
    workers = [Running(create(wait_for_completion=False)) for _ in range(2)]
    for worker in workers:
        worker.join()
    alive = jobs_of(sandbox)

    assert requests_of(sandbox, POST) == 2
    assert len(alive) == 1
    assert alive[0]["job_sid"] in [worker.result for worker in workers]
