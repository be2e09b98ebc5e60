"""Pages of a list as Twilio cuts them, with the known defect of its default size."""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Page", "beyond", "cut"]

Item = TypeVar("Item")
Key = tuple[Any, ...]

_STATED_SIZE = 50
_REAL_SIZE = 10
_PREFIX = "PT"
_LAST = 1e300


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Items of one page and the ``meta`` object that goes with them."""

    items: list[Item]
    meta: dict[str, Any]


def cut(
    items: Sequence[tuple[Key, Item]],
    query: Mapping[str, str],
    *,
    url: str,
    name: str,
    most: int,
) -> Page[Item]:
    """
    Return the page that a query asks for.

    Without ``PageSize`` it has ten items, says fifty and names no next page: long lists are
    cut off in silence, as seen with the real service.

    :param items: the whole list with ascending keys; tokens hold a key, so that items that
        come or go between two pages shift nothing.
    :param url: address of the list without its query.
    :param name: what the array is called.
    :param most: largest ``PageSize``.
    :raises Refusal: with status 400 for sizes and pages out of range.
    """
    asked = "PageSize" in query
    size = _whole(query, "PageSize", 1, most) if asked else _REAL_SIZE
    number = _whole(query, "Page", 0, None) if "Page" in query else 0
    token = query.get("PageToken") or None
    if number and token is None:
        raise Refusal(400, 70002, "Page number out of range: follow next_page_url")
    keys = [key for key, _ in items]
    start = bisect_right(keys, _key(token, keys)) if token else 0
    shown = [item for _, item in items[start : start + size]]
    stated = size if asked else _STATED_SIZE

    def address(page: int, page_token: str | None) -> str:
        fields: dict[str, Any] = {"PageSize": stated, "Page": page}
        return f"{url}?{urlencode({**fields, 'PageToken': page_token} if page_token else fields)}"

    before = start - size
    return Page(
        shown,
        {
            "page": number,
            "page_size": stated,
            "first_page_url": address(0, None),
            "previous_page_url": address(
                max(number - 1, 0), _token(keys[before - 1]) if before > 0 else None
            )
            if asked and start > 0
            else None,
            "url": address(number, token),
            "next_page_url": address(number + 1, _token(keys[start + size - 1]))
            if asked and start + size < len(items)
            else None,
            "key": name,
        },
    )


def beyond(url: str) -> str:
    """
    Return the address of an empty page after all others, with a token of its own.

    :param url: address of a page.
    """
    address = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(address.query).items()}
    number = int(query["Page"]) + 1
    fields = {**query, "Page": number, "PageToken": _token((_LAST, number))}
    return address._replace(query=urlencode(fields)).geturl()


def _whole(query: Mapping[str, str], name: str, least: int, most: int | None) -> int:
    text = query[name]
    if text.isascii() and text.isdigit() and len(text) < 19:
        number = int(text)
        if number >= least and (most is None or number <= most):
            return number
    bounds = f"{least} to {most}" if most is not None else f"{least} or more"
    raise Refusal.invalid(f"{name} must be a whole number, {bounds}")


def _token(key: Key) -> str:
    return _PREFIX + base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _key(token: str, keys: Sequence[Key]) -> Key:
    try:
        text = token.removeprefix(_PREFIX)
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        key = json.loads(base64.urlsafe_b64decode(padded))
        bisect_right(keys, tuple(key))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        key = None
    if not token.startswith(_PREFIX) or not isinstance(key, list):
        raise Refusal.invalid("PageToken is not one this list gave out")
    return tuple(key)
