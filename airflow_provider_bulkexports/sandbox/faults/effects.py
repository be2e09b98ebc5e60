"""Faults in what the service does: when it creates, what becomes of a job, what it shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from airflow_provider_bulkexports.api.job import Status
from airflow_provider_bulkexports.sandbox.answers import Answer, fault_status
from airflow_provider_bulkexports.sandbox.faults.arguments import (
    DAYS,
    OUTCOME,
    SECONDS,
    SHARE,
    STATUS,
    Argument,
    argument,
    one_of,
)
from airflow_provider_bulkexports.sandbox.faults.stages import (
    Creating,
    Reading,
    Scripting,
    Serving,
)
from airflow_provider_bulkexports.sandbox.jobs import EMPTY_FORMS
from airflow_provider_bulkexports.sandbox.records import CONTENTS, FileKey, other_contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_bulkexports.sandbox.deliveries import Deliveries
    from airflow_provider_bulkexports.sandbox.jobs import CustomJob, DayPlan
    from airflow_provider_bulkexports.sandbox.view import View

__all__ = [
    "EmptyDay",
    "JobContents",
    "JobOutcome",
    "Lag",
    "Late",
    "OtherContents",
    "Stale",
    "Twice",
]

_WHAT = Argument(
    "one of " + "; ".join(f"`{what}`, {meaning}" for what, meaning in CONTENTS.items()),
    lambda value: value in CONTENTS,
)


@dataclass(frozen=True)
class Late(Creating):
    """Loses the answer, or answers `status`; the job is created later, by the service's clock."""

    kind: ClassVar[str] = "late"
    routes: ClassVar[tuple[str, ...]] = ("create_job",)
    seconds: float = argument(SECONDS)
    status: int | None = argument(STATUS, default=None)

    def create(
        self, deliver: Callable[[float], CustomJob], now: float, deliveries: Deliveries
    ) -> Answer:
        """Put the creation off; end day and quota are judged when it happens."""
        deliveries.add(now + self.seconds, deliver)
        return Answer.lost() if self.status is None else fault_status(self.status)


@dataclass(frozen=True)
class Twice(Creating):
    """Delivers the request a second time, by the service's clock; each delivery creates a job."""

    kind: ClassVar[str] = "twice"
    routes: ClassVar[tuple[str, ...]] = ("create_job",)
    seconds: float = argument(SECONDS, default=0)
    answer: str = argument(one_of("first", "second"), default="first")

    def check(self, route: str) -> None:
        """Refuse to answer what comes later."""
        del route
        if self.answer == "second" and self.seconds:
            raise ValueError("answer 'second' goes with seconds 0 only")

    def create(
        self, deliver: Callable[[float], CustomJob], now: float, deliveries: Deliveries
    ) -> CustomJob:
        """Create now and once more."""
        first = deliver(now)
        if self.answer == "second":
            return deliver(now)
        deliveries.add(now + self.seconds, deliver)
        return first


@dataclass(frozen=True)
class JobOutcome(Scripting):
    """Has the job's days, or the `days` named, end with another status word or walk some."""

    kind: ClassVar[str] = "job_outcome"
    routes: ClassVar[tuple[str, ...]] = ("create_job",)
    outcome: str | list[str] = argument(OUTCOME)
    days: list[str] | None = argument(DAYS, default=None)

    def script(self, job: CustomJob, empty_form: str) -> None:
        """Change the walks of the days."""
        empty_word = Status.COMPLETED_EMPTY_RECORDS
        for plan in _plans(job, self.days):
            outcome = self.outcome
            plan.walk = (Status.RUNNING, outcome) if isinstance(outcome, str) else tuple(outcome)
            empty = Status.parse(plan.walk[-1]) is empty_word
            plan.empty = (plan.empty or empty_form) if empty else None


@dataclass(frozen=True)
class EmptyDay(Scripting):
    """Has the job's days, or the `days` named, be empty, in one of the forms of an empty day."""

    kind: ClassVar[str] = "empty_day"
    routes: ClassVar[tuple[str, ...]] = ("create_job",)
    how: str = argument(one_of(*EMPTY_FORMS), default=EMPTY_FORMS[0])
    days: list[str] | None = argument(DAYS, default=None)

    def script(self, job: CustomJob, empty_form: str) -> None:
        """Empty the days."""
        del empty_form
        for plan in _plans(job, self.days):
            plan.walk = (Status.RUNNING, Status.COMPLETED_EMPTY_RECORDS)
            plan.empty = self.how


@dataclass(frozen=True)
class JobContents(Scripting):
    """Has the job's files, or those of the `days` named, hold something else than its records."""

    kind: ClassVar[str] = "job_contents"
    routes: ClassVar[tuple[str, ...]] = ("create_job",)
    what: str = argument(_WHAT)
    days: list[str] | None = argument(DAYS, default=None)

    def script(self, job: CustomJob, empty_form: str) -> None:
        """Change the contents of the days' files."""
        del empty_form
        for plan in _plans(job, self.days):
            plan.contents = self.what


@dataclass(frozen=True)
class OtherContents(Serving):
    """Serves a file that holds something else than the one that is listed."""

    kind: ClassVar[str] = "other_contents"
    routes: ClassVar[tuple[str, ...]] = ("download",)
    what: str = argument(_WHAT)

    def serve(self, key: FileKey) -> FileKey:
        """Swap the file."""
        return other_contents(key, self.what)


@dataclass(frozen=True)
class Lag(Reading):
    """Does not show yet what is younger than `seconds`, nor ever a share of all, `omit`."""

    kind: ClassVar[str] = "lag"
    routes: ClassVar[tuple[str, ...]] = ("list_jobs", "fetch_job", "list_days", "fetch_day")
    seconds: float = argument(SECONDS, default=0)
    omit: float = argument(SHARE, default=0)

    def check(self, route: str) -> None:
        """Refuse to hide nothing."""
        del route
        if not self.seconds and not self.omit:
            raise ValueError("lag needs seconds, omit, or both")

    def view(self, view: View) -> View:
        """Hide the young, and the share."""
        return replace(
            view,
            newest=min(view.newest, view.moment - self.seconds),
            omit=max(view.omit, self.omit),
        )


@dataclass(frozen=True)
class Stale(Reading):
    """Shows the jobs as they were `seconds` ago."""

    kind: ClassVar[str] = "stale"
    routes: ClassVar[tuple[str, ...]] = ("list_jobs", "fetch_job")
    seconds: float = argument(SECONDS)

    def view(self, view: View) -> View:
        """Look at an earlier moment."""
        moment = view.moment - self.seconds
        return replace(view, moment=moment, newest=min(view.newest, moment))


def _plans(job: CustomJob, days: list[str] | None) -> Iterator[DayPlan]:
    for day, plan in job.plans.items():
        if days is None or day.isoformat() in days:
            yield plan
