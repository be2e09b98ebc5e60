"""Exported days in object storage: where they lie, and what one listing says of them.

The folder ``<destination>/<ResourceType>/day=YYYY-MM-DD/`` holds the day file and
``_manifest.json``, or ``_manifest.empty.json`` alone for a day on which nothing happened. While a
publisher works on a day, a lock is beside them. Engines that scan such folders pass over names
that begin with an underscore.
"""

from __future__ import annotations

import json
import logging
import os
import posixpath
import random
import re
import socket
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.errors import (
    BadData,
    InvalidRequest,
    Locked,
    Stopped,
    StorageError,
)
from airflow_provider_bulkexports.api.stop import Stop
from airflow_provider_bulkexports.storage.backends import backend_of
from airflow_provider_bulkexports.storage.inspection import inspect
from airflow_provider_bulkexports.storage.lock import (
    LOCK_SECONDS,
    READS,
    SECONDS_PER_MB,
    Attempt,
    Busy,
    Clean,
    Create,
    Inspect,
    ListFolder,
    Publication,
    Put,
    Read,
    Remove,
    Write,
    lock_numbers,
    lock_seconds,
)
from airflow_provider_bulkexports.storage.manifest import (
    ARCHIVE,
    EMPTY_MANIFEST,
    FORMATS,
    MANIFEST,
    PARTS,
    Archive,
    Manifest,
    Source,
    StoredFile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from fsspec import AbstractFileSystem
    from pendulum import DateTime

    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.storage.backend import Backend, Entry
    from airflow_provider_bulkexports.storage.inspection import Inspection
    from airflow_provider_bulkexports.storage.lock import Operation

__all__ = ["DayState", "DayStore", "Publication", "StoredDay", "check_destination"]

LONGEST_WAIT = 3600.0
"""Seconds for which other publishers are waited for at most."""
READERS = 16
"""Small files that are read at once."""
LAST_SECONDS = 3.0
"""What is left to a stopped publisher to end what is half done and to take its lock away."""
log = logging.getLogger(__name__)
_FOLDER = re.compile(r"day=(\d{4}-\d{2}-\d{2})", re.ASCII)


class DayState(StrEnum):
    """What one listing shows of a day."""

    STORED = "stored"
    EMPTY = "empty"
    LOCKED = "locked"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class StoredDay:
    """
    A day as one listing shows it.

    :param files: the sizes in bytes of the files in its folder, by name.
    """

    day: date
    state: DayState
    files: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, day: date, listed: Mapping[str, Entry]) -> StoredDay:
        """Judge a listing of a day's folder."""
        names = set(listed)
        if lock_numbers(listed):
            state = DayState.LOCKED
        elif MANIFEST in names and not names.isdisjoint(PARTS.values()):
            state = DayState.STORED
        elif EMPTY_MANIFEST in names and names.isdisjoint(PARTS.values()):
            state = DayState.EMPTY
        else:
            state = DayState.ABSENT
        return cls(day, state, {name: entry.bytes for name, entry in listed.items()})


