"""Airflow's connection, as a client of the BulkExport API."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import (
    BulkExportsError,
    Fatal,
    InvalidRequest,
    OutcomeUnknown,
    Unauthorized,
    Unsettled,
)
from airflow_provider_bulkexports.api.redact import shown
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
    from airflow_provider_bulkexports.api.job import Job
    from airflow_provider_bulkexports.api.request import ExportRequest

__all__ = ["BulkExportsConnection", "BulkExportsHook", "airflow_errors"]

DEFAULT_CONN_ID = "bulkexports_default"
SHORTEST_SECRET = 16

_LOGIN = re.compile(r"(AC|SK)[0-9a-fA-F]{32}")


@contextmanager
def airflow_errors(bulkexports_conn_id: str = DEFAULT_CONN_ID) -> Iterator[None]:
    """
    Turn the API's errors into Airflow's: what repeating cannot mend fails the task at once.

    :param bulkexports_conn_id: the connection to name where it is to blame.
    :raises AirflowFailException: no retry.
    :raises AirflowException: the task's own retries apply.
    """
    try:
        yield
    except Unauthorized as error:
        # A token that is being rotated is refused for a while, so that a retry may help.
        raise AirflowException(
            f"Connection {bulkexports_conn_id!r}: Twilio refused its credentials. {error}"
        ) from None
    except (Fatal, AirflowNotFoundException) as error:
        raise AirflowFailException(str(error)) from None
    except BulkExportsError as error:
        raise AirflowException(str(error)) from None


@dataclass(frozen=True, slots=True)
class BulkExportsConnection:
    """
    What an Airflow connection says, checked.

    :param login: Account SID or API key SID.
    :param secret: Auth Token or API key secret.
    :param base_url: another origin than Twilio's, None for Twilio.
    :param allowed_hosts: hosts beside S3 that files may come from.
    :param namespace: tells deployments apart that share an account.
    :param hash_secret: keys the digests of columns that are stored hashed; "" without one.
    """

    login: str
    secret: str = field(repr=False)
    base_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    namespace: str = ""
    hash_secret: str = field(default="", repr=False)

    @classmethod
    def parse(cls, connection: Any) -> BulkExportsConnection:
        """
        Read an Airflow connection.

        :raises InvalidRequest: when it cannot be right: what is wrong, and what is allowed.
        """
        if connection.conn_type != BulkExportsHook.conn_type:
            raise InvalidRequest(
                f"conn_type is {shown(connection.conn_type)}; it must be "
                f"{BulkExportsHook.conn_type!r}."
            )
        if connection.host:
            raise InvalidRequest(
                "host must stay empty, which means Twilio; the sandbox is set by the extra "
                "base_url."
            )
        login = connection.login or ""
        if login and not _LOGIN.fullmatch(login):
            raise InvalidRequest(
                "login must be an Account SID or API key SID: AC or SK and 32 hexadecimal digits."
            )
        extras = _extras(connection)
        hash_secret = extras.get("hash_secret", "")
        if 0 < len(hash_secret) < SHORTEST_SECRET:
            raise InvalidRequest(
                f"the extra hash_secret has {len(hash_secret)} characters; give {SHORTEST_SECRET} "
                "or more, or telephone numbers are soon guessed from their digests."
            )
        return cls(
            login=login,
            secret=connection.password or "",
            base_url=extras.get("base_url") or None,
            allowed_hosts=tuple(
                host.strip() for host in extras.get("allowed_hosts", "").split(",") if host.strip()
            ),
            namespace=extras.get("namespace", ""),
            hash_secret=hash_secret,
        )

    def client(self) -> Client:
        """
        Return a new client; the caller closes it.

        :raises InvalidRequest: for missing credentials, or a ``base_url`` or host that is not
            allowed.
        """
        from airflow_provider_bulkexports.api.client import Client

        return Client(
            self.login, self.secret, base_url=self.base_url, allowed_hosts=self.allowed_hosts
        )


def _extras(connection: Any) -> dict[str, str]:
    """Return a connection's extra fields, all of them known and strings."""
    text = connection.extra
    try:
        extras = json.loads(text) if text else {}
    except ValueError:
        extras = None
    if not isinstance(extras, dict):
        raise InvalidRequest('extra must be a JSON object, such as {"namespace": "staging"}.')
    known = CONNECTION_TYPE["conn-fields"]
    for name, value in extras.items():
        if name not in known:
            raise InvalidRequest(
                f"there is no extra {shown(name)}; allowed are {', '.join(sorted(known))}."
            )
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"the extra {name} must be a string.")
    return {name: value for name, value in extras.items() if value}


