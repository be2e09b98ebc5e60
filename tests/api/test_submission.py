"""A submission knows its own jobs by their names, and which of them stands for it."""

from __future__ import annotations

import string
from dataclasses import replace
from datetime import date, timedelta
from itertools import permutations

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_values import FIRST_DAY, job_of

from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest, KeyConflict
from airflow_provider_bulkexports.api.job import Job, JobListing, OddItem, Status
from airflow_provider_bulkexports.api.request import ExportRequest, Reattach, ResourceType
from airflow_provider_bulkexports.api.submit import MAX_PREFIX, Submission

LAST_DAY = FIRST_DAY + timedelta(days=1)
RUNNING = (Status.COMPLETED, Status.RUNNING)
DONE = (Status.COMPLETED, Status.COMPLETED_EMPTY_RECORDS)
BROKEN = (Status.FAILED, Status.RUNNING)
DELETED = (Status.RUNNING_TO_BE_DELETED, Status.RUNNING_TO_BE_DELETED)
TASK = ("", "orders", "export", "scheduled__2026-01-07", -1)

prefixes = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=MAX_PREFIX)
identities = st.lists(
    st.text(st.characters(exclude_categories=("Cc", "Cs"))), min_size=1, max_size=5
)
generations = st.integers(1, 99)


def request_of(prefix="export", **changes):
    asked = {"resource_type": "Messages", "start_day": FIRST_DAY, "end_day": LAST_DAY}
    return ExportRequest.parse(friendly_name=prefix, **(asked | changes))


def submission_of(*identity, cycle=0, reattach=Reattach.RUN, **changes):
    return Submission.of(request_of(**changes), *(identity or TASK), cycle=cycle, reattach=reattach)


def own_job(submission, *words, number=1, generation=1, **more):
    """Return a job as that submission, or an earlier cycle of it, would have created it."""
    name = f"export_{submission.key}" + (f"g{generation}" if generation > 1 else "")
    return job_of(*words, number=number, name=name, **more)


def found_in(submission, *jobs, odd=()):
    return submission.find(JobListing(jobs, odd))


# Keys


@given(identities, identities)
def test_a_stem_stands_for_one_identity(one, other):
    """The same identity has the same stem on every worker, another one another."""
    mine, yours = submission_of(*one), submission_of(*other)
    assert (mine.stem == yours.stem) == (one == other)
    assert mine.cycle == yours.cycle
    assert set(mine.key) <= set("0123456789abcdef")
    assert (len(mine.stem), len(mine.cycle)) == (16, 4)


def test_a_key_never_changes():
    """A retry on a newer version of this package still finds the job of the older."""
    assert submission_of().key == "d9bf414c633a76755fec"
    assert (
        submission_of("", "orders", "export", "scheduled__2026-01-07", "-1").key
        == "d9bf414c633a76755fec"
    )


@pytest.mark.parametrize(
    "days",
    [
        {"start_day": "2026-01-05", "end_day": "2026-01-06"},
        {"start_day": date(2026, 1, 5), "end_day": "2026-01-06"},
        {"start_day": pendulum.date(2026, 1, 5), "end_day": pendulum.date(2026, 1, 6)},
        {"resource_type": ResourceType.MESSAGES},
        {"prefix": "another_name"},
        {"webhook_url": "https://example.com", "webhook_method": "POST", "email": "a@b.c"},
    ],
    ids=",".join,
)
def test_how_a_request_is_written_does_not_change_its_key(days):
    """A day as text or as a date, a name or a webhook that an author adds: the export is one."""
    assert submission_of(**days).key == submission_of().key


@pytest.mark.parametrize(
    "changes",
    [
        {"resource_type": "Calls"},
        {"start_day": LAST_DAY},
        {"end_day": FIRST_DAY},
        {"end_day": LAST_DAY + timedelta(days=1)},
    ],
    ids=str,
)
def test_another_export_has_another_stem(changes):
    """Another type or other days are another export, whoever asks."""
    assert submission_of(**changes).stem != submission_of().stem


@pytest.mark.parametrize("part", range(len(TASK)))
def test_another_asker_has_another_stem(part):
    """Another namespace, DAG, task, run or mapped index asks for a job of its own."""
    other = [*TASK]
    other[part] = "other"
    assert submission_of(*other).stem != submission_of().stem


def test_a_cycle_changes_only_the_end_of_the_key():
    """After a clear the earlier job is still known by the stem."""
    before, after = submission_of(cycle=0), submission_of(cycle=1)
    assert before.stem == after.stem
    assert before.cycle != after.cycle


# Names


@given(prefixes, identities, generations)
def test_a_name_gives_its_key_and_generation_back(prefix, identity, generation):
    """Whatever the readable part looks like, a job that was created by a name is found by it."""
    submission = submission_of(*identity, prefix=prefix)
    doomed = own_job(submission, *BROKEN, generation=generation)
    created = found_in(submission, doomed).next_request
    assert created.friendly_name == f"{prefix}_{submission.key}g{generation + 1}"
    altered = created.friendly_name.replace("_", "\\_")
    for name in (created.friendly_name, altered):
        assert found_in(submission, job_of(*RUNNING, name=name)).job is not None
        following = found_in(submission, job_of(*BROKEN, name=name)).next_request
        assert following.friendly_name == f"{prefix}_{submission.key}g{generation + 2}"


