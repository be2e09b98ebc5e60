"""How a day is published by one at a time, on storages that know no locks.

A publisher creates ``_lock.<n>`` in the day's folder, n one above the highest there, and lists the
folder again: whoever sees another's living lock beside its own takes its own away and waits. So of
two, at most one goes on. Only then is the manifest read and decided upon. The part is replaced
first and the manifest second, and both stay readable under their names; the locks go last. A day
whose lock stays was left by a dead publisher, and its manifest may belong to an older part:
whoever comes next writes it anew from the part.

A lock holds for some seconds from the instant at which the storage wrote it, so that no two clocks
are compared. Its publisher begins nothing in the second half, which is left for requests that are
still on their way.

This is a generator of storage operations. The store carries them out; the model test interleaves
those of several publishers, with crashes at every step.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_bulkexports.api.errors import Locked, StorageError
from airflow_provider_bulkexports.storage.manifest import (
    EMPTY_MANIFEST,
    MANIFEST,
    PARTS,
    Manifest,
    rejected_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from airflow_provider_bulkexports.storage.backend import Entry
    from airflow_provider_bulkexports.storage.inspection import Inspection

__all__ = [
    "READS",
    "Attempt",
    "Busy",
    "Clean",
    "Create",
    "Inspect",
    "ListFolder",
    "Operation",
    "Publication",
    "Put",
    "Read",
    "Remove",
    "Write",
    "lock_numbers",
    "lock_seconds",
]

LOCK_SECONDS = 900.0
"""A lock's shortest life."""
SECONDS_PER_MB = 4
"""What a lock lives longer for each megabyte to be written: the half that counts is 0.5 MB/s."""
CLOCK_STEP = 1
"""Seconds to which object stores round the instants that they tell."""
_LOCK = re.compile(r"_lock\.(\d+)", re.ASCII)
_REJECTED = re.compile(r"_rejected-.*\.json")


@dataclass(frozen=True, slots=True)
class Publication:
    """
    What is to stand in a day's folder.

    :param manifest: its manifest; the names in it are those of ``files``. The file of what a
        conversion rejected has the name that ``rejected_name`` gives.
    :param files: the local files, by the names that they get; without any, the stored files stay
        and only the manifest is renewed.
    """

    manifest: Manifest
    files: Mapping[str, Path] = field(default_factory=dict)


class ListFolder(NamedTuple):
    """Answered by the folder's files: their sizes, and when the storage wrote them."""


class Read(NamedTuple):
    """Answered by a small file's content, None where there is no such file."""

    name: str


class Create(NamedTuple):
    """Answered by whether the file was written, which it is not where one of its name is there."""

    name: str
    content: bytes


class Write(NamedTuple):
    """A small file, which may replace one."""

    name: str
    content: bytes


class Put(NamedTuple):
    """A local file, which may replace a stored one."""

    name: str
    source: Path


class Remove(NamedTuple):
    """A file, which may be gone already."""

    name: str


class Inspect(NamedTuple):
    """Answered by what a part holds, None where it is not a whole file of its format."""

    name: str


class Clean(NamedTuple):
    """End uploads into the folder that nobody will end."""


Operation: TypeAlias = ListFolder | Read | Create | Write | Put | Remove | Inspect | Clean
READS = (ListFolder, Read, Inspect)
Listed: TypeAlias = "Mapping[str, Entry]"
Answer = TypeVar("Answer")
Steps: TypeAlias = "Generator[Operation, object, Answer]"


class Busy(NamedTuple):
    """
    Another publisher has the day.

    :param seconds: how long at most, None where that is not known.
    :param holder: what it calls itself.
    """

    seconds: float | None
    holder: str


def lock_numbers(names: Mapping[str, object]) -> dict[int, str]:
    """Return the locks among the names of a folder, by number."""
    return {int(found[1]): name for name in names if (found := _LOCK.fullmatch(name))}


