"""Where a signed link may lead, and that it stays out of the logs.

Whoever has a signed link has the file.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

import pendulum

from airflow_provider_bulkexports.api.errors import InvalidRequest, LinkRefused
from airflow_provider_bulkexports.api.redact import safe_text
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pendulum import DateTime

__all__ = ["LinkFacts", "check_allowed_hosts", "check_link"]

_LINK = re.compile(
    r"(https?)://([a-z0-9.-]+|\[::1\])(?::([0-9]{1,5}))?(?:/[!-\[\]-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_S3 = re.compile(
    r"(?:[a-z0-9-]+\.)*s3(?:-[a-z0-9-]+)?(?:\.dualstack)?(?:\.[a-z]+(?:-[a-z]+)+-\d+)?"
    r"\.amazonaws\.com"
)
_FACTS = re.compile(
    r"/day=(\d{4}-\d\d-\d\d)/type=([A-Za-z]+)/account=(AC[0-9a-fA-F]{32})"
    r"/created_time=([^/]+)/[^/]+\Z",
    re.ASCII,
)
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ALLOWED = re.compile(r"\.?[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """
    What the path of a signed link says of its file; none of it is a secret.

    :param created_time: when the file was exported, None where it is not written as documented.
    """

    resource_type: ResourceType
    day: date
    account_sid: str
    created_time: DateTime | None

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """
        Read a link, None unless its path ends in the documented shape.

        That is ``day=2020-02-02/type=Messages/account=AC.../created_time=20200204123456/NAME``,
        after anything. A path of another shape says nothing, so that Twilio may change it.
        """
        found = _FACTS.search(unquote(urlsplit(url).path))
        if found is None:
            return None
        try:
            day, resource_type = date.fromisoformat(found[1]), ResourceType(found[2])
        except ValueError:
            return None
        return cls(resource_type, day, found[3], _created_time(found[4]))


def _created_time(text: str) -> DateTime | None:
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    # strptime takes fewer digits than a field has.
    return pendulum.instance(moment) if len(text) == 14 else None


def check_allowed_hosts(hosts: Sequence[str]) -> tuple[str, ...]:
    """
    Return hosts that are right beside S3's, in lower case.

    :param hosts: names of hosts; one that begins with a dot stands for all that end with it.
    :raises InvalidRequest: for what is no name of a host, or one as broad as ``.com``.
    """
    lowered = tuple(host.lower() for host in hosts)
    for host in lowered:
        if not _ALLOWED.fullmatch(host) or _is_address(host):
            raise InvalidRequest(
                f"allowed_hosts has {safe_text(host, [], 100)!r}; each must be the name of a host, "
                "as files.example.com, or .example.com for all below it."
            )
    return lowered


def check_link(url: str, *, allowed_hosts: Sequence[str] = (), loopback: bool = False) -> None:
    """
    Refuse a link to anywhere but the places where day files are.

    :param allowed_hosts: what :func:`check_allowed_hosts` returned.
    :param loopback: whether http to this machine is right too, as it is for a sandbox's client.
    :raises LinkRefused: without the link, which is a secret.
    """
    reason = _objection(url, tuple(allowed_hosts), loopback=loopback)
    if reason is not None:
        raise LinkRefused(
            f"The service's link to the day file was refused before anything was sent: {reason}."
        )


def _objection(  # noqa: PLR0911 - one return a rule
    url: str, allowed_hosts: tuple[str, ...], *, loopback: bool
) -> str | None:
    suffixes = tuple(name for name in allowed_hosts if name.startswith("."))
    # The whole of a link has to fit one pattern, so that no two parsers can differ about it.
    match = _LINK.fullmatch(url)
    if match is None:
        return "it is not a plain address of scheme, host and path"
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    if scheme == "http":
        if loopback and host in _LOOPBACK:
            return None
        return "it is not https"
    if port not in (None, "443"):
        return f"it names port {port}"
    if _is_address(host):
        return "it names a numeric address"
    if _S3.fullmatch(host) or host in allowed_hosts or host.endswith(suffixes):
        return None
    return f"its host {safe_text(host, [], 100)!r} is neither S3 nor among the allowed hosts"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        # 127.1, 0x7f.1 and 2130706433 are addresses too, for whoever resolves them.
        return re.fullmatch(r"0x[0-9a-f]*|\d+", host.rstrip(".").rpartition(".")[2]) is not None
    return True


class _LinkFilter(logging.Filter):
    """Takes signed queries out of what urllib3 logs, which at DEBUG is every address."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "X-Amz-" in text or "Signature=" in text:
            record.msg, record.args = safe_text(text, [], len(text)), ()
        return True


for _name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_LinkFilter())
