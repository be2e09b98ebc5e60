"""Histories of tasks in virtual time: what is drawn from a seed, and what is known afterwards.

A history has one to three task runs of one account. Each request of theirs may meet a fault, each
worker may be killed, be taken for dead and be replaced while it goes on, or have its task cleared.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

# First: it gives Airflow a home before anything imports Airflow.
from in_process import (
    DagRun,
    TaskDeferred,
    TaskInstance,
    context_of,
    create,
    let_thread_run_tasks,
    rebuilt,
)
from virtual_time import Killed, Worker, World

import asgiref.sync  # isort: skip

from airflow_provider_bulkexports import kill_switch, shared_poll
from airflow_provider_bulkexports.api import exchange
from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.exchange import Answer, Failed
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.api.retry import Failure
from airflow_provider_bulkexports.api.submit import Submission
from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.operators import BulkExportsCreateJobOperator
from airflow_provider_bulkexports.sandbox import service
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.triggers import BulkExportsJobTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

REAL_EXCHANGE = exchange.Transport.exchange

MINUTE, HOUR = 60.0, 3600.0
MIDNIGHT = datetime(2026, 1, 20, tzinfo=UTC)
NEWEST_DAY = date(2026, 1, 18)
"""The day that can be exported from ``MIDNIGHT`` on."""

LATEST_JOB = 90.0
LONGEST_LAG = 30.0
LATEST_EVENT = 5.0
LATEST_END = 30.0

FOR_NOTHING = "DAYS CHARGED FOR NOTHING"
LEFT_BEHIND = "UNFINISHED TWINS LEFT BEHIND"
OUTCOMES = {
    "success": "that succeeded",
    "failed": "that failed",
    "permanent": "THAT FAILED FOR GOOD",
}
TWICE = "days charged as the service acted twice"
AT_ONCE = "days charged as two workers posted at once"
TOO_LATE = "days charged as a job took more than two minutes to show"
FIGURES = (
    "requests",
    "tries",
    *OUTCOMES.values(),
    "whose process was killed",
    "whose worker was replaced while it went on",
    "of which two ran at once",
    "that were cleared before their end",
    "days asked for",
    "days charged",
    TWICE,
    AT_ONCE,
    TOO_LATE,
    FOR_NOTHING,
    "finished twins",
    "unfinished twins that came when all was over",
    "unfinished twins whose deletion the service refused to the end",
    LEFT_BEHIND,
)
"""What is counted, in the order in which it is printed."""
NAMED = re.compile(r"_([0-9a-f]{16})([0-9a-f]{4})(?:g(\d+))?$")

Drawn = tuple[tuple[int, dict[str, Any]], ...]
"""How often of a hundred, and what; a kind that starts with ``lost`` is the wire's own."""

CREATE_FAULTS: Drawn = (
    (5, {"kind": "late", "seconds": LATEST_JOB}),
    (4, {"kind": "late", "seconds": 20, "status": 504}),
    (3, {"kind": "late", "seconds": 1}),
    (4, {"kind": "twice"}),
    (2, {"kind": "twice", "answer": "second"}),
    (4, {"kind": "twice", "seconds": 20}),
    (5, {"kind": "drop_after"}),
    (2, {"kind": "drop_after", "reset": True}),
    (4, {"kind": "status_after", "status": 500}),
    (2, {"kind": "status_after", "status": 504}),
    (2, {"kind": "bad_json"}),
    (2, {"kind": "truncate"}),
    (3, {"kind": "lost_after"}),
    (2, {"kind": "lost_before"}),
    (3, {"kind": "drop_before"}),
    (3, {"kind": "status", "status": 503}),
    (2, {"kind": "status", "status": 429}),
    (2, {"kind": "status", "status": 429, "retry_after": 40}),
    (1, {"kind": "status", "status": 429, "retry_after": 300}),
)
READ_FAULTS: Drawn = (
    (4, {"kind": "status", "status": 500}),
    (2, {"kind": "status", "status": 503, "retry_after": 15}),
    (2, {"kind": "status", "status": 429}),
    (1, {"kind": "status", "status": 429, "retry_after": 120}),
    (3, {"kind": "drop_before"}),
    (2, {"kind": "drop_after"}),
    (2, {"kind": "truncate"}),
    (1, {"kind": "bad_json"}),
    (2, {"kind": "lost_after"}),
)
FAULTS = {
    "create_job": CREATE_FAULTS,
    "list_jobs": READ_FAULTS,
    "fetch_job": READ_FAULTS,
    "delete_job": READ_FAULTS,
}
ODD_ITEMS = (
    {"job_sid": "JS" + "f" * 32, "friendly_name": "people_gave_this", "details": "?"},
    {"job_sid": "no SID", "friendly_name": "another"},
)
NOT_ACTING = {"drop_before", "lost_before", "status"}


