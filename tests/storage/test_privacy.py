"""Columns left out or hashed, and that nothing of them gets out by another way."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import logging
import traceback

import pytest

from airflow_provider_bulkexports.api.errors import BadData, InvalidRequest
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.storage.columns import Privacy, schema_of

SECRET = b"a secret of a connection"
CANARIES = {name: f"+1555{number:07d}" for number, name in enumerate(["from", "to", "body"], 4711)}
OTHERS = [f"+1555{number:07d}" for number in range(8000, 8010)]
"""Numbers in places where no column is."""


def messages():
    """Return the text of a day with numbers in each column and wherever else a line has text."""
    good = {
        "sid": "SM1",
        "account_sid": "AC1",
        "status": "sent",
        "date_sent": "2026-01-05T00:00:00Z",
    }
    lines = [json.dumps(good | CANARIES).encode()] * 3
    lines += [json.dumps(good | {"from": "", "to": None}).encode()]
    lines += [json.dumps(good | CANARIES | {"caller": OTHERS[0]}).encode()]
    lines += [json.dumps(good | {"new": {OTHERS[1]: [OTHERS[2]]}}).encode()]
    malformed = [
        f'{{"date_sent":"{OTHERS[3]}","from":"{CANARIES["from"]}"}}'.encode(),
        f'{{"num_media":"tel:{OTHERS[4]}"}}'.encode(),
        f'{{"price":"tel:{OTHERS[5]}"}}'.encode(),
        f'{{"{OTHERS[6]}":1,"{OTHERS[6]}":2}}'.encode(),
        OTHERS[7].encode(),
        b'{"body":"\xff' + OTHERS[8].encode() + b'"}',
        b'{"body":"' + OTHERS[9].encode() + b"x" * (17 * 2**20) + b'"}',
    ]
    return b"\n".join([*lines, *malformed, b""]), len(lines), len(malformed)


def everything_in(path):
    """Return a file's bytes, and what is in each of its zstd frames: statistics and pages."""
    import pyarrow as pa

    raw = path.read_bytes()
    found = [gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw]
    begin = raw.find(b"\x28\xb5\x2f\xfd")
    while begin >= 0:
        stream = pa.CompressedInputStream(pa.BufferReader(raw[begin:]), "zstd")
        try:
            while block := stream.read(1):
                found.append(block)
        except OSError:
            pass
        begin = raw.find(b"\x28\xb5\x2f\xfd", begin + 1)
    return found[0], b"".join(found[1:])


def digits(number):
    return number.removeprefix("+1").encode()


def test_no_hidden_number_is_in_any_written_file(folder):
    """Neither pages nor statistics nor the side file have one, but have all without the option."""
    text, records, rejected = messages()
    hidden = Privacy.parse(ResourceType.MESSAGES, ["body"], ["from", "to"], SECRET)
    numbers = [*map(digits, CANARIES.values()), *map(digits, OTHERS)]

    outcome = folder.convert(text, privacy=hidden)
    assert (outcome.result.records, outcome.result.rejected) == (records, rejected)
    for path in (outcome.target, outcome.rejected):
        raw, pages = everything_in(path)
        assert [number for number in numbers if number in raw + pages] == []
    assert all(entry.keys() == {"line", "column", "reason"} for entry in outcome.refused)
    columns = [entry["column"] for entry in outcome.refused]
    assert columns == ["date_sent", "num_media", "price", None, None, None, None]

    control = folder.convert(text)
    raw, pages = everything_in(control.target)
    assert all(digits(number) in raw and digits(number) in pages for number in CANARIES.values())
    assert all(digits(number) in pages for number in OTHERS[:3])
    side = control.rejected.read_bytes() + b"".join(
        base64.b64decode(entry.get("record_base64", "")) for entry in control.refused
    )
    assert all(digits(number) in side for number in OTHERS[3:])


def test_statistics_are_those_of_what_is_stored(folder):
    """A dropped column has no minimum; a hashed one has hashes."""
    from pyarrow import parquet

    hidden = Privacy.parse(ResourceType.MESSAGES, ["body"], ["from"], SECRET)
    outcome = folder.convert_records(*[{"from": number, "body": number} for number in OTHERS],
                                     privacy=hidden)  # fmt: skip
    group = parquet.ParquetFile(outcome.target).metadata.row_group(0)
    found = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    hashes = [hmac.digest(SECRET, number.encode(), "sha256").hex() for number in OTHERS]
    assert "body" not in found
    assert (found["from"].statistics.min, found["from"].statistics.max) == (
        min(hashes),
        max(hashes),
    )


def test_hashes_join_messages_and_calls(folder):
    """One number is one hash in every type and column, over any number of blocks."""
    number = OTHERS[0]
    expected = hmac.new(SECRET, number.encode(), hashlib.sha256).hexdigest()
    hidden = Privacy.parse(ResourceType.MESSAGES, [], ["to"], SECRET)
    rows = folder.convert_records(
        *[{"to": number}, {"to": ""}, {"to": None}, {"to": "é"}] * 50,
        privacy=hidden,
        block_bytes=99,
    ).rows
    accented = hmac.new(SECRET, "é".encode(), hashlib.sha256).hexdigest()
    assert [row["to"] for row in rows] == [expected, "", None, accented] * 50
    calls = Privacy.parse(ResourceType.CALLS, [], ["from", "from_formatted"], SECRET)
    (row,) = folder.convert_records({"from": number}, kind=ResourceType.CALLS, privacy=calls).rows
    assert row["from"] == expected
    assert calls.key_id == hidden.key_id
    # A short code that comes as a number is hashed as its text.
    (row,) = folder.convert(b'{"to":72345}\n', privacy=hidden).rows
    assert row["to"] == hmac.new(SECRET, b"72345", hashlib.sha256).hexdigest()


