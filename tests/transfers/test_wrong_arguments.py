"""Arguments that cannot be right are refused before Twilio is asked."""

from __future__ import annotations

import importlib.util

import pytest
from day_transfers import day, range_of

from airflow_provider_bulkexports.compat import AirflowFailException

JOB = "JS" + "0" * 32
RANGE = range_of(2)
EITHER = "Give job_sid, or all of"

BAD = {
    "nothing": ({}, EITHER),
    "job and a day": ({"job_sid": JOB, "end_day": day(1)}, EITHER),
    "job and a type": ({"job_sid": JOB, "resource_type": "Messages"}, EITHER),
    "no type": (RANGE | {"resource_type": None}, EITHER),
    "no first day": (RANGE | {"start_day": None}, EITHER),
    "no last day": (RANGE | {"end_day": None}, EITHER),
    "no job SID": ({"job_sid": "JS1"}, "32 hexadecimal digits"),
    "empty job SID": ({"job_sid": ""}, "32 hexadecimal digits"),
    "rendered None": ({"job_sid": "None"}, "32 hexadecimal digits"),
    "unknown type": (RANGE | {"resource_type": "Faxes"}, "allowed are Messages, Calls"),
    "reversed": (RANGE | {"end_day": "2025-12-31"}, "reversed"),
    "no such day": (RANGE | {"end_day": "2026-02-30"}, "end_day"),
    "unknown format": (RANGE | {"output_format": "csv"}, "allowed are raw, parquet"),
    "empty format": (RANGE | {"output_format": ""}, "allowed are raw, parquet"),
    "unknown if_exists": (RANGE | {"if_exists": "append"}, "allowed are replace, skip, fail"),
    "no parallel days": (RANGE | {"max_parallel_days": 0}, "max_parallel_days is 0"),
    "fewer than none": (RANGE | {"max_parallel_days": -1}, "max_parallel_days is -1"),
    "no share": (RANGE | {"max_rejected": 1.5}, "max_rejected is 1.5"),
    "percent": (RANGE | {"max_rejected": 10}, "a share from 0 to 1"),
    "a text that is true": (RANGE | {"allow_fewer_records": "False"}, "give True or False"),
    "a share as text": (RANGE | {"max_rejected": "0.05"}, "max_rejected is '0.05'; give a number"),
    "days as text": (RANGE | {"max_parallel_days": "4"}, "max_parallel_days is '4'; give a number"),
    "a query": (RANGE | {"destination": "s3://bucket/x?y=1"}, "an address without a"),
    "relative": (RANGE | {"destination": "out"}, "a relative path"),
    "relative with dots": (RANGE | {"destination": "../out"}, "a relative path"),
    "relative file": (RANGE | {"destination": "file://out"}, "a relative path"),
    "raw without a column": (RANGE | {"drop_columns": ["body"]}, "need the format parquet"),
    "no secret": (
        RANGE | {"hash_columns": ["from"], "output_format": "parquet"},
        "needs a secret: set hash_secret",
    ),
    "unknown column": (
        RANGE | {"drop_columns": ["text"], "output_format": "parquet"},
        "text cannot be treated",
    ),
    "a column that is no list": (
        RANGE | {"drop_columns": "body", "output_format": "parquet"},
        "give a list of names",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_argument_is_refused_before_any_request(transfers, name):
    """The task fails at once, without retries, and says what is allowed."""
    arguments, message = BAD[name]
    with pytest.raises(AirflowFailException, match=message):
        transfers.transfer(**arguments)

    assert transfers.requests() == 0
    assert not transfers.storage.exists()


@pytest.mark.parametrize("scheme", ["nosuch", "gs"])
def test_a_storage_that_cannot_be_opened_is_refused_before_any_request(transfers, scheme):
    """An unknown scheme, or one whose provider is missing, fails for good: no retry installs it."""
    destination = f"{scheme}://bucket/twilio"
    with pytest.raises(AirflowFailException, match="which this Airflow cannot open"):
        transfers.transfer(**RANGE, destination=destination)

    assert transfers.requests() == 0


def test_a_missing_extra_is_refused_before_any_request(transfers, monkeypatch):
    """Without pyarrow nothing is downloaded that could not be converted, and nothing is retried."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else find(name, *a)
    )
    with pytest.raises(AirflowFailException, match=r"airflow-provider-bulkexports\[parquet\]"):
        transfers.transfer(**RANGE, output_format="parquet")

    assert transfers.requests() == 0


def test_a_missing_connection_is_not_retried(transfers):
    """The error has the command that adds it."""
    with pytest.raises(AirflowFailException, match="airflow connections add missing"):
        transfers.transfer(**RANGE, bulkexports_conn_id="missing")


@pytest.mark.parametrize("outcome", ["Running", "Failed", "ErrorDuringRun"])
def test_a_job_that_is_not_complete_is_refused(transfers, outcome):
    """A job that still runs or failed is not fetched; the error says what its days are."""
    transfers.fault("job_outcome", "create_job", outcome=outcome, days=[day(1)])
    job = transfers.export(2)
    with pytest.raises(AirflowFailException, match="not complete") as caught:
        transfers.transfer(job)

    assert outcome in str(caught.value)
    assert transfers.downloads() == []
    assert not transfers.storage.exists()


def test_days_that_a_running_job_has_completed_are_transferred(transfers):
    """A job that still runs for other days does not hinder the wanted ones."""
    transfers.fault("job_outcome", "create_job", outcome="Running", days=[day(2)])
    job = transfers.export(3)
    results = transfers.transfer_range(2, job_sid=job)

    assert [result["day"] for result in results] == [day(0), day(1)]
    assert transfers.downloads() == [day(0), day(1)]
    with pytest.raises(AirflowFailException, match=f"not complete for {day(2)}"):
        transfers.transfer_range(3, job_sid=job)
    assert transfers.downloads() == [day(0), day(1)]


def test_a_job_of_another_type_is_refused(transfers):
    """A type that is not the job's is a mistake, and nothing is fetched."""
    job = transfers.export(1, "Calls")
    with pytest.raises(AirflowFailException, match="exports Calls, not Messages"):
        transfers.transfer_range(1, job_sid=job)

    assert transfers.downloads() == []


WRONG_LITERALS = {
    "format": {"output_format": "csv"},
    "if_exists": {"if_exists": "append"},
    "type": {"resource_type": "Faxes"},
    "days": {"end_day": "2025-12-31"},
    "destination": {"destination": "out"},
    "max_rejected": {"max_rejected": -0.1},
    "raw without a column": {"drop_columns": ["body"]},
}


@pytest.mark.parametrize("name", WRONG_LITERALS)
def test_a_wrong_literal_is_refused_when_the_dag_is_parsed(transfers, name):
    """What no rendering can change is refused at once."""
    with pytest.raises(AirflowFailException):
        transfers.task(**RANGE | WRONG_LITERALS[name])


def test_an_unknown_job_is_named(transfers):
    """A job that Twilio does not know fails the task, and nothing is fetched."""
    with pytest.raises(Exception, match=JOB):
        transfers.transfer(JOB)

    assert transfers.downloads() == []
