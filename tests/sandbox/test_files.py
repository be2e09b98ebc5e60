import gzip
import json

import pytest
import requests

from airflow_provider_bulkexports.api.request import ResourceType

WEEK = 7 * 86_400
FIELDS = {
    "Messages": {"sid": str, "num_segments": int, "body": str, "flags": int, "start": str},
    "Calls": {"sid": str, "duration": int, "start_time": str, "price_unit": str},
    "Conferences": {"sid": str, "region": str, "reason_conference_ended": str},
    "Participants": {"call_sid": str, "conference_sid": str, "muted": bool, "hold": bool},
}


def rows(answer):
    return [json.loads(line) for line in gzip.decompress(answer.content).decode().split("\n")[:-1]]


@pytest.mark.parametrize("kind", [str(kind) for kind in ResourceType])
def test_a_file_holds_records_of_its_type(client, kind):
    """A day's file is gzip with one JSON object a line, fields typed as Twilio's are."""
    client.create(kind)
    answer = client.file(kind=kind)
    records = rows(answer)
    assert len(records) == 20
    assert "Content-Encoding" not in answer.headers
    for name, expected in FIELDS[kind].items():
        assert all(type(record[name]) is expected for record in records)
    assert {record["account_sid"] for record in records} == {client.sandbox.account_sid}
    assert all(record["date_created"].startswith("2026-01-01T") for record in records)
    assert len({json.dumps(record) for record in records}) == 20


def test_numbers_are_fictitious(client):
    """Every telephone number begins with +1555."""
    client.create()
    assert all(row["from"].startswith("+1555") for row in rows(client.file()))


def test_the_same_seed_gives_the_same_bytes(start):
    """Files depend on seed, type and day, not on the run; another seed differs."""
    files = []
    for seed in (1, 1, 2):
        client = start(seed=seed)
        client.create()
        files.append(client.file().content)
    assert files[0] == files[1] != files[2]


def test_size_is_the_real_size(client):
    """The Days list tells the compressed size of each file."""
    client.create()
    listed = client.get("/v1/Exports/Messages/Days").json()["days"][0]
    answer = client.file()
    assert listed["size"] == len(answer.content) == int(answer.headers["Content-Length"])


def test_a_large_file_is_streamed_in_parts(start):
    """A file beyond the cache is made twice and comes out the same and whole."""
    client = start(records=25_000)
    client.create("Conferences")
    assert client.get("/v1/Exports/Conferences/Days").json()["days"][0]["size"] > 1024 * 1024
    assert len(rows(client.file(kind="Conferences"))) == 25_000


def test_repeated_rows(start):
    """Rows may come twice when asked for."""
    client = start(repeated_rows=3)
    client.create()
    sids = [row["sid"] for row in rows(client.file())]
    assert (len(sids), len(set(sids))) == (23, 20)


def test_fetching_a_day_redirects(client):
    """A day answers 307 with the same signed link in the body and in Location."""
    client.create()
    answer = client.get("/v1/Exports/Messages/Days/2026-01-01")
    assert answer.status_code == 307
    assert answer.json() == {"redirect_to": answer.headers["Location"]}
    assert answer.headers["Location"].startswith(f"{client.sandbox.url}/_files/")
    assert "X-Amz-Signature=" in answer.headers["Location"]


def test_a_link_is_good_for_one_use(client):
    """The second use of a link answers 403 in the bucket's XML, as does a made-up link."""
    client.create()
    link = client.link()
    assert requests.get(link, timeout=5).status_code == 200
    for url in (link, link + "0"):
        answer = requests.get(url, timeout=5)
        assert answer.status_code == 403
        assert answer.text.startswith("<?xml")
    assert "Twilio-Request-Id" not in answer.headers


def test_a_link_lives_for_four_minutes(client):
    """A link that is older than 240 seconds answers 403."""
    client.create()
    link = client.link()
    client.sandbox.advance(241)
    assert requests.get(link, timeout=5).status_code == 403