class BulkExportsHook(BaseHook):
    """
    Create jobs by Twilio's BulkExport API, or give a client of it, for an Airflow connection.

    The connection's login is an Account SID or API key SID, its password the Auth Token or key
    secret. It always talks to Twilio, unless the extra ``base_url`` names another origin: https,
    or http on this machine for the sandbox. Files come from S3, and from the hosts that the extra
    ``allowed_hosts`` names, with commas between. The extra ``namespace`` tells deployments apart
    that share an account. The extra ``hash_secret`` keys the digests of ``hash_columns``.

    :param bulkexports_conn_id: the connection's id.
    """

    conn_name_attr = "bulkexports_conn_id"
    default_conn_name = DEFAULT_CONN_ID
    conn_type = CONNECTION_TYPE["connection-type"]
    hook_name = CONNECTION_TYPE["hook-name"]

    def __init__(self, bulkexports_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.bulkexports_conn_id = bulkexports_conn_id

    def read_connection(self) -> BulkExportsConnection:
        """
        Read and check the connection.

        :raises AirflowNotFoundException: with the command that adds the missing connection.
        :raises InvalidRequest: when the connection cannot be right, before any traffic.
        """
        from airflow_provider_bulkexports.api.redact import spellings

        try:
            connection = self.get_connection(self.bulkexports_conn_id)
        except AirflowNotFoundException as error:
            raise AirflowNotFoundException(
                f"There is no connection {self.bulkexports_conn_id!r}. Add it with: "
                f"airflow connections add {self.bulkexports_conn_id} --conn-type {self.conn_type} "
                "--conn-login ACCOUNT_SID --conn-password AUTH_TOKEN"
            ) from error
        if connection.password:
            for spelling in spellings(connection.login or "", connection.password):
                mask_secret(spelling)
        with self._blame():
            parsed = BulkExportsConnection.parse(connection)
        if parsed.hash_secret:
            mask_secret(parsed.hash_secret)
        return parsed

    def get_conn(self) -> Client:
        """
        Return a new client; the caller closes it.

        :raises AirflowNotFoundException: with the command that adds the missing connection.
        :raises InvalidRequest: when the connection cannot be right, before any traffic.
        """
        connection = self.read_connection()
        with self._blame():
            return connection.client()

    def create_job(
        self,
        *,
        resource_type: str,
        start_day: str | date,
        end_day: str | date,
        friendly_name: str,
        webhook_url: str | None = None,
        webhook_method: str | None = None,
        email: str | None = None,
        key: str | None = None,
    ) -> Job:
        """
        Create a custom export job, for tasks written in Python.

        With a ``key`` it submits once: a job with the same key, type and days is adopted, and a
        POST whose answer was lost is not repeated before its job has been looked for over two
        minutes. Without one it is a single POST.

        :param resource_type: ``Messages``, ``Calls``, ``Conferences`` or ``Participants``.
        :param start_day: first UTC day, ``YYYY-MM-DD`` or a date.
        :param end_day: last UTC day, inclusive.
        :param friendly_name: the job's name: letters, digits and underscores, at most 64; at most
            40 with a key, which is appended.
        :param webhook_url: https URL that Twilio calls on completion; needs ``webhook_method``.
        :param webhook_method: ``GET`` or ``POST``.
        :param email: address that Twilio mails on completion.
        :param key: what this job is, the same at every try: the run's id, say.
        :return: the job as Twilio described it last.
        :raises AirflowFailException: for what a retry cannot mend, and for a lost answer without a
            key, since a retry might pay twice.
        :raises AirflowException: the task's own retries apply.
        """
        from airflow_provider_bulkexports.api.request import ExportRequest
        from airflow_provider_bulkexports.api.submit import Submission, submit

        with airflow_errors(self.bulkexports_conn_id):
            connection = self.read_connection()
            request = ExportRequest.parse(
                resource_type=resource_type,
                start_day=start_day,
                end_day=end_day,
                friendly_name=friendly_name,
                webhook_url=webhook_url,
                webhook_method=webhook_method,
                email=email,
            )
            with connection.client() as client:
                if key is None:
                    return _create_without_key(client, request)
                submission = Submission.of(request, connection.namespace, key)
                not_before, posts = 0.0, 0
                while True:
                    try:
                        return submit(
                            client,
                            submission,
                            may_have_posted=True,
                            not_before=not_before,
                            posts=posts,
                        ).job
                    except Unsettled as error:
                        self.log.info("%s", error)
                        not_before, posts = error.not_before, error.posts
                        client.pace.sleep(max(0.0, not_before - client.pace.now()))

    @contextmanager
    def _blame(self) -> Iterator[None]:
        try:
            yield
        except InvalidRequest as error:
            raise InvalidRequest(f"Connection {self.bulkexports_conn_id!r}: {error}") from None

    def test_connection(self) -> tuple[bool, str]:
        """Prove that the credentials may use BulkExport; say what is missing if they may not."""
        from airflow_provider_bulkexports.api.request import ResourceType

        try:
            with self.get_conn() as client, client.hurried() as quick:
                quick.fetch_export(ResourceType.MESSAGES)
                jobs = quick.list_jobs(ResourceType.MESSAGES).jobs
        except Unauthorized as error:
            missing = (
                "The login and password do not match, or belong to another account."
                if error.status == 401
                else "The key is known but may not use BulkExport: take a Main or Standard API key."
            )
            return False, f"{missing} {error}"
        except (BulkExportsError, AirflowNotFoundException) as error:
            return False, str(error)
        listed = "1 job is" if len(jobs) == 1 else f"{len(jobs)} jobs are"
        return True, f"BulkExport answers: {listed} listed for Messages."

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
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        widgets = {}
        for name, field_ in CONNECTION_TYPE["conn-fields"].items():
            secret = field_["schema"].get("format") == "password"
            kind = PasswordField if secret else StringField
            widget = BS3PasswordFieldWidget if secret else BS3TextFieldWidget
            widgets[name] = kind(
                field_["label"], widget=widget(), description=field_["description"]
            )
        return widgets


def _create_without_key(client: Client, request: ExportRequest) -> Job:
    try:
        return client.create_job(request)
    except OutcomeUnknown as error:
        raise AirflowFailException(
            f"Whether the job was created is not known, and without a key it cannot be looked for. "
            f"Look at the account's list of jobs before trying again. {error}"
        ) from None
