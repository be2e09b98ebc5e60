"""Which tries of a task share a job, and which make a new one."""

from __future__ import annotations

import pytest
from in_process import (
    DELETE,
    POST,
    Running,
    TaskInstance,
    create,
    jobs_of,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports.compat import AirflowException


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


def test_a_cleared_task_makes_a_new_job(sandbox):
    """Airflow raises max_tries when a finished task is cleared, which starts a new cycle."""
    task = create(retries=3)
    first = run_task(task, TaskInstance(max_tries=3))
    cleared = run_task(task, TaskInstance(max_tries=4, try_number=2))
    retried = run_task(task, TaskInstance(max_tries=4, try_number=3))

    assert first != cleared == retried
    assert len(jobs_of(sandbox)) == 2


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
def test_another_task_instance_makes_its_own_job(sandbox, other):
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


def test_range_does_not_adopt_another_type_or_a_failed_job(sandbox):
    """What cannot serve is not adopted."""
    sandbox.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Failed"})
    with pytest.raises(AirflowException):
        run_task(create())
    other = run_task(create(reattach="range", resource_type="Calls"), TaskInstance(map_index=1))
    again = run_task(create(reattach="range"), TaskInstance(map_index=2))

    assert len({other, again}) == 2
    assert requests_of(sandbox, POST) == 3


def test_never_makes_a_new_job_each_try(sandbox):
    """With reattach='never' the second try pays again; nothing is deleted."""
    task = create(reattach="never", retries=1)
    first = run_task(task, TaskInstance(max_tries=1))
    second = run_task(task, TaskInstance(max_tries=1, try_number=2))

    assert first != second
    assert len(jobs_of(sandbox)) == 2
    assert requests_of(sandbox, DELETE) == 0


def test_never_still_makes_one_job_a_try(sandbox, deferrable):
    """Also with reattach='never' a lost answer or a deferral does not make a second job."""
    sandbox.add_fault({"route": "create_job", "kind": "status_after", "status": 502})
    sid = run_task(create(reattach="never", deferrable=deferrable))

    assert [job["job_sid"] for job in sandbox.ledger()["jobs"]] == [sid]


def test_a_retry_after_a_failed_job_makes_the_next_generation(sandbox, deferrable):
    """A job that failed is not adopted: the retry makes g2, and the retry after that adopts it."""
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
