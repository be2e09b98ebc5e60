"""What never reaches a log."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, quote_plus

__all__ = ["safe_text", "shown", "spellings"]

_SIGNED_QUERY = re.compile(r"\?[^\s\"'<>?]*(?:X-Amz-|Signature=)[^\s\"'<>]*", re.IGNORECASE)


def spellings(login: str, secret: str) -> list[str]:
    """
    Return every form in which a credential may turn up, longest first.

    :param login: Account SID or API key SID.
    :param secret: Auth Token or API key secret.
    """
    basic = base64.b64encode(f"{login}:{secret}".encode()).decode()
    return sorted(
        {secret, quote(secret, safe=""), quote_plus(secret), basic}, key=len, reverse=True
    )


def safe_text(text: str, secrets: list[str], limit: int = 200) -> str:
    """
    Return text from outside in a form that may be logged.

    Credentials and signed queries are replaced, control characters escaped (they could forge
    log lines), and the length is bounded.
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _SIGNED_QUERY.sub("?***", text)
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def shown(value: object) -> str:
    """Return a value in a form that may be logged: escaped, and cut at 80 characters."""
    try:
        text = ascii(value)
    except RecursionError:  # JSON that is just not too deep to be read
        text = f"a {type(value).__name__} nested too deep to show"
    return text if len(text) <= 80 else text[:77] + "..."
