"""What a day file's lines and typed records say of it, one rule at a time."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.api.signed_links import LinkFacts
from airflow_provider_bulkexports.storage.evidence import (
    SAMPLE_BYTES,
    Evidence,
    check_rejected,
)

DAY = date(2026, 1, 5)
ACCOUNT, ANOTHER = "AC" + "a" * 32, "AC" + "b" * 32
SIDS = {
    "Messages": ("sid", "SM"),
    "Calls": ("sid", "CA"),
    "Conferences": ("sid", "CF"),
    "Participants": ("conference_sid", "CF"),
}
DEEP = b'{"body":' + b"[" * 3000 + b"]" * 3000 + b"}"


def record(resource_type="Messages", **changes):
    name, prefix = SIDS[resource_type]
    fields = {
        name: prefix + "0" * 32,
        "account_sid": ACCOUNT,
        "date_created": "2026-01-05T12:00:00Z",
    }
    if resource_type == "Messages":
        fields["start"] = "2026-01-05"
    return fields | changes


def look_at_lines(resource_type, records, account_sid):
    evidence = Evidence(ResourceType(resource_type), DAY, account_sid)
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in records]
    evidence.look_at_lines(lines)
    evidence.conclude()
    return evidence


def look_at_tables(resource_type, records, account_sid):
    """Look at two tables, with the types that the writer gives the columns."""
    pa = pytest.importorskip("pyarrow")
    name, _ = SIDS[resource_type]
    evidence = Evidence(ResourceType(resource_type), DAY, account_sid)
    for some in (records[:1], records[1:]):
        columns = {
            column: pa.array([item.get(column) for item in some], pa.string())
            for column in (name, "account_sid")
        }
        moments = [item.get("date_created") for item in some]
        instants = [moment and datetime.fromisoformat(moment) for moment in moments]
        columns["date_created"] = pa.array(instants, pa.timestamp("us", "UTC"))
        days = [item.get("start") for item in some]
        columns["start"] = pa.array([d and date.fromisoformat(d) for d in days], pa.date32())
        evidence.look_at_table(pa.table(columns))
    evidence.conclude()
    return evidence


@pytest.fixture(params=["lines", "tables"])
def look(request):
    """Look at records as a raw file shows them, or as a Parquet file has them."""
    looks = {"lines": look_at_lines, "tables": look_at_tables}

    def look(resource_type, *records, account_sid=ACCOUNT):
        return looks[request.param](resource_type, list(records), account_sid)

    return look


@pytest.mark.parametrize("resource_type", SIDS)
def test_a_days_own_records_are_right(look, resource_type):
    """Nothing is said against what is as it should be."""
    look(resource_type, *[record(resource_type)] * 3)


def test_a_picture_message_is_a_message(look):
    """Messages have SIDs that begin with SM or MM."""
    look("Messages", record(sid="MM" + "0" * 32))


@pytest.mark.parametrize("resource_type", SIDS)
@pytest.mark.parametrize("prefix", ["CA", "SM", "CF", "XX", "S"])
def test_another_types_sid_is_refused(look, resource_type, prefix):
    """One record of another type is enough."""
    name, right = SIDS[resource_type]
    if prefix == right:
        return
    odd = record(resource_type, **{name: prefix + "0" * 32})
    with pytest.raises(BadData, match=f"must begin with {right}"):
        look(resource_type, record(resource_type), odd)


def test_records_without_the_types_sid_are_refused(look):
    """A participant has no SID of its own, a conference no conference_sid."""
    with pytest.raises(BadData, match="no record that was looked at has a sid"):
        look("Conferences", record("Conferences", sid=None), record("Conferences", sid=""))


def test_another_account_is_refused(look):
    """One record is enough, and both accounts are named."""
    with pytest.raises(BadData, match=f"{ANOTHER}.*{ACCOUNT}"):
        look("Calls", record("Calls"), record("Calls", account_sid=ANOTHER))


def test_an_unknown_account_is_learnt(look):
    """Without a known account the first record's counts, and must be every record's."""
    assert look("Calls", record("Calls"), account_sid=None).account_sid == ACCOUNT
    with pytest.raises(BadData, match=f"{ANOTHER}.*{ACCOUNT}"):
        look("Calls", record("Calls"), record("Calls", account_sid=ANOTHER), account_sid=None)
    with pytest.raises(BadData, match="which is none"):
        look("Calls", record("Calls", account_sid="me"), account_sid=None)


@pytest.mark.parametrize("nothing", [None, ""])
def test_what_a_record_does_not_say_is_no_objection(look, nothing):
    """Fields may be absent or empty in some records."""
    said = {"account_sid": nothing, "sid": nothing, "start": None, "date_created": None}
    look("Messages", record(), record(**said))


DAYS = [
    ("Messages", ["2026-01-05"], "right"),
    ("Messages", ["2026-01-04", "2026-01-05"], "right"),
    ("Messages", [None], "right"),
    ("Messages", [None, "2026-01-04"], "refused"),
    ("Messages", ["2026-01-06", "2026-01-04"], "refused"),
    ("Messages", ["2025-01-05"], "refused"),
    ("Calls", ["2026-01-05T00:00:00Z"], "right"),
    ("Calls", ["2026-01-05T23:59:59.999999Z", "2026-03-01T00:00:00Z"], "right"),
    ("Calls", ["2026-01-06T01:00:00+02:00"], "right"),
    ("Calls", ["2026-01-04T23:59:59Z"], "warned"),
    ("Calls", ["2026-01-06T00:00:00Z", "2025-01-05T00:00:00Z"], "warned"),
    ("Conferences", ["2026-01-06T12:00:00Z"], "warned"),
    ("Participants", ["2026-01-03T23:59:59Z"], "refused"),
    ("Participants", ["2026-01-07T00:00:00Z", "2025-01-05T00:00:00Z"], "refused"),
    ("Participants", [None, "2026-01-07T00:00:00Z"], "refused"),
]


@pytest.mark.parametrize(("resource_type", "days", "verdict"), DAYS)
def test_a_day_is_judged_by_all_records_looked_at(look, resource_type, days, verdict, caplog):
    """Another day's file has no record of its day; one next to it is only worth a warning."""
    field = "start" if resource_type == "Messages" else "date_created"
    records = [record(resource_type, **{field: day}) for day in days]
    if verdict == "refused":
        with pytest.raises(BadData, match="none of its own day"):
            look(resource_type, *records)
    else:
        look(resource_type, *records)
    assert ("none of its own day" in caplog.text) == (verdict == "warned")


