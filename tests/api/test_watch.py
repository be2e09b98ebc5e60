"""A wait, as a pure value: when it looks, what each answer means to it, and when it is over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_values import FIRST_DAY, job_of

from airflow_provider_bulkexports.api.errors import (
    BadData,
    BulkExportsError,
    NotFound,
    OutcomeUnknown,
    Retryable,
    Unauthorized,
)
from airflow_provider_bulkexports.api.job import Job, JobListing, JobState, OddItem, Status
from airflow_provider_bulkexports.api.pace import Pace
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.watch import (
    MISSING,
    DaysWatch,
    JobReader,
    JobWatch,
    Over,
    follow,
)

if TYPE_CHECKING:
    from airflow_provider_bulkexports.api.watch import Answer, Watch

PACE = Pace()
START = pendulum.datetime(2026, 1, 7, 6).timestamp()
TWO_DAYS = (FIRST_DAY, FIRST_DAY + timedelta(days=1))

RUNNING = job_of(Status.COMPLETED, Status.RUNNING)
DONE = job_of(Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS)
FAILED = job_of(Status.COMPLETED, Status.FAILED)
DELETED = job_of(Status.COMPLETED, Status.DELETED_BY_USER_REQUEST)
BEING_DELETED = job_of(Status.COMPLETED, Status.RUNNING_TO_BE_DELETED)
REFUSED = Unauthorized("HTTP 401", status=401)
DOWN = Retryable("HTTP 503")


def expected_in(seconds: float) -> Job:
    return replace(RUNNING, estimated_completion=pendulum.from_timestamp(START + seconds))


seconds = st.floats(0, 3000) | st.sampled_from([0.0, 10.0, 60.0, 120.0, 300.0, 899.0, 900.0])
answers = st.one_of(
    st.sampled_from([RUNNING, DONE, FAILED, DELETED, BEING_DELETED, MISSING]),
    st.sampled_from([REFUSED, DOWN, BadData("no JSON"), OutcomeUnknown("lost")]),
    st.builds(expected_in, st.floats(-5000, 100_000)),
    st.builds(lambda wait: Retryable("HTTP 429", retry_after=wait), st.floats(0, 5000)),
)
# Refusals and absences count only in rows, which one by one are hardly ever drawn.
rows = st.lists(
    st.tuples(answers, st.lists(seconds, min_size=1, max_size=6)), min_size=1, max_size=6
)
lengths = st.floats(1, 20_000)


def each(rows, start=START):
    """Yield each look's time and answer."""
    now = start
    for answer, gaps in rows:
        for gap in gaps:
            now += gap
            yield now, answer


def job_watch(length: float = 10_000.0) -> JobWatch:
    return JobWatch(START, START + length, PACE)


def is_absent(answer: Answer) -> bool:
    return answer is MISSING or (isinstance(answer, Job) and answer.is_deleted())


# When it is over


@given(rows, lengths)
def test_a_wait_is_over_only_by_a_verdict_or_the_deadline(rows, length):
    """Each way to be over has exactly the reason that it names, whatever came before."""
    watch = job_watch(length)
    refused_since = absent_since = None
    for now, answer in each(rows):
        refused = isinstance(answer, Unauthorized)
        refused_since = (refused_since if refused_since is not None else now) if refused else None
        if is_absent(answer):
            absent_since = now if absent_since is None else absent_since
        elif isinstance(answer, Job):
            absent_since = None
        over, _ = watch.see(answer, now)
        final = isinstance(answer, Job) and answer.state() is not JobState.ACTIVE
        if is_absent(answer) and now - absent_since >= PACE.gone:
            assert over is Over.GONE
        elif final and not is_absent(answer):
            assert over is Over.DONE
        elif refused and now - refused_since >= PACE.refused:
            assert over is Over.REFUSED
        else:
            assert over is (Over.LATE if now >= watch.deadline else None)
        if over is not None:
            break


@given(lengths, st.floats(0, 5000), answers)
def test_the_first_look_from_the_deadline_on_is_the_last(length, delay, answer):
    """However late that look comes and whatever it says, nothing is waited for after it."""
    watch = job_watch(length)
    over, _ = watch.see(answer, watch.deadline + delay)
    assert over is not None


