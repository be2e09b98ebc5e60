"""Waiting without a worker.

A trigger carries ids and deadlines, never secrets. Everything that waits on one connection and
resource type shares one poll, and HTTP runs in threads, so that hundreds of waiting tasks cost
one listing an interval and never hold up the triggerer's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from airflow_provider_bulkexports.api.calendar import days_between
from airflow_provider_bulkexports.api.errors import BulkExportsError, Fatal, InvalidRequest
from airflow_provider_bulkexports.api.job import Job, JobState, available_days
from airflow_provider_bulkexports.api.polling import SHORTEST_WAIT, next_wait
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import (
    TRIGGER_HAS_ON_KILL,
    AirflowNotFoundException,
    BaseEventTrigger,
    BaseTrigger,
    TriggerEvent,
    task_instance_state,
)
from airflow_provider_bulkexports.hooks import BulkExportsHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from concurrent.futures import ThreadPoolExecutor

    from airflow_provider_bulkexports.api.client import Client

__all__ = ["BulkExportsDaysTrigger", "BulkExportsJobTrigger", "BulkExportsNewFilesTrigger"]

log = logging.getLogger(__name__)

POLL_THREADS = 4


class BulkExportsJobTrigger(BaseTrigger):
    """
    Fire when a job's days are final, when its deadline has passed, or when it cannot be read.

    The event is a hint: whoever resumes reads the job again.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the job's type, whose listing is read; None reads the job by itself.
    :param job_sid: the job to watch.
    :param start_day: first day that must be final, ``YYYY-MM-DD``.
    :param end_day: last day that must be final, ``YYYY-MM-DD``.
    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends, in seconds since the epoch.
    :param cancel_on_kill: delete the job when a person ends the deferred task.
    """

    def __init__(
        self,
        *,
        bulkexports_conn_id: str,
        resource_type: str | None,
        job_sid: str,
        start_day: str | None,
        end_day: str | None,
        started_at: float,
        deadline: float,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bulkexports_conn_id = bulkexports_conn_id
        self.resource_type = resource_type
        self.job_sid = job_sid
        self.start_day = start_day
        self.end_day = end_day
        self.started_at = started_at
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, all plain JSON."""
        return _path(self), {
            "bulkexports_conn_id": self.bulkexports_conn_id,
            "resource_type": self.resource_type,
            "job_sid": self.job_sid,
            "start_day": self.start_day,
            "end_day": self.end_day,
            "started_at": self.started_at,
            "deadline": self.deadline,
            "cancel_on_kill": self.cancel_on_kill,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the job and fire once."""
        poll = _Poll.shared("jobs", self.bulkexports_conn_id, self.resource_type, _read_jobs)
        days = [date.fromisoformat(day) if day else None for day in (self.start_day, self.end_day)]

        def is_over(job: Any) -> bool:
            return job.state(*days) is not JobState.ACTIVE

        try:
            await _watch(poll, self.job_sid, self.started_at, self.deadline, is_over)
        except asyncio.CancelledError:
            if not TRIGGER_HAS_ON_KILL:
                await _to_its_end(self._cancel_if_task_was_ended())
            raise
        yield TriggerEvent({"job_sid": self.job_sid, "deadline": self.deadline})

    async def on_kill(self) -> None:
        """Delete the job if asked to; Airflow 3.3 calls this when a person ends the task."""
        await _to_its_end(self._cancel_if_task_was_ended())

    async def _cancel_if_task_was_ended(self) -> None:
        if not self.cancel_on_kill:
            return
        from asgiref.sync import sync_to_async

        # A trigger is also cancelled when it moves to another triggerer: the task waits on then.
        state = await sync_to_async(task_instance_state)(self.task_instance)
        if state == "deferred":
            return
        log.info("The waiting task was ended (%s); deleting job %s.", state, self.job_sid)
        client = await sync_to_async(BulkExportsHook(self.bulkexports_conn_id).get_conn)()
        await _in_thread(_delete, client, self.job_sid)


class BulkExportsDaysTrigger(BaseTrigger):
    """
    Fire when every day of a range can be had, or when the deadline has passed.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the days' resource type.
    :param start_day: first day, ``YYYY-MM-DD``.
    :param end_day: last day, ``YYYY-MM-DD``.
    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        bulkexports_conn_id: str,
        resource_type: str,
        start_day: str,
        end_day: str,
        started_at: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bulkexports_conn_id = bulkexports_conn_id
        self.resource_type = resource_type
        self.start_day = start_day
        self.end_day = end_day
        self.started_at = started_at
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, all plain JSON."""
        return _path(self), {
            "bulkexports_conn_id": self.bulkexports_conn_id,
            "resource_type": self.resource_type,
            "start_day": self.start_day,
            "end_day": self.end_day,
            "started_at": self.started_at,
            "deadline": self.deadline,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the days and fire once."""
        poll = _Poll.shared("days", self.bulkexports_conn_id, self.resource_type, _read_days)
        first, last = date.fromisoformat(self.start_day), date.fromisoformat(self.end_day)
        wanted = set(days_between(first, last))
        await _watch(poll, "days", self.started_at, self.deadline, wanted.issubset)
        yield TriggerEvent({"deadline": self.deadline})


class BulkExportsNewFilesTrigger(BaseEventTrigger):
    """
    Fire for each day's file that is new in Twilio's list; for an ``AssetWatcher`` of Airflow 3.

    The event is ``{"resource_type", "day", "size", "create_date"}``. Watchers of one connection and
    type share one poll. Each file is told at least once: from Airflow 3.3 on, what was told is kept
    with the asset, if it has this trigger to itself; otherwise every start of the triggerer tells
    of all files that are listed then. An outage is waited out.

    :param resource_type: ``Messages``, ``Calls``, ``Conferences`` or ``Participants``.
    :param bulkexports_conn_id: the connection's id.
    :param poll_interval: seconds between two looks, 10 or more.
    :raises InvalidRequest: for a wrong type or interval.
    """

    def __init__(
        self,
        *,
        resource_type: str,
        bulkexports_conn_id: str = BulkExportsHook.default_conn_name,
        poll_interval: float = 300.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if not poll_interval >= SHORTEST_WAIT:
            raise InvalidRequest(
                f"poll_interval is {poll_interval!r}; give {SHORTEST_WAIT:.0f} seconds or more."
            )
        self.resource_type = ResourceType.parse(resource_type).value
        self.bulkexports_conn_id = bulkexports_conn_id
        self.poll_interval = poll_interval
        # An asset may have several watchers, whose memories lie side by side.
        self._memory = f"{bulkexports_conn_id}/{self.resource_type}/told"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, all plain JSON."""
        return _path(self), {
            "resource_type": self.resource_type,
            "bulkexports_conn_id": self.bulkexports_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the list for good."""
        poll = _Poll.shared("files", self.bulkexports_conn_id, self.resource_type, _read_files)
        told = await self._recall()
        wait, failing = 0.0, False
        while True:
            files = await poll.look("files", wait)
            wait = self.poll_interval
            if isinstance(files, Exception):
                if not failing:
                    log.warning("Could not list %s files, trying on: %s", self.resource_type, files)
                failing = True
                continue
            failing = False
            news = {day: file for day, file in files.items() if file != told.get(day)}
            for day in sorted(news):
                yield TriggerEvent({"resource_type": self.resource_type, "day": day, **news[day]})
            if news:
                told |= news  # what has left the list stays told: it may come back
                await self._remember(told)

    async def _recall(self) -> dict[str, Any]:
        store = getattr(self, "asset_state_store", None)
        try:
            told = await store.aget(self._memory) if store is not None else None
        except Exception as error:  # noqa: BLE001 - to tell again is better than to tell no more
            log.warning("What was told of %s files is not known: %s", self.resource_type, error)
            told = None
        return told if isinstance(told, dict) else {}

    async def _remember(self, told: dict[str, Any]) -> None:
        store = getattr(self, "asset_state_store", None)
        try:
            if store is not None:
                await store.aset(self._memory, told)
        except Exception as error:  # noqa: BLE001 - as above; several assets share the trigger, say
            log.warning("What was told of %s files is not kept: %s", self.resource_type, error)


async def _watch(
    poll: _Poll, key: str, started_at: float, deadline: float, is_over: Callable[[Any], bool]
) -> None:
    """Return when an answer is over, fatal, or late; never sooner than the shortest wait."""
    loop = asyncio.get_running_loop()
    earliest = loop.time() + SHORTEST_WAIT
    remaining: float | None = None
    failing = False
    while (left := deadline - time.time()) > 0:
        wait = min(next_wait(time.time() - started_at, remaining), max(left, 0.0))
        answer = await poll.look(key, wait)
        if isinstance(answer, Exception):
            if isinstance(answer, (Fatal, AirflowNotFoundException)):
                log.warning("%s cannot be read: %s", key, answer)
                break
            # An outage is no verdict on the job; reading goes on until the deadline.
            if not failing:
                log.warning("Could not read %s, trying on: %s", key, answer)
            failing = True
            continue
        if failing:
            log.info("Reading %s again.", key)
        failing = False
        if is_over(answer):
            break
        remaining = None
        if isinstance(answer, Job) and answer.estimated_completion is not None:
            remaining = answer.estimated_completion.timestamp() - time.time()
    await asyncio.sleep(max(0.0, earliest - loop.time()))


class _Poll:
    """
    One reader for all who wait on the same thing in one event loop.

    Each waiter says when it wants to look. When the first is due, one reading answers everybody.
    """

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Poll]]] = (
        WeakKeyDictionary()
    )

    def __init__(
        self,
        bulkexports_conn_id: str,
        resource_type: ResourceType | None,
        read: Callable[[Client, ResourceType | None, set[str]], dict[str, Any]],
    ) -> None:
        self._hook = BulkExportsHook(bulkexports_conn_id)
        self._resource_type = resource_type
        self._read = read
        self._waiting: dict[asyncio.Future[Any], tuple[str, float]] = {}
        self._newcomer = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def shared(
        cls,
        kind: str,
        bulkexports_conn_id: str,
        resource_type: str | None,
        read: Callable[[Client, ResourceType | None, set[str]], dict[str, Any]],
    ) -> _Poll:
        """Return the running loop's poll of this kind, connection and type."""
        polls = cls._all.setdefault(asyncio.get_running_loop(), {})
        key = (kind, bulkexports_conn_id, resource_type)
        if key not in polls:
            parsed = ResourceType.parse(resource_type) if resource_type else None
            polls[key] = cls(bulkexports_conn_id, parsed, read)
        return polls[key]

    async def look(self, key: str, wait: float) -> Any:
        """Return what the next reading says of ``key``, within ``wait`` seconds, or its error."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting[future] = (key, loop.time() + wait)
        self._newcomer.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._newcomer.clear()
            delay = min(due for _, due in self._waiting.values()) - loop.time()
            if delay > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._newcomer.wait(), delay)
                continue
            asked = {future: key for future, (key, _) in self._waiting.items()}
            answers = await self._answers(set(asked.values()))
            for future, key in asked.items():
                if not future.done():
                    future.set_result(answers[key])
                self._waiting.pop(future, None)

    async def _answers(self, keys: set[str]) -> dict[str, Any]:
        from asgiref.sync import sync_to_async

        try:
            # Airflow's connection lookup needs asgiref's thread; plain HTTP may use any.
            client = await sync_to_async(self._hook.get_conn)()
            answers: dict[str, Any] = await _in_thread(self._read_and_close, client, keys)
        except Exception as error:  # noqa: BLE001 - handed to every waiter, which decides
            return dict.fromkeys(keys, error)
        return answers

    def _read_and_close(self, client: Client, keys: set[str]) -> dict[str, Any]:
        with client:
            return self._read(client, self._resource_type, keys)


def _read_jobs(
    client: Client, resource_type: ResourceType | None, sids: set[str]
) -> dict[str, Any]:
    listed = {job.sid: job for job in client.list_jobs(resource_type)} if resource_type else {}
    answers: dict[str, Any] = {}
    for sid in sids:
        # A job may have left the listing, which only fetching it can tell.
        try:
            answers[sid] = listed.get(sid) or client.fetch_job(sid)
        except BulkExportsError as error:
            answers[sid] = error
    return answers


def _read_days(
    client: Client, resource_type: ResourceType | None, keys: set[str]
) -> dict[str, Any]:
    assert resource_type is not None  # noqa: S101 - the range trigger always has one
    days = available_days(client.list_days(resource_type), client.list_jobs(resource_type))
    return dict.fromkeys(keys, days)


def _read_files(
    client: Client, resource_type: ResourceType | None, keys: set[str]
) -> dict[str, Any]:
    assert resource_type is not None  # noqa: S101 - the days trigger always has one
    files = {
        day.day.isoformat(): {
            "size": day.size,
            "create_date": day.create_date.isoformat() if day.create_date else None,
        }
        for day in client.list_days(resource_type)
    }
    return dict.fromkeys(keys, files)


def _delete(client: Client, job_sid: str) -> None:
    with client:
        client.delete_job(job_sid)


_executor: ThreadPoolExecutor | None = None


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    # Threads of our own: the loop's default pool belongs to Airflow and to other triggers.
    global _executor  # noqa: PLW0603 - one pool a process
    if _executor is None:
        from concurrent.futures import ThreadPoolExecutor

        _executor = ThreadPoolExecutor(POLL_THREADS, thread_name_prefix="bulkexports")
    return await asyncio.get_running_loop().run_in_executor(_executor, function, *args)


_unfinished: set[asyncio.Task[None]] = set()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    # Airflow cancels an ended task's trigger again and again, which would break off its on_kill.
    task = asyncio.ensure_future(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


def _path(trigger: BaseTrigger) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
