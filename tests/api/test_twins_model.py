"""Every order in which workers can read, delete and be overtaken, and what is left of twins.

The model is the world around :meth:`Submission.find`: jobs of one submission, workers that each
read a listing and delete what it shows as superfluous, one request at a time. Every listing may
show each job as it was at any earlier moment, or leave it out. The rule itself is the real one.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from job_values import FIRST_DAY, job_of

from airflow_provider_bulkexports.api import submit
from airflow_provider_bulkexports.api.errors import NotFound
from airflow_provider_bulkexports.api.job import Job, JobListing, JobState, Status
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.api.submit import Submission, reread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REQUEST = ExportRequest(ResourceType.MESSAGES, FIRST_DAY, FIRST_DAY, "model")
OURS = Submission.of(REQUEST, "task", cycle=0)
AFTER_A_CLEAR = Submission.of(REQUEST, "task", cycle=1)

ACTIVE, FINISHED, FAILED, DELETED, REMOVED = "active", "finished", "failed", "deleted", "removed"
LIVE = (ACTIVE, FINISHED)
LISTED_AS = {
    ACTIVE: Status.RUNNING,
    FINISHED: Status.COMPLETED,
    FAILED: Status.FAILED,
    DELETED: Status.DELETED_BY_USER_REQUEST,
}
LOOKS_LIKE = {
    # what a job is: as what a listing may show it, None for not at all
    ACTIVE: (None, ACTIVE),
    FINISHED: (None, ACTIVE, FINISHED),
    FAILED: (None, ACTIVE, FAILED),
    DELETED: (None, ACTIVE, DELETED),
    REMOVED: (None, ACTIVE, FINISHED),
}

Jobs = tuple[str, ...]
"""What each job is."""

Workers = tuple[tuple[int, ...], ...]
"""Which jobs each worker is about to delete; sorted, since workers are alike."""

State = tuple[Jobs, Workers, bool]
"""Jobs, workers, and whether a job has failed by itself since they began."""


@dataclass
class Model:
    """
    Jobs of one key, numbered by their SIDs, and what a listing of them makes a worker do.

    :param generations: each job's generation.
    """

    generations: tuple[int, ...]
    _deletions: dict[Jobs, list[tuple[int, ...]]] = field(default_factory=dict)

    def job(self, number: int, state: str) -> Job:
        generation = self.generations[number]
        name = f"model_{OURS.key}" + (f"g{generation}" if generation > 1 else "")
        return job_of(LISTED_AS[state], number=number, name=name)

    def listing(self, seen: tuple[str | None, ...]) -> JobListing:
        return JobListing(tuple(self.job(n, as_) for n, as_ in enumerate(seen) if as_ is not None))

    def deletions(self, jobs: Jobs) -> list[tuple[int, ...]]:
        """Return all that a worker may decide to delete, whatever moment its listing shows."""
        if jobs not in self._deletions:
            decided = {
                tuple(_number(job.sid) for job in submission.find(self.listing(seen)).surplus)
                for seen in itertools.product(*(LOOKS_LIKE[state] for state in jobs))
                for submission in (OURS, AFTER_A_CLEAR)
            }
            self._deletions[jobs] = sorted(decided - {()})
        return self._deletions[jobs]

    def starts(self) -> Iterator[Jobs]:
        """Yield beginnings: a newer generation follows jobs that failed, were deleted, or live."""
        newest = max(self.generations)
        yield from itertools.product(
            *([ACTIVE] if own == newest else [ACTIVE, FAILED, DELETED] for own in self.generations)
        )

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Yield all that may happen next."""
        jobs, workers, failed = state
        for number, known in enumerate(jobs):
            if known == ACTIVE:
                yield f"{number} finishes", (_with(jobs, number, FINISHED), workers, failed)
                yield f"{number} fails", (_with(jobs, number, FAILED), workers, True)
        for index, pending in enumerate(workers):
            if pending == workers[index - 1] and index:
                continue
            if not pending:
                for decided in self.deletions(jobs):
                    after = tuple(sorted(_with(workers, index, decided)))
                    yield f"a worker decides to delete {decided}", (jobs, after, failed)
                continue
            number, *rest = pending
            after = tuple(sorted(_with(workers, index, tuple(rest))))
            if jobs[number] == ACTIVE:
                yield f"{number} is deleted", (_with(jobs, number, DELETED), after, failed)
                continue
            yield f"deleting {number} is refused", (jobs, after, failed)
            if jobs[number] == FINISHED:
                yield f"{number} is removed", (_with(jobs, number, REMOVED), after, failed)

    def loss(self, state: State) -> str | None:
        """Say so if repair has left no live job: then none is live though none failed by itself."""
        jobs, _, failed = state
        none_live = not any(known in LIVE for known in jobs)
        return "all live jobs were deleted" if none_live and not failed else None

    def leftovers(self, state: State) -> str | None:
        """Let workers at rest read again, each from any job it may have settled on."""
        jobs, workers, _ = state
        if any(workers) or not any(known in LIVE for known in jobs):
            return None
        now = list(jobs)
        ends = {self._reread(now, number) for number in range(len(jobs))}
        if len(ends) > 1:
            return f"workers end on different jobs: {ends}"
        (end,) = ends
        if end is None or now[end] not in LIVE:
            return "workers end on no live job"
        live = [number for number, known in enumerate(now) if known in LIVE]
        first = min(live, key=lambda number: (-self.generations[number], number))
        unfinished = [number for number in live if now[number] == ACTIVE]
        if unfinished not in ([], [first]):
            return f"{unfinished} are left unfinished, and {first} is the first"
        return None

    def _reread(self, now: list[str], number: int) -> int | None:
        job = reread(_Fresh(self, now), OURS, f"JS{number:032x}", owned=True)
        return None if job is None else _number(job.sid)


