import base64
import gzip
import re
import time
import zlib

import pytest
import requests

from airflow_provider_bulkexports.sandbox.clock import Clock
from airflow_provider_bulkexports.sandbox.faults.book import FaultBook
from airflow_provider_bulkexports.sandbox.faults.catalogue import KINDS, list_faults
from airflow_provider_bulkexports.sandbox.faults.fault import argument_name
from airflow_provider_bulkexports.sandbox.server import Sandbox

LOST = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


def test_drop_before_does_nothing_and_answers_nothing(client):
    """The connection ends without an answer and without a job; the next request is served."""
    client.sandbox.add_fault({"route": "create_job", "kind": "drop_before"})
    with pytest.raises(requests.ConnectionError):
        client.create()
    assert client.sandbox.ledger()["jobs"] == []
    assert client.create().status_code == 201
    assert client.sandbox.ledger()["requests"] == {"create_job": 2}


@pytest.mark.parametrize("reset", [False, True])
def test_drop_after_acts_and_answers_nothing(client, reset):
    """The connection ends without an answer, but the job is there and charged."""
    client.sandbox.add_fault({"route": "create_job", "kind": "drop_after", "reset": reset})
    with pytest.raises(requests.ConnectionError, match="reset" if reset else "without response"):
        client.create()
    ledger = client.sandbox.ledger()
    assert len(ledger["jobs"]) == ledger["charged_days"] == 1


@pytest.mark.parametrize(("kind", "jobs"), [("status", 0), ("status_after", 1)])
def test_status_before_and_after_acting(client, kind, jobs):
    """A status may be answered instead of acting, or in spite of it."""
    client.sandbox.add_fault(
        {"route": "create_job", "kind": kind, "status": 429, "retry_after": 7, "message": "slow"}
    )
    answer = client.create()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert (answer.json()["code"], answer.json()["message"]) == (20429, "slow")
    assert len(client.sandbox.ledger()["jobs"]) == jobs


def test_without_retry_after_there_is_none(client):
    """A status has no Retry-After unless told to."""
    client.sandbox.add_fault({"route": "*", "kind": "status", "status": 503, "code": 1})
    answer = client.get("/v1/Exports/Calls")
    assert (answer.status_code, answer.json()["code"]) == (503, 1)
    assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("kind", ["delay", "delay_after"])
def test_a_client_that_gave_up_is_served_all_the_same(client, kind):
    """An answer that comes too late for the client does not undo the job."""
    client.sandbox.add_fault({"route": "create_job", "kind": kind, "seconds": 0.4})
    form = {"StartDay": "2026-01-01", "EndDay": "2026-01-01", "FriendlyName": "x"}
    with pytest.raises(requests.ReadTimeout):
        client.call("POST", "/v1/Exports/Messages/Jobs", data=form, timeout=0.1)
    client.session.close()
    assert len(client.sandbox.ledger()["jobs"]) == (1 if kind == "delay_after" else 0)
    time.sleep(0.5)
    assert len(client.sandbox.ledger()["jobs"]) == 1


def test_truncate_promises_more_than_it_sends(client):
    """A download may end early although its Content-Length says otherwise."""
    client.create()
    client.sandbox.add_fault({"route": "download", "kind": "truncate", "bytes": 100})
    answer = requests.get(client.link(), stream=True, timeout=5)
    promised = int(answer.headers["Content-Length"])
    with pytest.raises(LOST, match=r"IncompleteRead|broken"):
        answer.content  # noqa: B018 - reading is what fails
    (download,) = client.sandbox.ledger()["downloads"]
    assert (download["bytes"], download["complete"]) == (100, False)
    assert promised > 100


def test_truncate_fits_json_too(client):
    """An answer of the API may be cut as well."""
    client.sandbox.add_fault({"route": "list_jobs", "kind": "truncate", "reset": True})
    with pytest.raises(LOST):
        client.get("/v1/Exports/Messages/Jobs")


def test_corrupt_flips_one_bit(client):
    """A corrupt download has its right length and a wrong checksum."""
    client.create()
    whole = client.file().content
    client.sandbox.add_fault({"route": "download", "kind": "corrupt", "at": 50})
    corrupt = client.file().content
    assert [at for at in range(len(whole)) if whole[at] != corrupt[at]] == [50]
    with pytest.raises((zlib.error, gzip.BadGzipFile, EOFError)):
        gzip.decompress(corrupt)


def test_bad_json_is_a_page_with_status_200(client):
    """A proxy's page may come instead of JSON, after the service has acted."""
    client.sandbox.add_fault({"route": "create_job", "kind": "bad_json"})
    answer = client.create()
    assert (answer.status_code, answer.text[:6]) == (200, "<html>")
    assert len(client.sandbox.ledger()["jobs"]) == 1


def test_wrong_type_is_a_list(client):
    """Valid JSON of the wrong type may come."""
    client.sandbox.add_fault({"route": "fetch_export", "kind": "wrong_type"})
    assert client.get("/v1/Exports/Calls").json() == []


