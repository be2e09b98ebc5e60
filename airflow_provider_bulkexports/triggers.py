"""Waiting without a worker.

A trigger carries ids and deadlines, never secrets. What it learns decides nothing: its event is
a hint, and whoever is woken reads again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.calendar import days_between
from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.redact import safe_text, shown
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.watch import DaysWatch, JobWatch, Over
from airflow_provider_bulkexports.compat import (
    TRIGGER_HAS_ON_KILL,
    BaseEventTrigger,
    BaseTrigger,
    TriggerEvent,
    task_instance_state,
)
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.shared_poll import (
    days_poll,
    files_poll,
    in_own_thread,
    jobs_poll,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.job import ListedFile
    from airflow_provider_bulkexports.api.watch import Answer, Watch
    from airflow_provider_bulkexports.shared_poll import SharedPoll

__all__ = ["BulkExportsDaysTrigger", "BulkExportsJobTrigger", "BulkExportsNewFilesTrigger"]

log = logging.getLogger(__name__)

_FINAL = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States of a task instance that no scheduler changes: whoever deferred does not come back."""


class BulkExportsJobTrigger(BaseTrigger):
    """
    Fire when the wait for a job's days is over.

    The event is ``{"job_sid", "owned", "over", "trouble"}``: ``over`` is ``done``, ``late``,
    ``gone`` or ``refused``, ``trouble`` is what the last look failed with.

    :param bulkexports_conn_id: the connection's id.
    :param resource_type: the job's type; None where it is not known.
    :param job_sid: the job to watch.
    :param start_day: first day that must be final, ``YYYY-MM-DD``; None for all of the job.
    :param end_day: last day that must be final, ``YYYY-MM-DD``.
    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends, in seconds since the epoch.
    :param owned: whether the job is this task's own, which alone it may delete.
    :param cancel_on_kill: delete an owned job when a person ends the deferred task for good.
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
        owned: bool = False,
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
        self.owned = owned
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
            "owned": self.owned,
            "cancel_on_kill": self.cancel_on_kill,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the job and fire once."""
        poll = jobs_poll(self.bulkexports_conn_id, self.resource_type)
        watch = JobWatch(
            self.started_at,
            self.deadline,
            start_day=date.fromisoformat(self.start_day) if self.start_day else None,
            end_day=date.fromisoformat(self.end_day) if self.end_day else None,
        )
        try:
            outcome = await _follow(watch, poll, self.job_sid)
        except asyncio.CancelledError:
            if not TRIGGER_HAS_ON_KILL:
                await _to_its_end(self._delete_if_task_is_over())
            raise
        yield TriggerEvent({"job_sid": self.job_sid, "owned": self.owned, **outcome})

    async def on_kill(self) -> None:
        """Delete the job if asked to; Airflow 3.3 calls this when a person ends the task."""
        await _to_its_end(self._delete_if_task_is_over())

    async def _delete_if_task_is_over(self) -> None:
        if not (self.cancel_on_kill and self.owned):
            return
        from asgiref.sync import sync_to_async

        sid = self.job_sid
        try:
            state = await sync_to_async(task_instance_state)(self.task_instance)
        except Exception as error:  # noqa: BLE001 - to leave a job is safe, to delete one is not
            log.warning("The task's state is not known, so job %s stays: %s", sid, _named(error))
            return
        # A trigger is cancelled too when it moves to another triggerer, and the task waits on;
        # after a clear the next try adopts the job.
        if state not in _FINAL:
            log.info("The task is not over (%s), so job %s stays.", state, sid)
            return
        log.info("The waiting task was stopped (%s); deleting job %s.", state, sid)
        try:
            client = await sync_to_async(BulkExportsHook(self.bulkexports_conn_id).get_conn)()
            known = await in_own_thread(_delete, client, sid)
        except Exception as error:  # noqa: BLE001 - the task is over, whatever becomes of the job
            log.warning("Could not delete job %s, which goes on: %s", sid, _named(error))
            return
        if known:
            log.info("Deleted job %s.", sid)
        else:
            log.info("Twilio no longer knows job %s.", sid)


