"""Errors as a user meets them in a task's log."""

from __future__ import annotations

import pytest
from in_process import (
    CONNECTION,
    FETCH,
    LISTING,
    POST,
    connection,
    create,
    requests_of,
    run_task,
)

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException
from airflow_provider_bulkexports.operators import BulkExportsDeleteJobOperator
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

SID = "JS" + "0" * 32

TASKS = {
    "create": create(),
    "create deferrable": create(deferrable=True),
    "delete": BulkExportsDeleteJobOperator(task_id="delete", job_sid=SID),
    "job sensor": BulkExportsJobSensor(task_id="wait", job_sid=SID),
    "days sensor": BulkExportsDaysSensor(
        task_id="wait", resource_type="Calls", start_day="2026-01-05", end_day="2026-01-05"
    ),
}


@pytest.mark.parametrize("name", list(TASKS))
def test_a_wrong_token_is_one_line_and_one_request(sandbox, monkeypatch, name):
    """The line names the connection and Twilio's code; nobody tries the token again."""
    wrong = connection(sandbox, password="not-the-token")
    monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", wrong)
    with pytest.raises(AirflowFailException) as caught:
        run_task(TASKS[name])
    text = str(caught.value)

    assert text.startswith(f"Connection '{CONNECTION}': Twilio refused its credentials.")
    assert "20003" in text
    assert "\n" not in text
    assert "not-the-token" not in text
    assert caught.value.__suppress_context__
    assert sum(sandbox.ledger()["requests"].values()) == 1


def test_a_gone_job_is_explained(sandbox):
    """A 404 says that finished jobs are listed for 7 days, and what to do."""
    with pytest.raises(AirflowFailException) as caught:
        run_task(TASKS["job sensor"])

    assert f"Twilio knows no job {SID}: finished jobs are listed for 7 days" in str(caught.value)
    assert "20404" in str(caught.value)
    assert requests_of(sandbox, FETCH) == 1


def test_a_refusal_has_twilios_code_page_and_request(sandbox):
    """What Twilio refuses is told with what its support asks for, and is not repeated."""
    fault = {"route": "create_job", "kind": "status", "status": 400, "message": "No such thing"}
    sandbox.add_fault(fault)
    with pytest.raises(AirflowFailException) as caught:
        run_task(create())
    text = str(caught.value)

    assert "POST /v1/Exports/Messages/Jobs: HTTP 400, Twilio's code 20001: No such thing." in text
    assert "https://www.twilio.com/docs/errors/20001" in text
    assert "Request RQ" in text
    assert requests_of(sandbox, POST) == 1


def test_a_foreign_job_under_our_name_is_not_adopted(sandbox):
    """A job that bears the key but exports other days is a mistake, not a match."""
    from airflow_provider_bulkexports.api.client import Client
    from airflow_provider_bulkexports.api.request import ExportRequest

    run_task(create(wait_for_completion=False))
    (job,) = sandbox.ledger()["jobs"]
    impostor = ExportRequest.parse(
        resource_type="Messages",
        start_day="2026-02-01",
        end_day="2026-02-01",
        friendly_name=job["friendly_name"],
    )
    with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
        client.create_job(impostor)
    with pytest.raises(AirflowFailException, match="bears the key"):
        run_task(create())


def test_text_from_outside_cannot_forge_a_line(sandbox):
    """A message of the service with line breaks or colours is shown escaped."""
    fault = {"route": "create_job", "kind": "status", "status": 400}
    sandbox.add_fault(fault | {"message": "bad\n[INFO] all is well\x1b[31m"})
    with pytest.raises(AirflowFailException) as caught:
        run_task(create())

    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_an_outage_leaves_the_task_its_retries(sandbox, one_try):
    """What time may mend is an ordinary failure, so Airflow tries again."""
    sandbox.add_fault({"route": "list_jobs", "kind": "status", "status": 503})
    with pytest.raises(AirflowException) as caught:
        run_task(create())

    assert type(caught.value) is AirflowException
    assert requests_of(sandbox, LISTING) == 1