@dataclass(frozen=True)
class Window:
    """Something that is wrong with every request to a route for a while."""

    route: str
    begins: float
    ends: float
    fault: dict[str, Any]


@dataclass(frozen=True)
class Mishap:
    """
    What befalls one try of a task.

    :param kind: ``killed``; ``replaced`` while it goes on for ``lives`` seconds; ``doubled`` by
        another worker of the same try; ``cleared`` by a person.
    :param at: seconds after the try's start.
    """

    kind: str
    at: float
    lives: float = 0.0


@dataclass(frozen=True)
class Plan:
    """
    What befalls one task run.

    :param begins: seconds after the history's start.
    :param retries: the task's ``retries`` at each of its tries; an author edits them.
    :param mishaps: of each try, until they are used up.
    :param clears: how often it is cleared after its end.
    """

    begins: float
    retries: tuple[int, ...]
    mishaps: tuple[Mishap | None, ...]
    clears: int


@dataclass(frozen=True)
class History:
    """All that is drawn before a history begins; the faults of requests are drawn as they come."""

    seed: int
    starts: float
    days: int
    job_seconds: float
    timeout: float
    deferrable: bool
    skews: tuple[float, ...]
    lags: dict[str, float]
    rate: float
    fails: float
    delete_finished: str
    deleted_jobs: str
    windows: tuple[Window, ...]
    plans: tuple[Plan, ...]

    @property
    def range(self) -> tuple[date, date]:
        return NEWEST_DAY - timedelta(days=self.days - 1), NEWEST_DAY


def history_of(seed: int) -> History:
    """Draw a history; the same seed gives the same."""
    rng = random.Random(seed)
    at_midnight = rng.random() < 0.2
    starts = MIDNIGHT.timestamp() + (-rng.uniform(0, 300) if at_midnight else 10 * HOUR)
    skew = 30.0 if at_midnight else 2.0
    lag = rng.choice([0.0, 0.0, 2.0, 10.0, LONGEST_LAG])
    windows = [*_windows(rng, starts, LONGEST_LAG - lag)]
    days = rng.choice([1, 1, 2, 5, 9])
    return History(
        seed=seed,
        starts=starts,
        days=days,
        job_seconds=rng.choice([40.0, 300.0, 1500.0, 4 * HOUR]),
        timeout=rng.choice([20 * MINUTE, HOUR, 24 * HOUR, 24 * HOUR]),
        deferrable=rng.random() < 0.6,
        skews=tuple(rng.uniform(-skew, skew) for _ in range(40)),
        lags={
            "list_jobs": lag,
            "fetch_job": rng.choice([0.0, 0.0, 5.0, LONGEST_LAG]),
        },
        rate=rng.choice([0.0, 0.5, 1.0, 1.0, 1.5]),
        fails=rng.choice([0, 0, 0.3]) if days == 1 else 0.0,
        delete_finished=rng.choice(["404", "204", "removes"]),
        deleted_jobs=rng.choice(["listed", "gone"]),
        windows=tuple(windows),
        plans=tuple(_plan(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))),
    )


