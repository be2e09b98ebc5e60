"""Exported days into a storage: planned from what is there, fetched, looked at and published."""

from __future__ import annotations

import hashlib
import logging
import queue
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_bulkexports.api.calendar import days_between, show_days
from airflow_provider_bulkexports.api.download import fetch_day_file
from airflow_provider_bulkexports.api.errors import InvalidRequest, Locked, NotFound, StorageError
from airflow_provider_bulkexports.api.job import JobState, Status, parse_job_sid
from airflow_provider_bulkexports.storage.columns import Privacy, schema_of
from airflow_provider_bulkexports.storage.decision import (
    Action,
    Contents,
    Offer,
    decide,
    names_in,
    newest_files,
    plain_name,
)
from airflow_provider_bulkexports.storage.evidence import Evidence, check_rejected
from airflow_provider_bulkexports.storage.manifest import (
    PARTS,
    Archive,
    Manifest,
    Source,
    StoredFile,
    rejected_name,
)
from airflow_provider_bulkexports.storage.spool import remove_abandoned_spools, spool_folder
from airflow_provider_bulkexports.storage.store import DayState, Publication

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import date
    from pathlib import Path

    from pendulum import DateTime

    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.download import DayFile
    from airflow_provider_bulkexports.api.job import Job, ListedFile
    from airflow_provider_bulkexports.api.request import ResourceType
    from airflow_provider_bulkexports.api.stop import Stop
    from airflow_provider_bulkexports.storage.store import DayStore

__all__ = ["FORMATS", "IF_EXISTS", "Options", "Outcome", "Progress", "days_of_job", "transfer"]

log = logging.getLogger(__name__)

