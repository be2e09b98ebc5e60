from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from airflow_provider_bulkexports.api.errors import Fatal, InvalidRequest, LinkRefused
from airflow_provider_bulkexports.api.signed_links import check_allowed_hosts, check_link

QUERY = "?X-Amz-Signature=canary0123"

ALLOWED = [
    "https://com-twilio-prod-exports.s3.amazonaws.com/daily/day%3D2020-02-02/part-0.json.gz",
    "https://bucket.s3.us-east-1.amazonaws.com/x",
    "https://bucket.s3-us-west-2.amazonaws.com/x",
    "https://a.bucket.s3.dualstack.eu-central-1.amazonaws.com:443/x",
    "https://s3.amazonaws.com/bucket/x",
    "https://bucket.s3-accelerate.amazonaws.com/x",
    "HTTPS://Bucket.S3.Amazonaws.com/x",
]

REFUSED = [
    "http://bucket.s3.amazonaws.com/x",
    "ftp://bucket.s3.amazonaws.com/x",
    "file:///etc/passwd",
    "//bucket.s3.amazonaws.com/x",
    "/x",
    "",
    "https:///x",
    "https://user@bucket.s3.amazonaws.com/x",
    "https://user:pw@bucket.s3.amazonaws.com/x",
    "https://@bucket.s3.amazonaws.com/x",
    "https://bucket.s3.amazonaws.com@evil.example/x",
    "https://evil.example\\@bucket.s3.amazonaws.com/x",
    "https://evil.example\\.s3.amazonaws.com/x",
    "https://evil.example#.s3.amazonaws.com/x",
    "https://evil.example?.s3.amazonaws.com/x",
    "https://evil.example/.s3.amazonaws.com/x",
    "https://evil.example%2f.s3.amazonaws.com/x",
    "https://evil.example",
    "https://s3.amazonaws.com.evil.example/x",
    "https://evils3.amazonaws.com/x",
    "https://bucket.s3.amazonaws.com./x",
    "https://bucket.s3.evilamazonaws.com/x",
    "https://ec2-192-0-2-1.compute-1.amazonaws.com/x",
    "https://s3-evil-1.us-east-1.elb.amazonaws.com/x",
    "https://amazonaws.com/x",
    "https://bucket.s3.amazonaws.com:80/x",
    "https://bucket.s3.amazonaws.com:8443/x",
    "https://bucket.s3.amazonaws.com:/x",
    "https://bucket.s3.amazonaws.com:443@evil.example/x",
    "https://bucket.s3.amazonaws.com/x y",
    "https://bucket.s3.amazonaws.com/x\r\nHost: evil.example",
    "https://bucket.s3.amazonaws.com/é",
    "https://bücket.s3.amazonaws.com/x",
    "http\u017f://bucket.s3.amazonaws.com/x",
    " https://bucket.s3.amazonaws.com/x",
    "https://bucket.s3.amazonaws.com/x\n",
    "ht\ntps://bucket.s3.amazonaws.com/x",
    "https://10.0.0.1/x",
    "https://127.0.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "https://192.0.2.7/x",
    "https://127.1/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.0.0.0x1/x",
    "https://[::1]/x",
    "https://[::ffff:10.0.0.1]/x",
    "https://[fe80::1%25eth0]/x",
    "https://localhost/x",
    "http://localhost/x",
    "http://127.0.0.1:8010/x",
]


@pytest.mark.parametrize("url", ALLOWED)
def test_links_to_s3_are_right(url):
    """Every spelling of a bucket's address is accepted."""
    check_link(url + QUERY)


@pytest.mark.parametrize("url", REFUSED)
def test_other_links_are_refused(url):
    """What is not https to a bucket is refused, and the error does not hold the link."""
    with pytest.raises(LinkRefused, match="refused before anything was sent") as caught:
        check_link(url + QUERY)
    assert isinstance(caught.value, Fatal)
    assert "canary0123" not in f"{caught.value!r}"


def test_more_hosts_may_be_allowed():
    """The caller names hosts, or with a dot before it all hosts below a name."""
    hosts = check_allowed_hosts(["Files.example.com", ".internal.example"])
    for host in ("files.example.com", "a.internal.example", "a.b.internal.example"):
        check_link(f"https://{host}/x", allowed_hosts=hosts)
    for host in ("x.files.example.com", "internal.example", "evilinternal.example"):
        with pytest.raises(LinkRefused, match="among the allowed hosts"):
            check_link(f"https://{host}/x", allowed_hosts=hosts)


@pytest.mark.parametrize(
    "host",
    ["", ".", ".com", "com", "https://a.example", "a.example:8443", "*.a.example", "10.0.0.1"],
)
def test_a_host_that_is_none_is_refused(host):
    """What is no name of a host, or is as broad as a top-level domain, is refused at once."""
    with pytest.raises(InvalidRequest, match="allowed_hosts has"):
        check_allowed_hosts([host])


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[::1]", "127.1"])
def test_no_numeric_address_can_be_allowed(host):
    """Not even the caller can allow a host that is an address."""
    with pytest.raises(LinkRefused, match="numeric"):
        check_link(f"https://{host}/x", allowed_hosts=[host, "0.0.1", ".1"])


def test_this_machine_is_for_a_sandbox_only():
    """Plain http to this machine is right for a sandbox's client and nobody else."""
    for url in ("http://127.0.0.1:8010/x", "http://localhost/x", "http://[::1]:9/x"):
        check_link(url, loopback=True)
        with pytest.raises(LinkRefused, match="not https"):
            check_link(url)
    for url in ("http://127.0.0.2/x", "http://10.0.0.1/x", "http://127.0.0.1@evil.example/x"):
        with pytest.raises(LinkRefused):
            check_link(url, loopback=True)


def test_a_hosts_name_cannot_flood_or_forge_a_log():
    """The host is shown so that it can be allowed, but no more than 100 characters of it."""
    with pytest.raises(LinkRefused) as caught:
        check_link(f"https://{'a' * 5000}.example/x")
    assert len(str(caught.value)) < 300


PIECES = (
    "https http ftp :// : // / \\ @ ? # [ ] % . .. user pw 443 80 evil.example 127.0.0.1 ::1 "
    "bucket s3 .s3.amazonaws.com amazonaws.com localhost 0x7f é \u017f \u212a xn-- \n \t \x00 "
    "https:// https://bucket.s3.amazonaws.com"
)
pieces = st.lists(st.sampled_from([*PIECES.split(" "), " "]), max_size=9).map("".join)


@given(st.one_of(pieces, st.text(max_size=40), pieces.map("https://".__add__)))
def test_what_is_accepted_means_s3_to_every_parser(url):
    """However a link is put together: if it is accepted, both parsers see https to a bucket."""
    try:
        check_link(url)
    except LinkRefused:
        return
    for parts in (urlsplit(url), parse_url(url)):
        host = str(parts.hostname if hasattr(parts, "hostname") else parts.host).lower()
        assert parts.scheme == "https"
        assert host.endswith(".amazonaws.com")
        assert "s3" in host
        assert parts.port in (None, 443)
        assert "@" not in parts.netloc
