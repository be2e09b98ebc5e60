import base64
import hashlib
import hmac
import json
import re
import threading
import time
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import pytest

from airflow_provider_bulkexports.sandbox.server import Sandbox


def test_starting_is_quick():
    """A sandbox starts and stops within 0.3 seconds."""
    began = time.monotonic()
    with Sandbox():
        pass
    assert time.monotonic() - began < 0.3


@pytest.mark.parametrize(
    "auth", [None, ("AC-nobody", "x"), "wrong", ("", ""), ("\u00e9", "\u00e9")], ids=str
)
def test_wrong_credentials(client, auth):
    """Whoever is not known gets 401 with code 20003 and a challenge."""
    client.auth = (client.sandbox.account_sid, auth) if isinstance(auth, str) else auth
    answer = client.get("/v1/Exports/Messages/Jobs", headers={"Accept": "*/*"})
    assert (answer.status_code, answer.json()["code"]) == (401, 20003)
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_an_api_key_stands_for_its_account(client):
    """An API key's jobs are its account's."""
    client.sandbox.add_key("SK-key", "secret")
    client.auth = ("SK-key", "secret")
    client.create()
    assert client.sandbox.ledger()["jobs"][0]["account_sid"] == client.sandbox.account_sid


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/Exports/Conversations", 404),
        ("GET", "/v1/Exports/messages/Jobs", 404),
        ("POST", "/v1/Exports/Faxes/Jobs", 404),
        ("GET", "/v1/Exports/Jobs", 404),
        ("GET", f"/v1/Exports/Jobs/JS{'0' * 32}", 404),
        ("DELETE", f"/v1/Exports/Jobs/JS{'0' * 32}", 404),
        ("GET", "/v2", 404),
        ("PUT", "/v1/Exports/Messages/Jobs", 405),
    ],
)
def test_what_is_not_there(client, method, path, status):
    """Unknown types, jobs, paths and methods are refused in Twilio's form."""
    answer = client.call(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert set(answer.json()) == {"code", "message", "more_info", "status"}


def test_every_answer_has_a_request_id(client):
    """Errors and successes carry Twilio-Request-Id."""
    for path in ("/v1/Exports/Messages", "/v1/Exports/Messages/Days", "/nowhere"):
        request_id = client.get(path).headers["Twilio-Request-Id"]
        assert re.fullmatch(r"RQ[0-9a-f]{32}", request_id)


def test_fetching_an_export(client):
    """A resource type links to its days and jobs, on the sandbox."""
    body = client.get("/v1/Exports/Messages").json()
    url = f"{client.sandbox.url}/v1/Exports"
    assert body == {
        "resource_type": "Messages",
        "url": f"{url}/Messages",
        "links": {
            "days": f"{url}/Messages/Days",
            "export_custom_jobs": f"{url}/Messages/Jobs",
            "jobs": f"{url}/Jobs",
        },
    }


def test_the_configuration_of_daily_exports(client):
    """What is set is kept, by type; what is not given stays."""
    path = "/v1/Exports/Calls/Configuration"
    before = client.get(path).json()
    assert (before["enabled"], before["webhook_url"], before["webhook_method"]) == (False, "", "")
    hook = {"WebhookUrl": "https://example.org/x", "WebhookMethod": "GET"}
    assert client.call("POST", path, data={"Enabled": "true"} | hook).json()["enabled"] is True
    assert client.call("POST", path, data={"Enabled": "maybe"}).status_code == 400
    after = client.call("POST", path, data={"Enabled": "False"}).json()
    assert (after["enabled"], after["webhook_method"]) == (False, "GET")
    assert client.get("/v1/Exports/Messages/Configuration").json()["webhook_url"] == ""


def test_daily_exports_may_need_another_plan(start):
    """Without Editions the configuration can be read but not changed."""
    client = start(editions=False)
    path = "/v1/Exports/Calls/Configuration"
    assert client.get(path).status_code == 200
    assert client.call("POST", path, data={"Enabled": "true"}).status_code == 403


def test_the_clock_can_be_moved_over_http(client):
    """The sandbox's time, and the Date header with it, moves when told."""
    before = parsedate_to_datetime(client.get("/v1/Exports/Calls").headers["Date"])
    answer = client.call("POST", "/_sandbox/clock", json={"advance_seconds": 3600}, auth=None)
    assert answer.status_code == 200
    after = parsedate_to_datetime(client.get("/v1/Exports/Calls").headers["Date"])
    assert 3599 <= (after - before).total_seconds() <= 3610
    assert client.call("POST", "/_sandbox/clock", json=[]).status_code == 400


def test_the_ledger_tells_what_happened(client):
    """Requests by route, jobs, charged days, downloads and refusals are counted."""
    client.create(EndDay="2026-01-02")
    client.file()
    client.get(f"/v1/Exports/Jobs/JS{'0' * 32}")
    ledger = client.get("/_sandbox/ledger", auth=None).json()
    assert ledger == client.sandbox.ledger()
    assert ledger["requests"] == {
        "create_job": 1,
        "fetch_day": 1,
        "download": 1,
        "fetch_job": 1,
    }
    assert ledger["charged_days"] == 2
    assert ledger["rejected"] == {"404": 1}
    (job,) = ledger["jobs"]
    assert (job["start_day"], job["end_day"]) == ("2026-01-01", "2026-01-02")
    assert (job["friendly_name"], job["state"], job["deleted"]) == ("name", "completed", False)
    (download,) = ledger["downloads"]
    assert (download["day"], download["complete"]) == ("2026-01-01", True)
    assert download["bytes"] > 0


@pytest.fixture
def receiver():
    """Give the port of a web server that remembers, and what it was sent."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            calls.append((self.command, self.path, dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the name is the protocol's

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, calls
    server.shutdown()
    server.server_close()


def wait_for(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.01)


def test_a_webhook_is_called_once_the_job_ends(start, receiver):
    """A loopback webhook gets a signed form, as many times as asked, not before the end."""
    port, calls = receiver
    client = start(job_seconds=1000, webhook_copies=2)
    url = f"http://localhost:{port}/hook?x=1"
    sid = client.create(WebhookUrl=url, WebhookMethod="POST").json()["job_sid"]
    time.sleep(0.05)
    assert calls == []
    client.sandbox.advance(1001)
    wait_for(lambda: len(calls) == 2)
    _, path, headers, body = calls[0]
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    assert (path, form["status"], form["job_sid"]) == ("/hook?x=1", "completed", sid)
    text = url + "".join(name + form[name] for name in sorted(form))
    key = client.sandbox.auth_token.encode()
    expected = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha1).digest()).decode()
    assert headers["X-Twilio-Signature"] == expected
    wait_for(lambda: [hook["status"] for hook in client.sandbox.ledger()["webhooks"]] == [200, 200])


def test_a_get_webhook_carries_its_fields_in_the_query(start, receiver):
    """With the method GET the fields are in the address, and the address is what is signed."""
    port, calls = receiver
    client = start(job_seconds=0)
    client.create(WebhookUrl=f"http://127.0.0.1:{port}/hook", WebhookMethod="GET")
    wait_for(lambda: calls)
    method, path, headers, _ = calls[0]
    assert (method, "status=completed" in path) == ("GET", True)
    key = client.sandbox.auth_token.encode()
    signed = hmac.new(key, f"http://127.0.0.1:{port}{path}".encode(), hashlib.sha1).digest()
    assert headers["X-Twilio-Signature"] == base64.b64encode(signed).decode()


def test_the_webhook_of_a_late_job_is_called(start):
    """A job that is created late calls its webhook without anybody asking for the job."""
    client = start(job_seconds=0)
    client.sandbox.add_fault({"kind": "late", "seconds": 0.2, "status": 504})
    client.create(WebhookUrl="https://example.org/hook", WebhookMethod="POST")
    webhooks = client.sandbox._service.ledger.webhooks
    assert webhooks == []
    wait_for(lambda: webhooks)


def test_no_other_machine_is_ever_called(client):
    """A webhook elsewhere is recorded as not sent."""
    client.create(WebhookUrl="https://example.org/hook", WebhookMethod="POST")
    wait_for(lambda: client.sandbox.ledger()["webhooks"])
    (hook,) = client.sandbox.ledger()["webhooks"]
    assert (hook["url"], hook["sent"]) == ("https://example.org/hook", False)


def test_a_test_asks_for_requests_and_live_jobs(start):
    """Requests are counted by route or at all; a deleted job is a job, but no live one."""
    client = start(job_seconds=100)
    deleted, kept = (client.create().json()["job_sid"] for _ in range(2))
    client.call("DELETE", f"/v1/Exports/Jobs/{deleted}")
    asked = client.sandbox.requests
    assert (asked(), asked("create_job"), asked("list_jobs")) == (3, 2, 0)
    assert [job["job_sid"] for job in client.sandbox.jobs()] == [deleted, kept]
    assert [job["job_sid"] for job in client.sandbox.jobs(live=True)] == [kept]


def test_a_sandbox_is_an_airflow_connection(sandbox):
    """Its connection is JSON with login, password and address; each field can be another."""
    fields = json.loads(sandbox.connection())
    assert fields == {
        "conn_type": "twilio_bulkexports",
        "login": sandbox.account_sid,
        "password": sandbox.auth_token,
        "extra": {"base_url": sandbox.url},
    }
    assert json.loads(sandbox.connection(login="other")) == fields | {"login": "other"}
