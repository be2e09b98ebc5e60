from __future__ import annotations

import logging
import traceback

import pytest
from day_downloads import exported

from airflow_provider_bulkexports.api.errors import BulkExportsError

SECRETS = ("X-Amz-Signature=", "X-Amz-Credential", "X-Amz-Security-Token", "canary")
HERE = "http://127.0.0.1:1/x?X-Amz-Signature=canary"

WAYS_TO_FAIL = [
    {"kind": "truncate"},
    {"kind": "truncate", "bytes": 5, "reset": True},
    {"kind": "corrupt"},
    {"kind": "bad_json"},
    {"kind": "status", "status": 403, "message": f"AccessDenied: {HERE}"},
    {"kind": "status", "status": 404, "message": f"NoSuchKey: {HERE}"},
    {"kind": "status", "status": 503, "message": HERE},
    {"kind": "status", "status": 307},
    {"kind": "drop_before"},
    {"kind": "drop_after", "reset": True},
    {"kind": "redirect", "url": HERE},
    {"kind": "redirect", "url": "https://evil.example/?X-Amz-Signature=canary"},
    {"kind": "redirect", "url": "http://localhost:99999/?X-Amz-Signature=canary"},
    {"kind": "redirect", "url": "http://[::1/?X-Amz-Signature=canary"},
]


def everything_said_by(error: BaseException | None) -> str:
    """Return an error with all that it is chained to, also where that is not shown."""
    said = ""
    while error is not None:
        said += "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize("fault", WAYS_TO_FAIL, ids=str)
def test_no_failure_tells_the_link(fault, caplog):
    """Neither an error, what it is chained to, nor any log at DEBUG holds a signed link."""
    with exported() as day:
        route = "fetch_day" if fault["kind"] == "redirect" else "download"
        day.fault(route=route, times=-1, **fault)
        with caplog.at_level(logging.DEBUG), pytest.raises(BulkExportsError) as caught:
            day.fetch()
    said = everything_said_by(caught.value) + caplog.text
    assert [secret for secret in SECRETS if secret in said] == []


def test_a_log_of_everything_does_not_tell_the_link(caplog):
    """At DEBUG urllib3 logs each address; the download's is there without its signature."""
    with exported() as day, caplog.at_level(logging.DEBUG):
        day.fetch()
    assert "part-00000.json.gz?***" in caplog.text
    assert [secret for secret in SECRETS if secret in caplog.text] == []


def test_other_addresses_are_logged_as_ever(caplog):
    """What urllib3 logs about other requests is left alone."""
    with exported() as day, caplog.at_level(logging.DEBUG):
        assert day.listed_size
    assert "/v1/Exports/Messages/Days?PageSize=30" in caplog.text
