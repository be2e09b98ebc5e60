"""A sandbox with one exported day, and its file fetched."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.download import DayFile, fetch_day_file
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.sandbox.server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAY = date(2026, 1, 1)
LINK = "fetch_day"
FILE = "download"
LINES = b"".join(
    b'{"sid":"SM%032x","body":"Your parcel is here"}\n' % number for number in range(500)
)
TWO_MEMBERS = gzip.compress(LINES[:11_000], mtime=0) + gzip.compress(LINES[11_000:], mtime=0)
BORDER = len(gzip.compress(LINES[:11_000], mtime=0))


class Hasty(Stop):
    """Waits for nothing, and hands the seconds on."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        super().__init__()
        self._sleep = sleep

    def sleep(self, seconds: float) -> None:
        self._sleep(seconds)


@dataclass
class Exported:
    """A sandbox, a client of it, and a day that it has exported."""

    sandbox: Sandbox
    client: Client
    target: io.BytesIO = field(default_factory=io.BytesIO)
    waits: list[float] = field(default_factory=list)

    def fetch(self, **options: Any) -> DayFile:
        options = {"may_be_empty": False, "stop": Hasty(self.waits.append)} | options
        target = options.pop("target", self.target)
        return fetch_day_file(self.client, ResourceType.MESSAGES, DAY, target, **options)

    def fault(self, kind: str, route: str = "download", **fields: Any) -> None:
        self.sandbox.add_fault({"kind": kind, "route": route, **fields})

    def serve(self, content: bytes, **fields: Any) -> None:
        """Serve ``content`` in the place of the day's file; for ever if not told otherwise."""
        encoded = base64.b64encode(content).decode()
        self.fault("other_file", base64=encoded, **({"times": -1} | fields))

    def asked(self, route: str) -> int:
        return self.sandbox.requests(route)

    @property
    def listed_size(self) -> int:
        return self.client.list_days(ResourceType.MESSAGES)[0].size

    @property
    def held(self) -> bytes:
        return self.target.getvalue()


@contextlib.contextmanager
def exported(how_empty: str | None = None, **settings: Any) -> Iterator[Exported]:
    """Run a sandbox that has exported DAY; as an empty day of this form, if one is named."""
    options = {"job_seconds": 0, "records": 200, "empty_every": 0} | settings
    with Sandbox(**options) as sandbox:
        if how_empty is not None:
            sandbox.add_fault({"route": "create_job", "kind": "empty_day", "how": how_empty})
        with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
            client.create_job(ExportRequest(ResourceType.MESSAGES, DAY, DAY, "name"))
            yield Exported(sandbox, client)