@pytest.mark.parametrize("kind", list(ResourceType))
def test_the_schema_is_known_before_any_day(folder, kind):
    """Whatever is dropped and hashed, the schema that is told is the one that is written."""
    strings = [name for name, type_ in schema_of(kind)[:-1] if type_ == "string"]
    hidden = Privacy.parse(kind, strings[::2] + strings[1:2], strings[3::2], SECRET)
    told = schema_of(kind, hidden)
    outcome = folder.convert(b"{}\n", kind, privacy=hidden)
    assert outcome.result.schema == told
    assert [(f.name, str(f.type)) for f in outcome.table.schema] == list(told)
    assert "_extra" not in dict(told)
    assert set(dict(schema_of(kind))) - set(dict(told)) == {*hidden.drop, "_extra"}


def test_evidence_is_taken_before_columns_are_hidden(folder):
    """Whoever looks at the tables sees the records as Twilio sent them, in their order."""
    hidden = Privacy.parse(ResourceType.MESSAGES, ["account_sid"], ["sid"], SECRET)
    seen = []
    folder.convert_records(
        *({"sid": f"SM{number}", "account_sid": "AC1"} for number in range(100)),
        privacy=hidden,
        look=lambda table: seen.extend(table.select(["sid", "account_sid"]).to_pylist()),
        block_bytes=300,
    )
    assert seen == [{"sid": f"SM{number}", "account_sid": "AC1"} for number in range(100)]


def test_an_error_and_the_log_name_no_value(folder, caplog):
    """A file that breaks off after a malformed record tells nothing of the record."""
    caplog.set_level(logging.DEBUG)
    text, _, _ = messages()
    hidden = Privacy.parse(ResourceType.MESSAGES, ["body"], ["from", "to"], SECRET)
    with pytest.raises(BadData) as raised:
        folder.convert_file(gzip.compress(text)[:-9], privacy=hidden, block_bytes=500)
    told = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert not [number for number in [*CANARIES.values(), *OTHERS] if number[2:] in told]
    assert [path.name for path in folder.source.parent.iterdir()] == [folder.source.name]


WRONG = {
    "an unknown column": (ResourceType.MESSAGES, ["fro"], [], SECRET, ["fro", "account_sid"]),
    "a number": (ResourceType.MESSAGES, ["num_media"], [], SECRET, ["num_media", "body"]),
    "an instant": (ResourceType.CALLS, [], ["start_time"], SECRET, ["start_time"]),
    "the column of new fields": (ResourceType.MESSAGES, ["_extra"], [], SECRET, ["_extra"]),
    "a column in both": (
        ResourceType.MESSAGES,
        ["to"],
        ["to"],
        SECRET,
        ["to", "drop_columns and in hash_columns"],
    ),
    "a call's number as text": (ResourceType.CALLS, ["to"], [], SECRET, ["to_formatted"]),
    "a call's numbers as text": (
        ResourceType.CALLS,
        ["to"],
        ["from"],
        SECRET,
        ["from_formatted, to_formatted"],
    ),
    "no secret": (ResourceType.MESSAGES, [], ["to"], None, ["hash_secret"]),
    "an empty secret": (ResourceType.MESSAGES, [], ["to"], b"", ["hash_secret"]),
    "a bare name": (ResourceType.MESSAGES, "to", [], SECRET, ["list"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_option_that_would_not_hide_is_refused(name):
    """What cannot be done, or would leave the text elsewhere, is refused with the names."""
    kind, drop, hashed, secret, words = WRONG[name]
    with pytest.raises(InvalidRequest) as raised:
        Privacy.parse(kind, drop, hashed, secret)
    assert all(word in str(raised.value) for word in words)
    assert SECRET.decode() not in str(raised.value)


def test_one_choice_of_columns_serves_all_types():
    """Each type takes what it has; one that has none of them is stored as it is."""
    numbers = ["from", "from_formatted", "to", "to_formatted"]
    found = {kind: Privacy.parse(kind, ["body"], numbers, SECRET) for kind in ResourceType}
    assert found[ResourceType.MESSAGES].drop == ("body",)
    assert found[ResourceType.MESSAGES].hash == ("from", "to")
    assert set(found[ResourceType.CALLS].hash) == set(numbers)
    assert found[ResourceType.CALLS].key_id == found[ResourceType.MESSAGES].key_id
    assert found[ResourceType.CONFERENCES] is found[ResourceType.PARTICIPANTS] is None


def test_options_are_one_value_however_they_are_written():
    """Order and repetition do not make another archive; the secret is in no representation."""
    kind = ResourceType.CALLS
    one = Privacy.parse(kind, ["to_formatted", "to"], ["from", "from_formatted"], SECRET)
    two = Privacy.parse(kind, ("to", "to_formatted", "to"), {"from_formatted", "from"}, SECRET)
    assert one == two
    assert SECRET.decode() not in repr(one)
    assert Privacy.parse(kind, [], [], SECRET) is None
    dropped = Privacy.parse(kind, ["status"], [], SECRET)
    assert (dropped.key_id, dropped.secret) == (None, b"")


def test_the_key_id_tells_secrets_apart():
    """It has eight digits, is the same for each type, and is not the beginning of a hash."""
    ids = {
        secret: Privacy.parse(ResourceType.MESSAGES, [], ["to"], secret).key_id
        for secret in (SECRET, SECRET + b"2")
    }
    assert len(set(ids.values())) == 2
    assert all(len(key_id) == 8 and int(key_id, 16) >= 0 for key_id in ids.values())
    assert not hashlib.sha256(SECRET).hexdigest().startswith(ids[SECRET])
