from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ExportRequest
from airflow_provider_bulkexports.api.submit import job_key, job_name, submit_once
from airflow_provider_bulkexports.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_bulkexports.api.job import Job

# Every run draws the same examples and leaves nothing behind.
settings.register_profile("bulkexports", deadline=None, derandomize=True, database=None)
settings.load_profile("bulkexports")

_ROUTES = {
    "create_job": "POST /v1/Exports/{ResourceType}/Jobs",
    "list_jobs": "GET /v1/Exports/{ResourceType}/Jobs",
    "fetch_job": "GET /v1/Exports/Jobs/{JobSid}",
    "delete_job": "DELETE /v1/Exports/Jobs/{JobSid}",
    "list_days": "GET /v1/Exports/{ResourceType}/Days",
    "fetch_export": "GET /v1/Exports/{ResourceType}",
}


@dataclass
class Service:
    """A sandbox as a test sees it: it misbehaves, and says what really happened."""

    sandbox: Sandbox
    pauses: list[float] = field(default_factory=list)
    earlier: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        """Behave again, and count requests anew."""
        self.sandbox.clear_faults()
        self.earlier = Counter(self.sandbox.ledger()["requests"])

    def client(self, kind: type[Client] = Client, **options: Any) -> Client:
        given = {"login": self.sandbox.account_sid, "secret": self.sandbox.auth_token, "tries": 1}
        return kind(base_url=self.sandbox.url, **(given | options))

    def fault(self, route: str, kind: str, **more: Any) -> None:
        self.sandbox.add_fault({"route": route, "kind": kind, **more})

    def pause(self, seconds: float) -> None:
        """Let only the sandbox's time pass."""
        self.pauses.append(seconds)
        self.sandbox.advance(seconds)

    def submit(self, request: ExportRequest, client: Client | None = None, **options: Any) -> Job:
        if client is not None:
            return submit_once(client, request, sleep=self.pause, **options)
        with self.client() as own:
            return submit_once(own, request, sleep=self.pause, **options)

    def jobs(self) -> list[dict[str, Any]]:
        return self.sandbox.ledger()["jobs"]

    def live(self) -> list[str]:
        return [
            job["job_sid"]
            for job in self.jobs()
            if not job["deleted"] and job["state"] in ("active", "completed")
        ]

    def charged(self) -> int:
        return self.sandbox.ledger()["charged_days"]

    def asked(self, route: str | None = None) -> int:
        """Return how many requests came, to one route or at all."""
        requests = Counter(self.sandbox.ledger()["requests"]) - self.earlier
        return requests.total() if route is None else requests[_ROUTES[route]]


@pytest.fixture
def start():
    """Start sandboxes with settings of the test's own."""
    running = []

    def begin(**settings: Any) -> Service:
        sandbox = Sandbox(**({"job_seconds": 10_000, "records": 2, "empty_every": 0} | settings))
        sandbox.start()
        running.append(sandbox)
        return Service(sandbox)

    yield begin
    for sandbox in running:
        sandbox.stop()


@pytest.fixture
def service(start):
    """Give a sandbox whose jobs stay active for hours."""
    return start()


@pytest.fixture
def client(service):
    with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def request_for():
    """Build requests; what is not given is three days of Messages by the task ``export``."""

    def build(task: str = "export", **changes: Any) -> ExportRequest:
        given = {
            "resource_type": "Messages",
            "start_day": "2026-01-01",
            "end_day": "2026-01-03",
            "friendly_name": job_name("daily", job_key(task)),
        }
        return ExportRequest.parse(**(given | changes))

    return build


@pytest.fixture(scope="module")
def crowd(request_for):
    """Give a service with 65 finished jobs of one day each."""
    with Sandbox(job_seconds=0, records=2, empty_every=0) as sandbox:
        service = Service(sandbox)
        with service.client() as client:
            for number in range(65):
                day = f"2025-{1 + number // 28:02d}-{1 + number % 28:02d}"
                client.create_job(request_for(f"task {number}", start_day=day, end_day=day))
        yield service


@pytest.fixture
def crowded(crowd):
    """Give the crowded service with nothing wrong and nothing asked."""
    crowd.forget()
    return crowd


@pytest.fixture
def answer_with():
    """Serve the same bytes to every request, for what no well-behaved server would send."""

    @contextmanager
    def serve(answer: bytes) -> Iterator[str]:
        class Same(BaseHTTPRequestHandler):
            # The connection stays open: a client may send its next request down it.
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    return serve
