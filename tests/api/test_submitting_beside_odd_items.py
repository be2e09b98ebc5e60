"""What a listing has besides jobs stops a submission only where it may be its own job."""

from __future__ import annotations

import pytest

from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.request import Reattach

ODD = [
    {"start_day": "2026-01-013"},
    {"start_day": "2026-01-01T00:00:00Z"},
    {"details": {"status": "Running"}},
    {"details": [{"status": "Running", "count": "3", "days": None}]},
    {"resource_type": "Faxes"},
    {"job_sid": "7"},
]


def odd_item(name, fields):
    return {"job_sid": "JS" + "f" * 32, "friendly_name": name} | fields


@pytest.mark.parametrize("fields", ODD, ids=str)
def test_an_odd_item_of_somebody_else_stops_nothing(service, submission_for, caplog, fields):
    """What Twilio lists of others need not make sense to us: one warning, and one job."""
    service.fault("list_jobs", "odd_item", item=odd_item("people_gave_this", fields), times=-1)
    assert [service.submit(submission_for()).job.sid] == service.sids()
    assert "has 1 odd item, left out here" in caplog.text
    assert "Could not look for a second job" not in caplog.text


@pytest.mark.parametrize("fields", ODD, ids=str)
@pytest.mark.parametrize("cycle", [0, 1])
def test_an_odd_item_with_our_key_stops_a_submission(service, submission_for, fields, cycle):
    """It may be the job that was lost, so nothing is created beside it."""
    name = f"daily_export_{submission_for(cycle=cycle).key}"
    service.fault("list_jobs", "odd_item", item=odd_item(name, fields))
    with pytest.raises(BulkExportsError, match="cannot be read, so that nothing is created"):
        service.submit(submission_for())
    assert service.asked("create_job") == 0


@pytest.mark.parametrize(
    "item",
    [odd_item(7, ODD[0]), odd_item("", ODD[0]), {"start_day": 7}, None, [], "JS", 7],
    ids=str,
)
def test_an_odd_item_without_a_readable_name_stops_a_submission(service, submission_for, item):
    """It may be anybody's, so it may be ours."""
    service.fault("list_jobs", "odd_item", item=item)
    with pytest.raises(BulkExportsError, match="may be this export's"):
        service.submit(submission_for())
    assert service.asked("create_job") == 0


FORGED = "x\n[2026-01-05] INFO - All is well\x1b[2J\x1b[31m\r\u202e"


def test_a_name_that_others_gave_cannot_forge_the_log(service, client, submission_for, caplog):
    """Line ends, terminal codes and marks that turn text around are written as escapes."""
    caplog.set_level("INFO")
    job = client.create_job(submission_for().request)
    service.fault("list_jobs", "odd_item", job_sid=job.sid, fields={"friendly_name": FORGED})
    submitted = service.submit(submission_for(reattach=Reattach.RANGE))
    assert (submitted.job.sid, submitted.job.friendly_name) == (job.sid, FORGED)
    assert "x\\n[2026-01-05] INFO - All is well\\x1b[2J\\x1b[31m\\r\\u202e" in caplog.text
    assert all(record.message.isprintable() for record in caplog.records)


@pytest.mark.parametrize("field", ["start_day", "resource_type", "details"])
def test_an_odd_item_cannot_forge_the_log_either(service, submission_for, caplog, field):
    """What is wrong with an item is said in escapes too."""
    item = odd_item(FORGED, {field: [{"count": FORGED}] if field == "details" else FORGED})
    service.fault("list_jobs", "odd_item", item=item, times=-1)
    service.submit(submission_for())
    assert "left out here" in caplog.text
    assert all(record.message.isprintable() for record in caplog.records)