class DayStore:
    """
    The stored days of one resource type.

    :param fs: the filesystem.
    :param root: the destination on it, an absolute path.
    :param resource_type: the type; its folder lies right below the destination.
    :raises InvalidRequest: for a relative path, and a storage where nothing can be published.
    """

    lock_seconds = LOCK_SECONDS

    def __init__(self, fs: AbstractFileSystem, root: str, resource_type: ResourceType) -> None:
        self._backend = backend_of(fs)
        self._fs = fs
        self.resource_type = resource_type
        self._is_proven = False
        self._root = f"{_normal(fs, root)}/{resource_type.value}"

    def address(self, day: date | None = None, name: str = "") -> str:
        """Return the full address of the type's folder, of a day's, or of a file in it."""
        return str(self._fs.unstrip_protocol(self._path(day, name)))

    def list_days(
        self, start_day: date | None = None, end_day: date | None = None
    ) -> dict[date, StoredDay]:
        """
        Return the days that are not absent, in order, from one listing.

        :raises StorageError: when the storage did not answer, or has no such bucket.
        """
        first = f"day={start_day or date.min}"
        last = f"day={end_day or date.max}"
        days = {}
        for name, listed in sorted(self._backend.list_folders(self._root, first, last).items()):
            day = _day_of(name)
            if day is None:
                continue
            found = StoredDay.of(day, listed)
            if found.state is not DayState.ABSENT:
                days[day] = found
        return days

    def list_day(self, day: date) -> StoredDay:
        """
        Return a day as it is now.

        :raises StorageError: as :meth:`list_days` does.
        """
        return StoredDay.of(day, self._backend.list_folder(self._path(day)))

    def read_manifest(self, day: date) -> Manifest | None:
        """
        Return a day's manifest, None where there is none.

        :raises StorageError: when it cannot be read, or is no manifest.
        """
        for name in (MANIFEST, EMPTY_MANIFEST):
            text = self._backend.read(self._path(day, name))
            if text is not None:
                return self._parse(text, day, name)
        return None

    def read_manifests(self, days: Collection[date]) -> dict[date, Manifest]:
        """
        Return the manifests of days, several at once; days without one are left out.

        :raises StorageError: when one cannot be read, or is no manifest.
        """
        readers = ThreadPoolExecutor(READERS)
        try:
            found = zip(days, readers.map(self.read_manifest, days), strict=True)
            return {day: manifest for day, manifest in found if manifest is not None}
        finally:
            # Whoever is interrupted does not wait for a storage that hangs.
            readers.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def open(self, day: date, name: str) -> Iterator[IO[bytes]]:
        """
        Open a day's file for reading a part at a time.

        :raises StorageError: when it cannot be read, also later.
        """
        with self._backend.open(self._path(day, name)) as file:
            yield file

    def read_archive(self) -> Archive | None:
        """
        Return what all stored days of the type share, None where there are none yet.

        :raises StorageError: when it cannot be read.
        """
        text = self._backend.read(self._path(name=ARCHIVE))
        if not text:
            return None
        try:
            return Archive.parse(text)
        except StorageError as error:
            raise StorageError(f"{self.address(name=ARCHIVE)} is {error}.") from None

    def claim(self, archive: Archive) -> Archive:
        """
        Fix what all stored days of the type share, or compare it with what is fixed.

        :raises InvalidRequest: where it differs, naming both.
        :raises StorageError: when it can neither be read nor written.
        """
        stored = self.read_archive()
        if stored is None:
            path, content = self._path(name=ARCHIVE), archive.json().encode()
            if not self._backend.create(path, content) and self.read_archive() is None:
                # A writer that died has left it empty, in a folder without hard links.
                self._backend.write(path, content)
            stored = self.read_archive() or archive
        differing = [
            f"{each.name} is {getattr(stored, each.name)!r} there and "
            f"{getattr(archive, each.name)!r} here"
            for each in fields(Archive)
            if getattr(stored, each.name) != getattr(archive, each.name)
        ]
        if differing:
            raise InvalidRequest(
                f"{self.address()} holds days of another kind: {'; '.join(differing)}. Days of one "
                "type in one destination must be alike; give another destination."
            )
        return stored

    def publish(
        self,
        day: date,
        prepare: Callable[[Manifest | None], Publication | None],
        *,
        size: int,
        stop: Stop,
    ) -> Manifest | None:
        """
        Decide about a day and publish it, while nobody else can.

        :param prepare: gets the manifest that stands and returns what is to stand, None to leave
            it; called under the day's lock.
        :param size: bytes that may have to be written.
        :param stop: the signal to give up.
        :return: the manifest that stands; None where there still is none.
        :raises Locked: when another publisher has kept the day for too long.
        :raises StorageError: when the storage failed.
        """
        end = time.monotonic() + LONGEST_WAIT
        seconds = self._lock_seconds(size)
        pauses = _pauses()
        while isinstance(result := self._attempt(day, prepare, seconds, stop), Busy):
            pause = min(next(pauses), 10 if result.seconds is None else result.seconds + 1)
            if time.monotonic() + pause > end:
                break
            log.info("%s is locked by %s; waiting.", self.address(day), result.holder)
            stop.sleep(pause)
        else:
            return result
        raise Locked(
            f"{self.address(day)} has been locked by other publishers for {LONGEST_WAIT:.0f} s, "
            f"now by {result.holder}.",
            until=_in(result.seconds),
        )

    def repair(self, day: date) -> Manifest | None:
        """
        Bring a day in order whose publisher died, and return its manifest; None if it has none.

        :raises Locked: when its publisher may still live.
        :raises StorageError: when the storage failed.
        """
        size = sum(self.list_day(day).files.values())
        result = self._attempt(day, lambda _: None, self._lock_seconds(size), Stop())
        if isinstance(result, Busy):
            raise Locked(
                f"{self.address(day)} is locked by {result.holder}.", until=_in(result.seconds)
            )
        return result

    def lock_until(self, day: date) -> datetime | None:
        """
        Return until when a locked day's publishers have it; None where all have died.

        The clocks of the storage and of this machine are taken to agree, which publishing
        itself does not rely on.

        :raises StorageError: when the storage failed.
        """
        listed = self._backend.list_folder(self._path(day))
        ends = [
            listed[name].modified + lock_seconds(self._backend.read(self._path(day, name)))[0]
            for name in lock_numbers(listed).values()
        ]
        until = max(ends, default=0)
        return datetime.fromtimestamp(until, UTC) if until > time.time() else None

    def write_index(self, results: list[dict[str, Any]]) -> str:
        """Write what a run stored beside its days, and return the address."""
        name = f"_manifest_{results[0]['day']}_{results[-1]['day']}.json"
        self._backend.write(self._path(name=name), (json.dumps(results) + "\n").encode())
        return self.address(name=name)

    def _lock_seconds(self, size: int) -> float:
        return self.lock_seconds + SECONDS_PER_MB * size / 1e6

    def _attempt(
        self,
        day: date,
        decide: Callable[[Manifest | None], Publication | None],
        seconds: float,
        stop: Stop,
    ) -> Manifest | Busy | None:
        attempt = Attempt(
            decide,
            parse=lambda content: self._parse(content, day, MANIFEST),
            rebuild=lambda *found: self._rebuild(day, *found),
            holder=f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:16]}",
            seconds=seconds,
            clock=_clock,
            prove=not self._is_proven,
        )

        def check() -> None:
            stop.check()
            attempt.check_time()

        steps, backend = attempt.run(), self._backend.stopped_by(check)
        answer: object = None
        failure: BaseException | None = None
        has_stopped = False
        while True:
            try:
                step = steps.throw(failure) if failure else steps.send(answer)
            except StopIteration as end:
                result: Manifest | Busy | None = end.value
                self._learn(attempt)
                return result
            except Locked as error:
                raise Locked(f"{self.address(day)}: {error}.") from None
            answer, failure = None, None
            if stop.is_set and not has_stopped:
                # What is half done is ended, and the lock taken away, but not for long.
                has_stopped, backend = True, self._backend.stopped_by(_stop_in(LAST_SECONDS))
                if not attempt.is_torn:
                    failure = Stopped("The work was stopped.")
                    continue
            try:
                answer = self._carry_out(backend, day, step)
            except BaseException as error:  # noqa: BLE001 - it is raised again by the attempt
                attempt.is_unsure |= not isinstance(step, READS) and not backend.is_over(error)
                failure = error

    def _learn(self, attempt: Attempt) -> None:
        if attempt.is_unsafe and not self._is_proven:
            log.warning(
                "%s lets two create one file, so that two publishers of one day may disturb each "
                "other. Let only one transfer a time write there.",
                self.address(),
            )
        self._is_proven = True

    def _carry_out(self, backend: Backend, day: date, step: Operation) -> object:
        folder = self._path(day)
        match step:
            case Read(name):
                return backend.read(f"{folder}/{name}")
            case Create(name, content):
                return backend.create(f"{folder}/{name}", content)
            case Write(name, content):
                backend.write(f"{folder}/{name}", content)
            case Put(name, source):
                backend.put(f"{folder}/{name}", source)
            case Remove(name):
                backend.remove(f"{folder}/{name}")
            case Inspect(name):
                return self._inspect(backend, f"{folder}/{name}")
            case Clean():
                self._clean(backend, folder)
            case ListFolder():
                return backend.list_folder(folder)
        return None

    def _clean(self, backend: Backend, folder: str) -> None:
        """End dead uploads, where the login may: they cost room, and no day may wait for that."""
        try:
            backend.clean(folder)
        except StorageError as error:
            log.warning("What a dead publisher began is left: %s", error)

    def _inspect(self, backend: Backend, path: str) -> Inspection | None:
        part = posixpath.basename(path)
        with tempfile.TemporaryDirectory(prefix="bulkexports-repair-") as folder:
            copied = Path(folder, part)
            backend.get(path, copied)
            try:
                with copied.open("rb") as file:
                    return inspect(file, FORMATS[part])
            except BadData as error:
                log.warning("%s counts as absent: %s", self._fs.unstrip_protocol(path), error)
                return None

    def _rebuild(
        self, day: date, part: str, found: Inspection, modified: float, rejected: int
    ) -> Manifest:
        import pendulum

        archive = self.read_archive()
        written = pendulum.from_timestamp(int(modified))
        is_raw = FORMATS[part] == "raw"
        log.warning("%s is rebuilt from %s: its publisher died.", self.address(day, MANIFEST), part)
        return Manifest(
            resource_type=self.resource_type,
            day=day,
            account_sid=archive.account_sid if archive else "",
            format=FORMATS[part],
            records=found.records,
            rejected=rejected,
            job_sid=None,
            # The latest that it can have been: an earlier one might order a late export twice.
            exported_at=written,
            published_at=written,
            source=Source(found.sha256, found.bytes) if is_raw else Source("", 0),
            schema=found.schema,
            files=(StoredFile(part, found.bytes, found.sha256),),
        )

    def _path(self, day: date | None = None, name: str = "") -> str:
        folder = f"{self._root}/day={day.isoformat()}" if day else self._root
        return f"{folder}/{name}" if name else folder

    def _parse(self, text: bytes, day: date, name: str) -> Manifest:
        try:
            return Manifest.parse(text, self.resource_type, day)
        except StorageError as error:
            raise StorageError(f"{self.address(day, name)} is {error}.") from None


