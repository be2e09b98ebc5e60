"""One clock for a whole test, moved by nothing but its workers' waits.

Workers are threads of which one runs at a time: who waits hands over to whoever is due next. So
days pass in milliseconds, and what happens between two workers is the same in every run.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Killed", "Worker", "World"]

REAL_SECONDS = 60
"""Real time after which a world that does not go on is stuck."""


class Killed(BaseException):
    """The process dies, and no handler of its own runs."""


@dataclass(eq=False)
class Worker:
    """
    A process.

    :param skew: seconds by which its clock is fast.
    :param result: what its function returned, or raised.
    """

    number: int
    skew: float
    wakes_at: float
    killed_at: float = math.inf
    awaits: Worker | None = None
    is_over: bool = False
    ended_at: float = math.inf
    result: Any = None
    baton: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def due(self, now: float) -> float:
        over = self.awaits is not None and self.awaits.is_over
        return min(now if over else self.wakes_at, self.killed_at)


class World:
    """
    A clock, and the workers that live by it.

    :param start: the time, in seconds since the epoch.
    """

    def __init__(self, start: float) -> None:
        self.time = start
        self._numbers = 0
        self._alive: list[Worker] = []
        self._local = threading.local()
        self._end = threading.Semaphore(0)

    @property
    def worker(self) -> Worker | None:
        """The worker that asks; None for the service, whose clock is right."""
        return getattr(self._local, "worker", None)

    def now(self) -> float:
        """Return the time by the asker's own clock."""
        worker = self.worker
        return self.time + (worker.skew if worker else 0.0)

    def sleep(self, seconds: float) -> None:
        """Wait, while others go on; raise if killed meanwhile."""
        worker = self.worker
        assert worker is not None
        worker.wakes_at = self.time + max(0.0, seconds)
        self._hand_over(worker)

    def start(self, function: Callable[[], Any], skew: float = 0.0) -> Worker:
        """Start a worker, which runs when the one that starts it waits."""
        self._numbers += 1
        worker = Worker(self._numbers, skew, self.time)
        self._alive.append(worker)
        threading.Thread(target=self._run, args=(worker, function), daemon=True).start()
        return worker

    def wake(self, worker: Worker) -> None:
        """End a worker's present wait."""
        worker.wakes_at = min(worker.wakes_at, self.time)

    def kill(self, worker: Worker) -> None:
        """Let a worker die at its present wait."""
        worker.killed_at = min(worker.killed_at, self.time)

    def wait_for(self, other: Worker, until: float = math.inf) -> bool:
        """Wait for another worker's end; return False if it is not over by then."""
        worker = self.worker
        assert worker is not None
        worker.awaits, worker.wakes_at = other, max(until, self.time)
        self._hand_over(worker)
        worker.awaits = None
        return other.is_over

    def run(self, *functions: Callable[[], Any]) -> None:
        """Run workers, and those that they start, until all are over."""
        for function in functions:
            self.start(function)
        self._next().baton.release()
        assert self._end.acquire(timeout=REAL_SECONDS), "the world stands still"

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in an event loop that lives by this clock."""
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            return runner.run(coroutine)

    def _run(self, worker: Worker, function: Callable[[], Any]) -> None:
        worker.baton.acquire()
        self._local.worker = worker
        try:
            worker.result = function()
        except BaseException as error:  # noqa: BLE001 - for whoever started it to look at
            worker.result = error
        worker.is_over, worker.ended_at = True, self.time
        self._alive.remove(worker)
        (self._next().baton if self._alive else self._end).release()

    def _hand_over(self, worker: Worker) -> None:
        following = self._next()
        if following is not worker:
            following.baton.release()
            worker.baton.acquire()
        if self.time >= worker.killed_at:
            worker.killed_at = math.inf
            raise Killed

    def _next(self) -> Worker:
        chosen = min(self._alive, key=lambda worker: (worker.due(self.time), worker.number))
        due = chosen.due(self.time)
        assert due < math.inf, "everybody waits for something that never comes"
        self.time = max(self.time, due)
        return chosen


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that waits in a world's time; nothing but its own tasks can wake it."""

    def __init__(self, world: World) -> None:
        super().__init__(_Selector(world))
        self._world = world
        # A second's fraction since 1970 has no finer steps, and what is due now must be.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._world.now()


class _Selector(selectors.SelectSelector):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0:
            self._world.sleep(math.inf if timeout is None else timeout)
        return super().select(0)
