"""The ledger: what really happened, for tests to assert on."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["Ledger"]


class Ledger:
    """Counts and lists of effects; jobs are kept by the service."""

    def __init__(self) -> None:
        self.charged_days = 0
        self.requests: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.downloads: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []

    def as_json(self, jobs: list[dict[str, Any]]) -> dict[str, Any]:
        """
        Return the ledger as JSON.

        :param jobs: every job ever created.
        """
        return {
            "jobs": jobs,
            "charged_days": self.charged_days,
            "requests": dict(self.requests),
            "downloads": [dict(item) for item in self.downloads],
            "webhooks": [dict(item) for item in self.webhooks],
            "rejected": dict(self.rejected),
        }
