"""Whether stored days are still what was published, by reading them again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import BadData, StorageError
from airflow_provider_bulkexports.storage.inspection import inspect
from airflow_provider_bulkexports.storage.manifest import EMPTY_MANIFEST, MANIFEST, PARTS
from airflow_provider_bulkexports.storage.store import DayState, StoredDay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from airflow_provider_bulkexports.api.stop import Stop
    from airflow_provider_bulkexports.storage.manifest import Archive, Manifest, StoredFile
    from airflow_provider_bulkexports.storage.store import DayStore

__all__ = ["Finding", "verify"]

_DAYS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that is not as it was published.

    :param address: the file or folder.
    :param problem: what is wrong with it, as the end of a sentence.
    """

    day: date
    address: str
    problem: str

    def __str__(self) -> str:
        return f"{self.address} {self.problem}"


def verify(store: DayStore, days: Collection[date], *, stop: Stop | None = None) -> list[Finding]:
    """
    Read all files of days again, and compare them with the manifests and the archive's options.

    Nothing is changed. Files are read a MiB at a time, of several days at once.

    :param days: for example ``store.list_days()``, which are all that are there.
    :param stop: the signal to give up, looked at between days.
    :return: what differs, in the order of days; nothing if all is as it was published.
    :raises StorageError: when the storage does not list its files, or has no archive.
    :raises Fatal: when the extra ``parquet`` is needed and not installed.
    :raises Stopped: when ``stop`` says so.
    """
    if not days:
        return []
    archive = store.read_archive()
    if archive is None:
        raise StorageError(f"{store.address()} has no days: it lacks its description.")
    listed = store.list_days(min(days), max(days))

    def findings(day: date) -> list[Finding]:
        if stop:
            stop.check()
        stored = listed.get(day) or store.list_day(day)
        return [
            Finding(day, store.address(day, name), problem)
            for name, problem in _problems(store, archive, stored)
        ]

    with ThreadPoolExecutor(_DAYS_AT_ONCE, "bulkexports-verify") as threads:
        return [found for each in threads.map(findings, sorted(days)) for found in each]


def _problems(store: DayStore, archive: Archive, stored: StoredDay) -> Iterator[tuple[str, str]]:
    """Yield a name in the day's folder, "" for the folder, with what is wrong."""
    day = stored.day
    if stored.state is DayState.LOCKED:
        yield "", "is locked: a publisher works on it, or died"
        return
    try:
        manifest = store.read_manifest(day)
    except StorageError as error:
        yield MANIFEST, f"cannot be read: {error}"
        return
    if manifest is None:
        names = ", ".join(sorted(stored.files))
        yield "", f"has no manifest, but {names}" if names else "is not there"
        return
    own = EMPTY_MANIFEST if manifest.is_empty else MANIFEST
    yield from ((own, problem) for problem in _differences(manifest, archive))
    named = {file.name for file in manifest.files}
    for name in sorted(set(stored.files) & set(PARTS.values()) - named):
        yield name, "is not in the manifest, and readers find it beside what is"
    for file in manifest.files:
        problem = _problem(store, manifest, file, stored.files.get(file.name))
        if problem:
            yield file.name, problem


def _differences(manifest: Manifest, archive: Archive) -> Iterator[str]:
    """Yield where a manifest does not fit what all days of the type share."""
    for name in ("account_sid", "format"):
        there, shared = getattr(manifest, name), getattr(archive, name)
        if there != shared:
            yield f"has the {name} {there!r}, where the archive has {shared!r}"
    if not manifest.is_empty and manifest.schema != archive.schema:
        yield "has other columns than the archive"


def _problem(store: DayStore, manifest: Manifest, file: StoredFile, size: int | None) -> str | None:
    """Return what is wrong with a file of a manifest."""
    if size is None:
        return "is missing"
    if size != file.bytes:
        return f"has {size} bytes, where {file.bytes} were published"
    is_part = file.name in PARTS.values()
    try:
        with store.open(manifest.day, file.name) as opened:
            found = inspect(opened, manifest.format if is_part else "lines")
    except BadData as error:
        return f"is not what was published: {error}"
    except StorageError as error:
        return f"cannot be read: {error}"
    records = manifest.records if is_part else manifest.rejected
    problems = {
        "is not what was published: its digest is another": found.sha256 != file.sha256,
        f"has {found.records} records, where the manifest has {records}": found.records != records,
        "has other columns than the manifest": is_part and found.schema != manifest.schema,
    }
    return next((problem for problem, is_so in problems.items() if is_so), None)
