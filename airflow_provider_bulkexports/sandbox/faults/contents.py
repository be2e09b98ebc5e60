"""Faults in the content of an answer: pages, items, status words, links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_bulkexports.sandbox.faults.arguments import (
    FIELDS,
    HEADERS,
    JSON,
    TEXT,
    argument,
)
from airflow_provider_bulkexports.sandbox.faults.fault import LIST_ROUTES
from airflow_provider_bulkexports.sandbox.faults.stages import Bending
from airflow_provider_bulkexports.sandbox.paging import beyond

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_bulkexports.sandbox.answers import Answer

__all__ = [
    "Endless",
    "EvilPage",
    "LinkPath",
    "LoopPage",
    "NullDays",
    "OddItem",
    "Redirect",
    "StatusWord",
]

_NOT_GIVEN = object()


@dataclass(frozen=True)
class LoopPage(Bending):
    """Names the page itself as the next."""

    kind: ClassVar[str] = "loop_page"
    routes: ClassVar[tuple[str, ...]] = LIST_ROUTES

    def bend(self, answer: Answer) -> None:
        """Change the next page."""
        meta = answer.content["meta"]
        meta["next_page_url"] = meta["url"]


@dataclass(frozen=True)
class EvilPage(Bending):
    """Names another address, or what is none, as the next page."""

    kind: ClassVar[str] = "evil_page"
    routes: ClassVar[tuple[str, ...]] = LIST_ROUTES
    url: Any = argument(JSON)

    def bend(self, answer: Answer) -> None:
        """Change the next page."""
        answer.content["meta"]["next_page_url"] = self.url


@dataclass(frozen=True)
class Endless(Bending):
    """Names a new next page on the last page too; those beyond it are empty."""

    kind: ClassVar[str] = "endless"
    routes: ClassVar[tuple[str, ...]] = LIST_ROUTES

    def bend(self, answer: Answer) -> None:
        """Add a next page."""
        meta = answer.content["meta"]
        meta["next_page_url"] = meta["next_page_url"] or beyond(meta["url"])


@dataclass(frozen=True)
class OddItem(Bending):
    """Adds `item` to a first page, or overwrites `fields` of all items or of the job `job_sid`."""

    kind: ClassVar[str] = "odd_item"
    routes: ClassVar[tuple[str, ...]] = LIST_ROUTES
    item: Any = argument(JSON, default=_NOT_GIVEN)
    fields: dict[str, Any] | None = argument(FIELDS, default=None)
    job_sid: str | None = argument(TEXT, default=None)

    def check(self, route: str) -> None:
        """Refuse to do both, or neither."""
        if (self.item is _NOT_GIVEN) == (self.fields is None):
            raise ValueError("odd_item needs either item or fields")
        if self.job_sid is not None and (self.fields is None or route != "list_jobs"):
            raise ValueError("job_sid of odd_item goes with fields and route list_jobs")

    def applies(self, answer: Answer) -> bool:
        """Return whether this is a page to change; an item is added to a first page only."""
        return super().applies(answer) and (
            self.fields is not None or answer.content["meta"]["page"] == 0
        )

    def bend(self, answer: Answer) -> None:
        """Add the item, or overwrite the fields."""
        items = answer.content[answer.content["meta"]["key"]]
        if self.fields is None:
            items.append(self.item)
            return
        for item in items:
            if isinstance(item, dict) and self.job_sid in (None, item.get("job_sid")):
                item.update(self.fields)


@dataclass(frozen=True)
class StatusWord(Bending):
    """Writes another word in the place of every status."""

    kind: ClassVar[str] = "status_word"
    routes: ClassVar[tuple[str, ...]] = ("list_jobs", "fetch_job")
    word: str = argument(TEXT, default="Paused")

    def bend(self, answer: Answer) -> None:
        """Change the words."""
        for group in _groups(answer):
            group["status"] = self.word


@dataclass(frozen=True)
class NullDays(Bending):
    """Writes null in the place of the days of every status."""

    kind: ClassVar[str] = "null_days"
    routes: ClassVar[tuple[str, ...]] = ("list_jobs", "fetch_job")

    def bend(self, answer: Answer) -> None:
        """Take the days away."""
        for group in _groups(answer):
            group["days"] = None


@dataclass(frozen=True)
class Redirect(Bending):
    """Redirects to another address instead of the day file's."""

    kind: ClassVar[str] = "redirect"
    routes: ClassVar[tuple[str, ...]] = ("fetch_day",)
    url: str = argument(TEXT)

    def bend(self, answer: Answer) -> None:
        """Change both places that name it."""
        answer.content["redirect_to"] = answer.headers["Location"] = self.url


@dataclass(frozen=True)
class LinkPath(Bending):
    """Has the link's path name another day, type, account or created_time: `parts`, by name."""

    kind: ClassVar[str] = "link_path"
    routes: ClassVar[tuple[str, ...]] = ("fetch_day",)
    parts: dict[str, str] = argument(HEADERS)

    def bend(self, answer: Answer) -> None:
        """Change both places that name it; the file stays what it is."""
        link = urlsplit(answer.content["redirect_to"])
        names = [part.partition("=") for part in unquote(link.path).split("/")]
        path = "/".join(
            quote(f"{name}{equals}{self.parts.get(name, value)}") for name, equals, value in names
        )
        answer.content["redirect_to"] = answer.headers["Location"] = link._replace(
            path=path
        ).geturl()


def _groups(answer: Answer) -> Iterator[dict[str, Any]]:
    # An odd item may stand among the jobs, and odd details within one.
    for job in answer.content.get("jobs", [answer.content]):
        details = job.get("details") if isinstance(job, dict) else None
        for group in details if isinstance(details, list) else []:
            if isinstance(group, dict):
                yield group