@pytest.mark.parametrize(
    "lines",
    [[b"hello"], [b"<html>", b"</html>"], [b"\n", b"\n"], [b"[1]", b"2", b'"x"', b"null"]],
)
def test_lines_that_are_no_objects_are_no_export(lines):
    """A page, a word or blank lines are refused, whatever their gzip says."""
    with pytest.raises(BadData, match="no line that was looked at is a JSON object"):
        look_at_lines("Messages", lines, ACCOUNT)


@pytest.mark.parametrize(
    "lines",
    [
        [DEEP],
        [DEEP, record()],
        [b"hello", record()],
        [b'{"body":"' + b"x" * SAMPLE_BYTES],
        [b"\xff\xfe", record()],
    ],
)
def test_a_line_that_cannot_be_read_says_nothing(lines):
    """Too deep, cut or garbled lines neither raise nor speak against the others."""
    look_at_lines("Messages", lines, ACCOUNT)


@pytest.mark.parametrize("line", [b"[" * 3000, b"x" * SAMPLE_BYTES])
def test_a_line_that_does_not_begin_as_an_object_is_none(line):
    """What cannot be read counts as a record only if it begins as one."""
    with pytest.raises(BadData, match="no line that was looked at"):
        look_at_lines("Messages", [line], ACCOUNT)


@pytest.mark.parametrize(
    "changes",
    [
        {"day": date(2026, 1, 6)},
        {"resource_type": ResourceType.CALLS},
        {"account_sid": ANOTHER},
    ],
)
def test_a_link_that_names_something_else_is_refused(changes):
    """Its day, type and account must be those that were asked for."""
    right = {
        "resource_type": ResourceType.MESSAGES,
        "day": DAY,
        "account_sid": ACCOUNT,
        "created_time": datetime(2026, 1, 7, tzinfo=UTC),
    }
    evidence = Evidence(ResourceType.MESSAGES, DAY, ACCOUNT)
    evidence.look_at_link(LinkFacts(**right))
    evidence.look_at_link(None)
    with pytest.raises(BadData):
        evidence.look_at_link(LinkFacts(**right | changes))


@pytest.mark.parametrize(
    ("records", "rejected", "share", "is_right"),
    [
        (0, 0, 0.01, True),
        (0, 1, 1.0, False),
        (1, 10, 0.0, True),
        (1, 11, 0.0, False),
        (990, 10, 0.01, True),
        (2970, 30, 0.01, True),
        (2969, 31, 0.01, False),
        (1, 999, 1.0, True),
    ],
)
def test_malformed_records_are_allowed_up_to_a_share(records, rejected, share, is_right):
    """Ten always are, more only up to the share, all never."""
    if is_right:
        check_rejected(records, rejected, share)
    else:
        with pytest.raises(BadData, match="malformed"):
            check_rejected(records, rejected, share)
