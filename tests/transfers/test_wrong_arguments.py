"""Arguments that cannot be right are refused before Twilio is asked."""

from __future__ import annotations

import importlib.util

import pytest
from day_transfers import day

from airflow_provider_bulkexports.compat import AirflowFailException
from airflow_provider_bulkexports.transfers import BulkExportsMissingDaysOperator

JOB = "JS" + "0" * 32
RANGE = {"resource_type": "Messages", "start_day": day(0), "end_day": day(1)}
EITHER = "Give either job_sid, or all of"

BAD = {
    "nothing": ({}, EITHER),
    "job and range": ({"job_sid": JOB} | RANGE, EITHER),
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
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_argument_is_refused_before_any_request(transfers, name):
    """The task fails at once, without retries, and says what is allowed."""
    arguments, message = BAD[name]
    with pytest.raises(AirflowFailException, match=message):
        transfers.bring(**arguments)

    assert transfers.requests() == 0
    assert not transfers.storage.exists()


@pytest.mark.parametrize("scheme", ["nosuch", "gs"])
def test_a_storage_that_cannot_be_opened_is_refused_before_any_request(transfers, scheme):
    """An unknown scheme, or one whose provider is missing, fails for good: no retry installs it."""
    destination = f"{scheme}://bucket/twilio"
    with pytest.raises(AirflowFailException, match="which this Airflow cannot open"):
        transfers.bring(**RANGE, destination=destination)
    missing = BulkExportsMissingDaysOperator(task_id="missing", destination=destination, **RANGE)
    with pytest.raises(AirflowFailException, match="which this Airflow cannot open"):
        missing.execute({})

    assert transfers.requests() == 0


def test_a_missing_extra_is_refused_before_any_request(transfers, monkeypatch):
    """Without pyarrow nothing is downloaded that could not be converted, and nothing is retried."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else find(name, *a)
    )
    with pytest.raises(AirflowFailException, match=r"airflow-provider-bulkexports\[parquet\]"):
        transfers.bring(**RANGE, output_format="parquet")

    assert transfers.requests() == 0


def test_a_missing_connection_is_not_retried(transfers):
    """The error has the command that adds it."""
    with pytest.raises(AirflowFailException, match="airflow connections add missing"):
        transfers.bring(**RANGE, bulkexports_conn_id="missing")


@pytest.mark.parametrize("outcome", ["Running", "Failed", "ErrorDuringRun"])
def test_a_job_that_is_not_complete_is_refused(transfers, outcome):
    """A job that still runs or failed is not fetched; the error says what its days are."""
    transfers.fault("job_outcome", "create_job", outcome=outcome, days=[day(1)])
    job = transfers.export(2)
    with pytest.raises(AirflowFailException, match="not complete") as caught:
        transfers.bring(job)

    assert outcome in str(caught.value)
    assert transfers.downloads() == []
    assert not transfers.storage.exists()


def test_an_unknown_job_is_named(transfers):
    """A job that Twilio does not know fails the task, and nothing is fetched."""
    with pytest.raises(Exception, match=JOB):
        transfers.bring(JOB)

    assert transfers.downloads() == []
