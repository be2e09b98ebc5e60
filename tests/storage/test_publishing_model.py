"""
Every way in which publishers of one day can come between each other.

The publishers are the real ones; the storage is a dictionary. All orders of their operations are
gone through, until no new state turns up. A publisher that dies is one that is never continued,
and a request that arrives after its sender's death is one that was carried out late, so that both
are among the orders. Time passes in leaps, each longer than any lock holds: whoever was amid a
change has then made it, or never will.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pendulum
import pytest

from airflow_provider_bulkexports.api.errors import Locked, StorageError
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.storage.backend import Entry
from airflow_provider_bulkexports.storage.inspection import Inspection
from airflow_provider_bulkexports.storage.lock import (
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
)
from airflow_provider_bulkexports.storage.manifest import (
    EMPTY_MANIFEST,
    MANIFEST,
    Manifest,
    Source,
    StoredFile,
    rejected_name,
)
from airflow_provider_bulkexports.storage.store import DayState, StoredDay

DAY = date(2026, 1, 1)
PART = "part-0.parquet"
SECONDS, LEAP = 10, 100
TURNS = 3
"""Interruptions among three; without a limit, there are millions of states."""
INSTANT = pendulum.datetime(2026, 1, 5)
FAILURE = "a request failed, without effect"


def manifest_of(content: str | None, rejected: int = 0) -> Manifest:
    """Return the manifest of a part that is named for its publisher and its records, as A3."""
    files = []
    if content:
        files = [StoredFile(PART, 1, content)]
    if rejected:
        files.append(StoredFile(rejected_name(content), rejected, "sha"))
    return Manifest(
        resource_type=ResourceType.MESSAGES,
        day=DAY,
        account_sid="AC",
        format="parquet",
        records=int(content[1:]) if content else 0,
        rejected=rejected,
        job_sid=None,
        exported_at=INSTANT,
        published_at=INSTANT,
        source=Source("", 0),
        schema=(),
        files=tuple(files),
    )


@lru_cache(10000)
def parse(content: bytes) -> Manifest:
    return Manifest.parse(content, ResourceType.MESSAGES, DAY)


def rebuild(part: str, found: Inspection, modified: float, rejected: int) -> Manifest:
    manifest = manifest_of(found.sha256)
    return replace(manifest, rejected=rejected)


def stored(content: str | None) -> dict[str, tuple[object, int]]:
    """Return a day's folder at rest."""
    text = manifest_of(content).json().encode()
    return {PART: (content, 0), MANIFEST: (text, 0)} if content else {EMPTY_MANIFEST: (text, 0)}


@dataclass(frozen=True)
class Publisher:
    """
    What one publisher wants.

    :param content: the part, such as A3 for three records; None for an empty day.
    :param may_shrink: whether it may replace more records by fewer.
    :param attempt: the class of its attempts.
    """

    content: str | None
    rejected: int = 0
    may_shrink: bool = False
    attempt: type[Attempt] = Attempt

    def decide(self, current: Manifest | None) -> Publication | None:
        manifest = manifest_of(self.content, self.rejected)
        count = manifest.records + manifest.rejected
        if current and current.records + current.rejected > count and not self.may_shrink:
            return None
        files = {PART: Path(self.content)} if self.content else {}
        if self.rejected:
            files[rejected_name(self.content)] = Path("r" * self.rejected)
        return Publication(manifest, files)


class State(NamedTuple):
    """
    Where everything stands.

    :param files: name, content and instant of writing of each file.
    :param histories: per publisher, what its attempt was answered so far, and when; None once it
        has ended.
    :param failures: how many requests may still fail.
    :param running: whose turn it is.
    :param turns: how often it may still be another's turn before it waits or ends.
    :param leaps: how often time may still leap.
    """

    files: tuple[tuple[str, object, int], ...]
    histories: tuple[tuple | None, ...]
    now: int
    leaps: int
    failures: int
    running: int
    turns: int


