"""A job's name is how it is found again."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.errors import InvalidRequest, KeyConflict
from airflow_provider_bulkexports.api.job import Job
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType
from airflow_provider_bulkexports.api.submit import (
    MAX_PREFIX,
    _key_of,
    job_key,
    job_name,
    jobs_of,
    submit_once,
)

words = st.text(string.ascii_letters + string.digits + "_", max_size=MAX_PREFIX)
identities = st.lists(
    st.text(st.characters(exclude_categories=("Cc", "Cs"))), min_size=1, max_size=5
)


@given(identities, identities)
def test_a_key_stands_for_one_identity(one, other):
    """The same identity has the same key on every worker, another one another."""
    assert (job_key(*one) == job_key(*other)) == (one == other)
    assert set(job_key(*one)) <= set("0123456789abcdef")
    assert len(job_key(*one)) == 20


def test_a_key_never_changes():
    """A retry on a newer version of this package still finds the job of the older."""
    assert job_key("AC1", "Messages", 1) == job_key("AC1", "Messages", "1")
    assert job_key("AC1", "Messages", 1) == "465bc8236aeade6d90cf"


@given(words, identities, st.none() | st.integers(2, 99))
def test_a_name_gives_its_key_back(prefix, identity, generation):
    """Whatever the readable part looks like, the key is found, in every generation."""
    name = job_name(prefix, job_key(*identity)) + (f"g{generation}" if generation else "")
    assert _key_of(name) == job_key(*identity)
    assert _key_of(name.replace("_", "\\_")) == job_key(*identity)
    assert ExportRequest.parse(
        resource_type="Calls", start_day="2026-01-01", end_day="2026-01-01", friendly_name=name
    )


@given(words)
def test_a_name_that_looks_like_a_key_is_only_a_prefix(prefix):
    """An author's name that ends like a key of ours does not hide the key."""
    tail = prefix[: MAX_PREFIX - 24] + "_" + "a" * 20 + "g2"
    assert _key_of(job_name(tail, job_key("x"))) == job_key("x")


@given(st.text(max_size=64))
def test_any_other_name_has_no_key(name):
    """Names that people gave are not mistaken for ours."""
    assert _key_of(name, default="") == "" or name.replace("\\", "")[-21:].isascii()
    with pytest.raises(InvalidRequest, match="does not end in a key"):
        _key_of(name + "!")


def test_a_long_prefix_is_refused():
    """A readable part that leaves no room for the key is refused with the limit."""
    with pytest.raises(InvalidRequest, match=f"at most {MAX_PREFIX}"):
        job_name("a" * (MAX_PREFIX + 1), job_key("x"))


def test_a_name_without_key_is_never_submitted(service, client, request_for):
    """Without a key a lost answer could not be found again, so nothing is asked."""
    with pytest.raises(InvalidRequest, match="use job_name"):
        submit_once(client, request_for(friendly_name="people_gave_this"))
    assert service.asked() == 0


def test_our_jobs_are_picked_from_a_listing(service, client, request_for):
    """All generations of a request's jobs are its own, and no others are."""
    request = request_for()
    own = [client.create_job(request), client.create_job(request)]
    name = f"{request.friendly_name}g2"
    own.append(client.create_job(request_for(friendly_name=name)))
    client.create_job(request_for("another"))
    client.create_job(request_for(friendly_name="people_gave_this"))
    listed = client.list_jobs(ResourceType.MESSAGES)
    assert {job.sid for job in jobs_of(request, listed)} == {job.sid for job in own}


@pytest.mark.parametrize(
    "change", [{"start_day": "2026-01-02"}, {"end_day": "2026-01-04"}, {"end_day": "2026-01-02"}]
)
def test_our_key_on_another_range_is_a_conflict(service, client, request_for, change):
    """A job with our key but other days is neither adopted nor joined by a second one."""
    other = client.create_job(request_for(**change))
    with pytest.raises(KeyConflict, match=f"{other.sid}.*2026-01-01 to 2026-01-03") as caught:
        service.submit(request_for())
    assert "friendly_name or task_id" in str(caught.value)
    assert len(service.jobs()) == 1


def test_our_key_on_another_type_is_a_conflict(request_for):
    """A listed job with our key but another type is not ours."""
    body = {"job_sid": "JS" + "0" * 32, "friendly_name": request_for().friendly_name}
    assert jobs_of(request_for(), [Job.parse(body)])
    with pytest.raises(KeyConflict):
        jobs_of(request_for(), [Job.parse(body | {"resource_type": "Calls"})])
