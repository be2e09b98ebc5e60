"""
Where on its way from socket to socket a request meets a fault, first to last.

Each class is the base of the faults of one stage, and its method is what they do there. A
request meets one fault of each kind at most, so that two of a kind strike in turn; of
:class:`Instead`, :class:`Creating` and :class:`Replacing` it meets one at all; a
:class:`Scripting` fault sticks to every job that is created while it lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from airflow_provider_bulkexports.sandbox.faults.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_bulkexports.sandbox.answers import Answer
    from airflow_provider_bulkexports.sandbox.deliveries import Deliveries
    from airflow_provider_bulkexports.sandbox.exchange import Exchange
    from airflow_provider_bulkexports.sandbox.jobs import CustomJob
    from airflow_provider_bulkexports.sandbox.records import FileKey
    from airflow_provider_bulkexports.sandbox.view import View
    from airflow_provider_bulkexports.sandbox.wire import Plan

__all__ = [
    "After",
    "Before",
    "Bending",
    "Creating",
    "Instead",
    "OnWire",
    "Reading",
    "Replacing",
    "Scripting",
    "Serving",
]


class Before(Fault):
    """Acts before the service does."""

    stage: ClassVar[str] = "before the service acts"

    async def pause(self) -> None:
        """Hold the request up."""
        raise NotImplementedError


class Instead(Fault):
    """Acts in the place of the service."""

    stage: ClassVar[str] = "instead of acting"

    async def answer(self, exchange: Exchange) -> Answer:
        """Return what is sent."""
        raise NotImplementedError


class Creating(Fault):
    """Acts on when, and how often, a request creates a job."""

    stage: ClassVar[str] = "on what the service does"

    def create(
        self, deliver: Callable[[float], CustomJob], now: float, deliveries: Deliveries
    ) -> CustomJob | Answer:
        """
        Create, or have created later.

        :param deliver: creates a job at a moment, which may be refused.
        :param now: the sandbox's time.
        :param deliveries: where to put what comes later.
        :returns: the job to answer with, or another answer.
        """
        raise NotImplementedError


class Scripting(Fault):
    """Acts on what will become of a job that is created."""

    stage: ClassVar[str] = "on what the service does"

    def script(self, job: CustomJob, empty_form: str) -> None:
        """
        Change the plans of a new job.

        :param empty_form: how the settings have an empty day look.
        """
        raise NotImplementedError


class Reading(Fault):
    """Acts on what the service shows of its jobs and files."""

    stage: ClassVar[str] = "on what the service does"

    def view(self, view: View) -> View:
        """Return another view in the place of ``view``."""
        raise NotImplementedError


class Serving(Fault):
    """Acts on which file the bucket serves."""

    stage: ClassVar[str] = "on what the service does"

    def serve(self, key: FileKey) -> FileKey:
        """Return another file in the place of ``key``'s."""
        raise NotImplementedError


class Bending(Fault):
    """Acts on the JSON of an answer that is no error."""

    stage: ClassVar[str] = "on the content of the answer"

    def applies(self, answer: Answer) -> bool:
        """Return whether there is something to bend; if not, a later request is struck."""
        return answer.content is not None and answer.status < 400

    def bend(self, answer: Answer) -> None:
        """Change the answer's content."""
        raise NotImplementedError


class After(Fault):
    """Acts when the service has acted, before it answers."""

    stage: ClassVar[str] = "after the service has acted"

    async def pause(self) -> None:
        """Hold the answer up."""
        raise NotImplementedError


class Replacing(Fault):
    """Acts in the place of the answer, which is lost although the service has acted."""

    stage: ClassVar[str] = "instead of the answer"

    def applies(self, answer: Answer) -> bool:
        """Return whether the answer can be replaced; if not, a later request is struck."""
        del answer
        return True

    async def replace(self, answer: Answer, exchange: Exchange) -> Answer:
        """Return what is sent in the place of ``answer``."""
        raise NotImplementedError


class OnWire(Fault):
    """Acts on how an answer's bytes go out."""

    stage: ClassVar[str] = "on the wire"

    def send(self, plan: Plan) -> None:
        """Change the plan by which an answer is sent."""
        raise NotImplementedError
