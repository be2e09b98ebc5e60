"""Answers that take long, weigh much, or have a wrong date."""

import json
import socket
import threading
import time
import zlib
from email.utils import parsedate_to_datetime

import pytest
import requests

EXPORT = "/v1/Exports/Calls"


def raw(client, path=EXPORT, seconds=5.0):
    """Send a request by hand and return a socket from which its answer can be read."""
    host, port = client.sandbox.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=seconds)
    request = requests.Request("GET", f"{client.sandbox.url}{path}", auth=client.auth).prepare()
    head = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return connection


def test_hang_says_nothing_and_does_nothing(client):
    """The request is taken and never answered, while others are served; then the client goes."""
    client.sandbox.add_fault({"route": "create_job", "kind": "hang"})
    form = {"StartDay": "2026-01-01", "EndDay": "2026-01-01", "FriendlyName": "name"}
    with pytest.raises(requests.ReadTimeout):
        client.call("POST", "/v1/Exports/Messages/Jobs", data=form, timeout=0.3)
    assert client.get(EXPORT).status_code == 200
    client.session.close()
    time.sleep(0.2)
    assert client.sandbox.jobs() == []
    assert client.sandbox.requests("create_job") == 1


def test_hang_ends_by_itself(client):
    """Told for how long, it then ends the connection."""
    client.sandbox.add_fault({"kind": "hang", "seconds": 0.3})
    started = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        client.get(EXPORT)
    assert 0.3 <= time.monotonic() - started < 1


@pytest.mark.parametrize("part", ["head", "body"])
def test_trickle_sends_byte_after_byte(client, part):
    """Bytes come one by one from the head or the body on; others are served meanwhile."""
    client.sandbox.add_fault({"kind": "trickle", "seconds": 0.05, "bytes": 1, "from": part})
    with raw(client) as connection:
        time.sleep(0.3)
        came = connection.recv(65536)
        assert (b"\r\n\r\n" in came) is (part == "body")
        assert 2 <= len(came.partition(b"\r\n\r\n")[2] or came) <= 8
        assert client.get(EXPORT).status_code == 200


def test_trickle_sends_all_in_the_end(client):
    """What trickles is whole, a file too, and the ledger says so."""
    client.create()
    whole = client.file().content
    client.sandbox.add_fault(
        {"route": "download", "kind": "trickle", "seconds": 0.01, "bytes": 400}
    )
    assert client.file().content == whole
    trickled = client.sandbox.ledger()["downloads"][1]
    assert (trickled["bytes"], trickled["complete"]) == (len(whole), True)
    client.sandbox.add_fault({"kind": "trickle", "seconds": 0, "from": "head"})
    assert client.get(EXPORT).json()["resource_type"] == "Calls"


def test_trickle_stops_when_the_client_goes(client):
    """A client that goes leaves nothing running."""
    client.create()
    link = client.link()
    client.sandbox.add_fault({"route": "download", "kind": "trickle", "seconds": 0.05})
    with requests.get(link, stream=True, timeout=5) as answer:
        answer.raw.read(2)
    time.sleep(0.4)
    sent = client.sandbox.ledger()["downloads"][0]["bytes"]
    time.sleep(0.2)
    (download,) = client.sandbox.ledger()["downloads"]
    assert (download["bytes"], download["complete"]) == (sent, False)
    assert 2 <= sent < 20


def test_bomb_is_light_on_the_wire_only(client):
    """A little gzip inflates to as many megabytes of JSON as it says."""
    client.sandbox.add_fault({"route": "list_jobs", "kind": "bomb", "megabytes": 20})
    answer = client.get("/v1/Exports/Messages/Jobs", stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    light = answer.raw.read(decode_content=False)
    assert len(light) < 50_000
    heavy = zlib.decompress(light, 31)
    assert 20 * 2**20 <= len(heavy) < 20 * 2**20 + 100
    assert list(json.loads(heavy)) == ["padding"]


def test_a_big_bomb_holds_nobody_up(client):
    """Others are served while it is built."""
    client.sandbox.add_fault({"route": "list_jobs", "kind": "bomb", "megabytes": 500})
    bombed = threading.Thread(
        target=lambda: client.get("/v1/Exports/Messages/Jobs", stream=True).close()
    )
    bombed.start()
    while not client.sandbox.requests("list_jobs"):
        time.sleep(0.001)
    started = time.monotonic()
    assert requests.get(f"{client.sandbox.url}/_sandbox/clock", timeout=5).status_code == 200
    assert time.monotonic() - started < 0.5
    bombed.join()


def test_the_date_may_be_wrong_odd_or_absent(client):
    """An answer's Date may be off by a while, be nonsense, or not be there."""
    right = parsedate_to_datetime(client.get(EXPORT).headers["Date"])
    client.sandbox.add_fault({"kind": "date", "skew": -90_000})
    wrong = parsedate_to_datetime(client.get(EXPORT).headers["Date"])
    assert 89_990 < (right - wrong).total_seconds() <= 90_000
    client.sandbox.add_fault({"kind": "date", "value": "tomorrow"})
    assert client.get(EXPORT).headers["Date"] == "tomorrow"
    client.sandbox.add_fault({"kind": "date", "value": None})
    answer = client.get(EXPORT)
    assert "Date" not in answer.headers
    assert answer.json()["resource_type"] == "Calls"
    assert "Date" in client.get(EXPORT).headers


def test_a_date_may_be_missing_from_an_answer_without_a_body(start):
    """A deletion's 204 is well-formed without a Date too."""
    client = start(job_seconds=100)
    sid = client.create().json()["job_sid"]
    client.sandbox.add_fault({"route": "delete_job", "kind": "date", "value": None})
    answer = client.call("DELETE", f"/v1/Exports/Jobs/{sid}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not {"Date", "Content-Length"} & set(answer.headers)
