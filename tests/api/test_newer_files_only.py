"""A refresh wants files that are newer than those it has: an old job of others is none of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_bulkexports.api.request import Reattach
from airflow_provider_bulkexports.api.submit import Submission

DAY = 86_400


@pytest.fixture
def service(start):
    """Give a sandbox at noon whose jobs take a hundred seconds."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return start(at=noon.timestamp(), job_seconds=100)


@pytest.fixture
def by_people(client, request_for):
    def create(**more):
        return client.create_job(request_for(friendly_name="people_gave_this", **more))

    return create


@pytest.fixture
def refresh(service, request_for):
    """Give a submission whose files must be created in so many days from now, or later."""

    def build(days, task="refresh"):
        since = datetime.fromtimestamp(service.now(), UTC).date() + timedelta(days=days)
        request = request_for(task)
        return Submission.of(request, task, reattach=Reattach.RANGE, created_since=since)

    return build


@pytest.mark.parametrize(("days", "adopted"), [(-5, True), (0, True), (1, False), (30, False)])
def test_a_finished_job_is_adopted_if_its_files_are_new_enough(
    service, by_people, refresh, days, adopted
):
    """The day on which the files were created decides, the very day included."""
    job = by_people()
    service.sandbox.advance(200)
    submitted = service.submit(refresh(days))
    assert (submitted.job.sid == job.sid) == adopted
    assert service.charged() == (3 if adopted else 6)


def test_every_day_must_be_new_enough(start, request_for, refresh, service):
    """A job that ran over midnight has days of both sides."""
    service = start(at=service.now(), job_seconds=20 * 3600)
    with service.client() as client:
        job = client.create_job(request_for(friendly_name="people_gave_this"))
    service.sandbox.advance(2 * DAY)
    submission = refresh(1)
    with service.client() as client:
        listed = client.list_days(submission.request.resource_type)
    assert len({item.create_date for item in listed}) == 2
    assert service.submit(submission).job.sid != job.sid


def test_a_day_under_way_will_be_new_enough(service, by_people, refresh):
    """What is not exported yet will be created today or later."""
    job = by_people()
    service.sandbox.advance(20)
    assert service.submit(refresh(0)).job.sid == job.sid


def test_an_empty_day_without_a_file_counts_as_old(service, by_people, refresh):
    """Jobs carry no date, so that nothing says how old the word "empty" is."""
    service.fault("create_job", "empty_day", how="absent", days=["2026-01-02"])
    job = by_people()
    service.sandbox.advance(200)
    assert service.submit(refresh(-30)).job.sid != job.sid


def test_an_empty_day_with_a_file_is_as_old_as_the_file(service, by_people, refresh):
    """An empty file is listed with its day of creation as any other."""
    service.fault("create_job", "empty_day", how="empty_gzip", days=["2026-01-02"])
    job = by_people()
    service.sandbox.advance(200)
    assert service.submit(refresh(0)).job.sid == job.sid


def test_ones_own_job_is_adopted_whatever_its_files_say(service, refresh):
    """A retry after midnight goes on with the job of its first try, and pays once."""
    submission = refresh(0)
    own = service.submit(submission)
    service.sandbox.advance(DAY)
    later = Submission.of(
        submission.request, "refresh", reattach=Reattach.RANGE,
        created_since=submission.created_since + timedelta(days=1),
    )  # fmt: skip
    assert service.retry(later).job.sid == own.job.sid
    assert service.charged() == 3