class Model:
    """
    All that can happen to some publishers.

    :param leaps: how often time leaps at most.
    :param failures: how many requests fail at most.
    :param turns: how often a publisher is interrupted by another at most; None for no limit.
    """

    def __init__(
        self,
        publishers: list[Publisher],
        *,
        leaps: int,
        failures: int = 0,
        turns: int | None = None,
    ) -> None:
        self._publishers = publishers
        self._leaps, self._failures, self._turns = leaps, failures, turns
        self._next: dict[tuple, object] = {}
        self.states = 0

    def explore(self, files: dict[str, tuple[object, int]]) -> None:
        """Go through all states from a folder's; raise AssertionError at the first bad one."""
        start = State(
            _frozen(files),
            tuple((("", 0),) for _ in self._publishers),
            0,
            self._leaps,
            self._failures,
            0,
            0 if self._turns is None else self._turns,
        )
        seen, waiting, repaired = {start}, [start], set()
        while waiting:
            state = waiting.pop()
            check_rest(state.files)
            if state.files not in repaired:
                repaired.add(state.files)
                check_repair(state.files, state.now + LEAP)
            for after in map(renumbered, self._successors(state)):
                if after not in seen:
                    self._check_change(state, after)
                    seen.add(after)
                    waiting.append(after)
        self.states = len(seen)

    def _check_change(self, before: State, after: State) -> None:
        old, new = part_of(before.files), part_of(after.files)
        may_shrink = any(publisher.may_shrink for publisher in self._publishers)
        assert new or not old or may_shrink, "a reader finds the day no more"
        if old and new:
            assert int(new[1:]) >= int(old[1:]) or may_shrink, "fewer records replaced more"

    def _successors(self, state: State):
        if state.leaps:
            yield state._replace(
                now=state.now + LEAP,
                leaps=state.leaps - 1,
                histories=tuple(
                    None if self._is_amid_change(number, history) else history
                    for number, history in enumerate(state.histories)
                ),
            )
        for number, history in enumerate(state.histories):
            if history is None:
                continue
            after = self._turned(state, number)
            if after is None:
                continue
            step = self._step(number, history)
            files = {name: (content, written) for name, content, written in state.files}
            answer = carry_out(step, files, state.now)
            yield self._continue(after, number, history, answer, _frozen(files))
            if state.failures:
                failed = self._continue(after, number, history, FAILURE, state.files)
                yield failed._replace(failures=state.failures - 1)

    def _turned(self, state: State, number: int) -> State | None:
        """Return the state in which it is a publisher's turn, None where it cannot be."""
        if self._turns is None or number == state.running:
            return state
        interrupted = state.histories[state.running]
        if interrupted is not None and len(interrupted) > 1:
            if not state.turns:
                return None
            state = state._replace(turns=state.turns - 1)
        return state._replace(running=number)

    def _continue(self, state, number, history, answer, files) -> State:
        longer = (*history, (answer, state.now))
        result = self._step(number, longer)
        if isinstance(result, Busy):
            longer = (("", state.now),)
        elif result is None:
            longer = None
        histories = list(state.histories)
        histories[number] = longer
        return state._replace(files=files, histories=tuple(histories))

    def _is_amid_change(self, number, history) -> bool:
        return history is not None and isinstance(
            self._step(number, history), Create | Write | Put | Remove | Clean
        )

    def _step(self, number: int, history: tuple) -> object:
        """Return a publisher's next operation, Busy, or None where it has ended."""
        if (number, history) not in self._next:
            self._next[number, history] = self._replay(number, history)
        return self._next[number, history]

    def _replay(self, number: int, history: tuple) -> object:
        now = [0]
        publisher = self._publishers[number]
        steps = publisher.attempt(
            publisher.decide,
            parse=parse,
            rebuild=rebuild,
            holder=f"{number}",
            seconds=SECONDS,
            clock=lambda: now[0],
        ).run()
        step = None
        try:
            for answer, then in history:
                now[0] = then
                if step is None:
                    step = next(steps)
                elif answer == FAILURE:
                    step = steps.throw(StorageError(FAILURE))
                elif isinstance(step, ListFolder):
                    step = steps.send({name: Entry(1, at) for name, at in answer})
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value if isinstance(end.value, Busy) else None
        except (Locked, StorageError):
            return None
        return step


