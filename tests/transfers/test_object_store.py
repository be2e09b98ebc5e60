"""The same transfers over the S3 protocol, against a server on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading

import pytest
import requests
from day_transfers import day, sha256
from in_process import Running
from killed_transfers import Worker

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException

RECORDS = 2000
ENOUGH = 20_000
"""Bytes of an upload that reach the server before it is held: less than a day's file has."""


class Bucket:
    """A bucket, as its owner sees it."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self._client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        # The server's content is this process's, and outlives it.
        requests.post(f"{endpoint}/moto-api/reset", timeout=10).raise_for_status()
        self._client.create_bucket(Bucket="days")

    def keys(self) -> list[str]:
        found = self._client.list_objects_v2(Bucket="days").get("Contents", [])
        return sorted(item["Key"] for item in found)

    def read(self, key: str) -> bytes:
        return self._client.get_object(Bucket="days", Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket="days", Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket="days", Key=key)


class HeldUpload:
    """A way to the server that stops in the middle of a part's upload and stays so."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reached, self._release = threading.Event(), threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._release.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
            threading.Thread(target=self._watch, args=(client, server), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                target.sendall(data)
        except OSError:
            pass
        target.close()

    def _watch(self, client: socket.socket, server: socket.socket) -> None:
        passed = None
        try:
            while data := client.recv(4096):
                if data.startswith(b"PUT ") and b"/part-0" in data.split(b"\r\n")[0]:
                    passed = 0
                server.sendall(data)
                if passed is not None:
                    passed += len(data)
                    if passed > ENOUGH:
                        self.reached.set()
                        self._release.wait(30)
                        break
        except OSError:
            pass
        server.close()


def aws(endpoint: str) -> str:
    return json.dumps(
        {
            "conn_type": "aws",
            "login": "testing",
            "password": "testing",
            "extra": {"endpoint_url": endpoint, "region_name": "us-east-1"},
        }
    )


@pytest.fixture
def server():
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    made = Bucket(f"http://{server[0]}:{server[1]}")
    monkeypatch.setenv(f"AIRFLOW_CONN_BUCKET_{server[1]}", aws(made.endpoint))
    return made


@pytest.fixture
def storage(server):
    """Name the storage; Airflow remembers a connection, so each server has one of its own."""
    return {"destination": "s3://days/twilio", "object_storage_conn_id": f"bucket_{server[1]}"}


def key(number, name):
    return f"twilio/Messages/day={day(number)}/{name}"


@pytest.mark.parametrize("output_format", ["raw", "parquet"])
def test_days_are_stored_as_objects(start_transfers, bucket, storage, output_format):
    """Each day is an object and a manifest that tells the truth; a rerun fetches nothing."""
    part = {"raw": "part-0.json.gz", "parquet": "part-0.parquet"}[output_format]
    transfers = start_transfers(records=RECORDS)
    transfers.fault("empty_day", "create_job", days=[day(1)])
    job = transfers.export(3)
    results = transfers.transfer(job, output_format=output_format, **storage)

    assert [result["records"] for result in results] == [RECORDS, 0, RECORDS]
    conn_id = storage["object_storage_conn_id"]
    assert results[0]["path"] in (
        f"s3://days/{key(0, part)}",
        f"s3://{conn_id}@days/{key(0, part)}",
    )
    assert bucket.keys() == [
        "twilio/Messages/_archive.json",
        key(0, "_manifest.json"),
        key(0, part),
        key(1, "_manifest.empty.json"),
        key(2, "_manifest.json"),
        key(2, part),
    ]
    for number in (0, 2):
        manifest = json.loads(bucket.read(key(number, "_manifest.json")))
        content, served = bucket.read(key(number, part)), transfers.served(number)
        assert manifest["files"] == [
            {"name": part, "bytes": len(content), "sha256": sha256(content)}
        ]
        assert (manifest["job_sid"], manifest["records"]) == (job, RECORDS)
        assert manifest["source"]["sha256"] == sha256(served)
        assert output_format == "parquet" or content == served
    assert transfers.transfer(job, output_format=output_format, **storage) == results
    assert transfers.downloads() == [day(0), day(2)]


def test_missing_objects_are_missing_days(start_transfers, bucket, storage):
    """A deleted object or manifest makes its day missing, and a rerun brings just those."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(4)
    assert transfers.missing(4, **storage) == [0, 1, 2, 3]
    transfers.transfer(job, **storage)
    assert transfers.missing(4, **storage) == []
    bucket.delete(key(1, "part-0.json.gz"))
    bucket.delete(key(2, "_manifest.json"))
    assert transfers.missing(4, **storage) == [1, 2]
    transfers.transfer(job, **storage)

    assert transfers.missing(4, **storage) == []
    assert transfers.downloads() == [day(0), day(1), day(1), day(2), day(2), day(3)]


def test_a_broken_upload_leaves_no_object(
    start_transfers, bucket, storage, server, monkeypatch, tmp_path
):
    """A worker that is killed in the middle of an upload leaves a lock and no half day."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(1)
    assert len(transfers.served(0)) > 2 * ENOUGH
    way = HeldUpload(server[1])
    with monkeypatch.context() as patch:
        patch.setenv(f"AIRFLOW_CONN_BUCKET_{server[1]}", aws(way.url))
        with Worker(tmp_path) as worker:
            pid = worker.start({"job_sid": job, **storage})
            reached = way.reached.wait(20)
            if reached:
                os.kill(pid, signal.SIGKILL)
            worker.end()
    way.stop()

    assert reached
    assert bucket.keys() == ["twilio/Messages/_archive.json", key(0, "_lock.1")]
    assert transfers.missing(1, **storage) == [0]
    bucket.write(key(0, "_lock.1"), b'{"seconds": -900, "holder": "one whose time is up"}')
    transfers.transfer(job, **storage)
    assert bucket.keys() == [
        "twilio/Messages/_archive.json",
        key(0, "_manifest.json"),
        key(0, "part-0.json.gz"),
    ]
    assert bucket.read(key(0, "part-0.json.gz")) == transfers.served(0)


def test_an_upload_that_hangs_does_not_hold_a_stopped_task(
    start_transfers, bucket, storage, server, monkeypatch
):
    """The task ends within seconds while the storage keeps the upload waiting."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(1)
    way = HeldUpload(server[1])
    monkeypatch.setenv(f"AIRFLOW_CONN_BUCKET_{server[1]}", aws(way.url))
    task = transfers.task(job, **storage)
    running = Running(task)
    reached = way.reached.wait(20)
    task.on_kill()
    seconds = running.join()
    way.stop()

    assert reached
    assert seconds < 5
    assert "stopped" in str(running.error)
    assert transfers.missing(1, **storage) == [0]


def test_a_bucket_that_is_not_there_is_no_empty_storage(transfers, bucket, storage):
    """Nothing is fetched for a destination that cannot be read, and the storage's words say why."""
    job = transfers.export(2)
    with pytest.raises(AirflowException, match="no-such-bucket") as caught:
        transfers.transfer(job, **storage | {"destination": "s3://no-such-bucket/twilio"})

    assert "StorageError" not in str(caught.value), "in words, not in names of classes"
    assert not isinstance(caught.value, AirflowFailException), "it may come yet"
    assert transfers.downloads() == []
