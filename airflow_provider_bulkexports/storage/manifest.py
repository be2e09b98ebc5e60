"""What is written beside stored days: a day's manifest, and what all days of a type share."""

from __future__ import annotations

import json
import posixpath
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pendulum import DateTime

    from airflow_provider_bulkexports.api.request import ResourceType

__all__ = [
    "ARCHIVE",
    "EMPTY_MANIFEST",
    "FORMATS",
    "MANIFEST",
    "PARTS",
    "Archive",
    "Manifest",
    "Source",
    "StoredFile",
    "rejected_name",
]

MANIFEST = "_manifest.json"
EMPTY_MANIFEST = "_manifest.empty.json"
"""A day on which nothing happened has this alone, so that a listing tells it from a lost part."""
ARCHIVE = "_archive.json"
PARTS = {"raw": "part-0.json.gz", "parquet": "part-0.parquet"}
"""The day file's name, by format."""
FORMATS = {name: kind for kind, name in PARTS.items()}
VERSION = 1


def rejected_name(part_sha256: str) -> str:
    """
    Return the name for the records that a part's conversion rejected.

    It names the part, so that a manifest that is rebuilt from the part finds its own.
    """
    return f"_rejected-{part_sha256[:16]}.json"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """
    A published file.

    :param name: its name in the day's folder.
    :param bytes: its size.
    :param sha256: hexadecimal digest of its content.
    """

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """
    Twilio's file as it was listed and fetched.

    :param sha256: hexadecimal digest of Twilio's own bytes; "" for a day without a file.
    :param bytes: their count.
    :param friendly_name: from the list of days, as are the next two; None where it had no item.
    :param create_date: the day on which Twilio wrote the file.
    :param listed_size: the size that the list gave, in bytes.
    """

    sha256: str
    bytes: int
    friendly_name: str | None = None
    create_date: date | None = None
    listed_size: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What a day's folder holds, and where it came from.

    :param account_sid: the account of its records.
    :param format: ``raw`` or ``parquet``.
    :param records: records published.
    :param rejected: records kept aside because a value of theirs was malformed.
    :param job_sid: the job that exported the day; None where it is not certain.
    :param exported_at: UTC instant of the export.
    :param published_at: UTC instant of the publication.
    :param schema: names and types of the columns; empty for raw files.
    :param files: the published files; none for a day on which nothing happened.
    :param refused: records, rejected ones included, of a newer export that was refused because
        it had fewer; None where none was.
    """

    resource_type: ResourceType
    day: date
    account_sid: str
    format: str
    records: int
    rejected: int
    job_sid: str | None
    exported_at: DateTime
    published_at: DateTime
    source: Source
    schema: tuple[tuple[str, str], ...]
    files: tuple[StoredFile, ...]
    refused: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened on the day."""
        return not self.files

    @classmethod
    def parse(cls, text: str | bytes, resource_type: ResourceType, day: date) -> Manifest:
        """
        Read the manifest of a type's day; keys of later versions of this package are ignored.

        :raises StorageError: when it is none, another day's, or of an unknown version.
        """
        fields = _Fields.parse(text, "manifest")
        manifest = cls(
            resource_type=resource_type,
            day=day,
            account_sid=fields.text("account_sid"),
            format=fields.text("format"),
            records=fields.count("records"),
            rejected=fields.count("rejected"),
            job_sid=fields.text_or_none("job_sid"),
            exported_at=fields.instant("exported_at"),
            published_at=fields.instant("published_at"),
            source=_parse_source(fields.inner("source")),
            schema=fields.pairs("schema"),
            files=tuple(
                StoredFile(file.text("name"), file.count("bytes"), file.text("sha256"))
                for file in fields.items("files")
            ),
            refused=fields.count_or_none("refused"),
        )
        if any(posixpath.basename(file.name) in ("", ".", "..") or "/" in file.name
               for file in manifest.files):  # fmt: skip
            raise StorageError("not a manifest: a file outside its folder")
        found = fields.text("resource_type"), fields.text("day")
        if found != (resource_type.value, day.isoformat()):
            raise StorageError(f"the manifest of {' '.join(found)}")
        return manifest

    def json(self) -> str:
        """Return the manifest's text."""
        return _dump(asdict(self))