def _windows(rng: random.Random, starts: float, stale: float) -> Iterator[Window]:
    def window(route: str, longest: float, fault: dict[str, Any], shortest: float = 5.0) -> Window:
        begins = starts + rng.choice([0.0, rng.uniform(0, 300), rng.uniform(0, 3 * HOUR)])
        return Window(route, begins, begins + rng.uniform(shortest, longest), fault)

    if rng.random() < 0.2:
        refused = {"kind": "status", "status": rng.choice([401, 403])}
        yield window("*", rng.choice([60.0, 1200.0]), refused, 15.0)
    if rng.random() < 0.15:
        yield window("*", 600.0, {"kind": "status", "status": 503})
    if stale and rng.random() < 0.4:
        yield window("list_jobs", 300.0, {"kind": "stale", "seconds": rng.uniform(1, stale)})
    if rng.random() < 0.2:
        yield window("list_jobs", 30.0, {"kind": "lag", "omit": rng.choice([0.3, 1.0])})
    if rng.random() < 0.3:
        item = rng.choice(ODD_ITEMS)
        yield Window("list_jobs", starts, starts + 48 * HOUR, {"kind": "odd_item", "item": item})


def _plan(rng: random.Random) -> Plan:
    retries = rng.randrange(1, 4)
    edits = [retries if rng.random() < 0.8 else rng.randrange(1, 5) for _ in range(30)]
    return Plan(
        begins=rng.choice([0.0, rng.uniform(0, 60), rng.uniform(0, HOUR)]),
        retries=(retries, *edits),
        mishaps=tuple(_mishap(rng) for _ in range(rng.randrange(4))),
        clears=rng.choice([0, 0, 0, 1, 2]),
    )


def _mishap(rng: random.Random) -> Mishap | None:
    kind = rng.choice([None, "killed", "killed", "replaced", "doubled", "cleared"])
    if kind is None:
        return None
    at = rng.choice([rng.uniform(0, 4), rng.uniform(0, 4), rng.uniform(0, 150)])
    return Mishap(kind, at, rng.choice([rng.uniform(0, 10), rng.uniform(0, 300)]))


@dataclass
class Post:
    """
    A POST as it happened.

    :param worker: who sent it.
    :param began: when that worker began its try.
    :param looked: when it looked last.
    :param acts_at: when it creates its job, None if never.
    :param rivals: jobs, by their creation, that its worker could have adopted instead, and
        whether the last listing that it read had them.
    """

    worker: int
    began: float
    looked: float
    sent: float
    stem: str
    cycle: str
    acts_at: float | None
    twice: bool
    rivals: dict[float, bool]

    def wait_of(self, later: Post) -> str | None:
        """
        Say why a later POST did not wait for this one's job; None if it had nothing to wait for.

        A POST has nothing to do with one whose job is of no use any more.
        """
        assert self.acts_at is not None
        listed = [has for at, has in later.rivals.items() if abs(at - self.acts_at) < 0.001]
        if self.acts_at <= later.sent and not listed:
            return None
        if any(listed):
            return "listed"
        if self.worker != later.worker and self.sent >= later.began:
            return "at once"
        return "too late" if later.looked >= self.sent + Pace().settle else "too soon"


@dataclass
class Outcome:
    """
    How one try ended.

    :param kind: ``success``, ``failed``, ``permanent``, ``killed`` or ``cleared while ...``.
    """

    kind: str
    text: str = ""


