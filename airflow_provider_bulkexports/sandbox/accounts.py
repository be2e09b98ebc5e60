"""Accounts of the sandbox: who may log in, and who pays for the days."""

from __future__ import annotations

import hmac
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.sandbox.refusal import Refusal

if TYPE_CHECKING:
    from datetime import date

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.sandbox.jobs import CustomJob
    from airflow_provider_bulkexports.sandbox.settings import Settings

__all__ = ["Account", "Accounts", "Configuration"]


@dataclass(slots=True)
class Configuration:
    """The daily export of one resource type."""

    enabled: bool = False
    webhook_url: str | None = None
    webhook_method: str | None = None


@dataclass(slots=True)
class Account:
    """
    An account and what it owns.

    :param payer: the account whose quota its days are charged to: its parent or itself.
    """

    sid: str
    token: str
    payer: str
    jobs: dict[ResourceType, list[CustomJob]] = field(default_factory=lambda: defaultdict(list))
    configurations: dict[ResourceType, Configuration] = field(
        default_factory=lambda: defaultdict(Configuration)
    )


class Accounts:
    """
    All accounts with their logins and their quota.

    :param settings: say how large the quota is and how it is refused.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accounts: dict[str, Account] = {}
        self._logins: dict[str, tuple[str, str]] = {}
        self._charged: dict[tuple[str, date], int] = defaultdict(int)

    def __getitem__(self, sid: str) -> Account:
        return self._accounts[sid]

    def add(self, sid: str, token: str, parent: str | None = None) -> None:
        """
        Add an account.

        :param parent: makes it a subaccount, whose days are charged to that account.
        """
        payer = self._accounts[parent].payer if parent else sid
        self._accounts[sid] = Account(sid, token, payer)
        self._logins[sid] = (token, sid)

    def add_key(self, key_sid: str, secret: str, account_sid: str) -> None:
        """Add an API key of an account."""
        self._logins[key_sid] = (secret, self._accounts[account_sid].sid)

    def authenticate(self, login: str, password: str) -> str:
        """
        Return the account that a login and password stand for.

        :raises Refusal: with status 401.
        """
        token, account_sid = self._logins.get(login, ("", ""))
        if not account_sid or not hmac.compare_digest(token.encode(), password.encode()):
            raise Refusal(401, 20003, "Authenticate")
        return account_sid

    def charge(self, account_sid: str, days: int, today: date) -> None:
        """
        Charge days to the quota of a UTC day; they never come back.

        :raises Refusal: as the settings say, when too few are left; none is charged then.
        """
        payer = self._accounts[account_sid].payer
        quota, spent = self._settings.quota_days, self._charged[payer, today]
        if spent + days > quota:
            raise Refusal(
                self._settings.quota_status,
                self._settings.quota_code,
                f"Export quota exceeded: at most {quota} days may be requested per UTC day by an "
                f"account and its subaccounts; {spent} were requested today",
            )
        self._charged[payer, today] += days
