from __future__ import annotations

import socketserver
import threading
import time
from collections import Counter
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.errors import Unsettled
from airflow_provider_bulkexports.api.job import JobListing
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ExportRequest, Reattach
from airflow_provider_bulkexports.api.submit import Submission, Submitted, reread, submit
from airflow_provider_bulkexports.sandbox.server import Sandbox

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from airflow_provider_bulkexports.api.job import Job

# Every run draws the same examples and leaves nothing behind.
settings.register_profile("bulkexports", deadline=None, derandomize=True, database=None)
settings.load_profile("bulkexports")


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
        """Return a client that asks once and lives in the sandbox's time, if given no pace."""
        given = {"login": self.sandbox.account_sid, "secret": self.sandbox.auth_token}
        return kind(base_url=self.sandbox.url, **(given | {"pace": self.pace()} | options))

    def pace(self, **changes: Any) -> Pace:
        """Return the pace of a worker that asks once and whose pauses only move the sandbox."""
        return Pace(**({"tries": 1, "now": self.now, "sleep": self.pause} | changes))

    def now(self) -> float:
        """Return the sandbox's time, in seconds since the epoch."""
        return self.sandbox._service.clock.now()

    def pause(self, seconds: float) -> None:
        """Let only the sandbox's time pass, and remember it as a worker's pause."""
        self.pauses.append(seconds)
        self.sandbox.advance(seconds)

    def submit(
        self, submission: Submission, client: Client | None = None, **options: Any
    ) -> Submitted:
        """Submit, and come back by itself while a POST may still act, as the hook does."""
        with nullcontext(client) if client else self.client() as using:
            while True:
                try:
                    return submit(using, submission, **options)
                except Unsettled as error:
                    options |= {"not_before": error.not_before, "posts": error.posts}
                    using.pace.sleep(error.not_before - using.pace.now())

    def retry(self, submission: Submission, client: Client | None = None) -> Submitted:
        """Submit as a later try does: the POST of the one before may be on its way."""
        not_before = self.now() + Pace().settle
        return self.submit(submission, client, may_have_posted=True, not_before=not_before)

    def reread(self, submission: Submission, job_sid: str, *, owned: bool = True) -> Job | None:
        """Read a submission's job again, as a worker does that was woken."""
        with self.client() as client:
            return reread(client, submission, job_sid, owned=owned)

    def create(self, submission: Submission, generation: int = 1) -> Job:
        """Create a job as a worker of that submission does, but without a look at the list."""
        request = submission.find(JobListing(())).next_request
        if generation > 1:
            request = replace(request, friendly_name=f"{request.friendly_name}g{generation}")
        with self.client() as client:
            return client.create_job(request)

    def fault(self, route: str, kind: str, **more: Any) -> None:
        self.sandbox.add_fault({"route": route, "kind": kind, **more})

    def jobs(self) -> list[dict[str, Any]]:
        return self.sandbox.jobs()

    def sids(self) -> list[str]:
        """Return the SIDs of all jobs that were ever created, in order of their creation."""
        return [job["job_sid"] for job in self.sandbox.jobs()]

    def live(self) -> list[str]:
        """Return the SIDs of the jobs that have finished or will."""
        return [
            job["job_sid"]
            for job in self.sandbox.jobs(live=True)
            if job["state"] in ("active", "completed")
        ]

    def charged(self) -> int:
        return self.sandbox.ledger()["charged_days"]

    def asked(self, route: str | None = None) -> int:
        """Return how many requests came, to one route or at all."""
        requests = Counter(self.sandbox.ledger()["requests"]) - self.earlier
        return requests.total() if route is None else requests[route]


@pytest.fixture
def start():
    """Start sandboxes with settings of the test's own; their time passes only when it is moved."""
    running = []

    def begin(at: float | None = None, **settings: Any) -> Service:
        began = time.time() // 1 if at is None else at
        given = {"job_seconds": 10_000, "records": 2, "empty_every": 0}
        sandbox = Sandbox(now=lambda: began, **(given | settings))
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
            "friendly_name": f"daily_{task}".replace(" ", "_"),
        }
        return ExportRequest.parse(**(given | changes))

    return build


@pytest.fixture(scope="session")
def submission_for(request_for):
    """Build submissions of a task's requests."""

    def build(
        task: str = "export",
        *,
        cycle: object = 0,
        reattach: Reattach = Reattach.RUN,
        **changes: Any,
    ) -> Submission:
        return Submission.of(request_for(task, **changes), task, cycle=cycle, reattach=reattach)

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

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    return serve


@pytest.fixture
def speak():
    """Answer each request by writing to its connection, for what has to be timed or is no HTTP."""

    @contextmanager
    def serve(answer: Callable[[socket.socket], None]) -> Iterator[str]:
        class Speaker(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    while (length := self._read_head()) is not None:
                        self.rfile.read(length)
                        answer(self.connection)

            def _read_head(self) -> int | None:
                """Return the length of the body that follows, None if the client has gone."""
                length = 0
                while line := self.rfile.readline():
                    if line == b"\r\n":
                        return length
                    if line.startswith(b"Content-Length:"):
                        length = int(line.split()[1])
                return None

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        with Server(("127.0.0.1", 0), Speaker) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}"
            server.shutdown()

    return serve