def lock_seconds(content: bytes | None) -> tuple[float, str]:
    """Return for how long a lock holds from when it was written, and whose it is."""
    try:
        fields = json.loads(content or b"")
        return float(fields["seconds"]), str(fields["holder"])
    except (ValueError, TypeError, KeyError):
        return LOCK_SECONDS, "an unknown publisher"


class Attempt:
    """
    One attempt to take a day's lock and to publish under it.

    :param decide: gets the manifest that stands and returns what is to stand, None to leave it.
    :param parse: reads a manifest; raises StorageError.
    :param rebuild: makes a manifest for a part, given its name, what it holds, when the storage
        wrote it, and how many records were rejected.
    :param holder: names the attempt; no two may have the same name.
    :param seconds: for how long the lock holds.
    :param clock: seconds of any clock that goes on while the process rests.
    :param prove: whether to check that a second create of one name is refused.
    """

    def __init__(
        self,
        decide: Callable[[Manifest | None], Publication | None],
        *,
        parse: Callable[[bytes], Manifest],
        rebuild: Callable[[str, Inspection, float, int], Manifest],
        holder: str,
        seconds: float,
        clock: Callable[[], float],
        prove: bool = False,
    ) -> None:
        self._decide = decide
        self._parse = parse
        self._rebuild = rebuild
        self._seconds = seconds
        self._content = json.dumps({"seconds": seconds, "holder": holder}).encode()
        self._clock = clock
        self._prove = prove
        self._began = 0.0
        self._lock: str | None = None
        self._dead: tuple[str, ...] = ()
        self._names: set[str] = set()
        self.is_torn = False
        """Whether the day is amid a change, and its lock would have to stay."""
        self.is_unsafe = False
        """Whether the storage let a second create of one name pass."""
        self.is_unsure = False
        """
        Set by whoever carries the operations out, when one failed that may yet come to pass: the
        lock then stays until it ends.
        """

    def run(self) -> Steps[Manifest | Busy | None]:
        """
        Yield the operations, be sent their answers, and return the manifest that stands.

        :raises Locked: when the lock's time is up; the day stays locked.
        """
        try:
            listed = yield from self._take()
            if isinstance(listed, Busy):
                return listed
            self._names = set(listed)
            dead = yield from self._dead_beside(listed)
            if isinstance(dead, Busy):
                yield from self._release()
                return dead
            current = yield from self._repair(listed, dead)
            # From here on, the locks of dead publishers are not needed any more.
            self._dead = tuple(dead)
            manifest = yield from self._publish(current)
        except GeneratorExit:
            raise
        except BaseException:
            if not (self.is_torn or self.is_unsure or self._is_late()):
                yield from self._release()
            raise
        yield from self._release()
        return manifest

    def _take(self) -> Steps[Listed | Busy]:
        self._began = self._clock()
        numbers = lock_numbers((yield from self._list()))
        name = f"_lock.{max(numbers, default=0) + 1}"
        is_new = yield from self._change(Create(name, self._content))
        # A repeated create is refused by the first one, whose answer was lost.
        if not is_new and (yield Read(name)) != self._content:
            return Busy(None, "a publisher that was a little quicker")
        self._lock = name
        if self._prove:
            self.is_unsafe = bool((yield from self._change(Create(name, self._content))))
        return (yield from self._list())

    def _dead_beside(self, listed: Listed) -> Steps[list[str] | Busy]:
        """Return the locks of dead publishers, unless one beside them lives."""
        mine = listed.get(self._lock or "")
        if mine is None:
            return Busy(None, "a publisher that took our lock for dead")
        dead = []
        for name in lock_numbers(listed).values():
            if name == self._lock:
                continue
            content = yield Read(name)
            if not isinstance(content, bytes):
                # It has just finished, and what was listed is out of date.
                return Busy(0, "a publisher that has just finished")
            seconds, holder = lock_seconds(content)
            left = listed[name].modified + seconds + CLOCK_STEP - mine.modified
            if left >= 0:
                return Busy(left, holder)
            dead.append(name)
        return dead

    def _repair(self, listed: Listed, dead: list[str]) -> Steps[Manifest | None]:
        """Return the manifest that stands; where a publisher died, after a look at the part."""
        if dead:
            yield from self._change(Clean())
        part = next((name for name in PARTS.values() if name in listed), None)
        if part is None:
            if EMPTY_MANIFEST not in listed:
                return None
            if MANIFEST in listed:
                yield from self._change(Remove(MANIFEST))
            return (yield from self._read(EMPTY_MANIFEST))
        if not dead and MANIFEST in listed and EMPTY_MANIFEST not in listed:
            return (yield from self._read(MANIFEST))
        # A part beside the manifest of an empty day is kept: never lose what is stored.
        inspection: Any = yield Inspect(part)
        if inspection is None:
            # The day is absent until somebody replaces the part.
            yield from self._change(Remove(MANIFEST))
            return None
        manifest = None
        with contextlib.suppress(StorageError):
            manifest = yield from self._read(MANIFEST)
        if manifest is None or not _names(manifest, part, inspection.sha256):
            rejected: Any = yield Read(rejected_name(inspection.sha256))
            manifest = self._rebuild(
                part, inspection, listed[part].modified, (rejected or b"").count(b"\n")
            )
            yield from self._change(Write(MANIFEST, manifest.json().encode()))
        if EMPTY_MANIFEST in listed:
            yield from self._change(Remove(EMPTY_MANIFEST))
        return manifest

    def _publish(self, current: Manifest | None) -> Steps[Manifest | None]:
        wanted = self._decide(current)
        if wanted is None:
            return current
        for step in _steps(wanted, self._names):
            yield from self._change(step)
            self.is_torn = True
        self.is_torn = False
        return wanted.manifest

    def _release(self) -> Steps[None]:
        for name in (*self._dead, self._lock):
            if name:
                yield from self._change(Remove(name))
        self._lock = None

    def _list(self) -> Steps[Listed]:
        listed: Any = yield ListFolder()
        return listed  # type: ignore[no-any-return]

    def _read(self, name: str) -> Steps[Manifest | None]:
        content: Any = yield Read(name)
        return None if content is None else self._parse(content)

    def _change(self, step: Operation) -> Steps[object]:
        """Let the storage be changed, as long as that can arrive while the lock holds."""
        self.check_time()
        answer = yield step
        if isinstance(step, Write | Put):
            self._names.add(step.name)
        return answer

    def check_time(self) -> None:
        """
        Return while something may be written; also amid a step, which may take long.

        :raises Locked: when half of the lock's time is gone.
        """
        if self._is_late():
            raise Locked(
                f"the lock of {self._seconds:.0f} s was not enough: half of it is gone, so that "
                "nothing more may be written"
            )

    def _is_late(self) -> bool:
        return self._clock() - self._began >= self._seconds / 2


def _steps(wanted: Publication, names: set[str]) -> list[Operation]:
    """Return what leads from any state to the wanted one, through states that can be repaired."""
    manifest = wanted.manifest
    kept_names = {file.name for file in manifest.files}
    # A part's manifest can be rebuilt once the part is there; what was rejected comes before.
    files = sorted(wanted.files.items(), key=lambda item: item[0] in PARTS.values())
    steps: list[Operation] = [Put(name, source) for name, source in files]
    kept, gone = (EMPTY_MANIFEST, MANIFEST) if manifest.is_empty else (MANIFEST, EMPTY_MANIFEST)
    steps.append(Write(kept, manifest.json().encode()))
    if manifest.is_empty:
        steps += [Remove(name) for name in PARTS.values() if name in names]
    steps += [Remove(gone)] if gone in names else []
    steps += [
        Remove(name) for name in names if _REJECTED.fullmatch(name) and name not in kept_names
    ]
    return steps


def _names(manifest: Manifest, part: str, sha256: str) -> bool:
    return any((file.name, file.sha256) == (part, sha256) for file in manifest.files)
