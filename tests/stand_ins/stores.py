"""Storages of every supported kind, each on a server of its protocol on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
AZURITE = HERE.parents[1] / ".venv" / "azurite"
AZURITE_VERSION = "3.37.0"
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""Of every Azurite; documented."""


@dataclass(frozen=True)
class Place:
    """
    A new, empty place on a storage.

    It can be sent to another process as JSON.

    :param kind: the filesystem's name in fsspec.
    :param root: the path, on the filesystem.
    """

    kind: str
    root: str
    options: dict[str, Any] = field(default_factory=dict)

    def filesystem(self, **options: Any) -> Any:
        """Return a filesystem that shares nothing with any other."""
        import fsspec

        options = {**self.options, "skip_instance_cache": True, **options}
        if self.kind == "gs":
            # What gcsfs takes by default asks a further service, which the emulator lacks.
            from gcsfs.core import GCSFileSystem

            return GCSFileSystem(**options)
        return fsspec.filesystem(self.kind, **options)


class S3Server:
    """An S3 server; see s3_server.py."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._bucket("create_bucket", Bucket="days")

    def place(self, bucket: str = "days", *, tries: int = 5) -> Place:
        options = {
            "key": "testing",
            "secret": "testing",
            "endpoint_url": self.url,
            "client_kwargs": {"region_name": "us-east-1"},
            "config_kwargs": {"retries": {"total_max_attempts": tries}},
        }
        return Place("s3", f"{bucket}/{uuid.uuid4().hex}", options)

    def faults(self, *faults: dict[str, Any]) -> None:
        """
        Set the faults, by which requests are answered with errors.

        Each has ``match``, a pattern for lines of the log, and may have ``status``, ``code``,
        ``message``, how many ``times``, ``seconds`` of a wait before, and ``after``, for an
        error although the request took effect.
        """
        requests.post(f"{self.url}/stand-in/faults", json=faults, timeout=10).raise_for_status()

    def fill(self, paths: list[str]) -> None:
        """Write many small objects at once."""
        requests.post(f"{self.url}/stand-in/fill", json=paths, timeout=60).raise_for_status()

    def forget(self) -> None:
        """Empty the log."""
        requests.post(f"{self.url}/stand-in/reset", timeout=10).raise_for_status()

    def log(self) -> list[str]:
        """Return the requests that came."""
        answer = requests.get(f"{self.url}/stand-in/log", timeout=10)
        return list(answer.json())

    def uploads(self, prefix: str = "") -> list[str]:
        """Return the keys of unfinished multipart uploads."""
        found = self._bucket("list_multipart_uploads", Bucket="days", Prefix=prefix)
        return [item["Key"] for item in found.get("Uploads", [])]

    def begin_upload(self, key: str) -> None:
        """Begin a multipart upload that nobody ends."""
        self._bucket("create_multipart_upload", Bucket="days", Key=key)

    def _bucket(self, call: str, **options: Any) -> Any:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        return getattr(client, call)(**options)


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run an S3 server."""
    pytest.importorskip("moto", reason="the S3 server is moto")
    with _running([sys.executable, str(HERE / "s3_server.py")]) as process:
        yield S3Server(int(process.stdout.readline()))


@dataclass(frozen=True)
class AzureServer:
    """An Azurite with one container."""

    port: int

    def place(self, container: str = "days", key: str = AZURE_KEY) -> Place:
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{self.port}/{AZURE_ACCOUNT};"
        )
        options = {"account_name": AZURE_ACCOUNT, "connection_string": connection}
        return Place("abfs", f"{container}/{uuid.uuid4().hex}", options)


@contextlib.contextmanager
def azure_server() -> Iterator[AzureServer]:
    """Run an Azurite, installed once from npm."""
    pytest.importorskip("adlfs", reason="needs adlfs")
    program = _azurite()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "node", str(program), "--silent", "--disableTelemetry", "--skipApiVersionCheck",
        "--inMemoryPersistence", "--blobPort", str(port),
    ]  # fmt: skip
    with _running(command):
        _await(port)
        server = AzureServer(port)
        server.place().filesystem().mkdir("days")
        yield server


def _azurite() -> Path:
    program = AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("the Azure server, Azurite, needs node and npm")
    AZURITE.mkdir(parents=True, exist_ok=True)
    with (AZURITE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes install it once
        if not program.exists():
            package = f"azurite@{AZURITE_VERSION}"
            command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", AZURITE, package]
            installed = subprocess.run(command, capture_output=True, text=True, check=False)
            if installed.returncode:
                pytest.skip(f"Azurite could not be installed from npm: {installed.stderr[-300:]}")
    return program


@dataclass(frozen=True)
class GoogleServer:
    """A Google Cloud Storage emulator with one bucket; it lets two create one object."""

    port: int

    def place(self, bucket: str = "days") -> Place:
        options = {
            "endpoint_url": f"http://127.0.0.1:{self.port}",
            "token": "anon",
            "project": "test",
        }
        return Place("gs", f"{bucket}/{uuid.uuid4().hex}", options)


@contextlib.contextmanager
def google_server() -> Iterator[GoogleServer]:
    """Run a Google Cloud Storage server."""
    for name in ("gcsfs", "gcp_storage_emulator"):
        pytest.importorskip(name, reason=f"needs {name}")
    with _running([sys.executable, str(HERE / "google_server.py")]) as process:
        server = GoogleServer(int(process.stdout.readline()))
        requests.post(
            f"http://127.0.0.1:{server.port}/storage/v1/b?project=test",
            json={"name": "days"},
            timeout=10,
        ).raise_for_status()
        yield server


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[Any]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _await(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def from_json(text: str) -> Place:
    """Return the place that another process sent."""
    return Place(**json.loads(text))