def test_loop_page_points_to_itself(client):
    """The next page may be this page again."""
    client.create()
    client.sandbox.add_fault({"route": "list_jobs", "kind": "loop_page"})
    meta = client.get("/v1/Exports/Messages/Jobs?PageSize=5").json()["meta"]
    assert meta["next_page_url"] == meta["url"]


def test_evil_page_and_redirect_point_elsewhere(client):
    """Next pages and links may lead to another host."""
    client.create()
    for route, kind in (("list_days", "evil_page"), ("fetch_day", "redirect")):
        client.sandbox.add_fault({"route": route, "kind": kind, "url": "https://evil.example/"})
    meta = client.get("/v1/Exports/Messages/Days").json()["meta"]
    assert meta["next_page_url"] == "https://evil.example/"
    answer = client.get("/v1/Exports/Messages/Days/2026-01-01")
    assert answer.headers["Location"] == answer.json()["redirect_to"] == "https://evil.example/"


def test_details_may_have_unknown_words_and_null_days(client):
    """An answer may use a word nobody knows, or not list the days, and the next be right."""
    sid = client.create().json()["job_sid"]
    path = f"/v1/Exports/Jobs/{sid}"
    client.sandbox.add_fault({"route": "fetch_job", "kind": "status_word", "word": "Resting"})
    client.sandbox.add_fault({"route": "*", "kind": "null_days"})
    assert client.get(path).json()["details"] == [{"status": "Resting", "count": 1, "days": None}]
    assert client.get(path).json()["details"][0]["days"] == ["2026-01-01"]


def test_an_outcome_sticks_to_the_job(client):
    """Some days of the next job may fail; the job after it is well."""
    client.sandbox.add_fault(
        {"route": "create_job", "kind": "job_outcome", "outcome": "Failed", "days": ["2026-01-02"]}
    )
    sid = client.create(EndDay="2026-01-03").json()["job_sid"]
    assert client.details(sid) == {"Completed": 2, "Failed": 1}
    assert client.get("/v1/Exports/Messages/Days/2026-01-02").status_code == 404
    assert client.sandbox.ledger()["jobs"][0]["state"] == "failed"
    assert client.details(client.create().json()["job_sid"]) == {"Completed": 1}


def test_an_outcome_may_be_a_walk(start):
    """A day may err, run again and complete, one word after the other."""
    client = start(job_seconds=100)
    walk = ["ErrorDuringRun", "Running", "Completed"]
    client.sandbox.add_fault({"kind": "job_outcome", "outcome": walk})
    sid = client.create().json()["job_sid"]
    seen = []
    for _ in range(11):
        seen += [word for word in client.details(sid) if word not in seen]
        client.sandbox.advance(10)
    assert seen == ["Submitted", *walk]


def test_a_job_may_never_end(client):
    """A walk that ends in a word that is not final leaves the job there for good."""
    client.sandbox.add_fault({"kind": "job_outcome", "outcome": "ErrorDuringRun"})
    sid = client.create().json()["job_sid"]
    client.sandbox.advance(30 * 86_400)
    assert client.details(sid) == {"ErrorDuringRun": 1}


def test_times_and_after(client):
    """A fault may let requests pass and strike several; two of a kind strike in turn."""
    client.sandbox.add_fault({"kind": "status", "status": 500, "times": 2, "after": 1})
    client.sandbox.add_fault({"kind": "status", "status": 503, "after": 1})
    got = [client.get("/v1/Exports/Calls").status_code for _ in range(5)]
    assert got == [200, 500, 500, 503, 200]
    client.sandbox.add_fault({"kind": "status", "status": 500, "times": -1})
    assert [client.get("/v1/Exports/Calls").status_code for _ in range(3)] == [500] * 3
    client.sandbox.clear_faults()
    assert client.get("/v1/Exports/Calls").status_code == 200