def renumbered(state: State) -> State:
    """
    Return a state with its locks numbered anew, as low as may be.

    Only the order of the numbers and which of them follow each other makes a difference, so that
    states that differ in nothing else count as one, and there is an end to them.
    """
    numbers = {0} | set(lock_numbers({name: content for name, content, _ in state.files}))
    for history in state.histories:
        for answer, _ in history or ():
            if isinstance(answer, tuple) and answer and isinstance(answer[0], tuple):
                listed = set(lock_numbers(dict(answer)))
                numbers |= listed | ({max(listed) + 1} if listed else set())
    new, last = {0: 0}, 0
    for number in sorted(numbers)[1:]:
        new[number] = new[last] + min(number - last, 2)
        last = number
    if all(number == other for number, other in new.items()):
        return state
    names = {f"_lock.{number}": f"_lock.{other}" for number, other in new.items()}

    def renamed(items: tuple) -> tuple:
        return tuple(sorted((names.get(name, name), *rest) for name, *rest in items))

    return state._replace(
        files=renamed(state.files),
        histories=tuple(
            history
            and tuple(
                (renamed(answer) if isinstance(answer, tuple) and answer
                 and isinstance(answer[0], tuple) else answer, then)
                for answer, then in history
            )
            for history in state.histories
        ),
    )  # fmt: skip


def carry_out(step: object, files: dict[str, tuple[object, int]], now: int) -> object:
    """Change the folder as an operation does, and return the answer, which can be hashed."""
    match step:
        case ListFolder():
            return tuple(sorted((name, written) for name, (_, written) in files.items()))
        case Read(name):
            return files.get(name, (None, 0))[0]
        case Create(name, content):
            if name in files:
                return False
            files[name] = (content, now)
            return True
        case Write(name, content):
            files[name] = (content, now)
        case Put(name, source):
            side = b"\n" * len(source.name)
            files[name] = (source.name if name == PART else side, now)
        case Remove(name):
            files.pop(name, None)
        case Inspect(name):
            content = files[name][0] if name in files else None
            return content and Inspection(int(content[1:]), (), content, 1)
    return None


def check_rest(files: tuple) -> None:
    """Assert that a day that is listed as there is what its manifest says."""
    contents = {name: content for name, content, _ in files}
    state = StoredDay.of(DAY, {name: Entry(1, 0) for name in contents}).state
    if state is DayState.STORED:
        manifest = parse(contents[MANIFEST])
        assert manifest.files[0].sha256 == contents[PART], "the manifest is of another part"
        assert manifest.records == int(contents[PART][1:])
        for file in manifest.files[1:]:
            assert len(contents[file.name]) == manifest.rejected, "the rejected are not its own"
    elif state is DayState.EMPTY:
        assert parse(contents[EMPTY_MANIFEST]).is_empty
        assert MANIFEST not in contents


def check_repair(frozen: tuple, now: int) -> None:
    """Assert that whatever was left behind can be brought in order, and that nothing is lost."""
    before = part_of(frozen)
    files = {name: (content, written) for name, content, written in frozen}
    steps = Attempt(
        lambda _: None, parse=parse, rebuild=rebuild, holder="repair", seconds=SECONDS,
        clock=lambda: now,
    ).run()  # fmt: skip
    manifest, answer = None, None
    try:
        while True:
            step = steps.send(answer)
            answer = carry_out(step, files, now)
            if isinstance(step, ListFolder):
                answer = {name: Entry(1, at) for name, at in answer}
    except StopIteration as end:
        manifest = end.value
    after = _frozen(files)
    assert not lock_numbers(files), "a lock stays for ever"
    assert part_of(after) == before, "stored bytes were lost"
    check_rest(after)
    state = StoredDay.of(DAY, {name: Entry(1, 0) for name in files}).state
    if before:
        assert state is DayState.STORED
        assert manifest.records == int(before[1:])
    else:
        assert state in (DayState.EMPTY, DayState.ABSENT)