@given(prefixes)
def test_a_prefix_that_looks_like_a_key_is_only_a_prefix(prefix):
    """An author's name that ends like a key of ours does not hide the key."""
    submission = submission_of(prefix=prefix[: MAX_PREFIX - 23] + "_" + "a" * 20 + "g2")
    created = found_in(submission).next_request
    assert found_in(submission, job_of(*RUNNING, name=created.friendly_name)).job is not None


@given(st.text(max_size=64))
def test_any_other_name_is_not_ours(name):
    """Jobs that people named are neither adopted nor deleted."""
    found = found_in(submission_of(), job_of(*RUNNING, name=name))
    assert (found.job, found.surplus, found.spent) == (None, (), ())


def test_a_job_without_a_name_stops_only_who_asks_for_its_days():
    """Its key cannot be seen, so it may be ours if it exports the same."""
    submission = submission_of()
    nameless = job_of(*RUNNING, name=None)
    with pytest.raises(BadData, match="has no name"):
        found_in(submission, nameless)
    others = replace(nameless, end_day=nameless.end_day + timedelta(days=1))
    assert found_in(submission, others).job is None


def test_the_first_name_has_no_generation():
    """The first job's name ends in the key alone, and all else is what was asked for."""
    request = request_of(email="a@b.c")
    submission = Submission.of(request, *TASK)
    created = found_in(submission).next_request
    assert created == request_of(f"export_{submission.key}", email="a@b.c")


def test_a_long_prefix_is_refused():
    """A readable part that leaves no room for the key is refused with the limit."""
    submission_of(prefix="a" * MAX_PREFIX)
    with pytest.raises(InvalidRequest, match=f"41 characters; at most {MAX_PREFIX}"):
        submission_of(prefix="a" * (MAX_PREFIX + 1))


# Which job stands


@pytest.mark.parametrize("words", [RUNNING, DONE, (Status.ERROR_DURING_RUN, Status.SUBMITTED)])
def test_a_usable_job_of_ours_stands(words):
    """An unfinished or finished job is adopted, and others' beside it are not looked at."""
    submission = submission_of()
    mine = own_job(submission, *words, number=7)
    theirs = own_job(submission_of("another"), *RUNNING, number=1)
    found = found_in(submission, theirs, mine, job_of(*DONE, number=2))
    assert (found.job, found.surplus, found.spent) == (mine, (), ())


@pytest.mark.parametrize("words", [BROKEN, DELETED, (Status.DELETED_BY_USER_REQUEST,) * 2])
def test_a_doomed_job_is_followed_by_the_next_generation(words):
    """A job with a failed or deleted day is neither adopted nor deleted."""
    submission = submission_of()
    listed = [own_job(submission, *words, number=n, generation=n) for n in (3, 1, 2)]
    found = found_in(submission, *listed)
    assert (found.job, found.surplus, found.spent) == (None, (), ())
    assert found.next_request.friendly_name.endswith(f"{submission.key}g4")


def test_of_twins_the_first_in_a_fixed_order_stays():
    """The highest generation, then the smallest SID: whatever order the list has."""
    submission = submission_of()
    first = own_job(submission, *RUNNING, number=5, generation=2)
    second = own_job(submission, *RUNNING, number=9, generation=2)
    third = own_job(submission, *RUNNING, number=1)
    for listed in permutations((first, second, third)):
        found = found_in(submission, *listed)
        assert found.job == first
        assert found.surplus == (second, third)


def test_a_finished_twin_is_awaited_but_does_not_change_the_order():
    """What is finished is done; the first in order goes on, and only what follows is deleted."""
    submission = submission_of()
    first = own_job(submission, *RUNNING, number=1)
    done = own_job(submission, *DONE, number=2)
    running = own_job(submission, *RUNNING, number=3)
    also_done = own_job(submission, *DONE, number=4)
    found = found_in(submission, also_done, running, done, first)
    assert (found.job, found.surplus, found.spent) == (done, (running,), (first, also_done))


# Jobs of an earlier cycle


def test_an_unfinished_job_of_an_earlier_cycle_is_adopted():
    """A task that is cleared while its job runs goes on with that job, and repairs its twins."""
    earlier, submission = submission_of(cycle=0), submission_of(cycle=1)
    first = own_job(earlier, *RUNNING, number=1)
    second = own_job(earlier, *RUNNING, number=2)
    found = found_in(submission, second, first)
    assert (found.job, found.surplus, found.spent) == (first, (second,), ())
    assert found.next_request.friendly_name == f"export_{submission.key}"


