"""What a task does when it is stopped while it runs in a worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api import pace as pace_module
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.compat import AirflowException

if TYPE_CHECKING:
    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.submit import Submission

__all__ = ["KillSwitch", "TaskStopped", "delete_job"]

log = logging.getLogger(__name__)

STEP = 0.5
"""Seconds after which a waiting task notices at the latest that it was stopped."""


class TaskStopped(AirflowException):
    """Somebody stopped the task, or its worker is being shut down."""


class KillSwitch:
    """
    Stops a task that has been told to stop, and deletes its job if it may.

    :param deletes: whether the task's own job is deleted with it.
    """

    def __init__(self, *, deletes: bool) -> None:
        self.is_pulled = False
        self._deletes = deletes
        self._client: Client | None = None
        self._job_sid: str | None = None

    def guard(self, client: Client, job_sid: str | None) -> None:
        """
        Say what a stop would delete.

        :param client: with which to delete.
        :param job_sid: the task's own job; None for another's job, which is never deleted.
        """
        self._client, self._job_sid = client, job_sid

    def pull(self) -> None:
        """Stop the task; a signal's handler may call this amid anything."""
        # Airflow 3 lets the task run on for 5 s after this, so it is marked first.
        self.is_pulled = True
        self.delete()

    def check(self) -> None:
        """
        Give up if the task was stopped.

        :raises TaskStopped: then.
        """
        if self.is_pulled:
            self.delete()
            raise TaskStopped("The task was stopped.")

    def sleep(self, seconds: float) -> None:
        """
        Wait, unless the task is stopped.

        :raises TaskStopped: within half a second of that.
        """
        pace = pace_module.PACE
        end = pace.now() + seconds
        while True:
            self.check()
            left = end - pace.now()
            if left <= 0:
                return
            pace.sleep(min(left, STEP))

    def delete(self) -> bool:
        """Delete the guarded job, if jobs are deleted; say whether one was."""
        client, sid, self._job_sid = self._client, self._job_sid, None
        if not self._deletes or client is None or sid is None:
            return False
        return delete_job(client, sid)

    def delete_unseen(self, client: Client, submission: Submission) -> None:
        """Delete what a POST that was broken off may have created, if jobs are deleted."""
        if not self.is_pulled or not self._deletes:
            return
        pace_module.PACE.sleep(1)  # the request may still be on its way
        try:
            with client.hurried() as quick:
                job = submission.find(quick.list_jobs(submission.request.resource_type)).job
        except BulkExportsError as error:
            log.warning("Could not look for a job to delete: %s", error)
            return
        if job is not None:
            delete_job(client, job.sid)


def delete_job(client: Client, job_sid: str) -> bool:
    """Delete a job in a hurry; say whether it was. That it cannot be is only worth a warning."""
    try:
        with client.hurried() as quick:
            deleted = quick.delete_job(job_sid)
    except BulkExportsError as error:
        log.warning("Could not delete job %s: %s", job_sid, error)
        return False
    log.info("Deleted job %s." if deleted else "Twilio no longer knows job %s.", job_sid)
    return deleted