FORMATS = ("raw", "parquet")
IF_EXISTS = ("replace", "skip", "fail")
POLL = 0.2
"""Seconds after which the calling thread looks again whether it is to stop."""
GRACE = 2.0
"""Seconds that the threads of a stopped transfer get for clearing up; they may hang in a call."""
_THERE = (DayState.STORED, DayState.EMPTY)
LISTING_PAUSES = (2.0, 4.0, 8.0)
"""Seconds before the Days list is read again that lacks a file of a day just completed."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    How days are stored.

    :param format: ``raw`` for Twilio's own files, ``parquet`` for typed columns.
    :param if_exists: for a day that is there with other content: ``replace``, ``skip``, ``fail``.
    :param allow_fewer_records: whether a day may be replaced by one with fewer records.
    :param max_rejected: share of a day's records that may be malformed; ten always may.
    :param max_parallel_days: days fetched at once.
    :param drop_columns: columns that are not stored (Parquet).
    :param hash_columns: columns of which an HMAC is stored (Parquet).
    :param hash_secret: the key of that HMAC.
    :raises InvalidRequest: for what is not allowed.
    """

    format: str = "raw"
    if_exists: str = "replace"
    allow_fewer_records: bool = False
    max_rejected: float = 0.01
    max_parallel_days: int = 4
    drop_columns: Collection[str] = ()
    hash_columns: Collection[str] = ()
    hash_secret: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, FORMATS),
            ("if_exists", self.if_exists, IF_EXISTS),
        ):
            if value not in allowed:
                raise InvalidRequest(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
        if type(self.allow_fewer_records) is not bool:
            # Every text is true, "False" too.
            raise InvalidRequest(
                f"allow_fewer_records is {self.allow_fewer_records!r}; give True or False."
            )
        for name, number, kinds in (
            ("max_parallel_days", self.max_parallel_days, int),
            ("max_rejected", self.max_rejected, int | float),
        ):
            if not isinstance(number, kinds):
                raise InvalidRequest(f"{name} is {number!r}; give a number.")
        if self.max_parallel_days < 1:
            raise InvalidRequest(f"max_parallel_days is {self.max_parallel_days}; give 1 or more.")
        if not 0 <= self.max_rejected <= 1:
            raise InvalidRequest(
                f"max_rejected is {self.max_rejected}; give a share from 0 to 1, as 0.01 for 1 %."
            )
        if self.format == "raw" and (self.drop_columns or self.hash_columns):
            raise InvalidRequest(
                "drop_columns and hash_columns need the format parquet: raw files are Twilio's own."
            )

    def privacy(self, resource_type: ResourceType) -> Privacy | None:
        """
        Return which columns are left out or hashed, None if all are stored as they are.

        :raises InvalidRequest: for columns that cannot be, and a hash without a secret.
        """
        return Privacy.parse(resource_type, self.drop_columns, self.hash_columns, self.hash_secret)

    def archive(self, resource_type: ResourceType, account_sid: str) -> Archive:
        """Return what all stored days of a type must have in common."""
        privacy = self.privacy(resource_type)
        return Archive(
            account_sid=account_sid,
            format=self.format,
            drop_columns=privacy.drop if privacy else (),
            hash_columns=privacy.hash if privacy else (),
            hash_key_id=privacy.key_id if privacy else None,
            schema=schema_of(resource_type, privacy) if self.format == "parquet" else (),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far a transfer is.

    :param days: days that are wanted.
    :param done: days that are there.
    :param failed: days that cannot be had.
    :param bytes: bytes fetched so far.
    :param seconds: since it began.
    """

    days: int
    done: int
    failed: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of a transfer.

    :param manifests: of each day that is there, whatever was done about it.
    :param actions: what was done about each of them.
    :param failed: why a day could not be had, for each that is not.
    """

    manifests: dict[date, Manifest] = field(default_factory=dict)
    actions: dict[date, Action] = field(default_factory=dict)
    failed: dict[date, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return how many days were stored, replaced, renewed, left unchanged and refused."""
        counts = Counter(self.actions.values())
        done = (Action.STORE, Action.REPLACE, Action.RENEW, Action.LEAVE, Action.REFUSE)
        return {action.value: counts[action] for action in done}


def transfer(
    client: Client,
    store: DayStore,
    wanted: Collection[date],
    options: Options,
    *,
    job_sid: str | None = None,
    stop: Stop,
    progress: Callable[[Progress], None],
) -> Outcome:
    """
    Store days that Twilio has exported; those that are there and settled cost no download.

    One day that cannot be had does not keep the others. Files pass through this machine's
    temporary folder; what a killed process left there goes with the next transfer.

    :param client: the account's.
    :param store: of the type.
    :param job_sid: the job that must have completed the wanted days.
    :param stop: ends the transfer within seconds, whatever Twilio or the storage does. It is given
        also where the calling thread is interrupted, as by a timeout.
    :param progress: called about once a second.
    :raises InvalidRequest: when the storage is another account's, or holds another format; when the
        job is not complete.
    :raises NotFound: when Twilio no longer knows the job, and days of it are not there.
    :raises StorageError: when the storage cannot be listed.
    :raises Stopped: after ``stop``; what is published stays.
    """
    with spool_folder() as spool, client.stoppable(stop) as stoppable:
        started = _Transfer(stoppable, store, wanted, options, spool=spool, stop=stop)
        return started.run(job_sid, progress)


def days_of_job(client: Client, job_sid: str) -> tuple[ResourceType, list[date]]:
    """
    Return what a job exports.

    :raises InvalidRequest: when Twilio does not say it.
    :raises NotFound: when Twilio no longer knows the job.
    """
    ask = "give resource_type, start_day and end_day"
    try:
        job = client.fetch_job(parse_job_sid(job_sid))
    except NotFound as error:
        raise NotFound(
            f"Which days job {job_sid} has exported cannot be asked any more: {ask} too, and those "
            f"that are in the storage stay as they are. {error}",
            status=error.status,
            code=error.code,
            more_info=error.more_info,
            request_id=error.request_id,
        ) from None
    if job.resource_type is None or job.start_day is None or job.end_day is None:
        raise InvalidRequest(f"Twilio does not say what job {job.sid} exports; {ask} too.")
    return job.resource_type, list(days_between(job.start_day, job.end_day))


@dataclass(frozen=True, slots=True)
class _Done:
    """What stands for a day now, and what was done about it."""

    manifest: Manifest
    action: Action


@dataclass(frozen=True, slots=True)
class _Made:
    """What is to be stored of a day, by the files' final names."""

    paths: Mapping[str, Path] = field(default_factory=dict)
    files: tuple[StoredFile, ...] = ()
    rejected: int = 0
    schema: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A day as it was fetched and converted."""

    account_sid: str
    records: int
    rejected: int
    job_sid: str | None
    exported_at: DateTime
    source: Source
    made: _Made

    @property
    def contents(self) -> Contents:
        return Contents(self.source.sha256, self.records + self.rejected)


class _Transfer:
    """One call of :func:`transfer`."""

    def __init__(
        self,
        client: Client,
        store: DayStore,
        wanted: Collection[date],
        options: Options,
        *,
        spool: Path,
        stop: Stop,
    ) -> None:
        self._client, self._store, self._options = client, store, options
        self._wanted, self._spool, self._stop = sorted(set(wanted)), spool, stop
        self._type: ResourceType = store.resource_type
        self._privacy = options.privacy(self._type)
        self._outcome = Outcome()
        self._stored: dict[date, Manifest] = {}
        self._locked: set[date] = set()
        self._unread: set[date] = set()
        self._offers: dict[date, Offer | None] = {}
        self._account_sid: str | None = None
        self._is_claimed = False
        self._claiming = threading.Lock()
        self._bytes: dict[date, int] = {}
        self._to_do: queue.SimpleQueue[date] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[date, _Done | Exception]] = queue.SimpleQueue()

    def run(self, job_sid: str | None, progress: Callable[[Progress], None]) -> Outcome:
        """Transfer the days."""
        remove_abandoned_spools()
        if self._wanted:
            self._open_archive()
            self._look_at_storage()
            self._look_at_twilio(job_sid)
            self._run_all(progress)
        return self._outcome

    def _open_archive(self) -> None:
        """Refuse another account, format or privacy option, before anything is fetched."""
        archive = self._store.read_archive()
        # An API key does not say whose it is.
        self._account_sid = self._client.account_sid or (archive.account_sid if archive else None)
        if archive is not None and self._account_sid is not None:
            self._claim(self._account_sid)

    def _refuse_other_archive(self, manifest: Manifest) -> None:
        """Refuse a stored day of another account or format, also where the archive is lost."""
        account_sid = self._account_sid or manifest.account_sid
        if (manifest.account_sid or account_sid, manifest.format) != (
            account_sid,
            self._options.format,
        ):
            raise InvalidRequest(
                f"{self._store.address(manifest.day)} holds {manifest.format} of account "
                f"{manifest.account_sid}, and this is {self._options.format} of account "
                f"{account_sid}; give another destination."
            )

    def _claim(self, account_sid: str) -> None:
        """Have the storage's type belong to an account and these options, before a day does."""
        with self._claiming:
            if not self._is_claimed:
                self._store.claim(self._options.archive(self._type, account_sid))
                self._account_sid, self._is_claimed = account_sid, True

    def _look_at_storage(self) -> None:
        """Learn what is there, by one listing and the manifests of the wanted days."""
        listed = self._store.list_days(self._wanted[0], self._wanted[-1])
        wanted = [listed[day] for day in self._wanted if day in listed]
        there = [found.day for found in wanted if found.state in _THERE]
        try:
            self._stored = self._store.read_manifests(there)
        except StorageError:
            # Each is read again by itself, so that a damaged one keeps no other day.
            self._unread = set(there)
        for manifest in self._stored.values():
            self._refuse_other_archive(manifest)
        self._locked = {found.day for found in wanted if found.state is DayState.LOCKED}

    def _look_at_twilio(self, job_sid: str | None) -> None:
        """Learn what Twilio has of the days that are not left as they are in any case."""
        skips = self._options.if_exists == "skip"
        days = [day for day in self._wanted if not (skips and day in self._stored)]
        if not days:
            return
        job = self._require_complete(job_sid, days) if job_sid is not None else None
        jobs = {known.sid: known for known in self._client.list_jobs(self._type).jobs}
        if job is not None:
            jobs[job.sid] = job
        files = self._list_files(job, days)
        for day in days:
            self._offers[day] = Offer.of(day, files.get(day), jobs.values())

    def _require_complete(self, job_sid: str, days: list[date]) -> Job | None:
        """
        Return the job, if it has completed the days.

        One that Twilio no longer knows hinders nobody whose days are there.
        """
        try:
            job = self._client.fetch_job(parse_job_sid(job_sid))
        except NotFound:
            if not {*self._stored, *self._locked, *self._unread}.issuperset(days):
                raise
            log.info("Twilio no longer knows job %s, but all of its days are there.", job_sid)
            return None
        if job.resource_type not in (None, self._type):
            raise InvalidRequest(f"Job {job_sid} exports {job.resource_type}, not {self._type}.")
        statuses = job.day_statuses()
        if statuses is None:
            lacking = [] if job.state() is JobState.COMPLETED else days
        else:
            lacking = [day for day in days if not statuses.get(day, Status.UNKNOWN).is_complete]
        if lacking:
            raise InvalidRequest(
                f"Job {job_sid} is not complete for {show_days(lacking)}. Wait for it with "
                f"BulkExportsJobSensor. Days by status:\n{job.report()}"
            )
        return job

    def _list_files(self, job: Job | None, days: list[date]) -> dict[date, ListedFile]:
        """Return the newest listed files; a file may be listed seconds after its day completed."""
        for pause in (*LISTING_PAUSES, None):
            files = newest_files(self._client.list_days(self._type))
            if job is None or pause is None:
                break
            late = [day for day in days if self._is_late(job, day, files.get(day))]
            if not late:
                break
            log.info("The Days list has no file of job %s for %s yet.", job.sid, show_days(late))
            self._stop.sleep(pause)
        return files

    def _is_late(self, job: Job, day: date, file: ListedFile | None) -> bool:
        """Say whether a job's file is neither listed nor what is stored."""
        if (job.day_statuses() or {}).get(day) is not Status.COMPLETED:
            return False
        stored = self._stored.get(day)
        if stored is None:
            return False  # it is fetched anyhow, and waited for then
        known = {file and plain_name(file.friendly_name), *names_in(stored.source.friendly_name)}
        return plain_name(job.friendly_name) not in known

    def _run_all(self, progress: Callable[[Progress], None]) -> None:
        pending = 0
        for day in self._wanted:
            stored = self._stored.get(day)
            if stored is not None and self._decide(day, stored) is Action.LEAVE:
                self._outcome.manifests[day] = stored
                self._outcome.actions[day] = Action.LEAVE
            else:
                self._to_do.put(day)
                pending += 1
        if self._outcome.manifests:
            log.info("Already there: %s.", show_days(self._outcome.manifests))
        # Threads that the interpreter does not wait for: one that hangs in the storage's own
        # library must not keep a task that was stopped.
        threads = [
            threading.Thread(target=self._work, name=f"bulkexports-day-{number}", daemon=True)
            for number in range(min(pending, self._options.max_parallel_days))
        ]
        try:
            for thread in threads:
                thread.start()
            self._collect(pending, progress)
        except BaseException:
            self._stop.set()
            end = time.monotonic() + GRACE
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
            raise

    def _collect(self, pending: int, progress: Callable[[Progress], None]) -> None:
        began, reported = time.monotonic(), 0.0
        while pending:
            self._stop.check()
            try:
                day, result = self._results.get(timeout=POLL)
            except queue.Empty:
                pass
            else:
                pending -= 1
                self._note(day, result)
            now = time.monotonic()
            if not pending or now - reported >= 1:
                reported = now
                there, failed = self._outcome.manifests, self._outcome.failed
                fetched = sum(self._bytes.values())
                progress(Progress(len(self._wanted), len(there), len(failed), fetched, now - began))

    def _note(self, day: date, result: _Done | Exception) -> None:
        if isinstance(result, Exception):
            self._outcome.failed[day] = f"{type(result).__name__}: {result}"
            log.error("%s was not transferred: %s", day, self._outcome.failed[day])
            return
        self._outcome.manifests[day] = result.manifest
        self._outcome.actions[day] = result.action
        if result.action is Action.REFUSE:
            log.warning(
                "%s keeps its %d records: the newer export has only %s. Where that is right, "
                "replace it with allow_fewer_records=True.",
                day, result.manifest.records + result.manifest.rejected, result.manifest.refused,
            )  # fmt: skip
        elif result.manifest.rejected and result.action in (Action.STORE, Action.REPLACE):
            log.warning(
                "%s: %d of %d records are malformed; they lie beside the others, in %s.",
                day, result.manifest.rejected, result.manifest.records + result.manifest.rejected,
                result.manifest.files[-1].name,
            )  # fmt: skip

    def _work(self) -> None:
        while not self._stop.is_set:
            try:
                day = self._to_do.get_nowait()
            except queue.Empty:
                return
            try:
                self._results.put((day, self._transfer_day(day)))
            except Exception as error:  # noqa: BLE001 - each storage has its own errors
                self._results.put((day, error))

    def _decide(
        self, day: date, stored: Manifest | None, fetched: _Fetched | None = None
    ) -> Action:
        return decide(
            stored,
            self._offers.get(day),
            fetched.contents if fetched else None,
            if_exists=self._options.if_exists,
            allow_fewer_records=self._options.allow_fewer_records,
        )

    def _transfer_day(self, day: date) -> _Done:
        stored = self._stored.get(day)
        if day in self._locked:
            try:
                stored = self._store.repair(day)
            except Locked:
                log.info("%s is being published by another transfer.", day)
        elif day in self._unread:
            stored = self._store.read_manifest(day)
        if stored is not None and self._decide(day, stored) is Action.LEAVE:
            return _Done(stored, Action.LEAVE)
        folder = self._spool / day.isoformat()
        folder.mkdir()
        try:
            return self._publish(day, stored, self._fetch(day, folder))
        except NotFound:
            if stored is None:
                raise
            log.info("%s stays as it is: Twilio lists a file of it, but has none.", day)
            return _Done(stored, Action.LEAVE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _publish(self, day: date, seen: Manifest | None, fetched: _Fetched) -> _Done:
        action = Action.LEAVE

        def prepare(current: Manifest | None) -> Publication | None:
            # Under the day's lock: what stands now decides, not what stood when this began.
            nonlocal action
            action = self._decide(day, current, fetched)
            if current is None:
                return Publication(self._manifest(day, fetched), fetched.made.paths)
            self._refuse_other_archive(current)
            if current != seen and current.exported_at >= fetched.exported_at:
                action = Action.LEAVE  # another transfer has published this or a later export
            if action is Action.LEAVE:
                return None
            if action is Action.FAIL:
                raise InvalidRequest(
                    f"{self._store.address(day)} holds {_describe(current)}, and Twilio has "
                    f'{_describe(fetched)}; allow it to be overwritten with if_exists="replace".'
                )
            if action is Action.REPLACE:
                return Publication(self._manifest(day, fetched), fetched.made.paths)
            return Publication(_renewed(current, fetched, action), {})

        size = sum(file.bytes for file in fetched.made.files)
        manifest = self._store.publish(day, prepare, size=size, stop=self._stop)
        assert manifest is not None  # noqa: S101 - where none stood, one was published
        return _Done(manifest, action)

    def _manifest(self, day: date, fetched: _Fetched) -> Manifest:
        return Manifest(
            resource_type=self._type,
            day=day,
            account_sid=fetched.account_sid,
            format=self._options.format,
            records=fetched.records,
            rejected=fetched.rejected,
            job_sid=fetched.job_sid,
            exported_at=fetched.exported_at,
            published_at=pendulum.now("UTC"),
            source=fetched.source,
            schema=fetched.made.schema,
            files=fetched.made.files,
        )

    def _fetch(self, day: date, folder: Path) -> _Fetched:
        offer = self._offers.get(day)
        part = folder / PARTS["raw"]
        with part.open("wb") as target:
            file = fetch_day_file(
                self._client,
                self._type,
                day,
                target,
                may_be_empty=offer is not None and offer.may_be_empty,
                listed_size=offer.size if offer else None,
                progress=lambda size: self._bytes.__setitem__(day, size),
                stop=self._stop,
            )
        self._bytes[day] = file.size
        evidence = Evidence(self._type, day, self._account_sid)
        evidence.look_at_link(file.link)
        made = _Made()
        if file.records and self._options.format == "raw":
            evidence.look_at_lines(file.samples)
            # It was hashed while it came.
            made = _Made({part.name: part}, (StoredFile(part.name, file.size, file.sha256),))
        elif file.records:
            made = self._convert(part, evidence)
        evidence.conclude()
        records = file.records - made.rejected
        check_rejected(records, made.rejected, self._options.max_rejected)
        # None only where an API key's first day has no file, and so nothing says whose it is.
        if evidence.account_sid is not None:
            self._claim(evidence.account_sid)
        return _Fetched(
            account_sid=evidence.account_sid or "",
            records=records,
            rejected=made.rejected,
            job_sid=offer.job_sid if offer and offer.agrees_with(file.link) else None,
            exported_at=self._exported_at(offer, file),
            source=Source(
                sha256=file.sha256 if file.records else "",
                bytes=file.size,
                friendly_name=offer.friendly_name if offer else None,
                create_date=offer.create_date if offer else None,
                listed_size=offer.size if offer else None,
            ),
            made=made,
        )

    def _convert(self, part: Path, evidence: Evidence) -> _Made:
        """Turn a day file into Parquet."""
        from airflow_provider_bulkexports.storage.parquet import write_parquet

        target, aside = part.with_name(PARTS["parquet"]), part.with_name("rejected.json")
        written = write_parquet(
            part,
            target,
            aside,
            self._type,
            privacy=self._privacy,
            look=evidence.look_at_table,
            stop=self._stop,
        )
        files = [_stored_file(target, target.name)]
        paths = {target.name: target}
        if written.rejected:
            files.append(_stored_file(aside, rejected_name(files[0].sha256)))
            paths[files[1].name] = aside
        return _Made(paths, tuple(files), written.rejected, written.schema)

    def _exported_at(self, offer: Offer | None, file: DayFile) -> DateTime:
        if offer is not None and offer.dates_itself:
            created = offer.create_date
            times = [file.link.created_time] if file.link and file.link.created_time else []
            if created is not None:
                # The link's time has no zone, so that it may lie before the day of the list.
                times.append(pendulum.datetime(created.year, created.month, created.day))
            if times:
                return max(times)
        # A job that has no file does not say when it exported a day.
        return pendulum.from_timestamp(self._client.now())


def _renewed(current: Manifest, fetched: _Fetched, action: Action) -> Manifest:
    """Return a stored day's manifest, after a newer export that leaves its files as they are."""
    source = replace(fetched.source, sha256=current.source.sha256, bytes=current.source.bytes)
    is_refused = action is Action.REFUSE
    return replace(
        current,
        job_sid=current.job_sid if is_refused else fetched.job_sid,
        exported_at=fetched.exported_at,
        source=source,
        refused=fetched.contents.lines if is_refused else None,
    )


def _describe(day: Manifest | _Fetched) -> str:
    name = f" by {day.source.friendly_name!r}" if day.source.friendly_name else ""
    return f"{day.records + day.rejected} records, exported {day.exported_at:%Y-%m-%d %H:%M}{name}"


def _stored_file(path: Path, name: str) -> StoredFile:
    return StoredFile(name, path.stat().st_size, _digest(path))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