@pytest.mark.parametrize("words", [DONE, BROKEN, DELETED], ids=["done", "broken", "deleted"])
def test_another_job_of_an_earlier_cycle_is_not_adopted(words):
    """A clear after the end asks for a new job, of the first generation."""
    earlier, submission = submission_of(cycle=0), submission_of(cycle=1)
    found = found_in(submission, own_job(earlier, *words, generation=3))
    assert (found.job, found.surplus, found.spent) == (None, (), ())
    assert found.next_request.friendly_name == f"export_{submission.key}"


def test_each_try_of_its_own_adopts_no_other_cycle():
    """Where each try creates a job of its own, that of the try before is not adopted."""
    earlier = submission_of(cycle="0/1", reattach=Reattach.NEVER)
    submission = submission_of(cycle="0/2", reattach=Reattach.NEVER)
    assert found_in(submission, own_job(earlier, *RUNNING)).job is None
    mine = own_job(submission, *RUNNING, number=2)
    assert found_in(submission, own_job(earlier, *RUNNING), mine).job == mine


def test_a_job_of_the_own_cycle_comes_before_that_of_an_earlier():
    """Even where the earlier one is unfinished, and neither is deleted for the other."""
    earlier, submission = submission_of(cycle=0), submission_of(cycle=1)
    mine = own_job(submission, *DONE, number=2)
    found = found_in(submission, own_job(earlier, *RUNNING, number=1), mine)
    assert (found.job, found.surplus, found.spent) == (mine, (), ())


# Items that cannot be trusted


def odd_item(name):
    return OddItem.of({"job_sid": "JS" + "f" * 32, "friendly_name": name}, "It has no days.")


def test_an_odd_item_that_may_be_ours_stops_a_submission():
    """One without a name, or with our stem in it, may be the job: nothing may be created."""
    submission = submission_of(cycle=1)
    for name in (None, f"export_{submission.key}", f"x{submission_of(cycle=0).key}g2!"):
        with pytest.raises(BadData, match="nothing is created: It has no days"):
            found_in(submission, own_job(submission, *RUNNING), odd=(odd_item(name),))


def test_an_odd_item_of_others_stops_nothing():
    """A name without our stem says that the item is somebody else's."""
    submission = submission_of()
    others = (odd_item("people_gave_this"), odd_item(f"export_{submission_of('another').key}"))
    assert found_in(submission, odd=others).job is None


@pytest.mark.parametrize(
    "changes",
    [
        {"first_day": LAST_DAY},
        {"first_day": FIRST_DAY - timedelta(days=1)},
        {"resource_type": ResourceType.CALLS},
    ],
    ids=str,
)
@pytest.mark.parametrize("cycle", [0, 1])
def test_our_key_on_another_export_is_a_conflict(changes, cycle):
    """A job with our key but other days or type is neither adopted nor joined by a second."""
    submission = submission_of(cycle=1)
    other = own_job(submission_of(cycle=cycle), *RUNNING, **changes)
    with pytest.raises(KeyConflict, match=f"{other.sid}.*not Messages of 2026-01-05 to 2026-01-06"):
        found_in(submission, other)


def test_a_listing_that_leaves_type_and_days_out_is_no_conflict():
    """The stem stands for them, so that a job without them is ours all the same."""
    submission = submission_of()
    bare = Job.parse({"job_sid": "JS" + "1" * 32, "friendly_name": f"export_{submission.key}"})
    assert found_in(submission, bare).job == bare


# Jobs of others


def covering(submission, *jobs):
    return submission.covering(JobListing(jobs))


def test_only_a_range_adopts_jobs_of_others():
    """Neither a run nor a try looks at jobs that it did not create."""
    for reattach in (Reattach.RUN, Reattach.NEVER):
        assert covering(submission_of(reattach=reattach), job_of(*DONE)) == []
    assert covering(submission_of(reattach=Reattach.RANGE), job_of(*DONE)) == [job_of(*DONE)]


def test_a_range_judges_only_its_own_days():
    """A day that failed outside the range does not count, one inside does."""
    submission = submission_of(reattach=Reattach.RANGE, end_day=FIRST_DAY)
    fails_later = job_of(Status.COMPLETED, Status.FAILED, number=1)
    fails_here = job_of(Status.FAILED, Status.COMPLETED, number=2)
    assert covering(submission, fails_here, fails_later) == [fails_later]


def test_a_range_takes_only_what_covers_it_and_finished_first():
    """A job that lacks a day is none; one whose days are there is better than one that waits."""
    submission = submission_of(reattach=Reattach.RANGE)
    short = job_of(Status.COMPLETED, number=1)
    late = job_of(*DONE, number=2, first_day=LAST_DAY)
    waiting = job_of(*RUNNING, number=3)
    done = [job_of(*DONE, Status.RUNNING, number=n) for n in (4, 5)]
    assert covering(submission, short, late, waiting, done[1], done[0]) == [*done, waiting]


def test_a_word_for_what_to_adopt_is_read():
    """The three words are known, and any other is refused with them."""
    assert [Reattach.parse(word) for word in ("run", "range", "never")] == [*Reattach]
    with pytest.raises(InvalidRequest, match="reattach is 'always'; allowed are run, range, never"):
        Reattach.parse("always")