class Live:
    """
    A history as it happens.

    :param history: what was drawn.
    :param strategy: runs one execution of a task: see :func:`run_operator`.
    """

    def __init__(self, history: History, strategy: Strategy) -> None:
        self.history = history
        self.strategy = strategy
        self.world = World(history.starts)
        self.rng = random.Random(f"{history.seed}/requests")
        self.sandbox = Sandbox(
            now=lambda: self.world.time,
            job_seconds=history.job_seconds,
            seed=history.seed,
            quota_days=10**6,
            empty_every=3,
            delete_finished=history.delete_finished,
            deleted_jobs=history.deleted_jobs,
        )
        self.log: list[str] = []
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.posts: list[Post] = []
        self.looked: dict[int, tuple[float, str]] = {}
        self.last_looks: dict[str, float] = {}
        self.undeleted: set[str] = set()
        self.tasks: dict[int, Try] = {}
        self.event_delays: list[float] = []
        self.end_delays: list[float] = []
        self.counts: Counter[str] = Counter()
        self.jobs: list[dict[str, Any]] = []

    def run(self) -> None:
        """Let it happen."""
        runs = [
            functools.partial(self._task_run, plan, number)
            for number, plan in enumerate(self.history.plans)
        ]
        self.world.run(*runs)
        self.world.time += LATEST_JOB  # what is on its way arrives
        self.jobs = self.sandbox.jobs()
        self.judge()

    def say(self, text: str) -> None:
        worker = self.world.worker
        age = self.world.time - self.history.starts
        self.log.append(f"{age:10.2f}  worker {worker.number if worker else 0}: {text}")

    # Airflow: tries, retries and clears of one task instance

    def _task_run(self, plan: Plan, number: int) -> None:
        world = self.world
        world.sleep(plan.begins)
        edits, mishaps = iter(plan.retries), iter(plan.mishaps)
        retries = next(edits)
        ti = TaskInstance(run_id=f"run {number}", try_number=1, max_tries=retries)
        clears = plan.clears
        while True:
            outcome = self._try(ti, next(mishaps, None))
            self.say(f"run {number}, try {ti.try_number} of {ti.max_tries + 1}: {outcome}")
            retries = next(edits)
            if outcome.kind == "cleared while deferred":
                ti = self._next_try(ti, max_tries=ti.try_number + retries)
            elif outcome.kind == "cleared while running":
                ti = self._next_try(ti)
            elif outcome.kind in ("failed", "killed") and ti.try_number <= ti.max_tries:
                world.sleep(self.rng.choice([5.0, 60.0, 300.0]))
                ti = self._next_try(ti)
            else:
                if not clears:
                    return
                clears -= 1
                world.sleep(self.rng.choice([5.0, 600.0]))
                self.say("cleared after its end")
                ti = self._next_try(ti, max_tries=ti.try_number + retries)

    @staticmethod
    def _next_try(ti: TaskInstance, **changes: int) -> TaskInstance:
        return replace(ti, try_number=ti.try_number + 1, xcoms={}, **changes)

    def _try(self, ti: TaskInstance, mishap: Mishap | None) -> Outcome:
        world = self.world
        self.counts["tries"] += 1
        first = self._start(ti)
        until = math.inf if mishap is None else world.time + mishap.at
        if mishap is None or world.wait_for(first.worker, until):
            world.wait_for(first.worker)
            return self._outcome(first)
        self.say(f"{mishap.kind} at {mishap.at:.1f} s")
        befall, figure = MISHAPS[mishap.kind]
        self.counts[figure] += 1
        return befall(self, first, mishap)

    def _killed(self, first: Try, mishap: Mishap) -> Outcome:
        self.world.kill(first.worker)
        self.world.wait_for(first.worker)
        if not isinstance(first.worker.result, Killed):
            # It was the triggerer that died, and another had the trigger.
            return self._outcome(first)
        self.world.sleep(self.rng.choice([1.0, 30.0, 300.0]))
        return Outcome("killed")

    def _replaced(self, first: Try, mishap: Mishap) -> Outcome:
        """Take a worker for dead that goes on for a while."""
        if first.deferred:
            return self._killed(first, mishap)

        def reap() -> None:
            if not self.world.wait_for(first.worker, self.world.time + mishap.lives):
                self.world.kill(first.worker)

        self.world.start(reap)
        return Outcome("killed", "replaced")

    def _doubled(self, first: Try, mishap: Mishap) -> Outcome:
        """Run the same try a second time at once."""
        second = self._start(first.ti, first.began)
        self.world.wait_for(first.worker)
        self.world.wait_for(second.worker)
        outcome, other = self._outcome(first), self._outcome(second)
        return outcome if outcome.kind == "success" else other

    def _cleared(self, first: Try, mishap: Mishap) -> Outcome:
        """Clear a task that is not over: whatever runs for it is stopped."""
        state = "deferred" if first.deferred else "running"
        first.is_cleared = True
        self.world.kill(first.worker)
        self.world.wait_for(first.worker)
        return Outcome(f"cleared while {state}")

    def _start(self, ti: TaskInstance, began: float | None = None) -> Try:
        number = len(self.tasks)
        skew = self.history.skews[number % len(self.history.skews)]
        started = datetime.fromtimestamp(self.world.time + skew, UTC)
        this = Try(
            ti=replace(ti, start_date=started, xcoms={}),
            submission=self._submission(ti),
            began=self.world.time if began is None else began,
        )
        this.worker = self.world.start(lambda: self._process(this), skew)
        self.tasks[this.worker.number] = this
        return this

    def _submission(self, ti: TaskInstance) -> Submission:
        first, last = self.history.range
        return Submission.of(
            ExportRequest(ResourceType.MESSAGES, first, last, ti.task_id),
            *("", ti.dag_id, ti.task_id, ti.run_id, ti.map_index),
            cycle=(ti.max_tries, None),
        )

    def _process(self, this: Try) -> str:
        """Run a task's processes one after the other, as executor and triggerer do."""
        let_thread_run_tasks()
        self.world.sleep(self.rng.uniform(0.5, 3))
        execute, facts = self.strategy(self, this), None
        while True:
            try:
                return execute(facts)
            except TaskDeferred as deferral:
                waiting = deferral
            this.deferred = True
            event = self._fire(waiting.trigger, this)
            this.deferred = False
            self.world.sleep(self.rng.uniform(0.2, 3))
            facts = (waiting.method_name, {"event": event, **(waiting.kwargs or {})})

    def _fire(self, trigger: Any, this: Try) -> Any:
        worker = this.worker
        skew, worker.skew = worker.skew, 0.0
        try:
            while True:
                self.world.sleep(self.rng.uniform(0.1, 2))
                fresh = rebuilt(trigger)
                begins = self.world.now()
                try:
                    if not isinstance(fresh, BulkExportsJobTrigger):
                        self.world.sleep(fresh.moment.timestamp() - self.world.now())
                        return None
                    event = self.world.run_coroutine(_first(fresh))
                except Killed:
                    if this.is_cleared:
                        raise
                    self.say("the triggerer was killed")
                    self.world.sleep(self.rng.choice([1.0, 60.0]))
                    continue
                # A trigger that begins after its deadline still looks once.
                due = max(fresh.deadline, begins + pace_module.PACE.shortest_poll)
                self.event_delays.append(self.world.now() - due)
                self.say(f"event {event}")
                return event
        finally:
            worker.skew = skew

    def _outcome(self, this: Try) -> Outcome:
        result, kind = this.worker.result, "killed"
        if isinstance(result, str):
            kind = "success"
            self._check_success(result)
        elif isinstance(result, AirflowFailException):
            kind = "permanent"
            self.wrong.append(f"a task failed for good, where a retry helps: {result}")
        elif isinstance(result, AirflowException):
            kind = "failed"
            self._check_failure(this, str(result))
        elif not isinstance(result, Killed):
            raise result
        if kind in OUTCOMES:
            self.counts[OUTCOMES[kind]] += 1
            # The triggerer's clock is right, that of the worker may be fast.
            ended = this.worker.ended_at + min(this.worker.skew, 0.0)
            self.end_delays.append(ended - self.deadline(this.ti) - this.silence)
        return Outcome(kind, str(result))

    def deadline(self, ti: TaskInstance) -> float:
        """Return when a try must be over, by its worker's clock."""
        start = max(ti.start_date.timestamp(), MIDNIGHT.timestamp())
        return start + self.history.timeout

    def _check_failure(self, this: Try, text: str) -> None:
        """Let nothing fail a wait but its deadline, a failed job, and a lasting refusal."""
        is_over = this.worker.ended_at + this.worker.skew >= self.deadline(this.ti)
        if is_over or "job_sid" not in this.ti.xcoms or "failed: not every day" in text:
            return
        refused = [it for it in self.history.windows if it.fault.get("status") in (401, 403)]
        began = min((it.begins for it in refused), default=math.inf)
        if "refused its credentials for 15 min" in text and self.world.time >= began + 900:
            return
        self.wrong.append(f"a wait was not ridden out: {text}")

    def _check_success(self, sid: str) -> None:
        job = next((job for job in self.sandbox.jobs() if job["job_sid"] == sid), None)
        if job is None or job["state"] != "completed" or job["deleted"]:
            self.wrong.append(f"a task succeeded with {sid}, which is {job}")

    async def in_own_process(self, function: Callable[..., Any], *args: Any) -> Any:
        """Read for a trigger as a worker of this world, as it does in a thread of its own."""
        loop, owner = asyncio.get_running_loop(), self.world.worker
        future = loop.create_future()

        def read() -> None:
            try:
                settle: Callable[..., None] = future.set_result
                outcome: object = function(*args)
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                settle, outcome = future.set_exception, error
            if not loop.is_closed():
                loop.call_soon(lambda: future.done() or settle(outcome))
                self.world.wake(owner)

        reader = self.world.start(read)
        self.tasks[reader.number] = self.tasks[owner.number]
        return await future

    # What is judged when all is over

    def judge(self) -> None:
        """Say what should never have happened, and count what nobody could have helped."""
        counts, days = self.counts, self.history.days
        counts["requests"] += len(self.requests)
        needed = self._judge_posts()
        counts["days asked for"] += days * needed.total()
        counts["days charged"] += days * len(self.jobs)
        explained = sum(counts[why] for why in ("days asked for", TWICE, AT_ONCE, TOO_LATE))
        if counts["days charged"] != explained + counts[FOR_NOTHING]:
            self.wrong.append(f"{counts['days charged']} days were charged, not {explained}")
        for key in sorted({_key(job)[:2] for job in self.jobs}):
            own = [job for job in self.jobs if _key(job)[:2] == key]
            failed = sum(job["state"] == "failed" and not job["deleted"] for job in own)
            if needed[key] > 1 + failed:
                counts[FOR_NOTHING] += days * (needed[key] - 1 - failed)
                self.wrong.append(f"{key} was created {needed[key]} times, but failed {failed}")
            self._judge_twins(own)
        for delay in self.event_delays:
            if delay > LATEST_EVENT:
                self.wrong.append(f"an event came {delay:.1f} s after its deadline")
        for delay in self.end_delays:
            if delay > LATEST_END:
                self.wrong.append(f"a try ended {delay:.1f} s after its deadline")

    def _judge_posts(self) -> Counter[tuple[str, str]]:
        """Return how many POSTs of each key had a reason, and judge the others."""
        counts, days = self.counts, self.history.days
        needed: Counter[tuple[str, str]] = Counter()
        acting = [post for post in self.posts if post.acts_at is not None]
        for index, post in enumerate(acting):
            counts[TWICE] += days * post.twice
            earlier = [other for other in acting[:index] if other.stem == post.stem]
            reasons = {reason for other in earlier if (reason := other.wait_of(post))}
            if not reasons:
                needed[post.stem, post.cycle] += 1
            elif wrong := reasons & {"listed", "too soon"}:
                counts[FOR_NOTHING] += days
                self.wrong.append(f"a job was created beside another ({wrong}): {post}")
            elif "at once" in reasons:
                counts[AT_ONCE] += days
            else:
                counts[TOO_LATE] += days
        return needed

    def _judge_twins(self, jobs: list[dict[str, Any]]) -> None:
        live = [job for job in jobs if not job["deleted"] and job["state"] != "failed"]
        live.sort(key=lambda job: (-_key(job)[2], job["job_sid"]))
        for job in live[1:]:
            if job["state"] == "completed":
                self.counts["finished twins"] += 1
            elif _created_at(job) + LONGEST_LAG >= self.last_looks.get(_key(job)[0], 0.0):
                self.counts["unfinished twins that came when all was over"] += 1
            elif job["job_sid"] in self.undeleted:
                self.counts["unfinished twins whose deletion the service refused to the end"] += 1
            else:
                self.counts[LEFT_BEHIND] += 1
                self.wrong.append(f"{job} was left beside {live[0]}")

    # The wire

    def exchange(self, transport: Any, method: str, url: str, form: Any, pace: Pace) -> Any:
        """Carry one exchange, with all that goes wrong with it."""
        world, route = self.world, _route(method, url)
        fault = self._draw(route)
        world.sleep(self.rng.choice([0.05, 0.3, 1.5]))
        if fault.get("kind") == "lost_before":
            self.say(f"{route}: lost before it acted")
            return self._lost(pace)
        self._set_up(route, fault)
        post = self._note(form, fault) if route == "create_job" else None
        answer = REAL_EXCHANGE(transport, method, url, form, pace)
        status = answer.status if isinstance(answer, Answer) else answer.reason
        self.requests.append(route)
        self.say(f"{route} {fault or ''}: {status}")
        if post is not None and status == 400:  # too early by the service's clock
            post.acts_at = None
        if route == "list_jobs" and status == 200:
            self.looked[world.worker.number] = world.time, answer.body.decode()
            self.last_looks[self.tasks[world.worker.number].submission.stem] = world.time
        if route == "delete_job":
            is_deleted = status in (204, 404)
            (self.undeleted.discard if is_deleted else self.undeleted.add)(url.rpartition("/")[2])
        if fault.get("kind") == "lost_after":
            return self._lost(pace)
        world.sleep(self.rng.choice([0.05, 0.3, 1.5]))
        return answer

    def _lost(self, pace: Pace) -> Failed:
        this = self.tasks[self.world.worker.number]
        if self.world.now() + pace.exchange > self.deadline(this.ti):
            this.silence += pace.exchange
        # Neither a trickle nor silence lasts longer than a whole exchange may.
        self.world.sleep(pace.exchange)
        return Failed(Failure.LOST, "the answer was lost")

    def _draw(self, route: str) -> dict[str, Any]:
        faults, rate = FAULTS[route], self.history.rate
        kinds = [*(fault for _, fault in faults), {}]
        weights = [weight * rate for weight, _ in faults]
        return self.rng.choices(kinds, [*weights, max(0.0, 100 - sum(weights))])[0]

    def _set_up(self, route: str, fault: dict[str, Any]) -> None:
        """Tell the sandbox all that is wrong with the next request."""
        sandbox, faults = self.sandbox, self._lasting(route)
        if fault and not fault["kind"].startswith("lost"):
            faults.append(fault)
        if lag := self.history.lags.get(route):
            faults.append({"kind": "lag", "seconds": lag})
        if route == "create_job" and self.rng.random() < self.history.fails:
            faults.append({"kind": "job_outcome", "outcome": "Failed", "times": 2})
        sandbox.clear_faults()
        for each in faults:
            sandbox.add_fault({"route": route, **each})

    def _lasting(self, route: str) -> list[dict[str, Any]]:
        return [
            window.fault
            for window in self.history.windows
            if window.route in ("*", route) and window.begins <= self.world.time < window.ends
        ]

    def _note(self, form: dict[str, str], fault: dict[str, Any]) -> Post:
        worker, now = self.world.worker, self.world.time
        this = self.tasks[worker.number]
        stem, cycle = this.submission.stem, this.submission.cycle
        assert f"_{stem}{cycle}" in form["FriendlyName"]
        looked, listed = self.looked.get(worker.number, (0.0, ""))
        rivals = {
            _created_at(job): job["job_sid"] in listed
            for job in self.sandbox.jobs()
            if _key(job)[0] == stem and not job["deleted"]
            if job["state"] == "active" or (job["state"] == "completed" and _key(job)[1] == cycle)
        }
        kind = fault.get("kind")
        is_down = any(it["kind"] in NOT_ACTING for it in self._lasting("create_job"))
        acts_at = None if is_down or kind in NOT_ACTING else now
        post = Post(
            worker=worker.number,
            began=this.began,
            looked=looked,
            sent=now,
            stem=stem,
            cycle=cycle,
            acts_at=now + fault["seconds"] if kind == "late" and not is_down else acts_at,
            twice=kind == "twice",
            rivals=rivals,
        )
        self.posts.append(post)
        return post