@dataclass
class _Fresh:
    """A client whose answers are as new as can be."""

    model: Model
    now: list[str]

    def list_jobs(self, resource_type: ResourceType) -> JobListing:
        return self.model.listing(tuple(None if it == REMOVED else it for it in self.now))

    def fetch_job(self, sid: str) -> Job:
        if self.now[_number(sid)] == REMOVED:
            raise NotFound(sid)
        return self.model.job(_number(sid), self.now[_number(sid)])

    def delete_job(self, sid: str) -> None:
        assert self.now[_number(sid)] == ACTIVE, "only unfinished jobs are ever superfluous"
        self.now[_number(sid)] = DELETED


def _number(sid: str) -> int:
    return int(sid.removeprefix("JS"), 16)


def _with(old: tuple, index: int, new: object) -> tuple:
    return (*old[:index], new, *old[index + 1 :])


def generations_of(count: int) -> list[tuple[int, ...]]:
    """Return all ways to give generations without gaps to jobs in the order of their SIDs."""
    every = itertools.product(range(1, count + 1), repeat=count)
    return [given for given in every if set(given) == set(range(1, max(given) + 1))]


def explore(
    jobs: int, workers: int, check: Callable[[Model, State], str | None]
) -> tuple[int, list[str]]:
    """Visit every state; return how many there are, and the shortest way to a fault, if any."""
    visited, shortest = 0, []
    for generations in generations_of(jobs):
        model = Model(generations)
        came_from: dict[State, tuple[State | None, str]] = {
            (start, ((),) * workers, False): (None, f"generations {generations}: {start}")
            for start in model.starts()
        }
        queue = deque(came_from)
        while queue:
            state = queue.popleft()
            if fault := check(model, state):
                way = [*_way(state, came_from), fault]
                shortest = min(shortest or way, way, key=len)
                break
            for step, following in model.steps(state):
                if following not in came_from:
                    came_from[following] = (state, step)
                    queue.append(following)
        visited += len(came_from)
    return visited, shortest


def _way(state: State | None, came_from: dict[State, tuple[State | None, str]]) -> list[str]:
    way: list[str] = []
    while state is not None:
        state, step = came_from[state]
        way.insert(0, step)
    return way


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    """Log nothing of hundreds of thousands of readings."""
    monkeypatch.setattr(submit.log, "disabled", True)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("jobs", [2, 3])
def test_repair_never_costs_the_last_job(jobs, workers):
    """Stale listings, jobs that end, and deletions that remove a finished job leave a live one."""
    visited, way = explore(jobs, workers, Model.loss)
    assert not way, "\n".join(way)
    print(f"{jobs} jobs, {workers} workers: {visited} states")
    assert visited > 100


@pytest.mark.parametrize("jobs", [2, 3])
def test_a_fresh_look_leaves_one_job_and_all_workers_find_it(jobs):
    """Whatever stale looks have done, all end on one live job, and only the first is unfinished."""
    # At rest no worker is about to do anything, so that their number is all the same.
    _, way = explore(jobs, 2, Model.leftovers)
    assert not way, "\n".join(way)


def finished_first(job: Job) -> tuple[bool, int, str]:
    return (job.state() is not JobState.COMPLETED, -submit._parts(job)[2], job.sid)


def smallest_sid_first(job: Job) -> str:
    return job.sid


@pytest.mark.parametrize(
    ("preferred", "expected"),
    [
        pytest.param(
            finished_first,
            """
            generations (1, 1): ('active', 'active')
            1 finishes
            a worker decides to delete (0,)
            a worker decides to delete (1,)
            0 is deleted
            1 is removed
            all live jobs were deleted
            """,
            id="a finished job stays",
        ),
        pytest.param(
            smallest_sid_first,
            """
            generations (1, 2): ('failed', 'active')
            a worker decides to delete (1,)
            1 is deleted
            all live jobs were deleted
            """,
            id="the smallest SID stays, whatever its generation",
        ),
    ],
)
def test_a_worse_rule_is_caught(monkeypatch, preferred, expected):
    """A control: two rules that look as good cost the last job, and the search shows how."""

    def order(jobs: Iterable[Job]) -> list[Job]:
        return sorted((job for job in jobs if not job.is_doomed()), key=preferred)

    monkeypatch.setattr(submit, "_in_order", order)
    _, way = explore(2, 2, Model.loss)
    assert way == [line.strip() for line in expected.strip().splitlines()]
