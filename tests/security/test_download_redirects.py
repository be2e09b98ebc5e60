"""Where a download goes, and what it takes along.

Two ways to look: a sandbox with a recording server beside it; and the real names over real TLS,
through a proxy that leads every name to one recording server on this machine.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import select
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from day_downloads import DAY, FILE, LINK, TWO_MEMBERS, Hasty, exported

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.api.download import fetch_day_file
from airflow_provider_bulkexports.api.errors import BadData, LinkRefused
from airflow_provider_bulkexports.api.request import ResourceType

API = "bulkexports.twilio.com"
BUCKET = "com-twilio-prod-exports.s3.amazonaws.com"
EVIL = "evil.example"
LOGIN, TOKEN = "AC" + "5a" * 16, "canary-token"


class Recorder(BaseRequestHandler):
    """Notes every connection, and says nothing."""

    def handle(self):
        self.server.connections.append(self.client_address)


@pytest.fixture
def foreign():
    """Give a server on all loopback addresses to which nobody should come."""
    with ThreadingTCPServer(("0.0.0.0", 0), Recorder) as server:  # noqa: S104 - 127.0.0.2 too
        server.connections = []
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.2:{port}/x",
        "http://0.0.0.0:{port}/x",
        "http://user:pw@127.0.0.1:{port}/x",
        "http://user@localhost:{port}/x",
        "https://127.0.0.1:{port}/x",
        "https://localhost:{port}/x",
        "http://127.1:{port}/x",
        "http://2130706433:{port}/x",
        "http://[::ffff:127.0.0.1]:{port}/x",
        "http://127.0.0.1:{port}\\@bucket.s3.amazonaws.com/x",
        "ftp://127.0.0.1:{port}/x",
        "file:///etc/hostname",
    ],
)
def test_a_link_elsewhere_is_refused_before_a_byte_is_sent(foreign, link):
    """Another host, a private address, user info or another scheme: nobody is even called."""
    with exported() as day:
        url = link.format(port=foreign.server_address[1]) + "?X-Amz-Signature=1"
        day.fault("redirect", "fetch_day", url=url)
        with pytest.raises(LinkRefused, match="before anything was sent"):
            day.fetch()
        assert foreign.connections == []
        assert (day.asked(LINK), day.asked(FILE), day.held) == (1, 0, b"")


def test_the_foreign_server_can_be_reached(foreign):
    """The control: whoever follows such a link does come to the recording server."""
    url = f"http://127.0.0.2:{foreign.server_address[1]}/x"
    with exported() as day:
        day.fault("redirect", "fetch_day", url=url)
        with pytest.raises(requests.ConnectionError):
            requests.get(
                f"{day.sandbox.url}/v1/Exports/Messages/Days/{DAY}",
                auth=(day.sandbox.account_sid, day.sandbox.auth_token),
                timeout=5,
            )
    assert len(foreign.connections) == 1


def test_a_link_that_leads_back_to_the_api_gets_no_credentials():
    """A loop to the API's own address is asked without login, so it ends after three tries."""
    with exported() as day:
        url = f"{day.sandbox.url}/v1/Exports/Messages/Days/{DAY}"
        day.fault("redirect", "fetch_day", url=url, times=-1)
        with pytest.raises(BadData, match="HTTP 401"):
            day.fetch()
        assert day.asked(LINK) == 6
        assert day.sandbox.ledger()["rejected"] == {"401": 3}


