"""A field that Twilio adds costs about what reading its text costs."""

import time
from datetime import date

import pytest

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.sandbox.records import FileKey, records

KEY = FileKey("AC" + "0" * 32, ResourceType.MESSAGES, date(2026, 1, 5))
MANY = {f"new_{number}": number + 0.5 for number in range(20)} | {
    f"text_{number}": f"value {number}" for number in range(50)
}


@pytest.fixture(scope="module")
def plain():
    return list(records(7, KEY, 20_000))


def cpu_seconds(folder, messages):
    """Return the least CPU time of three conversions, all threads together."""
    outcome = folder.convert_records(*messages)
    assert outcome.result.records == len(messages)
    taken = []
    for _ in range(3):
        began = time.process_time()
        folder.convert_file(folder.source.read_bytes())
        taken.append(time.process_time() - began)
    return min(taken)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"carrier": "carrier"}, 4),
        ({"fee": 0.075}, 8),
        ({"lat": -0.075, "lon": None, "count": 7, "ok": True}, 8),
        (MANY, 28),
    ],
    ids=["one of text", "one decimal", "a few of all types", "seventy"],
)
def test_new_fields_do_not_stop_the_fast_way(folder, plain, fields, most):
    """Against the same messages without them: a record a line at a time would cost far more."""
    with_fields = cpu_seconds(folder, [message | fields for message in plain])
    assert with_fields < most * cpu_seconds(folder, plain)
