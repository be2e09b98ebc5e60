from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from airflow_provider_bulkexports.sandbox.server import Sandbox

DAY = 86_400


@dataclass
class Client:
    """A client without manners: no retries, no checks, one account."""

    sandbox: Sandbox
    auth: tuple[str, str]
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        url = path if path.startswith("http") else f"{self.sandbox.url}{path}"
        options = {"auth": self.auth, "allow_redirects": False, "timeout": 5} | options
        return self.session.request(method, url, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def create(self, kind: str = "Messages", **changes: str | None) -> requests.Response:
        form = {"StartDay": "2026-01-01", "EndDay": "2026-01-01", "FriendlyName": "name"} | changes
        return self.call("POST", f"/v1/Exports/{kind}/Jobs", data=form)

    def details(self, sid: str) -> dict[str, int]:
        groups = self.get(f"/v1/Exports/Jobs/{sid}").json()["details"]
        return {group["status"]: group["count"] for group in groups}

    def link(self, day: str = "2026-01-01", kind: str = "Messages") -> str:
        return self.get(f"/v1/Exports/{kind}/Days/{day}").json()["redirect_to"]

    def file(self, day: str = "2026-01-01", kind: str = "Messages") -> requests.Response:
        return requests.get(self.link(day, kind), timeout=5)


def exportable(days_ago: int = 2) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days_ago)).isoformat()


@pytest.fixture
def sandbox():
    """Give a sandbox whose jobs are done at once and whose days all have records."""
    with Sandbox(job_seconds=0, records=20, empty_every=0, quota_days=10_000) as running:
        yield running


@pytest.fixture
def client(sandbox):
    return Client(sandbox, (sandbox.account_sid, sandbox.auth_token))


@pytest.fixture
def start():
    """Start sandboxes with settings of the test's own; give a client of each."""
    running = []

    def begin(**settings: Any) -> Client:
        options = {"job_seconds": 0, "records": 20, "empty_every": 0} | settings
        sandbox = Sandbox(**options)
        sandbox.start()
        running.append(sandbox)
        return Client(sandbox, (sandbox.account_sid, sandbox.auth_token))

    yield begin
    for sandbox in running:
        sandbox.stop()


@pytest.fixture
def days_ago():
    return exportable
