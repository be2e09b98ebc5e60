"""The columns of each resource type, and which of them a privacy option may change."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.request import ResourceType

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["EXTRA", "SCHEMAS", "ColumnType", "Privacy", "schema_of"]

EXTRA = "_extra"
"""Column with the fields that are not in the schema, as JSON text."""


class ColumnType(StrEnum):
    """Type of a column, in Arrow's words."""

    STRING = "string"
    INTEGER = "int64"
    DECIMAL = "decimal128(18, 6)"
    TIMESTAMP = "timestamp[us, tz=UTC]"
    DATE = "date32[day]"
    BOOLEAN = "bool"


def _columns(names: str, **types: ColumnType) -> dict[str, ColumnType]:
    """Return the columns in the order of ``names``, strings where nothing else is said."""
    instants = {"date_created", "date_sent", "date_updated", "start_time", "end_time"}
    known = dict.fromkeys(instants, ColumnType.TIMESTAMP) | {"price": ColumnType.DECIMAL} | types
    return {name: known.get(name, ColumnType.STRING) for name in names.split()}


SCHEMAS: Mapping[ResourceType, Mapping[str, ColumnType]] = {
    ResourceType.MESSAGES: _columns(
        "sid account_sid messaging_service_sid from to body status direction num_segments "
        "num_media price error_code date_created date_sent date_updated flags start",
        num_segments=ColumnType.INTEGER,
        num_media=ColumnType.INTEGER,
        error_code=ColumnType.INTEGER,
        flags=ColumnType.INTEGER,
        start=ColumnType.DATE,
    ),
    ResourceType.CALLS: _columns(
        "sid date_created date_updated parent_call_sid account_sid to to_formatted from "
        "from_formatted phone_number_sid status start_time end_time duration price price_unit "
        "direction answered_by api_version forwarded_from group_sid caller_name queue_time "
        "trunk_sid",
        duration=ColumnType.INTEGER,
        queue_time=ColumnType.INTEGER,
    ),
    ResourceType.CONFERENCES: _columns(
        "account_sid date_created date_updated friendly_name region sid status "
        "reason_conference_ended call_sid_ending_conference"
    ),
    ResourceType.PARTICIPANTS: _columns(
        "account_sid call_sid call_sid_to_coach coaching conference_sid date_created "
        "date_updated end_conference_on_exit muted hold start_conference_on_enter status "
        "queue_time",
        coaching=ColumnType.BOOLEAN,
        end_conference_on_exit=ColumnType.BOOLEAN,
        muted=ColumnType.BOOLEAN,
        hold=ColumnType.BOOLEAN,
        start_conference_on_enter=ColumnType.BOOLEAN,
        queue_time=ColumnType.INTEGER,
    ),
}
"""Columns by resource type; each file has :data:`EXTRA` besides."""


@dataclass(frozen=True, slots=True)
class Privacy:
    """
    Columns that are left out, or hashed, before anything is written.

    :data:`EXTRA` is left out with them: a new field may hold what an old one does.

    :param drop: columns that are left out, in the schema's order.
    :param hash: columns whose values become the hexadecimal HMAC-SHA256 of their exact text; null
        and the empty string stay.
    :param secret: the key of these; empty where nothing is hashed.
    """

    drop: tuple[str, ...]
    hash: tuple[str, ...]
    secret: bytes = field(repr=False)

    @property
    def key_id(self) -> str | None:
        """Eight digits that tell one secret from another; None where nothing is hashed."""
        if not self.hash:
            return None
        return hashlib.sha256(b"bulkexports hash_secret\0" + self.secret).hexdigest()[:8]

    @classmethod
    def parse(
        cls,
        resource_type: ResourceType,
        drop: Collection[str] = (),
        hash: Collection[str] = (),  # noqa: A002 - the field's own name
        secret: bytes | None = None,
    ) -> Privacy | None:
        """
        Return the options for a type, None where there are none.

        Columns that only other types have are passed over, so that one choice serves all types.

        :raises InvalidRequest: for a column that is unknown, no string or in both, for ``from`` or
            ``to`` without its formatted twin, and for a hash without a secret.
        """
        columns = SCHEMAS[resource_type]
        for option, names in (("drop_columns", drop), ("hash_columns", hash)):
            _check_names(resource_type, option, names)
        if both := set(drop) & set(hash):
            raise InvalidRequest(
                f"{_listed(both)}: in drop_columns and in hash_columns; a column is treated once."
            )
        treated = {*drop, *hash} & columns.keys()
        twins = {f"{name}_formatted" for name in treated} & columns.keys()
        if missing := twins - treated:
            raise InvalidRequest(
                f"{_listed(missing)} would show what drop_columns and hash_columns hide: name "
                f"{'it' if len(missing) == 1 else 'them'} there too."
            )
        if hash and not secret:
            raise InvalidRequest(
                "hash_columns needs a secret: set hash_secret in the connection's extras."
            )
        if not treated:
            return None
        return cls(
            drop=tuple(name for name in columns if name in drop),
            hash=tuple(name for name in columns if name in hash),
            secret=(secret or b"") if treated & {*hash} else b"",
        )


def _check_names(resource_type: ResourceType, option: str, names: Collection[str]) -> None:
    if isinstance(names, str):
        raise InvalidRequest(f"{option} is {names!r}; give a list of names.")
    columns = SCHEMAS[resource_type]
    allowed = [name for name, column in columns.items() if column is ColumnType.STRING]
    elsewhere = {
        name
        for others in SCHEMAS.values()
        for name, column in others.items()
        if column is ColumnType.STRING and name not in columns
    }
    if wrong := [name for name in names if name not in allowed and name not in elsewhere]:
        raise InvalidRequest(
            f"{option}: {_listed(wrong)} cannot be treated. Columns of {resource_type} with text, "
            f"which can: {', '.join(allowed)}."
        )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(map(str, names)))


def schema_of(
    resource_type: ResourceType, privacy: Privacy | None = None
) -> tuple[tuple[str, str], ...]:
    """Return name and type of each stored column, in order, the same for every day of a type."""
    columns = {name: str(column) for name, column in SCHEMAS[resource_type].items()}
    if privacy is None:
        columns[EXTRA] = str(ColumnType.STRING)
    else:
        for name in privacy.drop:
            del columns[name]
    return tuple(columns.items())
