"""Files that are whole and are not what was asked for: nothing of them is stored."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from day_transfers import day, range_of, snapshot
from in_process import TaskInstance, context_of

from airflow_provider_bulkexports.compat import AirflowException, AirflowFailException

RECORDS = 200
ANOTHER = "AC" + "0e" * 16
REFUSED = {
    "other_day": "has records of 2025-12-0",
    "other_account": ANOTHER,
    "other_type": "",
    "hello": "",
    "html": "",
    "blank_lines": "",
}


@pytest.fixture(params=["raw", "parquet"])
def output_format(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="needs airflow-provider-bulkexports[parquet]")
    return request.param


def stored_parts(transfers):
    return [path.name for path in transfers.storage.rglob("*") if path.name.startswith("part-")]


def serve(transfers, records, **fields):
    """Serve these records in the place of every day file."""
    text = "".join(json.dumps(record) + "\n" for record in records).encode()
    content = base64.b64encode(gzip.compress(text)).decode()
    transfers.fault("other_file", base64=content, times=-1, **fields)


@pytest.mark.parametrize("resource_type", ["Messages", "Calls", "Conferences", "Participants"])
@pytest.mark.parametrize("what", REFUSED)
def test_contents_of_something_else_are_refused(
    start_transfers, what, resource_type, output_format
):
    """Another day's, account's or type's records, and what are no records, are never published."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(2, resource_type)
    transfers.fault("other_contents", what=what, times=-1)
    with pytest.raises(AirflowException, match="2 of 2 days") as caught:
        transfers.transfer(job, output_format=output_format)

    assert not isinstance(caught.value, AirflowFailException), "Twilio may mend it"
    assert REFUSED[what] in str(caught.value)
    assert day(0) in str(caught.value)
    assert stored_parts(transfers) == []
    assert transfers.missing(2, resource_type) == [0, 1]


def test_a_stored_day_survives_a_file_of_something_else(start_transfers, output_format):
    """What stands is not replaced by what would have been refused."""
    transfers = start_transfers(records=RECORDS)
    transfers.transfer(transfers.export(1), output_format=output_format)
    stored = snapshot(transfers.storage)
    newer = transfers.export(1)
    transfers.fault("other_contents", what="other_day", times=-1)
    with pytest.raises(AirflowException, match="1 of 1 days"):
        transfers.transfer(newer, output_format=output_format, allow_fewer_records=True)

    assert snapshot(transfers.storage) == stored


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("day", day(7), day(7)),
        ("type", "Calls", "Calls of"),
        ("account", ANOTHER, ANOTHER),
    ],
)
def test_a_link_to_something_else_is_refused(transfers, part, value, named):
    """The path of a link says whose file of which day it is, and is believed."""
    job = transfers.export(1)
    transfers.fault("link_path", "fetch_day", parts={part: value}, times=-1)
    with pytest.raises(AirflowException, match="1 of 1 days") as caught:
        transfers.transfer(job)

    assert named in str(caught.value)
    assert "X-Amz" not in str(caught.value)
    assert stored_parts(transfers) == []


def test_a_link_of_another_shape_says_nothing(transfers):
    """Twilio may change its paths; the list's date is then when the day was exported."""
    job = transfers.export(1)
    transfers.fault("link_path", "fetch_day", parts={"created_time": "yesterday"}, times=-1)
    transfers.transfer(job)

    assert transfers.content(0) == transfers.served(0)
    assert transfers.manifest(0)["exported_at"].endswith("T00:00:00+00:00")


