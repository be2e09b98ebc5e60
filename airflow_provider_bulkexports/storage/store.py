"""Exported days in object storage: where they lie, what says that one is whole.

The folder ``<destination>/<ResourceType>/day=YYYY-MM-DD/`` holds the day file and, written
last, ``_manifest.json``. A day is there when its manifest is, and every file that it names, at the
size that it says. Engines that scan such folders pass over names that begin with an underscore.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.calendar import days_between

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from pathlib import Path

    from fsspec import AbstractFileSystem

    from airflow_provider_bulkexports.api.request import ResourceType

__all__ = ["DayStore", "Manifest", "StoredFile"]

log = logging.getLogger(__name__)

MANIFEST = "_manifest.json"
_OURS = re.compile(r"part-|_rejected-|\._\d+_")
"""Names that an earlier publication may have left; any other file is somebody else's."""


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
class Manifest:
    """
    What a day's folder holds.

    :param job_sid: the job that exported the day; None where nobody could tell.
    :param account_sid: the account of its records; None for a day without any.
    :param format: ``raw`` or ``parquet``.
    :param records: records published.
    :param rejected: records kept aside because a value of theirs was malformed.
    :param source_bytes: size of Twilio's file.
    :param source_sha256: digest of Twilio's file.
    :param schema: names and types of the columns; empty for raw files.
    :param files: the published files; none for a day on which nothing happened.
    :param created_at: UTC instant of the publication, ISO 8601.
    """

    resource_type: str
    day: str
    job_sid: str | None
    account_sid: str | None
    format: str
    records: int
    rejected: int
    source_bytes: int
    source_sha256: str
    schema: tuple[tuple[str, str], ...]
    files: tuple[StoredFile, ...]
    created_at: str

    @classmethod
    def parse(cls, text: str | bytes, resource_type: ResourceType, day: date) -> Manifest:
        """
        Read the manifest of a type's day.

        :raises ValueError: when it is none, or another day's.
        """
        try:
            fields = dict(json.loads(text))
            fields["files"] = tuple(StoredFile(**file) for file in fields["files"])
            fields["schema"] = tuple((str(name), str(kind)) for name, kind in fields["schema"])
            manifest = cls(**fields)
        except (TypeError, KeyError, ValueError, RecursionError) as error:
            raise ValueError(f"not a manifest ({type(error).__name__})") from None
        counts = [manifest.records, manifest.rejected, manifest.source_bytes]
        texts = [manifest.resource_type, manifest.day, manifest.format, manifest.source_sha256]
        for file in manifest.files:
            counts.append(file.bytes)
            texts += [file.name, file.sha256]
        if any(type(count) is not int or count < 0 for count in counts) or not all(
            isinstance(text, str) for text in texts
        ):
            raise ValueError("not a manifest (a value of the wrong type)")
        if any("/" in file.name or file.name in ("", ".", "..") for file in manifest.files):
            raise ValueError("not a manifest (a file outside its folder)")
        if (manifest.resource_type, manifest.day) != (resource_type.value, day.isoformat()):
            raise ValueError("another day's manifest")
        return manifest

    def json(self) -> str:
        """Return the manifest's text."""
        return json.dumps(asdict(self), indent=1) + "\n"


class DayStore:
    """
    The stored days of one resource type.

    :param destination: an ``ObjectStoragePath``.
    :param resource_type: the type; its folder lies right below the destination.
    """

    def __init__(self, destination: Any, resource_type: ResourceType) -> None:
        self._kind = resource_type
        self._root = destination / resource_type.value
        self._fs: AbstractFileSystem = self._root.fs
        self._is_local = "file" in _protocols(self._fs)

    def path(self, day: date, name: str = "") -> str:
        """Return the full address of a day's folder, or of a file in it."""
        folder = self._root / f"day={day.isoformat()}"
        return str(folder / name if name else folder)

    def manifests(self, start_day: date, end_day: date) -> dict[date, Manifest]:
        """Return the manifests of the days that are whole; one listing and their manifests."""
        sizes = self._sizes()
        wanted = {
            day: path
            for day in days_between(start_day, end_day)
            if (path := self._inner(day, MANIFEST)) in sizes
        }
        found = {}
        texts = self._fs.cat(list(wanted.values()), on_error="omit") if wanted else {}
        for day, path in wanted.items():
            if path not in texts:
                continue
            try:
                manifest = Manifest.parse(texts[path], self._kind, day)
            except ValueError as error:
                log.warning("%s is %s; the day counts as missing.", self.path(day, MANIFEST), error)
                continue
            lost = [
                f.name for f in manifest.files if sizes.get(self._inner(day, f.name)) != f.bytes
            ]
            if lost:
                log.warning("%s lacks %s; the day counts as missing.", self.path(day), lost)
                continue
            found[day] = manifest
        return found

    def publish(self, day: date, files: Mapping[str, Path], manifest: Manifest) -> None:
        """
        Put a verified day in place: the old manifest goes first, the new one comes last.

        Each file appears under its name whole or not at all. A process that dies half-way leaves
        a day without a manifest, which counts as missing.
        """
        if self._is_local:
            self._fs.makedirs(self._inner(day), exist_ok=True)
        old = {posixpath.basename(path) for path in self._sizes(day)}
        if MANIFEST in old:
            self._fs.rm_file(self._inner(day, MANIFEST))
        for name, source in files.items():
            self._put(source, self._inner(day, name))
        for name in sorted(old - set(files)):
            if _OURS.match(name):
                self._fs.rm_file(self._inner(day, name))
        self._write_text(self._inner(day, MANIFEST), manifest.json())

    def write_index(self, results: list[dict[str, Any]]) -> str:
        """Write what a run brought beside its days, and return the path."""
        name = f"_manifest_{results[0]['day']}_{results[-1]['day']}.json"
        self._write_text(f"{self._root.path.rstrip('/')}/{name}", json.dumps(results) + "\n")
        return str(self._root / name)

    def _write_text(self, path: str, text: str) -> None:
        # Whole or not at all.
        if not self._is_local:
            self._fs.pipe_file(path, text.encode())
            return
        spool = _beside(path)
        with open(spool, "w", encoding="utf-8") as file:  # noqa: PTH123 - the fs's own path
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(spool, path)  # noqa: PTH105

    def _put(self, source: Path, target: str) -> None:
        if not self._is_local:
            # An object store shows an object when its upload is complete. Never a file handle
            # here: closing one in an error would complete a half upload.
            self._fs.put_file(str(source), target)
            return
        spool = _beside(target)
        with source.open("rb") as data, open(spool, "wb") as file:  # noqa: PTH123
            shutil.copyfileobj(data, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        os.replace(spool, target)  # noqa: PTH105

    def _inner(self, day: date, name: str = "") -> str:
        folder = f"{self._root.path.rstrip('/')}/day={day.isoformat()}"
        return f"{folder}/{name}" if name else folder

    def _sizes(self, day: date | None = None) -> dict[str, int]:
        root = self._inner(day) if day else self._root.path
        self._fs.invalidate_cache()
        try:
            return {path: info["size"] for path, info in self._fs.find(root, detail=True).items()}
        except FileNotFoundError:
            return {}


def _beside(path: str) -> str:
    return posixpath.join(posixpath.dirname(path), f"._{os.getpid()}_{posixpath.basename(path)}")


def _protocols(fs: AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
