"""How the service refuses a request, apart from the form in which that is sent."""

from __future__ import annotations

__all__ = ["Refusal"]


class Refusal(Exception):
    """
    An answer of the API that is an error.

    :param status: HTTP status.
    :param code: Twilio's error code.
    :param message: what is wrong.
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    @classmethod
    def invalid(cls, message: str) -> Refusal:
        """Return a refusal of a request's parameters."""
        return cls(400, 20001, message)

    @classmethod
    def not_found(cls, what: str) -> Refusal:
        """Return a refusal for a resource that is not there."""
        return cls(404, 20404, f"The requested resource {what} was not found")