def test_a_job_that_is_done_at_the_deadline_is_done():
    """What the last look shows counts, not when it came."""
    for job in (DONE, FAILED):
        watch = job_watch()
        assert watch.see(job, watch.deadline + 100)[0] is Over.DONE


@pytest.mark.parametrize("absent", [MISSING, DELETED, BEING_DELETED], ids=str)
def test_a_job_is_gone_only_when_two_looks_apart_agree(absent):
    """One look that lacks the job is a lag; an outage in between proves nothing."""
    watch = job_watch()
    assert watch.see(absent, START)[0] is None
    assert watch.see(absent, START + PACE.gone - 1)[0] is None
    assert watch.see(DOWN, START + PACE.gone)[0] is None
    assert watch.see(absent, START + PACE.gone + 1)[0] is Over.GONE


def test_a_job_that_is_seen_again_was_never_gone():
    """A list that lags for once does not count towards the next time."""
    watch = job_watch()
    for now in range(0, 1000, 200):
        assert watch.see(MISSING, START + now)[0] is None
        assert watch.see(RUNNING, START + now + 100)[0] is None


@pytest.mark.parametrize("between", [RUNNING, MISSING, DOWN], ids=["a job", "no job", "an outage"])
def test_any_other_answer_ends_a_row_of_refusals(between):
    """Only credentials that are refused all the time are out of use."""
    watch = job_watch()
    assert watch.see(REFUSED, START)[0] is None
    assert watch.see(REFUSED, START + PACE.refused - 1)[0] is None
    assert watch.see(between, START + PACE.refused)[0] is None
    assert watch.see(REFUSED, START + PACE.refused + 1)[0] is None
    assert watch.see(REFUSED, START + 2 * PACE.refused + 1)[0] is Over.REFUSED


def test_only_the_days_that_are_asked_for_are_judged():
    """A wider job is done when the wanted days are, whatever becomes of the others."""
    watch = JobWatch(START, START + 100, PACE, start_day=FIRST_DAY, end_day=FIRST_DAY)
    assert watch.see(RUNNING, START)[0] is Over.DONE
    watch = JobWatch(START, START + 100, PACE, start_day=FIRST_DAY, end_day=FIRST_DAY)
    assert watch.see(DELETED, START)[0] is Over.DONE


# When it looks


@given(rows, lengths, seconds)
def test_the_next_look_is_neither_too_soon_nor_after_the_deadline(rows, length, later):
    """Ten seconds apart at least, except where the wait would be over sooner."""
    watch = job_watch(length)
    refused_since = absent_since = None
    for now, answer in each(rows):
        if watch.see(answer, now)[0] is not None:
            break
        refused_since = watch._refused_since
        absent_since = watch._gone_since
        asked = now + later
        due = watch.next_look(asked)
        assert due <= watch.deadline
        assert due >= min(asked, watch.deadline)
        bounds = [asked + PACE.shortest_poll, watch.deadline]
        if refused_since is not None:
            bounds.append(max(refused_since + PACE.refused, asked))
        assert due >= min(bounds)
        advice = getattr(answer, "retry_after", None) or 0
        assert due >= min(now + advice, watch.deadline)
        if absent_since is not None and not advice:
            assert due <= max(absent_since + PACE.gone, asked + PACE.shortest_poll)
        if not advice:
            assert due <= asked + PACE.longest_poll


@given(st.floats(25, 1600))
def test_looks_become_denser_towards_the_estimate(remaining):
    """The next look comes about halfway to the estimate."""
    watch = job_watch()
    watch.see(expected_in(remaining), START)
    assert 0.45 * remaining <= watch.next_look(START) - START <= 0.55 * remaining


@given(st.floats(250, 5000))
def test_without_an_estimate_a_twentieth_of_the_time_is_lost_at_most(waited):
    """A job without an estimate is noticed within about five per cent of its time."""
    now = START + waited
    watch = job_watch()
    watch.see(RUNNING, now)
    assert 0.9 * waited / 20 - 1e-3 <= watch.next_look(now) - now <= max(1.1 * waited / 20, 10)


