"""Random sequences of faults around one submission, and what the service has done in the end.

``BULKEXPORTS_SCHEDULES`` sets how many (300 if unset), ``BULKEXPORTS_SEED`` the first seed.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import BulkExportsError, Fatal
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.api.submit import job_key, job_name, submit_once
from airflow_provider_bulkexports.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEDULES = int(os.environ.get("BULKEXPORTS_SCHEDULES", "300"))
SEED = int(os.environ.get("BULKEXPORTS_SEED", "0"))
A_BATCH = 50
ATTEMPTS = 5

CREATE_FAULTS: tuple[tuple[int, dict[str, Any]], ...] = (
    # how often of a hundred, what
    (8, {"kind": "drop_after"}),
    (4, {"kind": "drop_after", "reset": True}),
    (8, {"kind": "status_after", "status": 500}),
    (3, {"kind": "status_after", "status": 504}),
    (3, {"kind": "bad_json"}),
    (3, {"kind": "truncate"}),
    (6, {"kind": "drop_before"}),
    (6, {"kind": "status", "status": 503}),
    (6, {"kind": "status", "status": 429}),
    (3, {"kind": "status", "status": 429, "retry_after": 20}),
)
LIST_FAULTS: tuple[tuple[int, dict[str, Any]], ...] = (
    (4, {"kind": "status", "status": 500}),
    (3, {"kind": "status", "status": 429}),
    (3, {"kind": "drop_before"}),
    (2, {"kind": "truncate"}),
    (1, {"kind": "bad_json"}),
)


class Killed(BaseException):
    """The worker dies, and no handler of ours runs."""


@dataclass(frozen=True)
class Attempt:
    """
    What goes wrong in one attempt of a task.

    :param faults: the sandbox's, each for the request to its route with the number ``after``.
    :param dies: ``before`` or ``after`` its POST, or in the ``n``-th wait; None if it lives.
    """

    faults: list[dict[str, Any]]
    dies: str | int | None


@dataclass(frozen=True)
class Schedule:
    """All that goes wrong around one submission; the last attempt is left in peace."""

    seed: int
    days: int
    lag: float
    attempts: list[Attempt]

    @property
    def account(self) -> tuple[str, str]:
        return f"AC{self.seed:032x}", f"token-{self.seed}"

    @property
    def request(self) -> ExportRequest:
        return ExportRequest.parse(
            resource_type="Messages",
            start_day="2026-01-01",
            end_day=f"2026-01-{self.days:02d}",
            friendly_name=job_name("schedule", job_key(self.seed)),
        )


def schedule_of(seed: int) -> Schedule:
    """Draw a schedule; the same seed gives the same."""
    rng = random.Random(seed)
    attempts = [
        Attempt(
            [
                *_faults(rng, "create_job", CREATE_FAULTS, 5),
                *_faults(rng, "list_jobs", LIST_FAULTS, 6),
            ],
            rng.choices([None, "after", "before", 1, 2], [60, 20, 5, 10, 5])[0],
        )
        for _ in range(rng.randrange(1, ATTEMPTS))
    ]
    return Schedule(
        seed,
        days=rng.randrange(1, 10),
        lag=rng.choice([0, 0, 1, 4]),
        attempts=[*attempts, Attempt([], None)],
    )


def _faults(
    rng: random.Random, route: str, kinds: tuple[tuple[int, dict[str, Any]], ...], most: int
) -> Iterator[dict[str, Any]]:
    weights = [weight for weight, _ in kinds]
    for number in range(most):
        fault = rng.choices([*(fault for _, fault in kinds), None], [*weights, 100 - sum(weights)])
        if fault[0] is not None:
            yield {"route": route, "after": number, **fault[0]}


class Mortal(Client):
    """A client whose worker is killed around its POST."""

    dies: str | int | None = None

    def create_job(self, request):
        if self.dies == "before":
            raise Killed
        job = super().create_job(request)
        if self.dies == "after":
            raise Killed
        return job


def submit_ours(sandbox: Sandbox, schedule: Schedule, attempt: Attempt, *, first: bool) -> bool:
    """Run one attempt as the operator does; say whether it has a job."""
    waits = 0

    def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if attempt.dies == waits:
            raise Killed
        sandbox.advance(seconds)

    with Mortal(*schedule.account, base_url=sandbox.url, tries=1) as client:
        client.dies = attempt.dies
        submit_once(client, schedule.request, cautious=not first, sleep=sleep)
    return True


def submit_with_retries(
    sandbox: Sandbox, schedule: Schedule, attempt: Attempt, *, first: bool
) -> bool:
    """POST as most providers do: the library repeats it on every failure."""
    every = urllib3.Retry(
        total=4,
        backoff_factor=0,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        respect_retry_after_header=False,
    )
    return _post(sandbox, schedule, attempt, every)


def submit_without_retries(
    sandbox: Sandbox, schedule: Schedule, attempt: Attempt, *, first: bool
) -> bool:
    """POST once an attempt, and leave repeating to the task's own retries."""
    return _post(sandbox, schedule, attempt, urllib3.Retry(total=0, redirect=0))


def _post(sandbox: Sandbox, schedule: Schedule, attempt: Attempt, repeat: urllib3.Retry) -> bool:
    if attempt.dies == "before":
        raise Killed
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=repeat))
        answer = session.post(
            f"{sandbox.url}/v1/Exports/Messages/Jobs",
            data=schedule.request.form(),
            auth=schedule.account,
            timeout=5,
        )
        answer.raise_for_status()
        job_sid = answer.json()["job_sid"]
    if attempt.dies == "after":
        raise Killed
    return bool(job_sid)