def test_credentials_spoil_a_download_but_not_the_link(client):
    """A request that carries Authorization to the bucket answers 400 InvalidArgument."""
    client.create()
    link = client.link()
    answer = requests.get(link, auth=client.auth, timeout=5)
    assert answer.status_code == 400
    assert "InvalidArgument" in answer.text
    assert requests.get(link, timeout=5).status_code == 200


def test_a_file_lives_for_seven_days(client):
    """Seven days after it was made a file is neither listed nor fetched."""
    client.create()
    client.sandbox.advance(WEEK + 1)
    assert client.get("/v1/Exports/Messages/Days").json()["days"] == []
    assert client.get("/v1/Exports/Messages/Days/2026-01-01").status_code == 404


@pytest.mark.parametrize("day", ["2026-01-02", "tomorrow"])
def test_a_day_without_a_file(client, day):
    """A day that was not exported answers 404."""
    client.create()
    answer = client.get(f"/v1/Exports/Messages/Days/{day}")
    assert (answer.status_code, answer.json()["code"]) == (404, 20404)


def test_a_day_exported_twice_is_served_from_the_later_job(start):
    """The newest file of a day is the one that counts, and it is listed once."""
    client = start(job_seconds=10)
    client.create(FriendlyName="first")
    client.sandbox.advance(20)
    client.create(FriendlyName="second")
    client.sandbox.advance(20)
    days = client.get("/v1/Exports/Messages/Days").json()["days"]
    assert [day["friendly_name"] for day in days] == ["second"]


def test_file_lag(start):
    """A file may be late although its day is complete."""
    client = start(file_lag=30)
    sid = client.create().json()["job_sid"]
    assert client.details(sid) == {"Completed": 1}
    assert client.get("/v1/Exports/Messages/Days/2026-01-01").status_code == 404
    client.sandbox.advance(31)
    assert client.get("/v1/Exports/Messages/Days/2026-01-01").status_code == 307


def test_some_days_are_empty(start):
    """About one day in twenty has no records; which ones is decided by the seed."""
    found = []
    for _ in range(2):
        client = start(empty_every=20)
        sid = client.create(StartDay="2025-01-01", EndDay="2025-12-31").json()["job_sid"]
        details = client.get(f"/v1/Exports/Jobs/{sid}").json()["details"]
        found.append({group["status"]: group["days"] for group in details})
    assert found[0] == found[1]
    assert 8 <= len(found[0]["CompletedEmptyRecords"]) <= 35


@pytest.mark.parametrize(
    ("how", "listed", "status", "content"),
    [
        ("absent", 0, 404, None),
        ("not_found", 1, 404, None),
        ("zero_bytes", 1, 307, b""),
        ("empty_gzip", 1, 307, b"gzip"),
    ],
)
def test_empty_days_have_four_faces(client, how, listed, status, content):
    """An empty day may be unlisted, listed without a file, of no bytes, or gzip of nothing."""
    client.sandbox.add_fault({"route": "create_job", "kind": "empty_day", "how": how})
    sid = client.create().json()["job_sid"]
    assert client.details(sid) == {"CompletedEmptyRecords": 1}
    assert len(client.get("/v1/Exports/Messages/Days").json()["days"]) == listed
    assert client.get("/v1/Exports/Messages/Days/2026-01-01").status_code == status
    if content is not None:
        got = client.file().content
        assert got == b"" if content == b"" else gzip.decompress(got) == b""


def test_a_file_of_no_bytes_is_complete(client):
    """The ledger says that all of a file without bytes was served."""
    client.sandbox.add_fault({"kind": "empty_day", "how": "zero_bytes"})
    client.create()
    assert client.file().content == b""
    (download,) = client.sandbox.ledger()["downloads"]
    assert (download["bytes"], download["complete"]) == (0, True)