@given(st.floats(6000, 10**6))
def test_a_long_wait_is_looked_at_within_five_minutes_without_an_estimate(waited):
    """Nobody waits longer for a look than that, and with an estimate a quarter of an hour."""
    now = START + waited
    watch = job_watch(10**7)
    watch.see(RUNNING, now)
    assert watch.next_look(now) == now + PACE.longest_poll_blind
    watch.see(expected_in(waited + 10**5), now)
    assert watch.next_look(now) == now + PACE.longest_poll


# A wait in the foreground


@dataclass
class Clock:
    """A clock that moves when somebody sleeps, and while an answer is on its way."""

    moment: float = START
    looks: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += seconds

    @property
    def pace(self) -> Pace:
        return Pace(now=self.now, sleep=self.sleep)

    def follow(self, watch: Watch, answers, takes: float = 0.0, lines: list | None = None) -> Over:
        """Follow a watch; the answer at a moment is what ``answers`` returns for it."""

        def read() -> Answer:
            self.looks.append(self.moment)
            answer = answers(self.moment - START)
            self.moment += takes
            if isinstance(answer, BulkExportsError):
                raise answer
            return answer

        texts = lines if lines is not None else []
        return follow(watch, read, self.sleep, lambda line: texts.append(line.text))


@given(lengths, st.floats(0, 60), st.sampled_from([RUNNING, DOWN, expected_in(4000)]))
def test_a_wait_ends_with_one_look_at_its_deadline(length, takes, answer):
    """It is never given up early, and no later than the last answer takes."""
    clock = Clock()
    watch = JobWatch(START, START + length, clock.pace)
    assert clock.follow(watch, lambda _: answer, takes) is Over.LATE
    assert watch.deadline <= clock.moment <= watch.deadline + takes
    assert clock.looks[-1] <= watch.deadline


def test_a_job_of_an_hour_is_looked_at_a_dozen_times():
    """With a right estimate an hour takes few looks, and is noticed within seconds."""
    clock = Clock()
    watch = JobWatch(START, START + 86_400, clock.pace)
    over = clock.follow(watch, lambda age: DONE if age >= 3600 else expected_in(3600))
    assert over is Over.DONE
    assert len(clock.looks) < 16
    assert clock.moment < START + 3600 + 2 * PACE.shortest_poll


def test_a_wait_over_refused_credentials_ends_after_a_quarter_of_an_hour():
    """Neither the first refusal nor the deadline a day later ends it."""
    clock = Clock()
    watch = JobWatch(START, START + 86_400, clock.pace)
    over = clock.follow(watch, lambda age: REFUSED if age > 600 else RUNNING)
    refused = [look for look in clock.looks if look > START + 600]
    assert over is Over.REFUSED
    assert clock.moment == refused[0] + PACE.refused


def test_an_advice_beyond_the_deadline_does_not_move_it():
    """A service that asks for a day's patience gets one look more, at the deadline."""
    clock = Clock()
    watch = JobWatch(START, START + 600, clock.pace)
    patience = Retryable("HTTP 429", retry_after=86_400)
    assert clock.follow(watch, lambda _: patience) is Over.LATE
    assert clock.looks[1:] == [START + 600]


# What it says


@given(rows)
def test_only_a_change_is_worth_a_line(rows):
    """The same answer a second time has nothing to say."""
    watch, before = job_watch(10**6), None
    # No two looks come at the very same moment.
    for now, answer in dict(each(rows)).items():
        over, lines = watch.see(answer, now)
        if answer is before:
            assert lines == []
        before = answer
        if over is not None:
            break


