"""A custom export job to be created, refused here if Twilio would refuse it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_bulkexports.api.calendar import EXPORT_DELAY, MAX_DAYS, check_order, parse_day
from airflow_provider_bulkexports.api.errors import InvalidRequest, NotExportableYet
from airflow_provider_bulkexports.api.redact import shown

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = [
    "MAX_NAME",
    "ExportRequest",
    "Reattach",
    "ResourceType",
    "check_name",
    "check_webhook_method",
]


MAX_NAME = 64
"""Our own limit on a job's name: Twilio documents none, and a short name is safe anywhere."""
_NAME = re.compile(r"[A-Za-z0-9_]+")


class ResourceType(StrEnum):
    """What can be exported; the words are Twilio's path segments."""

    MESSAGES = "Messages"
    CALLS = "Calls"
    CONFERENCES = "Conferences"
    PARTICIPANTS = "Participants"

    @classmethod
    def parse(cls, value: object) -> ResourceType:
        """
        Return the resource type that ``value`` names, in Twilio's own spelling.

        :raises InvalidRequest: for any other word.
        """
        try:
            return cls(str(value))
        except ValueError:
            allowed = ", ".join(cls)
            raise InvalidRequest(
                f"resource_type is {shown(value)}; allowed are {allowed}."
            ) from None


class Reattach(StrEnum):
    """Which job a task adopts instead of creating one."""

    RUN = "run"
    RANGE = "range"
    NEVER = "never"

    @classmethod
    def parse(cls, value: object) -> Reattach:
        """
        Return the member that ``value`` names.

        :raises InvalidRequest: for any other word.
        """
        try:
            return cls(str(value))
        except ValueError:
            allowed = ", ".join(cls)
            raise InvalidRequest(f"reattach is {shown(value)}; allowed are {allowed}.") from None


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """
    A custom export job to be created, refused here if Twilio would refuse it.

    :param resource_type: what to export.
    :param start_day: first UTC day, inclusive.
    :param end_day: last UTC day, inclusive.
    :param friendly_name: the job's name: letters, digits, underscores, at most 64.
    :param webhook_url: https URL that Twilio calls on completion; needs ``webhook_method``.
    :param webhook_method: ``GET`` or ``POST``; needs ``webhook_url``.
    :param email: address that Twilio mails on completion.
    :raises InvalidRequest: naming what was given, what is allowed and what to do.
    """

    resource_type: ResourceType
    start_day: date
    end_day: date
    friendly_name: str
    webhook_url: str | None = field(default=None, repr=False)
    webhook_method: str | None = None
    email: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_order(self.start_day, self.end_day)
        if self.day_count > MAX_DAYS:
            raise InvalidRequest(
                f"The range {self.start_day} to {self.end_day} has {self.day_count} days; one job "
                f"may have at most {MAX_DAYS}. Split it."
            )
        if self.end_day > date.max - EXPORT_DELAY:
            raise InvalidRequest(f"end_day is {self.end_day}; give one that can ever be exported.")
        check_name(self.friendly_name)
        _check_webhook(self.webhook_url, self.webhook_method)
        if self.email is not None and not re.fullmatch(r"[^@\s,;]+@[^@\s,;]+", self.email):
            raise InvalidRequest(f"email is {shown(self.email)}; give one address or leave it out.")

    @classmethod
    def parse(
        cls,
        *,
        resource_type: object,
        start_day: object,
        end_day: object,
        friendly_name: str,
        webhook_url: str | None = None,
        webhook_method: str | None = None,
        email: str | None = None,
    ) -> ExportRequest:
        """
        Build a request from rendered text.

        :raises InvalidRequest: as the class does, and for words that are no type or day.
        """
        return cls(
            resource_type=ResourceType.parse(resource_type),
            start_day=parse_day(start_day, "start_day"),
            end_day=parse_day(end_day, "end_day"),
            friendly_name=friendly_name,
            webhook_url=webhook_url or None,
            webhook_method=webhook_method or None,
            email=email or None,
        )

    @property
    def day_count(self) -> int:
        """Number of days asked for, which is what the quota is charged."""
        return (self.end_day - self.start_day).days + 1

    @property
    def exportable_from(self) -> DateTime:
        """The UTC instant from which Twilio accepts this range."""
        import pendulum

        first = self.end_day + EXPORT_DELAY
        return pendulum.datetime(first.year, first.month, first.day)

    def require_exportable(self, now: DateTime) -> None:
        """
        Refuse a range that ends later than two days before ``now``.

        :raises NotExportableYet: with the instant from which it can be exported.
        """
        if now < self.exportable_from:
            raise NotExportableYet(
                f"{self.resource_type} of {self.end_day} cannot be exported yet: Twilio exports a "
                f"UTC day from {self.exportable_from.to_iso8601_string()} on, and it is "
                f"{now.in_timezone('UTC').start_of('second').to_iso8601_string()}.",
                available_at=self.exportable_from,
            )

    def form(self) -> dict[str, str]:
        """Return the request as Twilio's form fields; what was not given is left out."""
        fields = {
            "StartDay": self.start_day.isoformat(),
            "EndDay": self.end_day.isoformat(),
            "FriendlyName": self.friendly_name,
            "WebhookUrl": self.webhook_url,
            "WebhookMethod": self.webhook_method,
            "Email": self.email,
        }
        return {name: value for name, value in fields.items() if value is not None}


def check_name(name: str) -> None:
    """
    Refuse a name that Twilio might alter.

    :raises InvalidRequest: for an empty or long one, or other characters than it keeps.
    """
    if not name:
        raise InvalidRequest("friendly_name is empty; give the job a name.")
    if len(name) > MAX_NAME:
        raise InvalidRequest(
            f"friendly_name {shown(name)} has {len(name)} characters; at most {MAX_NAME} "
            "are allowed."
        )
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"friendly_name is {shown(name)}; only letters, digits and underscores are allowed, "
            "since Twilio has been seen to alter others."
        )


def check_webhook_method(method: str | None) -> None:
    """
    Refuse a method with which Twilio calls no webhook; an empty one means none.

    :raises InvalidRequest: naming those that are allowed.
    """
    if method and method not in ("GET", "POST"):
        raise InvalidRequest(f"webhook_method is {shown(method)}; allowed are GET and POST.")


def _check_webhook(url: str | None, method: str | None) -> None:
    if (url is None) != (method is None):
        given, missing = (
            ("webhook_url", "webhook_method") if url else ("webhook_method", "webhook_url")
        )
        raise InvalidRequest(f"{given} is given without {missing}; give both or neither.")
    if url is None:
        return
    check_webhook_method(method)
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme != "https":
        raise InvalidRequest("webhook_url must be an https address with a host.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest(
            "webhook_url carries a user name or password, which would be stored with the job; "
            "check Twilio's signature at the receiver instead."
        )
