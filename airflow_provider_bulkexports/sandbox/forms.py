"""The rules of a job request, checked as Twilio does, apart from the client's own checks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JobForm", "check_webhook", "read_day", "read_resource_type"]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOST_DAYS = 366
_DELAY = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class JobForm:
    """The fields of a job request that has been found right."""

    start_day: date
    end_day: date
    friendly_name: str
    webhook_url: str | None
    webhook_method: str | None
    email: str | None

    @classmethod
    def parse(cls, form: Mapping[str, str], today: date) -> JobForm:
        """
        Read a form.

        :param today: the current UTC day.
        :raises Refusal: with status 400, naming the field.
        """
        for name in ("StartDay", "EndDay", "FriendlyName"):
            if not form.get(name):
                raise Refusal.invalid(f"{name} is required")
        start_day, end_day = (read_day(form[name], name) for name in ("StartDay", "EndDay"))
        if start_day > end_day:
            raise Refusal.invalid("StartDay must not be later than EndDay")
        if (end_day - start_day).days >= _MOST_DAYS:
            raise Refusal.invalid(f"A job may span at most {_MOST_DAYS} days")
        if end_day > today - _DELAY:
            raise Refusal.invalid("EndDay must be at least 2 days earlier than the current UTC day")
        url, method = form.get("WebhookUrl") or None, form.get("WebhookMethod") or None
        check_webhook(url, method)
        return cls(start_day, end_day, form["FriendlyName"], url, method, form.get("Email") or None)

    def days(self) -> list[date]:
        """Return every day asked for."""
        count = (self.end_day - self.start_day).days + 1
        return [self.start_day + timedelta(days=offset) for offset in range(count)]


def read_day(text: str, name: str) -> date:
    """
    Read a day.

    :param name: the field's name, for the refusal.
    :raises Refusal: with status 400.
    """
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise Refusal.invalid(f"{name} must be a date of the form yyyy-mm-dd")


def read_resource_type(word: str, path: str) -> ResourceType:
    """
    Read a resource type from a path.

    :raises Refusal: with status 404 for any other word; case counts.
    """
    if word in [str(kind) for kind in ResourceType]:
        return ResourceType(word)
    raise Refusal.not_found(path)


def check_webhook(url: str | None, method: str | None) -> None:
    """
    Refuse a webhook's address without its method, or the reverse, and what is neither.

    :raises Refusal: with status 400.
    """
    if (url is None) != (method is None):
        raise Refusal.invalid("WebhookUrl and WebhookMethod must be supplied together")
    if url is None:
        return
    if method not in ("GET", "POST"):
        raise Refusal.invalid("WebhookMethod must be GET or POST")
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        right = False
    if not right:
        raise Refusal.invalid("WebhookUrl must be an http or https address")
