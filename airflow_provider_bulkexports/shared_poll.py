"""One reader for all who wait for the same thing in one event loop.

Hundreds of waiting tasks cost one listing a poll. HTTP never runs on the event loop, and what
hangs holds nobody but those who wait for it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    InvalidRequest,
    Retryable,
    Unauthorized,
)
from airflow_provider_bulkexports.api.job import available_days
from airflow_provider_bulkexports.api.redact import safe_text
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.watch import Answer, JobReader
from airflow_provider_bulkexports.compat import AirflowNotFoundException
from airflow_provider_bulkexports.hooks import BulkExportsHook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import ListedFile

__all__ = ["SharedPoll", "days_poll", "files_poll", "in_own_thread", "jobs_poll"]

T = TypeVar("T")
R = TypeVar("R")

PORTION = 5
"""Waiters that are answered between two turns of the loop: each takes up to a millisecond."""


def jobs_poll(bulkexports_conn_id: str, resource_type: str | None) -> SharedPoll[Answer]:
    """
    Return the running loop's poll of a connection's jobs; a waiter's key is its job's SID.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the jobs' type; None where it is not known.
    """
    parsed = ResourceType.parse(resource_type) if resource_type else None
    return SharedPoll.of("jobs", bulkexports_conn_id, parsed, JobReader(parsed).read)


def days_poll(bulkexports_conn_id: str, resource_type: str) -> SharedPoll[Answer]:
    """
    Return the running loop's poll of the days that are available; any key gets them all.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the days' resource type.
    """
    parsed = ResourceType.parse(resource_type)

    def read(client: Client, keys: AbstractSet[str]) -> dict[str, Answer]:
        days = available_days(client.list_days(parsed), client.list_jobs(parsed).jobs)
        return dict.fromkeys(keys, frozenset(days))

    return SharedPoll.of("days", bulkexports_conn_id, parsed, read)


def files_poll(
    bulkexports_conn_id: str, resource_type: str
) -> SharedPoll[list[ListedFile] | BulkExportsError]:
    """
    Return the running loop's poll of the listed day files; any key gets them all.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the files' resource type.
    """
    parsed = ResourceType.parse(resource_type)

    def read(
        client: Client, keys: AbstractSet[str]
    ) -> dict[str, list[ListedFile] | BulkExportsError]:
        return dict.fromkeys(keys, client.list_days(parsed))

    return SharedPoll.of("files", bulkexports_conn_id, parsed, read)


@dataclass(frozen=True, slots=True)
class _Waiter:
    key: str
    due: float


class SharedPoll(Generic[T]):
    """
    One reader for all who wait for one kind of thing, on one connection and type, in one loop.

    Each waiter says when it wants to look. When the first is due, one reading answers everybody.
    A service that asks to be left alone for a while is, whoever is due.

    :param bulkexports_conn_id: the connection's id.
    :param read: reads what the keys of all waiters are about; it runs in a thread of its own.
    """

    _all: ClassVar[
        WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], SharedPoll[Any]]]
    ] = WeakKeyDictionary()

    def __init__(
        self,
        bulkexports_conn_id: str,
        read: Callable[[Client, AbstractSet[str]], Mapping[str, T | BulkExportsError]],
    ) -> None:
        self._hook = BulkExportsHook(bulkexports_conn_id)
        self._read = read
        self._waiting: dict[asyncio.Future[T | BulkExportsError | None], _Waiter] = {}
        self._sooner = asyncio.Event()
        self._planned = -math.inf
        self._not_before = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._lookup: asyncio.Task[Client] | None = None
        self._known: Client | None = None

    @classmethod
    def of(
        cls,
        what: str,
        bulkexports_conn_id: str,
        resource_type: ResourceType | None,
        read: Callable[[Client, AbstractSet[str]], Mapping[str, T | BulkExportsError]],
    ) -> SharedPoll[T]:
        """
        Return the running loop's poll of one kind, connection and type.

        :param what: the kind of thing that is read.
        :param bulkexports_conn_id: the connection's id.
        :param resource_type: the type.
        :param read: how to read, if there is no such poll yet.
        """
        polls = cls._all.setdefault(asyncio.get_running_loop(), {})
        key = (what, bulkexports_conn_id, resource_type)
        if key not in polls:
            polls[key] = cls(bulkexports_conn_id, read)
        return polls[key]

    async def look(
        self, key: str, due: float, until: float = math.inf
    ) -> T | BulkExportsError | None:
        """
        Return what the next reading at or after ``due`` says, or why it failed.

        :param key: what to look at.
        :param due: when to look, in seconds since the epoch; others may be due sooner.
        :param until: how long to wait for the answer, in seconds since the epoch.
        :return: None if no answer came in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T | BulkExportsError | None] = loop.create_future()
        self._waiting[future] = _Waiter(key, due)
        if due < self._planned:
            self._sooner.set()
        if self._task is None or self._task.done():
            # Airflow sorts log lines by context: the reader's are nobody's, not the first waiter's.
            self._task = loop.create_task(self._run(), context=Context())
        alarm = None
        if until < math.inf:
            left = max(0.0, until - pace_module.PACE.now())
            alarm = loop.call_later(left, _settle, future, None)
        try:
            return await future
        finally:
            self._waiting.pop(future, None)
            if alarm is not None:
                alarm.cancel()

    async def _run(self) -> None:
        while self._waiting:
            self._sooner.clear()
            due = max(min(waiter.due for waiter in self._waiting.values()), self._not_before)
            delay = due - pace_module.PACE.now()
            if delay > 0:
                self._planned = due
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._sooner.wait(), delay)
                self._planned = -math.inf
                continue
            asked = dict(self._waiting)
            answers = await self._answers({waiter.key for waiter in asked.values()})
            advice = max(getattr(answer, "retry_after", None) or 0 for answer in answers.values())
            self._not_before = pace_module.PACE.now() + advice
            for number, (future, waiter) in enumerate(asked.items(), 1):
                self._waiting.pop(future, None)
                _settle(future, answers[waiter.key])
                if number % PORTION == 0:
                    await asyncio.sleep(0)

    async def _answers(self, keys: set[str]) -> Mapping[str, T | BulkExportsError]:
        try:
            client = await self._client()
            return await in_own_thread(self._read_and_close, client, keys)
        except BulkExportsError as error:
            return dict.fromkeys(keys, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next reading may do better
            text = f"{type(error).__name__}: {safe_text(str(error), [])}"
            return dict.fromkeys(keys, Retryable(f"Could not read from Twilio: {text}"))

    def _read_and_close(self, client: Client, keys: set[str]) -> Mapping[str, T | BulkExportsError]:
        with client:
            # Many requests, each within its time, could still take hours on a host that hangs.
            client.ends_at = client.pace.now() + 2 * client.pace.listing
            return self._read(client, keys)

    async def _client(self) -> Client:
        """
        Return a client for the connection as it is now.

        :raises Unauthorized: when there is none, or it cannot be right: it may be being replaced.
        :raises Retryable: when Airflow does not say, and never did.
        """
        from asgiref.sync import sync_to_async

        if self._lookup is None:
            # Airflow's lookup needs asgiref's one thread, which all connections share. It cannot
            # be called off, only be waited for again.
            self._lookup = asyncio.ensure_future(sync_to_async(self._hook.get_conn)())
        limit = pace_module.PACE.lookup
        done, _ = await asyncio.wait({self._lookup}, timeout=limit)
        if not done:
            if self._known is not None:
                return self._known.copy()
            raise Retryable(
                f"Airflow did not look up connection {self._hook.bulkexports_conn_id!r} within "
                f"{limit:.0f} s."
            )
        lookup, self._lookup = self._lookup, None
        try:
            self._known = lookup.result()
        except (AirflowNotFoundException, InvalidRequest) as error:
            raise Unauthorized(str(error)) from None
        return self._known


async def in_own_thread(function: Callable[..., R], *args: object) -> R:
    """
    Run a function in a thread that nobody else waits for, not even the process's exit.

    A pool would let calls that hang hold up others: with four threads, one silent host delayed
    a healthy connection's event by two and a half minutes. The loop's own pool belongs to
    Airflow and to other triggers.

    :param function: what to run.
    :param args: its arguments.
    :return: what the function returns.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            settle: Callable[..., None] = _settle
            outcome: object = function(*args)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            settle, outcome = _fail, error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, future, outcome)

    threading.Thread(target=run, name="bulkexports", daemon=True).start()
    return await future


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