def test_records_of_the_day_before_are_kept_with_a_warning(start_transfers, output_format, caplog):
    """Which time of a call decides its day is not documented, so a neighbour is no mistake yet."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(1, "Calls")
    transfers.fault("other_contents", what="neighbour_day", times=-1)
    transfers.transfer(job, output_format=output_format)

    assert transfers.missing(1, "Calls") == []
    assert "none of its own day" in caplog.text


def test_messages_of_the_day_before_are_refused(start_transfers, output_format):
    """A message says in its start to which day it belongs."""
    transfers = start_transfers(records=RECORDS)
    job = transfers.export(1)
    transfers.fault("other_contents", what="neighbour_day", times=-1)
    with pytest.raises(AirflowException, match="has records of 2025-12-31"):
        transfers.transfer(job, output_format=output_format)

    assert stored_parts(transfers) == []


def test_a_first_line_that_is_too_deep_is_no_crash(start_transfers, output_format):
    """A line that cannot be read says nothing; the others speak for the file."""
    transfers = start_transfers(records=RECORDS)
    transfers.fault("job_contents", "create_job", what="deep_line")
    results = transfers.transfer(transfers.export(1), output_format=output_format)

    rejected = int(output_format == "parquet")
    assert (results[0]["records"], results[0]["rejected"]) == (RECORDS + 1 - rejected, rejected)
    assert transfers.missing(1) == []


def test_a_day_with_only_malformed_records_fails(start_transfers):
    """Instants as mails write them make every record malformed, and the day is not stored."""
    pytest.importorskip("pyarrow")
    transfers = start_transfers(records=5)
    transfers.fault("job_contents", "create_job", what="rfc2822")
    job = transfers.export(1)
    with pytest.raises(AirflowException, match="all 5 records are malformed"):
        transfers.transfer(job, output_format="parquet", max_rejected=1.0)

    assert stored_parts(transfers) == []
    assert transfers.missing(1) == [0]


def records_of(transfers, good, malformed):
    """Return records, the last ones without a readable instant."""
    fields = {"account_sid": transfers.sandbox.account_sid, "start": day(0)}
    instants = [f"{day(0)}T08:00:00Z"] * good + ["Thu, 01 Jan 2026 08:00:00 +0000"] * malformed
    return [
        fields | {"sid": f"SM{number:032x}", "date_created": instant}
        for number, instant in enumerate(instants)
    ]


@pytest.mark.parametrize(
    ("good", "malformed", "options", "is_stored"),
    [
        (5, 10, {}, True),
        (5, 11, {}, False),
        (990, 10, {}, True),
        (1386, 14, {}, True),
        (1385, 15, {}, False),
        (50, 50, {"max_rejected": 0.5}, True),
        (49, 51, {"max_rejected": 0.5}, False),
        (99, 11, {"max_rejected": 0}, False),
    ],
)
def test_a_day_fails_with_too_many_malformed_records(
    transfers, good, malformed, options, is_stored
):
    """More than ten, and more than the share that is allowed, is not one day's odd records."""
    pytest.importorskip("pyarrow")
    job = transfers.export(1)
    serve(transfers, records_of(transfers, good, malformed))
    task = transfers.task(job, output_format="parquet", **options)
    if not is_stored:
        with pytest.raises(AirflowException, match=rf"{malformed} of {good + malformed} records"):
            task.execute(context_of(TaskInstance()))
        assert stored_parts(transfers) == []
        return
    (result,) = task.execute(context_of(TaskInstance()))
    assert (result["records"], result["rejected"]) == (good, malformed)
    assert transfers.manifest(0)["rejected"] == malformed


def test_malformed_records_are_counted_where_people_look(transfers, caplog):
    """In the log, in the XCom and in the event; the records themselves lie beside the day."""

    class Event:
        extra = None

    pytest.importorskip("pyarrow")
    job = transfers.export(1)
    serve(transfers, records_of(transfers, 20, 3))
    task = transfers.task(job, output_format="parquet")
    task.outlets, event = ["outlet"], Event()
    (result,) = task.execute(context_of(TaskInstance()) | {"outlet_events": {"outlet": event}})

    assert (result["records"], result["rejected"]) == (20, 3)
    assert (event.extra["rejected"], event.extra["days"][0]["rejected"]) == (3, 3)
    assert "3 of 23 records are malformed" in caplog.text
    (aside,) = transfers.folder(0).glob("_rejected-*.json")
    assert len(aside.read_text().splitlines()) == 3
    assert aside.name in [file["name"] for file in transfers.manifest(0)["files"]]


def test_an_api_key_learns_its_account_from_the_first_file(start_transfers, monkeypatch):
    """With a key nothing says whose days they are but the records; another's are refused then."""
    transfers = start_transfers(records=RECORDS)
    key = "SK" + "c" * 32
    transfers.sandbox.add_key(key, "secret")
    monkeypatch.setenv(
        "AIRFLOW_CONN_BULKEXPORTS_DEFAULT",
        transfers.sandbox.connection(login=key, password="secret"),
    )
    transfers.export(3)
    transfers.transfer(**range_of(1))
    archive = json.loads((transfers.storage / "Messages/_archive.json").read_text())
    assert archive["account_sid"] == transfers.sandbox.account_sid
    transfers.fault("other_contents", what="other_account", times=-1)
    with pytest.raises(AirflowException, match=rf"{ANOTHER}.*not of {archive['account_sid']}"):
        transfers.transfer(**range_of(2))

    assert transfers.missing(3) == [1, 2]