def part_of(files: tuple) -> str | None:
    return next((content for name, content, _ in files if name == PART), None)


def _frozen(files: dict[str, tuple[object, int]]) -> tuple[tuple[str, object, int], ...]:
    return tuple(sorted((name, content, written) for name, (content, written) in files.items()))


FOLDERS = {"absent": {}, "stored": stored("O2"), "empty": stored(None)}
PAIRS = {
    "more and fewer": [Publisher("A3"), Publisher("B2")],
    "with rejected records": [Publisher("A3", rejected=1), Publisher("B4", rejected=2)],
    "stored and empty": [Publisher("A3", may_shrink=True), Publisher(None, may_shrink=True)],
}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("pair", PAIRS)
def test_two_publishers_never_leave_a_day_that_is_not_as_listed(pair, folder):
    """Whatever the order, the deaths, two failures and two lapses of locks between them."""
    model = Model(PAIRS[pair], leaps=2, failures=2)
    model.explore(FOLDERS[folder])
    print(f"{pair}, {folder}: {model.states} states")
    assert model.states > 1000


@pytest.mark.parametrize("folder", FOLDERS)
def test_three_publishers_never_leave_a_day_that_is_not_as_listed(folder):
    """Whatever the deaths among three, and a lapse of locks; each order with few interruptions."""
    model = Model([Publisher("A3"), Publisher("B2"), Publisher("C4")], leaps=1, turns=TURNS)
    model.explore(FOLDERS[folder])
    print(f"three, {folder}: {model.states} states")
    assert model.states > 10_000


class ListsOnce(Attempt):
    """Does not look for others once it has its lock."""

    def _dead_beside(self, listed):
        yield from ()
        return []


class TakesLocksForDead(Attempt):
    """Waits for nobody: every lock beside its own is a dead publisher's."""

    def _dead_beside(self, listed):
        yield from ()
        return [name for name in lock_numbers(listed).values() if name != self._lock]


class KnowsNoTime(Attempt):
    """Goes on when its lock has lapsed."""

    def _is_late(self):
        return False


class DecidesBefore(Attempt):
    """Reads the manifest and decides before it has the lock."""

    def _take(self):
        yield ListFolder()
        content = yield Read(MANIFEST)
        decision = self._decide(content and self._parse(content))
        self._decide = lambda _: decision
        return (yield from super()._take())


class RemovesFirst(Attempt):
    """Removes the old manifest and part before it puts the new ones."""

    def _publish(self, current):
        wanted = self._decide(current)
        if wanted:
            yield Remove(MANIFEST)
            yield Remove(PART)
        return (yield from super()._publish(current))


class LeavesTornDays(Attempt):
    """Takes its lock away although the manifest is not the part's yet."""

    is_torn = property(lambda self: False, lambda self, value: None)


class RepairsNothing(Attempt):
    """Takes what a dead publisher left for whole."""

    def _repair(self, listed, dead):
        return super()._repair(listed, [])


@pytest.mark.parametrize(
    "broken",
    [
        ListsOnce,
        TakesLocksForDead,
        KnowsNoTime,
        DecidesBefore,
        RemovesFirst,
        LeavesTornDays,
        RepairsNothing,
    ],
)
def test_the_model_finds_each_broken_publisher(broken):
    """A protocol that lacks any of its parts fails the same test."""
    pair = [Publisher("A3", attempt=broken), Publisher("B2", attempt=broken)]
    with pytest.raises((AssertionError, KeyError)):
        Model(pair, leaps=2, failures=2).explore(FOLDERS["stored"])
