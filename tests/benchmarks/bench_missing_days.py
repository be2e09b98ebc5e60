"""What is missing among three years of four types on S3: requests to the storage, and seconds.

The storage is moto's, on this machine, and counts what comes. Before days were judged by a listing,
each day's manifest was read: 4,380 GETs and 12 LISTs.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import threading
import time
from collections import Counter
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.storage.gaps import find_gaps
from airflow_provider_bulkexports.storage.store import DayStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST, DAYS = date(2023, 1, 1), 1095
BEFORE = {"LIST": 12, "GET": 4380, "others": 0}
MOST = {"LIST": 12, "GET": 4, "others": 0}
PART, MANIFEST = b"x" * 400, b"{}"


class Counted:
    """A WSGI application, and what was asked of it."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self.inner = inner
        self.requests: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Count a request and pass it on."""
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        lists = method == "GET" and ("list-type" in query or "prefix" in query)
        self.requests["LIST" if lists else method if method == "GET" else "others"] += 1
        return self.inner(environ, start)


def fill() -> None:
    """Put three years of each type into the bucket, except for one day of Messages."""
    from moto.s3.models import s3_backends

    backend = s3_backends["123456789012"]["aws"]
    backend.create_bucket("days", "us-east-1")
    for kind in ResourceType:
        backend.put_object("days", f"twilio/{kind}/_archive.json", b"{}")
        for number in range(DAYS):
            day = FIRST + timedelta(days=number)
            if (kind, number) == (ResourceType.MESSAGES, 700):
                continue
            folder = f"twilio/{kind}/day={day}"
            backend.put_object("days", f"{folder}/part-0.json.gz", PART)
            backend.put_object("days", f"{folder}/_manifest.json", MANIFEST)


def look(client: Client, fs: Any) -> list[str]:
    """Return what is to be exported, of all types."""
    last = FIRST + timedelta(days=DAYS - 1)
    found = [
        find_gaps(client, DayStore(fs, "days/twilio", kind), FIRST, last) for kind in ResourceType
    ]
    return [
        f"{gap.resource_type} {gap.start_day} to {gap.end_day}"
        for gaps in found
        for gap in gaps.to_export
    ]


def main() -> None:
    """Print the figures, and fail where they are worse than they should be."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from s3fs import S3FileSystem
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    counted = Counted(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seconds = []
    with Sandbox() as sandbox:
        fill()
        fs = S3FileSystem(
            key="x", secret="x", endpoint_url=f"http://127.0.0.1:{server.server_port}"
        )
        with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
            for _ in range(rounds):
                counted.requests.clear()
                began = time.monotonic()
                missing = look(client, fs)
                seconds.append(time.monotonic() - began)
                requests = counted.requests
    server.shutdown()
    print(f"{DAYS * len(ResourceType):,} days on S3; missing: {', '.join(missing)}\n")
    print(f"{'requests':<10}{'now':>8}{'before':>8}{'limit':>8}")
    for name, limit in MOST.items():
        print(f"{name:<10}{requests[name]:>8}{BEFORE[name]:>8}{limit:>8}")
    print(f"\n{statistics.median(seconds):.2f} s, median of {rounds}, moto's own time included")
    if missing != ["Messages 2024-12-01 to 2024-12-01"]:
        raise SystemExit("Another day is missing than was left out.")
    if any(requests[name] > limit for name, limit in MOST.items()):
        raise SystemExit("More requests than the limit.")


if __name__ == "__main__":
    main()
