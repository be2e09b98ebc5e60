"""Airflow's connection, as a client of the BulkExport API."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    InvalidRequest,
    Unauthorized,
)
from airflow_provider_bulkexports.compat import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    BaseHook,
    mask_secret,
)
from airflow_provider_bulkexports.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from airflow_provider_bulkexports.api.client import Client

__all__ = ["BulkExportsHook", "airflow_errors"]

_LOGIN = re.compile(r"(AC|SK)[0-9a-fA-F]{32}")


@contextmanager
def airflow_errors(bulkexports_conn_id: str) -> Iterator[None]:
    """
    Turn the API's errors into Airflow's: what repeating cannot mend fails the task at once.

    :param bulkexports_conn_id: the connection to name where it is to blame.
    :raises AirflowFailException: no retry.
    :raises AirflowException: the task's own retries apply.
    """
    try:
        yield
    except Unauthorized as error:
        raise AirflowFailException(
            f"Connection {bulkexports_conn_id!r}: Twilio refused its credentials. {error}"
        ) from None
    except Fatal as error:
        raise AirflowFailException(str(error)) from None
    except BulkExportsError as error:
        raise AirflowException(str(error)) from None


class BulkExportsHook(BaseHook):
    """
    Give a client of Twilio's BulkExport API for an Airflow connection.

    The connection's login is an Account SID or API key SID, its password the Auth Token or key
    secret. It always talks to Twilio, unless the extra ``base_url`` names another origin: https,
    or http on this machine for the sandbox. Files come from S3, and from the hosts that the extra
    ``allowed_hosts`` names, with commas between.

    :param bulkexports_conn_id: the connection's id.
    """

    conn_name_attr = "bulkexports_conn_id"
    default_conn_name = "bulkexports_default"
    conn_type = CONNECTION_TYPE["connection-type"]
    hook_name = CONNECTION_TYPE["hook-name"]

    def __init__(self, bulkexports_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.bulkexports_conn_id = bulkexports_conn_id

    def get_conn(self) -> Client:
        """
        Return a new client; the caller closes it.

        :raises AirflowNotFoundException: with the command that adds the missing connection.
        :raises InvalidRequest: when the connection cannot be right, before any traffic.
        """
        from airflow_provider_bulkexports.api.client import Client
        from airflow_provider_bulkexports.api.redact import spellings

        try:
            connection = self.get_connection(self.bulkexports_conn_id)
        except AirflowNotFoundException as error:
            raise AirflowNotFoundException(
                f"There is no connection {self.bulkexports_conn_id!r}. Add it with: "
                f"airflow connections add {self.bulkexports_conn_id} --conn-type {self.conn_type} "
                "--conn-login ACCOUNT_SID --conn-password AUTH_TOKEN"
            ) from error
        login, secret = connection.login or "", connection.password or ""
        if secret:
            for spelling in spellings(login, secret):
                mask_secret(spelling)
        with self._blame():
            if connection.host:
                raise InvalidRequest(
                    "host must stay empty, which means Twilio; the sandbox is set by the extra "
                    "base_url."
                )
            if login and not _LOGIN.fullmatch(login):
                raise InvalidRequest(
                    "login must be an Account SID or API key SID: AC or SK and 32 hexadecimal "
                    "digits."
                )
            base_url = connection.extra_dejson.get("base_url")
            if base_url is not None and not isinstance(base_url, str):
                raise InvalidRequest("base_url must be a text.")
            allowed_hosts = connection.extra_dejson.get("allowed_hosts") or ""
            if not isinstance(allowed_hosts, str):
                raise InvalidRequest("allowed_hosts must be a text, with commas between the hosts.")
            return Client(
                login,
                secret,
                base_url=base_url or None,
                allowed_hosts=[host.strip() for host in allowed_hosts.split(",") if host.strip()],
            )

    @contextmanager
    def _blame(self) -> Iterator[None]:
        try:
            yield
        except InvalidRequest as error:
            raise InvalidRequest(f"Connection {self.bulkexports_conn_id!r}: {error}") from None

    @staticmethod
    def missing_days(
        destination: Any, resource_type: str, start_day: str | date, end_day: str | date
    ) -> list[dict[str, str]]:
        """
        Return which days of a range are not in a storage; Twilio is not asked.

        A day is there when its manifest is, and the files that it names. The answer is as the
        create operator takes it: ranges of at most 366 days, as ``{"resource_type", "start_day",
        "end_day"}``.

        :param destination: an ``ObjectStoragePath``, as given to the transfer.
        :param resource_type: ``Messages``, ``Calls``, ``Conferences`` or ``Participants``.
        :param start_day: first UTC day, ``YYYY-MM-DD`` or a date.
        :param end_day: last UTC day, inclusive.
        :raises InvalidRequest: for a wrong type or range.
        """
        from airflow_provider_bulkexports.api.calendar import (
            days_between,
            parse_range,
            ranges_of,
            split_range,
        )
        from airflow_provider_bulkexports.api.request import ResourceType
        from airflow_provider_bulkexports.storage import DayStore

        kind = ResourceType.parse(resource_type)
        first, last = parse_range(start_day, end_day)
        there = DayStore(destination, kind).manifests(first, last)
        gaps = ranges_of(day for day in days_between(first, last) if day not in there)
        return [
            {"resource_type": kind.value, "start_day": f"{start}", "end_day": f"{end}"}
            for gap in gaps
            for start, end in split_range(*gap)
        ]

    def test_connection(self) -> tuple[bool, str]:
        """Prove that the credentials may use BulkExport; say what is missing if they may not."""
        from airflow_provider_bulkexports.api.request import ResourceType

        try:
            with self.get_conn() as client, client.hurried() as quick:
                quick.fetch_export(ResourceType.MESSAGES)
                jobs = quick.list_jobs(ResourceType.MESSAGES)
        except Unauthorized as error:
            missing = (
                "The login and password do not match, or belong to another account."
                if error.status == 401
                else "The key is known but may not use BulkExport: take a Main or Standard API key."
            )
            return False, f"{missing} {error}"
        except (BulkExportsError, AirflowNotFoundException) as error:
            return False, str(error)
        return True, f"BulkExport answers: {len(jobs)} Messages export jobs are listed."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form's labels for Airflow 2.11 to 3.1."""
        behaviour = CONNECTION_TYPE["ui-field-behaviour"]
        return {
            "hidden_fields": behaviour["hidden-fields"],
            "relabeling": behaviour["relabeling"],
            "placeholders": behaviour["placeholders"],
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the connection form's extra fields for Airflow 2.11 to 3.1."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {
            name: StringField(
                field["label"], widget=BS3TextFieldWidget(), description=field["description"]
            )
            for name, field in CONNECTION_TYPE["conn-fields"].items()
        }