class BulkExportsDaysTrigger(BaseTrigger):
    """
    Fire when every day of a range is available, or when the wait is over without.

    The event is ``{"over", "trouble"}``: ``over`` is ``done``, ``late`` or ``refused``, ``trouble``
    is what the last look failed with.

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
        poll = days_poll(self.bulkexports_conn_id, self.resource_type)
        first, last = date.fromisoformat(self.start_day), date.fromisoformat(self.end_day)
        wanted = frozenset(days_between(first, last))
        watch = DaysWatch(self.started_at, self.deadline, wanted=wanted)
        yield TriggerEvent(await _follow(watch, poll, "days"))


class BulkExportsNewFilesTrigger(BaseEventTrigger):
    """
    Fire when day files are new in Twilio's list; for an ``AssetWatcher`` of Airflow 3.

    One event a look has all that is new: ``{"resource_type", "days": [{"day", "size",
    "create_date"}, ...]}``. Airflow may turn several events into one DAG run that sees the first
    of them, so an event is a call to see what is missing, not the list of it.

    Watchers of one connection and type share one poll. Each file is reported at least once: from
    Airflow 3.3 on, what was reported is kept with the asset, if it has this trigger to itself;
    otherwise every start of the triggerer reports all files that are listed then. An outage is
    waited out.

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
        shortest = pace_module.PACE.shortest_poll
        is_number = isinstance(poll_interval, int | float) and not isinstance(poll_interval, bool)
        if not is_number or not shortest <= poll_interval < math.inf:
            raise InvalidRequest(
                f"poll_interval is {shown(poll_interval)}; it must be a number of seconds, "
                f"{shortest:g} or more."
            )
        self.resource_type = ResourceType.parse(resource_type).value
        self.bulkexports_conn_id = bulkexports_conn_id
        self.poll_interval = poll_interval
        # An asset may have several watchers, whose memories lie side by side.
        self._memory = f"{bulkexports_conn_id}/{self.resource_type}/reported"

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments, all plain JSON."""
        return _path(self), {
            "resource_type": self.resource_type,
            "bulkexports_conn_id": self.bulkexports_conn_id,
            "poll_interval": self.poll_interval,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch the list for good."""
        pace = pace_module.PACE
        poll = files_poll(self.bulkexports_conn_id, self.resource_type)
        reported = await self._recall()
        due, kept_from, failing = pace.now(), math.inf, False
        while True:
            answer = await poll.look("files", due)
            now = pace.now()
            due = now + self.poll_interval
            # A triggerer that is killed right after an event takes it along: only at a later look
            # must Airflow have kept it. Another watcher's look may come at once, and is too soon.
            if now >= kept_from:
                await self._remember(reported)
                kept_from = math.inf
            if not isinstance(answer, list):
                if not failing:
                    kind = self.resource_type
                    log.warning("Could not list %s files, trying on: %s", kind, answer)
                failing = True
                continue
            if failing:
                log.info("Listing %s files again.", self.resource_type)
            failing = False
            files = _as_json(answer)
            new = {day: file for day, file in files.items() if file != reported.get(day)}
            if new:
                reported |= new  # what has left the list stays reported: it may come back
                kept_from = now + pace.shortest_poll
                days = [{"day": day, **new[day]} for day in sorted(new)]
                yield TriggerEvent({"resource_type": self.resource_type, "days": days})

    async def _recall(self) -> dict[str, Any]:
        store = getattr(self, "asset_state_store", None)
        try:
            reported = await store.aget(self._memory) if store is not None else None
        except Exception as error:  # noqa: BLE001 - to report twice is better than never again
            kind = self.resource_type
            log.warning("Which %s files were reported is not known: %s", kind, _named(error))
            reported = None
        return reported if isinstance(reported, dict) else {}

    async def _remember(self, reported: dict[str, Any]) -> None:
        store = getattr(self, "asset_state_store", None)
        try:
            if store is not None:
                await store.aset(self._memory, reported)
        except Exception as error:  # noqa: BLE001 - as above; several assets share the trigger, say
            kind = self.resource_type
            log.warning("Which %s files were reported is not kept: %s", kind, _named(error))


def _as_json(files: Iterable[ListedFile]) -> dict[str, dict[str, Any]]:
    return {
        file.day.isoformat(): {
            "size": file.size,
            "create_date": file.create_date.isoformat() if file.create_date else None,
        }
        for file in files
    }


async def _follow(watch: Watch, poll: SharedPoll[Answer], key: str) -> dict[str, str]:
    """Drive a watch until it is over; never shorter than the shortest wait between two looks."""
    pace = watch.pace
    loop = asyncio.get_running_loop()
    earliest = loop.time() + pace.shortest_poll
    # A triggerer may start late: what is past its deadline is looked at once all the same.
    until = max(watch.deadline + pace.last_look, pace.now() + pace.shortest_poll)
    over, trouble = None, ""
    while over is None:
        answer = await poll.look(key, watch.next_look(pace.now()), until)
        if answer is None:
            over = Over.LATE
            trouble = watch.trouble or "Twilio did not answer the last look in time."
        else:
            over, lines = watch.see(answer, pace.now())
            trouble = watch.trouble
            for line in lines:
                log.log(line.level, "%s", line.text)
    await asyncio.sleep(max(0.0, earliest - loop.time()))
    return {"over": over.value, "trouble": trouble}


def _delete(client: Client, job_sid: str) -> bool:
    with client, client.hurried() as quick:
        return quick.delete_job(job_sid)


_unfinished: set[asyncio.Task[None]] = set()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    # Airflow cancels a stopped task's trigger again and again, which would break off its on_kill.
    task = asyncio.ensure_future(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {safe_text(str(error), [])}"


def _path(trigger: BaseTrigger) -> str:
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}"