def check_destination(destination: str) -> None:
    """
    Refuse an address that does not name one place, whoever opens it.

    :raises InvalidRequest: for a relative path, which depends on the folder in which a worker
        happens to run, and for a query, which some storages take for a version and some for a name.
    """
    scheme, separator, rest = destination.partition("://")
    path = rest if separator else destination
    if "?" in path:
        raise InvalidRequest(f"destination is {destination!r}: give an address without a '?'.")
    if (not separator or scheme in ("file", "local")) and not path.startswith("/"):
        raise InvalidRequest(
            f"destination is {destination!r}, a relative path: give an absolute one, such as "
            f"'file:///{path.removeprefix('./')}', or another storage's address, such as "
            "'s3://bucket/folder'."
        )
    if {".", ".."} & set(path.split("/")):
        # Some filesystems resolve them, and some take them for names.
        raise InvalidRequest(f"destination is {destination!r}: give it without '.' and '..'.")


def _normal(fs: AbstractFileSystem, root: str) -> str:
    if "file" in fs.protocol:
        check_destination(root)
    # The one place where doubled slashes go: object stores would take them for a name.
    return re.sub(r"/{2,}", "/", str(fs._strip_protocol(root))).rstrip("/")  # noqa: SLF001


def _day_of(folder: str) -> date | None:
    found = _FOLDER.fullmatch(folder)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def _pauses() -> Iterator[float]:
    """Yield seconds between two attempts: of two that met, each soon finds the day free."""
    longest = 0.1
    while True:
        yield random.uniform(longest / 4, longest)
        longest = min(longest * 1.6, 10)


def _stop_in(seconds: float) -> Callable[[], None]:
    end = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() > end:
            raise Stopped("The work was stopped.")

    return check


def _in(seconds: float | None) -> DateTime | None:
    import pendulum

    return None if seconds is None else pendulum.now("UTC").add(seconds=int(seconds) + 1)


def _clock() -> float:
    # A lock also ends while its publisher's machine sleeps.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
