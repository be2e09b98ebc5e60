from __future__ import annotations

import gzip
import json
from urllib.parse import unquote, urlsplit

import pytest

from airflow_provider_bulkexports.sandbox.records import CONTENTS

TYPES = ["Messages", "Calls", "Conferences", "Participants"]


def lines(answer) -> list[str]:
    return gzip.decompress(answer.content).decode().splitlines()


def rows(answer) -> list[dict]:
    return [json.loads(line) for line in lines(answer)]


def served(client, what: str, kind: str = "Messages"):
    """Return a day's own file, and what comes once in its place."""
    client.create(kind)
    own = client.file(kind=kind)
    client.sandbox.add_fault({"kind": "other_contents", "what": what})
    other = client.file(kind=kind)
    assert client.file(kind=kind).content == own.content
    return own, other


@pytest.mark.parametrize("what", CONTENTS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_other_content_is_whole_gzip_and_differs(client, what, kind):
    """It comes once; the ledger has its bytes and its records, not those of the day's own."""
    own, other = served(client, what, kind)
    assert other.content != own.content
    download = client.sandbox.ledger()["downloads"][1]
    assert (download["bytes"], download["complete"]) == (len(other.content), True)
    records = [line for line in lines(other) if line.startswith("{") and "[[[" not in line]
    assert download["records"] == len(records)


@pytest.mark.parametrize(
    ("what", "day"), [("other_day", "2025-12-02"), ("neighbour_day", "2025-12-31")]
)
def test_another_days_records(client, what, day):
    """They are the same that an export of that day would have."""
    _, other = served(client, what)
    assert {row["start"] for row in rows(other)} == {day}
    client.create(StartDay=day, EndDay=day)
    assert client.file(day).content == other.content


@pytest.mark.parametrize(
    ("kind", "field", "prefix"),
    [
        ("Messages", "sid", "CA"),
        ("Calls", "sid", "SM"),
        ("Conferences", "conference_sid", "CF"),
        ("Participants", "sid", "CF"),
    ],
)
def test_another_types_records(client, kind, field, prefix):
    """Calls come for Messages, Participants for Conferences, and the other way round."""
    _, other = served(client, "other_type", kind)
    assert {row[field][:2] for row in rows(other)} == {prefix}


def test_another_accounts_records(client):
    """They are of the day, and of one other account."""
    _, other = served(client, "other_account")
    (account,) = {row["account_sid"] for row in rows(other)}
    assert account.startswith("AC")
    assert account != client.sandbox.account_sid
    assert {row["start"] for row in rows(other)} == {"2026-01-01"}


def test_records_before_twilio_updated_them(start):
    """Some are in an earlier state; as many, with the same sids."""
    own, other = map(rows, served(start(records=200), "early"))
    assert [row["sid"] for row in own] == [row["sid"] for row in other]
    changed = [(old, new) for old, new in zip(other, own, strict=True) if old != new]
    assert len(changed) == 25
    assert all(old["date_updated"] < new["date_updated"] for old, new in changed)


def test_fewer_records(client):
    """The first tenth of them."""
    own, other = map(rows, served(client, "fewer"))
    assert other == own[:2]


@pytest.mark.parametrize("kind", TYPES)
def test_instants_as_mails_have_them(client, kind):
    """No instant is as Twilio documents it, and each means the same."""
    _, other = served(client, "rfc2822", kind)
    for row in rows(other):
        assert row["date_created"].endswith(" Jan 2026 " + row["date_created"][-14:])
        assert row["date_created"].endswith(" +0000")


def test_empty_strings_instead_of_numbers_and_instants(client):
    """All but the instant of creation."""
    _, other = served(client, "empty_strings", "Calls")
    for row in rows(other):
        empty = {name for name, value in row.items() if value == ""}
        assert empty == {"date_updated", "start_time", "end_time", "duration", "price"}
        assert row["date_created"].startswith("2026-01-01T")


def test_a_deep_first_line(client):
    """It stands before the day's own lines."""
    own, other = served(client, "deep_line")
    assert lines(other)[1:] == lines(own)
    assert lines(other)[0] == '{"body":' + "[" * 3000 + "]" * 3000 + "}"


def test_no_records_at_all(client):
    """A word, a page, blank lines: each is proper gzip."""
    assert lines(served(client, "hello")[1]) == ["hello"]
    assert lines(served(client, "html")[1])[0].startswith("<html>")
    assert lines(served(client, "blank_lines")[1]) == [""] * 20


def test_a_jobs_files_may_have_other_contents(client):
    """They stay, are listed with their own size, and the job after it is well."""
    client.sandbox.add_fault(
        {"kind": "job_contents", "what": "other_account", "days": ["2026-01-02"]}
    )
    client.create(EndDay="2026-01-03")
    sizes = {
        item["day"]: item["size"] for item in client.get("/v1/Exports/Messages/Days").json()["days"]
    }
    for number in (1, 2, 2, 3):
        day = f"2026-01-0{number}"
        answer = client.file(day)
        assert sizes[day] == len(answer.content)
        own = {client.sandbox.account_sid} == {row["account_sid"] for row in rows(answer)}
        assert own is (number != 2)
    client.create(EndDay="2026-01-03")
    assert {row["account_sid"] for row in rows(client.file("2026-01-02"))} == {
        client.sandbox.account_sid
    }


def test_a_job_of_fewer_records_after_one_of_all(client):
    """The newer file has the first tenth of what the older had."""
    client.create()
    before = rows(client.file())
    client.sandbox.add_fault({"kind": "job_contents", "what": "fewer"})
    client.create()
    assert rows(client.file()) == before[:2]


def test_an_empty_day_stays_empty(client):
    """There is nothing in it that could be something else."""
    client.sandbox.add_fault({"kind": "empty_day", "how": "empty_gzip"})
    client.sandbox.add_fault({"kind": "job_contents", "what": "hello"})
    client.create()
    assert lines(client.file()) == []


def test_records_change_until_they_are_settled(start, days_ago):
    """A day that is exported too early has some records as they were; a later export has not."""
    client = start(settle_days=5, records=200)
    day = days_ago(2)
    client.create(StartDay=day, EndDay=day)
    early = rows(client.file(day))
    client.sandbox.advance(5 * 86_400)
    client.create(StartDay=day, EndDay=day)
    final = rows(client.file(day))
    assert [row["sid"] for row in early] == [row["sid"] for row in final]
    assert sum(old != new for old, new in zip(early, final, strict=True)) == 25


@pytest.mark.parametrize(
    ("parts", "changed"),
    [
        ({"day": "2020-02-02"}, "day=2026-01-01"),
        ({"type": "Calls"}, "type=Messages"),
        ({"account": "AC" + "0" * 32}, "account="),
        ({"created_time": "yesterday"}, "created_time="),
    ],
)
def test_a_links_path_may_say_something_else(client, parts, changed):
    """One part differs from the file's own path; the file that it leads to is the day's own."""
    client.create()
    own_link = client.link()
    client.sandbox.add_fault({"kind": "link_path", "parts": parts})
    answer = client.get("/v1/Exports/Messages/Days/2026-01-01")
    link = answer.headers["Location"]
    assert answer.json()["redirect_to"] == link
    before = unquote(urlsplit(own_link).path).split("/")
    after = unquote(urlsplit(link).path).split("/")
    differing = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    ((old, new),) = differing
    ((name, value),) = parts.items()
    assert old.startswith(changed)
    assert new == f"{name}={value}"