@dataclass
class Try:
    """
    One try of a task, in whatever process it is.

    :param began: when, by the right clock.
    """

    ti: TaskInstance
    submission: Submission
    began: float
    worker: Worker = None
    deferred: bool = False
    silence: float = 0.0
    is_cleared: bool = False


MISHAPS = {
    "killed": (Live._killed, "whose process was killed"),
    "replaced": (Live._replaced, "whose worker was replaced while it went on"),
    "doubled": (Live._doubled, "of which two ran at once"),
    "cleared": (Live._cleared, "that were cleared before their end"),
}
Execute = Callable[[tuple[str, dict[str, Any]] | None], str]
Strategy = Callable[[Live, Try], Execute]


def run_operator(live: Live, this: Try) -> Execute:
    """Run the real operator: its ``execute``, or the method that a deferral names."""
    history = live.history
    first, last = history.range
    context = context_of(this.ti, DagRun(this.ti.run_id))

    def execute(facts: tuple[str, dict[str, Any]] | None) -> str:
        # Each process has an operator of its own.
        task = create(
            start_day=first.isoformat(),
            end_day=last.isoformat(),
            deferrable=history.deferrable,
            timeout=history.timeout,
            wait_until_exportable=True,
        )
        if facts is None:
            return task.execute(context)
        return task.resume_execution(*facts, context)

    return execute