def run(schedules: list[Schedule], submit: Callable[..., bool]) -> dict[int, list[dict[str, Any]]]:
    """Run schedules on a service of their own; return the live jobs and charged days of each."""
    with Sandbox(job_seconds=10**7, quota_days=10**6) as sandbox:
        for schedule in schedules:
            sandbox.add_account(*schedule.account)
            for number, attempt in enumerate(schedule.attempts):
                sandbox.clear_faults()
                for fault in attempt.faults:
                    sandbox.add_fault(fault)
                if schedule.lag:
                    lag = {"route": "list_jobs", "kind": "list_lag", "seconds": schedule.lag}
                    sandbox.add_fault({**lag, "times": -1})
                with suppress(Killed, BulkExportsError, requests.RequestException):
                    if submit(sandbox, schedule, attempt, first=number == 0):
                        break
        sandbox.clear_faults()
        jobs: dict[str, list[dict[str, Any]]] = {}
        for job in sandbox.ledger()["jobs"]:
            jobs.setdefault(job["account_sid"], []).append(job)
    return {schedule.seed: jobs.get(schedule.account[0], []) for schedule in schedules}


def batches() -> Iterator[list[Schedule]]:
    for first in range(SEED, SEED + SCHEDULES, A_BATCH):
        yield [schedule_of(seed) for seed in range(first, min(first + A_BATCH, SEED + SCHEDULES))]


def summary(name: str, extra: Counter[int]) -> str:
    return (
        f"{name}: {SCHEDULES} schedules from seed {SEED}, "
        f"{sum(1 for count in extra.values() if count)} with more than one job, "
        f"{sum(extra.values())} extra jobs"
    )


@pytest.fixture
def say(capsys):
    """Print figures whether or not pytest captures."""

    def printed(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}")

    return printed


def test_one_job_whatever_goes_wrong(say):
    """Lost answers, 5xx, 429, outages and kills in any order: one live job, its days paid once."""
    extra: Counter[int] = Counter()
    for batch in batches():
        made = run(batch, submit_ours)
        for schedule in batch:
            jobs = made[schedule.seed]
            live = [job for job in jobs if not job["deleted"]]
            extra[schedule.seed] = len(jobs) - 1
            assert len(live) == 1, f"seed {schedule.seed}: {len(live)} live jobs\n{schedule}"
            assert len(jobs) == 1, f"seed {schedule.seed}: days were charged twice\n{schedule}"
            day = schedule.request.end_day.isoformat()
            assert (jobs[0]["start_day"], jobs[0]["end_day"]) == ("2026-01-01", day)
    say(summary("looking first", extra))


@pytest.mark.parametrize("submit", [submit_with_retries, submit_without_retries])
def test_the_same_schedules_make_duplicates_elsewhere(say, submit):
    """A control: without looking first, the same faults make more than one job."""
    extra: Counter[int] = Counter()
    for batch in batches():
        for seed, jobs in run(batch, submit).items():
            extra[seed] = len(jobs) - 1
            assert jobs, f"seed {seed}: no job at all, so the control proves nothing"
    say(summary(submit.__name__.replace("_", " "), extra))
    assert sum(extra.values()) > SCHEDULES / 10


def test_the_schedules_do_happen():
    """The generator draws every fault and every way to die; one seed is one schedule."""
    drawn = [schedule_of(seed) for seed in range(300)]
    assert drawn == [schedule_of(seed) for seed in range(300)]
    attempts = [attempt for schedule in drawn for attempt in schedule.attempts]
    struck = {str(sorted(fault.items())) for attempt in attempts for fault in attempt.faults}
    assert len(struck) > len(CREATE_FAULTS) * 4
    assert {attempt.dies for attempt in attempts} == {None, "before", "after", 1, 2}
    assert max(len(schedule.attempts) for schedule in drawn) == ATTEMPTS


def test_two_workers_under_faults_end_with_one_live_job(say):
    """A worker and its replacement submit at once amid faults, and one live job is left."""
    raced = 0
    for seed in range(SEED, SEED + max(SCHEDULES // 10, 1)):
        schedule = schedule_of(seed)
        with Sandbox(job_seconds=10**7, quota_days=10**6) as sandbox:
            sandbox.add_account(*schedule.account)
            for fault in schedule.attempts[0].faults:
                sandbox.add_fault(fault)
            both = threading.Barrier(2, timeout=10)

            def work(sandbox=sandbox, schedule=schedule, both=both) -> None:
                both.wait()
                with suppress(BulkExportsError):
                    submit_ours(sandbox, schedule, Attempt([], None), first=False)

            workers = [threading.Thread(target=work) for _ in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            raced += len(sandbox.ledger()["jobs"]) > 1
            sandbox.clear_faults()
            with suppress(Fatal):
                submit_ours(sandbox, schedule, Attempt([], None), first=False)
            live = [job for job in sandbox.ledger()["jobs"] if not job["deleted"]]
            assert len(live) == 1, f"seed {seed}: {len(live)} live jobs\n{schedule}"
    say(f"two workers: {max(SCHEDULES // 10, 1)} schedules, {raced} posted twice, 0 live twice")