class Everybody(BaseHTTPRequestHandler):
    """The API, the bucket and a foreign host in one, told apart by name; notes what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, host = self.server, self.headers["Host"]
        server.seen.append((host, self.path, {name.lower(): v for name, v in self.headers.items()}))
        if host == API:
            body = {} if server.in_header_only else {"redirect_to": server.link}
            return self.answer(307, json.dumps(body).encode(), server.link)
        if server.next_link:
            return self.answer(307, b"", server.next_link)
        return self.answer(200, TWO_MEMBERS)

    def answer(self, status, body, location=None):
        self.send_response(status)
        self.send_header("Set-Cookie", "tracker=canary; Path=/; Secure")
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Proxy(BaseRequestHandler):
    """Leads every CONNECT to one server, and notes whom it was asked for."""

    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.request.recv(4096)
        self.server.asked_for.append(head.split(b" ")[1].decode())
        with socket.create_connection(self.server.leads_to) as other:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            pair = {self.request: other, other: self.request}
            while True:
                for ready in select.select(list(pair), [], [])[0]:
                    if not (data := ready.recv(65_536)):
                        return
                    pair[ready].sendall(data)


def certificates(folder):
    """Write a CA, and a certificate of it for all the names."""
    now = dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    authority = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    unused = (
        "content_commitment key_encipherment data_encipherment key_agreement crl_sign "
        "encipher_only decipher_only"
    )
    usage = dict.fromkeys(unused.split(), False)
    names = [x509.DNSName(name) for name in (API, BUCKET, EVIL)]
    paths = []
    for number, (key, own) in enumerate(
        zip(
            keys,
            (x509.BasicConstraints(ca=True, path_length=0), x509.SubjectAlternativeName(names)),
            strict=True,
        )
    ):
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {number}")])
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test 0")])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(own, critical=number == 0)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=number == 0, **usage),
                critical=True,
            )
            .sign(keys[0], hashes.SHA256())
        )
        paths.append(folder / f"{number}.pem")
        paths[-1].write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return paths


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Give the recording server behind all names, with a netrc that has logins for them."""
    authority, own = certificates(tmp_path)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login netrc-canary password netrc-canary\n")
    netrc.chmod(0o600)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Everybody)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen, server.in_header_only, server.next_link = [], False, ""
    server.link = f"https://{BUCKET}/day.json.gz?X-Amz-Signature=1"
    proxy = ThreadingTCPServer(("127.0.0.1", 0), Proxy)
    proxy.daemon_threads = server.daemon_threads = True
    proxy.asked_for, proxy.leads_to = [], server.server_address
    server.asked_for = proxy.asked_for
    for one in (server, proxy):
        threading.Thread(target=one.serve_forever, args=[0.01], daemon=True).start()
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_address[1]}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    monkeypatch.setenv("NETRC", str(netrc))
    yield server
    for one in (server, proxy):
        one.shutdown()
        one.server_close()


def fetch(allowed_hosts=()):
    target = io.BytesIO()
    with Client(LOGIN, TOKEN, allowed_hosts=allowed_hosts) as client:
        fetch_day_file(
            client, ResourceType.MESSAGES, DAY, target, may_be_empty=False, stop=Hasty(float)
        )
    return target.getvalue()


@pytest.mark.parametrize("in_header_only", [False, True])
def test_a_bucket_is_sent_nothing_but_the_link(world, in_header_only):
    """The bucket gets no login, no cookie, no netrc entry, and none of the API's headers."""
    world.in_header_only = in_header_only
    assert fetch() == TWO_MEMBERS
    (api, _, first), (bucket, path, second) = world.seen
    assert (api, bucket, path) == (API, BUCKET, "/day.json.gz?X-Amz-Signature=1")
    assert first["authorization"].startswith("Basic ")
    assert set(second) <= {"host", "user-agent", "accept-encoding", "connection"}
    assert second["accept-encoding"] == "identity"
    assert "canary" not in json.dumps(second)
    assert world.asked_for == [f"{API}:443", f"{BUCKET}:443"]


@pytest.mark.parametrize(
    "link",
    [
        f"https://{EVIL}/x",
        f"https://{BUCKET}@{EVIL}/x",
        f"https://{BUCKET}.{EVIL}/x",
        f"https://user:pw@{BUCKET}/x",
        f"https://{BUCKET}:8443/x",
        f"http://{BUCKET}/x",
        "http://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        f"https://{API}/v1/Exports/Messages/Days/{DAY}",
    ],
)
def test_nobody_else_is_asked_for(world, link):
    """For any other link no connection is made but the API's own."""
    world.link = f"{link}?X-Amz-Signature=1"
    with pytest.raises(LinkRefused) as caught:
        fetch()
    assert "Signature" not in str(caught.value)
    assert world.asked_for == [f"{API}:443"]
    assert [host for host, _, _ in world.seen] == [API]


@pytest.mark.parametrize("following", [f"https://{EVIL}/x", f"https://{BUCKET}/day.json.gz"])
def test_a_second_redirect_is_not_followed(world, following):
    """A bucket that redirects, elsewhere or in a loop, is not obeyed."""
    world.next_link = following
    with pytest.raises(LinkRefused, match="leads on to another place"):
        fetch()
    assert [host for host, _, _ in world.seen] == [API, BUCKET]
    assert EVIL not in str(world.asked_for)


def test_an_allowed_host_is_sent_nothing_more(world):
    """A host that the caller allows gets the link alone, as a bucket does."""
    world.link = f"https://{EVIL}/x?X-Amz-Signature=1"
    assert fetch(allowed_hosts=[EVIL]) == TWO_MEMBERS
    assert not {"authorization", "cookie"} & set(world.seen[-1][2])


def test_a_session_that_follows_by_itself_tells_more(world):
    """The control: requests as it comes takes a netrc login to a host it is redirected to."""
    world.link = f"https://{EVIL}/x"
    requests.get(f"https://{API}/v1/Exports/Messages/Days/{DAY}", auth=(LOGIN, TOKEN), timeout=5)
    host, _, headers = world.seen[-1]
    assert host == EVIL
    assert "authorization" in headers