async def _first(trigger: BulkExportsJobTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    return None


def _route(method: str, url: str) -> str:
    if method == "POST":
        return "create_job"
    if method == "DELETE":
        return "delete_job"
    return "fetch_job" if "/Exports/Jobs/" in url else "list_jobs"


def _key(job: dict[str, Any]) -> tuple[str, str, int]:
    stem, cycle, generation = NAMED.search(job["friendly_name"]).groups()
    return stem, cycle, int(generation or 1)


def _created_at(job: dict[str, Any]) -> float:
    return datetime.fromisoformat(job["created_at"]).timestamp()


def live_through(history: History, strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> Live:
    """Run a history to its end, in its own time."""
    live = Live(history, strategy)
    digits = random.Random(f"{history.seed}/SIDs")
    with monkeypatch.context() as patch:
        pace = Pace(now=live.world.now, sleep=live.world.sleep)
        patch.setattr(pace_module, "PACE", pace)
        patch.setattr(exchange.Transport, "exchange", lambda *given: Live.exchange(live, *given))
        patch.setattr(service.secrets, "token_hex", lambda size: digits.randbytes(size).hex())
        patch.setattr(kill_switch, "STEP", 24 * HOUR)
        patch.setattr(BulkExportsCreateJobOperator, "log", logging.getLogger(__name__))
        patch.setattr(shared_poll, "in_own_thread", live.in_own_process)
        patch.setattr(asgiref.sync, "sync_to_async", lambda f: functools.partial(_at_once, f))
        random.seed(history.seed)
        with live.sandbox:
            patch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", live.sandbox.connection())
            live.run()
    return live


async def _at_once(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)
