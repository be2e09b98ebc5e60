"""Thousands of histories of tasks in virtual time, and what the service has done in each.

``BULKEXPORTS_HISTORIES`` sets how many (120 if unset), ``BULKEXPORTS_SEED`` the first seed.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from histories import (
    FIGURES,
    FOR_NOTHING,
    LEFT_BEHIND,
    MIDNIGHT,
    Live,
    Try,
    history_of,
    live_through,
    run_operator,
)

from airflow_provider_bulkexports.api.errors import NotExportableYet, OutcomeUnknown, Retryable
from airflow_provider_bulkexports.api.job import JobListing
from airflow_provider_bulkexports.api.retry import backoff
from airflow_provider_bulkexports.api.watch import JobReader, JobWatch, Over, follow
from airflow_provider_bulkexports.compat import AirflowException
from airflow_provider_bulkexports.hooks import BulkExportsHook, airflow_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from histories import Execute, Strategy

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import Job

HISTORIES = int(os.environ.get("BULKEXPORTS_HISTORIES", "120"))
SEED = int(os.environ.get("BULKEXPORTS_SEED", "0"))
POSTS = 4
ENOUGH = 50
"""Histories that are enough to say how often something happens."""
SHOWN = 3
"""Histories that are printed whole when they went wrong."""


@pytest.fixture(autouse=True)
def _quiet():
    """Log nothing: what matters of a history is in its own log."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def say(capsys):
    """Print figures whether or not pytest captures."""

    def printed(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}")

    return printed


def every(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    for seed in range(SEED, SEED + HISTORIES):
        yield live_through(history_of(seed), strategy, monkeypatch)


def summary(name: str, counts: Counter[str]) -> str:
    lines = [f"{name}: {HISTORIES} histories from seed {SEED}"]
    lines += [f"    {counts[what]:7,} {what}" for what in FIGURES if counts[what]]
    return "\n".join(lines)


def account_of(live: Live) -> str:
    wrong = "\n  ".join(live.wrong)
    drawn = [f"  {it.name}={getattr(live.history, it.name)}" for it in fields(live.history)]
    return f"seed {live.history.seed}:\n  {wrong}\n" + "\n".join([*drawn, *live.log])


def test_no_history_costs_a_day_too_many(monkeypatch, say):
    """
    Faults, kills, replaced workers and clears in any order: one job, its days paid once, in time.

    What the service does twice, or later than two minutes after a POST, and what two workers post
    at the same moment, cannot be helped: it is repaired, and counted here.
    """
    counts: Counter[str] = Counter()
    wrong = []
    for live in every(run_operator, monkeypatch):
        counts += live.counts
        if live.wrong:
            wrong.append(live)
    say(summary("looking first, and repairing", counts))
    assert not wrong, f"{len(wrong)} went wrong:\n" + "\n".join(map(account_of, wrong[:SHOWN]))
    assert counts["that succeeded"] > HISTORIES / 2 or HISTORIES < ENOUGH


def look_once(client: Client, this: Try) -> Job:
    """Submit as this package once did: POST 10 s after a lost answer, and never look again."""
    for _ in range(POSTS):
        found = this.submission.find(client.list_jobs(this.submission.request.resource_type))
        if found.job is not None:
            return found.job
        try:
            return client.create_job(found.next_request)
        except OutcomeUnknown:
            client.pace.sleep(10)
        except Retryable as error:
            client.pace.sleep(backoff(1, error.retry_after))
    raise AirflowException("no job")


def post_again(client: Client, this: Try) -> Job:
    """Submit as most providers do: POST until there is an answer."""
    for _ in range(POSTS):
        try:
            return client.create_job(this.submission.find(NOTHING).next_request)
        except (OutcomeUnknown, Retryable) as error:
            client.pace.sleep(backoff(1, getattr(error, "retry_after", None)))
    raise AirflowException("no job")


NOTHING = JobListing(())


def waiting_for(create: Callable[[Client, Try], Job]) -> Strategy:
    """Return a strategy that creates a job in one way, and waits for it as an operator would."""

    def strategy(live: Live, this: Try) -> Execute:
        def execute(facts: object) -> str:
            with airflow_errors(), BulkExportsHook().get_conn() as client:
                job = None
                while job is None:
                    try:
                        job = create(client, this)
                    except NotExportableYet as error:
                        client.pace.sleep(error.available_at.timestamp() - client.pace.now() + 40)
                this.ti.xcom_push("job_sid", job.sid)
                watch = JobWatch(client.pace.now(), live.deadline(this.ti))
                reading = JobReader(job.resource_type).reading(client, job.sid)
                over = follow(watch, reading, client.pace.sleep, lambda _: None)
                # Here the operator would have looked for twins, and left none.
                live.last_looks[this.submission.stem] = live.world.time
                if over is not Over.DONE:
                    raise AirflowException("was not done within the timeout")
                return job.sid

        return execute

    return strategy


@pytest.mark.parametrize("create", [look_once, post_again])
def test_the_same_histories_cost_days_elsewhere(monkeypatch, say, create):
    """A control: two strategies that look as good pay for days twice, and leave jobs behind."""
    counts: Counter[str] = Counter()
    for live in every(waiting_for(create), monkeypatch):
        counts += live.counts
    say(summary(create.__name__.replace("_", " "), counts))
    assert counts[FOR_NOTHING] > HISTORIES / 10 or HISTORIES < ENOUGH
    assert counts[LEFT_BEHIND] > HISTORIES / 40 or HISTORIES < ENOUGH


def test_one_seed_is_one_history(monkeypatch):
    """Whatever went wrong in a history goes wrong again."""
    for seed in range(SEED, SEED + 3):
        first, second = (live_through(history_of(seed), run_operator, monkeypatch) for _ in "ab")
        assert first.log == second.log
        assert first.jobs == second.jobs


def test_everything_is_drawn_at_times():
    """Each mishap, each window and each way to be set up is in some history."""
    drawn = [history_of(seed) for seed in range(300)]
    mishaps = [mishap for it in drawn for plan in it.plans for mishap in plan.mishaps]
    assert {it.kind for it in mishaps if it} == {"killed", "replaced", "doubled", "cleared"}
    assert {it.fault["kind"] for history in drawn for it in history.windows} == {
        "status", "stale", "lag", "odd_item"
    }  # fmt: skip
    assert {len(it.plans) for it in drawn} == {1, 2, 3}
    assert {it.deferrable for it in drawn} == {True, False}
    assert any(it.starts < MIDNIGHT.timestamp() for it in drawn)
    assert max(max(it.skews) for it in drawn) > 29