def test_faults_over_http(client):
    """Faults can be added, seen and cleared over HTTP; a wrong list adds none."""
    good = {"route": "create_job", "kind": "drop_after"}
    assert client.call("POST", "/_sandbox/faults", json=[good]).status_code == 201
    assert client.get("/_sandbox/faults").json() == [good | {"times": 1, "after": 0}]
    assert client.call("POST", "/_sandbox/faults", json=[good, {"kind": "x"}]).status_code == 400
    assert len(client.get("/_sandbox/faults").json()) == 1
    assert client.call("DELETE", "/_sandbox/faults").status_code == 204
    assert client.get("/_sandbox/faults").json() == []


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("drop", "a fault is a JSON object, not str"),
        ({}, "unknown kind None; there are delay, drop_before"),
        ({"kind": "list_jobs"}, "unknown kind 'list_jobs'"),
        ({"kind": "delay"}, "delay needs seconds"),
        (
            {"kind": "delay", "seconds": "2"},
            "seconds of delay is a number of seconds from 0, not '2'",
        ),
        ({"kind": "delay", "seconds": float("nan")}, "not nan"),
        ({"kind": "delay", "seconds": True}, "not True"),
        ({"kind": "drop_after", "seconds": 2}, "drop_after has no argument seconds; it has reset"),
        ({"kind": "loop_page", "url": "x"}, "has no argument url; it has none of its own"),
        (
            {"kind": "redirect", "route": "list_jobs", "url": "x"},
            "redirect does not fit route 'list_jobs'; it fits fetch_day",
        ),
        ({"kind": "status", "status": 503, "route": "nowhere"}, "does not fit route 'nowhere'"),
        ({"kind": "drop_after", "times": -2}, "times is a whole number from 0, or -1 for ever"),
        ({"kind": "drop_after", "after": 0.5}, "after is a whole number from 0, not 0.5"),
        ({"kind": "drop_after", "lasting": 0}, "lasting is a number of seconds above 0, not 0"),
        ({"kind": "status", "status": 7}, "status of status is an HTTP status from 200 to 599"),
        ({"kind": "empty_day", "how": "maybe"}, "how of empty_day is one of 'absent'"),
        ({"kind": "empty_day", "days": ["2026-1-1"]}, "days of empty_day is a list of days"),
        ({"kind": "job_outcome", "outcome": []}, "outcome of job_outcome is a status word, or"),
        ({"kind": "other_file", "base64": "?"}, "base64 of other_file is base64"),
        ({"kind": "other_file", "base64": "", "headers": {"X": 1}}, "is an object of texts"),
        ({"kind": "twice", "seconds": 1, "answer": "second"}, "goes with seconds 0 only"),
        ({"kind": "lag"}, "lag needs seconds, omit, or both"),
        ({"kind": "lag", "omit": 2}, "omit of lag is a share from 0 to 1"),
        ({"kind": "odd_item"}, "odd_item needs either item or fields"),
        ({"kind": "odd_item", "item": 1, "fields": {}}, "odd_item needs either item or fields"),
        (
            {"kind": "odd_item", "fields": {}, "job_sid": "JS"},
            "goes with fields and route list_jobs",
        ),
        ({"kind": "date"}, "date needs either skew or value"),
        ({"kind": "trickle", "from": "tail"}, "from of trickle is one of 'head', 'body'"),
        ({"kind": "bomb", "route": "download"}, "bomb does not fit route 'download'"),
    ],
    ids=str,
)
def test_a_misspelt_fault_is_refused(item, reason):
    """A fault that could never strike is an error that says what is allowed."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        FaultBook(Clock(), [item])


def test_every_kind_has_a_test():
    """Each kind of fault is named in a test of this directory."""
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [kind for kind in KINDS if f'"{kind}"' not in text] == []


def test_the_list_of_faults_comes_from_their_classes():
    """Every kind is listed with its routes, and every argument with what it may be."""
    listed = list_faults()
    for kind, fault in KINDS.items():
        assert f"- `{kind}`: " in listed
        assert all(f"  - `{argument_name(item)}`: " in listed for item in fault.arguments())
    assert "- `trickle`: Sends `bytes` bytes, waits `seconds`" in listed
    assert "  - `from`: one of 'head', 'body'; \"body\" if left out" in listed


def test_one_of_a_kind_strikes_a_request_and_one_takes_its_place(client):
    """Two pauses of a kind strike in turn; so do two faults that both replace the answer."""
    for seconds in (0.1, 0.3):
        client.sandbox.add_fault({"kind": "delay", "seconds": seconds})
    client.sandbox.add_fault({"kind": "drop_after", "after": 1})
    client.sandbox.add_fault({"kind": "bad_json", "after": 1})
    started = time.monotonic()
    client.get("/v1/Exports/Calls")
    assert 0.1 <= time.monotonic() - started < 0.3
    with pytest.raises(requests.ConnectionError):
        client.get("/v1/Exports/Calls")
    assert time.monotonic() - started >= 0.4
    assert client.get("/v1/Exports/Calls").text.startswith("<html>")


def test_faults_may_be_there_from_the_start():
    """A sandbox can be started with faults."""
    with Sandbox(faults=[{"kind": "status", "status": 503}]) as sandbox:
        assert requests.get(f"{sandbox.url}/v1/Exports/Calls", timeout=5).status_code == 503


@pytest.mark.parametrize("no_length", [False, True])
def test_other_file(client, no_length):
    """Another file may come in the place of a day's own, also without saying how long it is."""
    client.create()
    content = base64.b64encode(b"not the file").decode()
    headers = {"Content-Encoding": "br"}
    client.sandbox.add_fault(
        {"kind": "other_file", "base64": content, "headers": headers, "no_length": no_length}
    )
    answer = requests.get(client.link(), timeout=5, stream=True)
    assert answer.raw.read(decode_content=False) == b"not the file"
    assert answer.headers["Content-Encoding"] == "br"
    assert ("Content-Length" in answer.headers) is not no_length
    assert client.file().content.startswith(b"\x1f\x8b")
    assert client.sandbox.ledger()["downloads"][0]["bytes"] == 12