@pytest.mark.parametrize(
    ("job", "line"),
    [
        (
            job_of(
                *[Status.COMPLETED] * 12,
                *[Status.RUNNING] * 2,
                *[Status.SUBMITTED] * 16,
                queue_position=5,
                estimate=pendulum.datetime(2026, 1, 7, 7, 6, 40),
            ),
            "12 of 30 days done, 16 queued, 2 running; queue position 5; Twilio expects 07:06 UTC.",
        ),
        (job_of(Status.SUBMITTED), "0 of 1 day done, 1 queued."),
        (DONE, "2 of 2 days done."),
        (FAILED, "1 of 2 days done, 1 failed."),
        (
            job_of(Status.ERROR_DURING_RUN, Status.UNKNOWN),
            "0 of 2 days done, 1 being tried again by Twilio, 1 in a state that is not known here.",
        ),
        (
            replace(RUNNING, estimated_completion=pendulum.datetime(2026, 1, 8, 7, 6)),
            "1 of 2 days done, 1 running; Twilio expects 2026-01-08 07:06 UTC.",
        ),
        (replace(RUNNING, queue_position=0), "1 of 2 days done, 1 running."),
        (replace(RUNNING, groups=()), "0 of 2 days done."),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_progress_is_one_line(job, line):
    """Done, queued, running; the place in the queue and the estimate where Twilio says them."""
    _, lines = job_watch().see(job, START)
    assert [it.text for it in lines] == [line]
    assert not any(it.is_warning for it in lines)


def test_an_estimate_is_worth_a_line_once_it_moves_by_minutes():
    """An estimate that is a little different at each look does not fill the log."""
    watch = job_watch()
    said = [
        bool(watch.see(expected_in(2000 + moved), START + moved)[1])
        for moved in (0, 100, 299, 301, 350, 590, 602)
    ]
    assert said == [True, False, False, True, False, False, True]


def test_an_outage_is_two_lines_however_long_it_lasts():
    """A warning when it begins, and a line when Twilio answers again."""
    clock, lines = Clock(), []
    watch = JobWatch(START, START + 86_400, clock.pace)
    answers = {0: RUNNING, 1: DOWN, 2: DOWN, 3: RUNNING}
    clock.follow(watch, lambda age: answers.get(age // 1000, DONE), lines=lines)
    assert lines == [
        "1 of 2 days done, 1 running.",
        "Could not look, trying on: HTTP 503",
        "Twilio answers again.",
        "2 of 2 days done.",
    ]
    assert watch.trouble == ""


def test_what_is_missing_is_one_warning():
    """The first look that lacks the job says so; the second is a verdict."""
    watch = job_watch()
    lines = [watch.see(MISSING, START + 60 * look)[1] for look in range(3)]
    assert [[line.text for line in some] for some in lines] == [
        ["Twilio does not list the job; looking again before it counts as gone."],
        [],
        [],
    ]
    assert lines[0][0].is_warning


# Days, whoever exports them


@given(st.lists(st.sets(st.sampled_from(TWO_DAYS)), max_size=5))
def test_days_are_awaited_until_all_are_there_at_once(looks):
    """A day that was there and is not any more is missing again; each change is a line."""
    watch = DaysWatch(START, START + 10**6, PACE, wanted=frozenset(TWO_DAYS))
    before = None
    for number, available in enumerate(looks):
        over, lines = watch.see(frozenset(available), START + 60 * number)
        assert over is (Over.DONE if available == set(TWO_DAYS) else None)
        assert bool(lines) == (over is None and available != before)
        before = available
        if over is not None:
            break


def test_missing_days_are_named():
    """The line has the days that are still to come, and how many there are already."""
    watch = DaysWatch(START, START + 100, PACE, wanted=frozenset(TWO_DAYS))
    _, lines = watch.see(frozenset(TWO_DAYS[:1]), START)
    assert [line.text for line in lines] == ["1 of 2 days available; missing: 2026-01-06."]


# What it asks


@dataclass
class Service:
    """A service that counts what it is asked."""

    jobs: dict[ResourceType, list[Job]] = field(default_factory=dict)
    only_listed: set[str] = field(default_factory=set)
    unlisted: list[Job] = field(default_factory=list)
    odd: tuple[OddItem, ...] = ()
    pages: int = 1
    is_down: bool = False
    clock: Clock = field(default_factory=Clock)
    asked: Counter[str] = field(default_factory=Counter)

    @property
    def pace(self) -> Pace:
        return self.clock.pace

    def list_jobs(self, resource_type: ResourceType) -> JobListing:
        self.asked["list"] += self.pages
        if self.is_down:
            raise DOWN
        return JobListing(tuple(self.jobs.get(resource_type, ())), self.odd, self.pages)

    def fetch_job(self, sid: str) -> Job:
        self.asked["fetch"] += 1
        known = [job for jobs in self.jobs.values() for job in jobs] + self.unlisted
        for job in known:
            if job.sid == sid and sid not in self.only_listed:
                return job
        raise NotFound(sid)

    def read(self, reader: JobReader, count: int) -> dict[str, Answer]:
        """Read the first jobs; say what each answer is, and count anew."""
        self.asked.clear()
        return reader.read(self, [f"JS{number:032x}" for number in range(1, count + 1)])


def service_with(count: int, **more) -> Service:
    jobs = [job_of(Status.RUNNING, number=number) for number in range(1, count + 1)]
    return Service({ResourceType.MESSAGES: jobs}, **more)


@pytest.fixture
def reader():
    return JobReader(ResourceType.MESSAGES)


def test_one_job_is_fetched_and_many_are_listed(reader):
    """One request either way."""
    service = service_with(40)
    assert len(service.read(reader, 1)) == 1
    assert service.asked == {"fetch": 1}
    assert len(service.read(reader, 30)) == 30
    assert service.asked == {"list": 1}


def test_a_long_list_is_read_only_where_that_costs_fewer_requests(reader):
    """Once the list is known to have five pages, five jobs are fetched and six are listed."""
    service = service_with(150, pages=5)
    asked = []
    for count in (2, 2, 5, 6):
        answers = service.read(reader, count)
        assert all(isinstance(answer, Job) for answer in answers.values())
        asked.append(dict(service.asked))
    assert asked == [{"list": 5}, {"fetch": 2}, {"fetch": 5}, {"list": 5}]


def test_the_length_of_a_list_is_asked_anew_after_an_hour(reader):
    """A list that was long once may be short by now."""
    service = service_with(150, pages=5)
    service.read(reader, 2)
    service.pages = 1
    service.clock.sleep(3500)
    service.read(reader, 2)
    assert service.asked == {"fetch": 2}
    service.clock.sleep(200)
    service.read(reader, 2)
    assert service.asked == {"list": 1}


def test_only_what_list_and_fetch_both_lack_is_missing(reader):
    """Either may lag behind the other, and neither alone is believed."""
    listed, fetched = "JS" + "1".zfill(32), "JS" + "2".zfill(32)
    service = service_with(1, only_listed={listed})
    service.unlisted = [job_of(Status.RUNNING, number=2)]
    answers = service.read(reader, 3)
    assert isinstance(answers.pop(listed), Job)
    assert isinstance(answers.pop(fetched), Job)
    assert list(answers.values()) == [MISSING]
    assert service.asked == {"list": 1, "fetch": 2}
    assert isinstance(service.read(reader, 1)[listed], Job)
    assert service.asked == {"fetch": 1, "list": 1}


def test_a_job_is_not_missing_where_the_list_cannot_be_read(reader):
    """The error is the answer, for each job that the list was needed for."""
    service = service_with(0, is_down=True)
    assert service.read(reader, 1) == {"JS" + "1".zfill(32): DOWN}
    with pytest.raises(Retryable):
        service.read(reader, 2)


def test_a_job_that_is_listed_but_cannot_be_read_is_trouble_not_missing(reader):
    """Such an item says that the job is there."""
    item = {"job_sid": "JS" + "1".zfill(32), "details": "?"}
    service = service_with(0, odd=(OddItem.of(item, "It has no details."),))
    for count in (1, 2):
        answer = service.read(reader, count)["JS" + "1".zfill(32)]
        assert isinstance(answer, BadData)


def test_a_job_of_unknown_type_is_looked_for_in_all_lists_before_it_is_missing():
    """One request where it can be fetched; else list after list until one has it."""
    reader = JobReader(None)
    sid = "JS" + "1".zfill(32)
    service = service_with(1)
    assert isinstance(service.read(reader, 1)[sid], Job)
    assert service.asked == {"fetch": 1}
    service.only_listed = {sid}
    service.jobs = {ResourceType.CONFERENCES: service.jobs[ResourceType.MESSAGES]}
    assert isinstance(service.read(reader, 1)[sid], Job)
    assert service.asked == {"fetch": 1, "list": 3}
    service.jobs = {}
    assert service.read(reader, 1) == {sid: MISSING}
    assert service.asked == {"fetch": 1, "list": 4}