@dataclass(frozen=True, slots=True)
class Archive:
    """
    What all stored days of a type share; the first transfer fixes it.

    :param account_sid: the account whose days they are.
    :param format: ``raw`` or ``parquet``.
    :param drop_columns: columns that are not stored.
    :param hash_columns: columns that are stored as keyed digests.
    :param hash_key_id: says which key, without giving it away.
    :param schema: names and types of the columns; empty for raw files.
    """

    account_sid: str
    format: str
    drop_columns: tuple[str, ...] = ()
    hash_columns: tuple[str, ...] = ()
    hash_key_id: str | None = None
    schema: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str | bytes) -> Archive:
        """
        Read an archive's description; keys of later versions are ignored.

        :raises StorageError: when it is none, or of an unknown version.
        """
        fields = _Fields.parse(text, "archive description")
        return cls(
            account_sid=fields.text("account_sid"),
            format=fields.text("format"),
            drop_columns=fields.texts("drop_columns"),
            hash_columns=fields.texts("hash_columns"),
            hash_key_id=fields.text_or_none("hash_key_id"),
            schema=fields.pairs("schema"),
        )

    def json(self) -> str:
        """Return the description's text."""
        return _dump(asdict(self))


def _dump(fields: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION} | fields, indent=1, default=_show) + "\n"


def _show(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds")
    return str(value.isoformat())


def _parse_source(fields: _Fields) -> Source:
    create_date = fields.text_or_none("create_date")
    try:
        parsed = date.fromisoformat(create_date) if create_date is not None else None
    except ValueError:
        raise fields.wrong("create_date") from None
    return Source(
        sha256=fields.text("sha256"),
        bytes=fields.count("bytes"),
        friendly_name=fields.text_or_none("friendly_name"),
        create_date=parsed,
        listed_size=fields.count_or_none("listed_size"),
    )


class _Fields:
    """The checked values of a JSON object; all raise StorageError."""

    def __init__(self, fields: Mapping[str, Any], what: str) -> None:
        self._fields = fields
        self._what = what

    @classmethod
    def parse(cls, text: str | bytes, what: str) -> _Fields:
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StorageError(f"not a {what}: {type(error).__name__}") from None
        if not isinstance(fields, dict):
            raise StorageError(f"not a {what}: no JSON object")
        if fields.get("version") != VERSION:
            raise StorageError(
                f"a {what} of version {fields.get('version')!r}, which this release cannot read"
            )
        return cls(fields, what)

    def wrong(self, name: str) -> StorageError:
        return StorageError(f"not a {self._what}: {name} is {self._fields.get(name)!r}")

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise self.wrong(name)
        return value

    def text_or_none(self, name: str) -> str | None:
        return None if self._fields.get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        values = self._fields.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.wrong(name)
        return tuple(values)

    def count(self, name: str) -> int:
        value = self._fields.get(name)
        if type(value) is not int or value < 0:
            raise self.wrong(name)
        return value

    def count_or_none(self, name: str) -> int | None:
        return None if self._fields.get(name) is None else self.count(name)

    def instant(self, name: str) -> DateTime:
        # Not at the top: an import of pendulum costs more than all of this package.
        import pendulum

        try:
            parsed = datetime.fromisoformat(self.text(name))
        except ValueError:
            raise self.wrong(name) from None
        if parsed.tzinfo is None:
            raise self.wrong(name)
        return pendulum.instance(parsed.astimezone(UTC))

    def inner(self, name: str) -> _Fields:
        value = self._fields.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name)
        return _Fields(value, self._what)

    def items(self, name: str) -> list[_Fields]:
        values = self._fields.get(name)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self.wrong(name)
        return [_Fields(value, self._what) for value in values]

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        values = self._fields.get(name)
        if not isinstance(values, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair)
            for pair in values
        ):
            raise self.wrong(name)
        return tuple((first, second) for first, second in values)
