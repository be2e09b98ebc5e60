"""Errors as a user meets them in a task's log."""

from __future__ import annotations

import pytest
from in_process import (
    CONNECTION,
    LISTING,
    POST,
    TaskInstance,
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
    "create": create,
    "create deferrable": lambda: create(deferrable=True),
    "delete": lambda: BulkExportsDeleteJobOperator(task_id="delete", job_sid=SID),
    "job sensor": lambda: BulkExportsJobSensor(task_id="wait", job_sid=SID, poke_interval=0.1),
    "days sensor": lambda: BulkExportsDaysSensor(
        task_id="wait",
        resource_type="Calls",
        start_day="2026-01-05",
        end_day="2026-01-05",
        poke_interval=0.1,
    ),
}


@pytest.mark.parametrize("name", list(TASKS))
def test_a_wrong_token_is_one_line_and_may_be_tried_again(sandbox, monkeypatch, name):
    """The line names the connection and Twilio's code; a token may be being rotated."""
    wrong = connection(sandbox, password="not-the-token")
    monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", wrong)
    with pytest.raises(AirflowException) as caught:
        run_task(TASKS[name]())
    text = str(caught.value)

    assert not isinstance(caught.value, AirflowFailException)
    assert text.startswith(f"Connection '{CONNECTION}': Twilio refused its credentials")
    assert "20003" in text
    assert "\n" not in text
    assert "not-the-token" not in text
    assert sandbox.jobs() == []


def test_a_token_that_is_rotated_stops_nobody(sandbox):
    """Refused at submit, the credentials are tried again twice before the try fails."""
    sandbox.add_fault({"route": "*", "kind": "status", "status": 401, "times": 2})

    assert run_task(create()) == sandbox.jobs()[0]["job_sid"]


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
    """A job that has the key but exports other days is a mistake, not a match."""
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
    with pytest.raises(AirflowFailException, match="has the key"):
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


def test_a_foreign_name_cannot_forge_a_line(sandbox, capsys, caplog):
    """Another job's name is escaped where a task says that it adopts the job."""
    caplog.set_level("INFO")
    sid = run_task(create())
    forged = {"friendly_name": "x\n[INFO] all is well\x1b[31m"}
    sandbox.add_fault({"route": "list_jobs", "kind": "odd_item", "fields": forged, "times": -1})
    guest = create(reattach="range", task_id="guest")

    assert run_task(guest, TaskInstance(task_id="guest")) == sid
    assert "\x1b" not in caplog.text + capsys.readouterr().out
    assert "Adopting job" in caplog.text
