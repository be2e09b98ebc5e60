"""The fast way gives the rows that a plain reading, a line at a time, gives."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import event, given, settings
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.storage.columns import SCHEMAS
from airflow_provider_bulkexports.storage.tables import Converter, Part

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[T ]([0-9]{2})"
    r"(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?)?"
    r"(?:Z|([+-])([0-9]{2}):?([0-9]{2})?)"
)


class Written(str):
    """A number as written."""

    __slots__ = ()


def once(pairs):
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError
    return record


def number(value, places, digits):
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        raise ValueError
    if abs(int(re.split("[eE]", value)[1] if re.search("[eE]", value) else 0)) > 1000:
        raise ValueError
    scaled = Fraction(value.replace("+", "", value.startswith("+"))) * 10**places
    if scaled.denominator != 1 or abs(scaled) >= 10**digits:
        raise ValueError
    return scaled.numerator


def instant(value):
    match = INSTANT.fullmatch(value) if type(value) is str else None
    if not match or value.endswith(":"):
        raise ValueError
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    at = datetime(
        *map(int, (year, month, day, hour, minute or 0, second or 0)),
        int((fraction or "").ljust(6, "0")),
        tzinfo=UTC,
    )
    hours, minutes = int(hours or 0), int(minutes or 0)
    if hours > 23 or minutes > 59:
        raise ValueError
    offset = timedelta(hours=hours, minutes=minutes)
    return at + offset if sign == "-" else at - offset


def typed(kind, value):
    """Return a value of a column, by the simplest means."""
    if kind == "int64":
        whole = number(value, 0, 19)
        if not -(2**63) <= whole < 2**63:
            raise ValueError
        return whole
    if kind.startswith("decimal"):
        return Decimal(number(value, 6, 18)).scaleb(-6)
    if kind.startswith("timestamp"):
        return instant(value)
    if kind.startswith("date"):
        if type(value) is not str or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError
        return date(*map(int, value.split("-")))
    if not isinstance(value, bool if kind == "bool" else str):
        raise ValueError  # noqa: TRY004
    return value if kind == "bool" else str(value)


def plain(value):
    """Return an unknown value with its numbers as they are written, but for minus nothing."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return ("number", "0" if value == "-0" else str(value)) if isinstance(value, Written) else value


def loads(text):
    return json.loads(
        text,
        object_pairs_hook=once,
        parse_int=Written,
        parse_float=Written,
        parse_constant=lambda _: 1 / 0,
    )


def reference(text, kind):
    """Return the rows and the numbers of the refused lines."""
    rows, refused = [], []
    lines = text.split(b"\n")
    for count, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            record = loads(line.decode())
            json.dumps(record, ensure_ascii=False).encode()
            row = dict.fromkeys(SCHEMAS[kind])
            extra = {}
            for name, value in record.items():
                if name in row:
                    is_nothing = value is None or (value == "" and SCHEMAS[kind][name] != "string")
                    row[name] = None if is_nothing else typed(SCHEMAS[kind][name], value)
                elif value is not None:
                    extra[name] = plain(value)
            rows.append(row | {"_extra": extra or None})
        except (ValueError, AttributeError, ArithmeticError):
            refused.append(count)
    return rows, refused


def read_back(row):
    return row | {"_extra": row["_extra"] and plain(loads(row["_extra"]))}


digits = st.text("0123456789", min_size=1, max_size=22)
numbers = st.one_of(
    st.integers(-(2**64), 2**64).map(str),
    st.decimals(-(10**13), 10**13, places=7).map(str),
    st.builds("{}{}.{}".format, st.sampled_from(["", "-"]), st.just("0"), digits),
    st.builds("{}e{}".format, st.integers(-99, 99), st.integers(-25, 25)),
    st.sampled_from(["-0", "0.0", "1.0", "1E0", "0e50", "-0.00750"]),
)
moments = st.one_of(
    st.datetimes(timezones=st.just(UTC)).map(
        lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)
    ),
    st.builds(
        "{:04d}-{:02d}-{:02d}{}{:02d}{}{}{}".format,
        st.sampled_from([0, 1, 2026, 9999]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.sampled_from("T t"),
        st.integers(0, 24),
        st.sampled_from(["", ":00", ":59:59", ":60", ":5", ":00:60", ":00:00"]),
        st.sampled_from(["", ".", ".1", ".123456", ".1234567"]),
        st.sampled_from(
            ["", "Z", "z", "+00:00", "-1030", "+23:59", "+24:00", "+05", "+02:60", "+5", "+05:"]
        ),
    ),
    st.sampled_from(["2020-01-013T00:00:00Z", "2026-01-05", "Sun, 26 Jul 2020 22:21:20 +0000"]),
)
texts = st.one_of(
    st.text(max_size=8), st.sampled_from(["", " 1", "1_0", "+1", ".5", "1.", "\0", "١", "NaN"])
)
strings = st.one_of(numbers, moments, texts).map(json.dumps)
scalars = st.one_of(strings, numbers, st.sampled_from(["null", "true", "false"]))
odd = st.sampled_from(
    ["NaN", "[]", "{}", '[1,{"a":2.50}]', "01", "+1", "1.", '"\\ud800"', "-Infinity"]
)


def fitting(kind):
    """Return values that mostly fit a column, so that many records are right."""
    right = {
        "int64": st.integers(-(2**63), 2**63 - 1).map(str),
        "bool": st.sampled_from(["true", "false"]),
        "string": st.text(max_size=8).map(json.dumps),
        "decimal128(18, 6)": st.decimals(-(10**11), 10**11, places=6).map(lambda at: f'"{at}"'),
        "timestamp[us, tz=UTC]": st.datetimes(datetime(2000, 1, 1)).map(  # noqa: DTZ001
            lambda at: at.strftime('"%Y-%m-%dT%H:%M:%SZ"')
        ),
        "date32[day]": st.dates().map(lambda day: f'"{day}"'),
    }[kind]
    return st.one_of(*[right] * 12, st.sampled_from(["null", '""']), scalars, odd)


@st.composite
def day_texts(draw):
    """Return a resource type and the text of a day, some of it malformed."""
    kind = draw(st.sampled_from(list(ResourceType)))
    columns = SCHEMAS[kind]
    lines = []
    for _ in range(draw(st.integers(0, 12))):
        names = draw(st.lists(st.sampled_from(list(columns)), max_size=4, unique=True))
        fields = [f'"{name}":{draw(fitting(columns[name]))}' for name in names]
        if draw(st.integers(0, 3)) == 0:
            name = draw(
                st.sampled_from(["new", "_extra", "", "n\\u0000", names[0] if names else "é"])
            )
            fields.append(f'"{name}":{draw(st.one_of(scalars, odd))}')
        line = ("{" + ",".join(fields) + "}").encode()
        if draw(st.integers(0, 9)) == 0:
            line = draw(
                st.sampled_from(
                    [
                        b"",
                        b" ",
                        line[:-1],
                        line + line,
                        line + b"\r",
                        b"\xff" + line,
                        line[:-2] + b"\xe9}",
                        line.replace(b",", b",\n"),
                        b"{" + line,
                    ]
                )
            )
        lines.append(line)
    return kind, b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"])), lines


NEW_VALUES = {
    "text": st.text(max_size=8).map(json.dumps),
    "plain text": st.sampled_from("abc").map(lambda text: f'"{text}"'),
    "escapes": st.sampled_from(
        ['"\\u00e9\\/"', '"\\n\\t\\b\\u001f"', '"\\\\"', '"\\"n0\\":1.5"', '"\x7f"']
    ),
    "integers": st.integers(-(2**63), 2**63 - 1).map(str),
    "numbers": numbers,
    "prices": st.decimals(-9, 9, places=4).map(str),
    "truth": st.sampled_from(["true", "false"]),
    "nothing": st.just("null"),
    "numbers in text": numbers.map(json.dumps),
    "mixed": scalars,
    "nested": st.sampled_from(['{"b":1.50,"a":[null,"\\u00e9"]}', "[]", "[[2e5]]"]),
}
NEW_NAMES = ["n0", "Z", "é", 'q"', "\\", "n\0", "from_", "", "_extra"]


@st.composite
def days_with_new_fields(draw):
    """Return the text of a day whose new fields mostly have one type each."""
    names = draw(st.lists(st.sampled_from(NEW_NAMES), min_size=1, max_size=6, unique=True))
    types = {name: draw(st.sampled_from(list(NEW_VALUES))) for name in names}
    is_ascii, colon = draw(st.booleans()), draw(st.sampled_from([":", ": "]))
    lines = []
    for number in range(draw(st.integers(1, 25))):
        fields = [f'"sid":"{number}"']
        for name in names:
            if draw(st.integers(0, 4)):
                value = draw(NEW_VALUES[types[name]]) if draw(st.integers(0, 30)) else "null"
                fields.append(f"{json.dumps(name, ensure_ascii=is_ascii)}{colon}{value}")
        lines.append(("{" + ",".join(fields) + "}\n").encode())
    return b"".join(lines)


@settings(max_examples=200, deadline=None)
@given(days_with_new_fields(), st.sampled_from([60, 400, 100_000]))
def test_new_fields_are_kept_to_the_letter(shared_folder, text, block_bytes):
    """_extra has names sorted, numbers as written, nulls left out, whichever way a line is read."""
    rows, refused = reference(text, ResourceType.MESSAGES)
    outcome = shared_folder.convert(text, block_bytes=block_bytes)
    assert [read_back(row) for row in outcome.rows] == rows
    assert len(outcome.refused) == len(refused)
    # A single block is read a line at a time, since its new fields are not known before.
    singly = shared_folder.convert(text, block_bytes=10**6)
    texts = [row["_extra"] for row in outcome.rows]
    assert texts == [row["_extra"] for row in singly.rows]
    assert all(list(loads(text)) == sorted(loads(text)) for text in texts if text)


@settings(max_examples=200, deadline=None)
@given(days_with_new_fields())
def test_the_fast_way_gives_the_text_of_the_exact_one(engine, text):
    """Where pyarrow reads new fields at all, it gives what reading the same lines singly gives."""
    converter = Converter(ResourceType.MESSAGES)
    lines, singly = text.splitlines(), Part()
    converter._merge(lines, set(range(len(lines))), None, singly)
    fast = Part()
    if not converter._read_at_once(memoryview(text), fast):
        types = {type(value) for line in lines for value in loads(line.decode()).values()}
        event(f"not read by pyarrow: {sorted(kind.__name__ for kind in types)}")
    else:
        event("read by pyarrow")
        rows = [[row for table in part.tables for row in table.to_pylist()]
                for part in (fast, singly)]  # fmt: skip
        assert rows[0] == rows[1]


@settings(max_examples=150, deadline=None)
@given(day_texts(), st.sampled_from([40, 300, 100_000]), st.integers(1, 5))
def test_rows_and_refusals_are_those_of_a_plain_reading(shared_folder, day, block_bytes, group):
    """Whatever a day holds, each line is a right row or a refused line, as read one by one."""
    kind, text, _ = day
    rows, refused = reference(text, kind)
    outcome = shared_folder.convert(text, kind, block_bytes=block_bytes, row_group_rows=group)
    assert [read_back(row) for row in outcome.rows] == rows
    assert [entry["line"] for entry in outcome.refused] == refused
    assert outcome.result.records + outcome.result.rejected == len(rows) + len(refused)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_one_value_is_read_alike_by_both_ways(shared_folder, data):
    """A single odd value is accepted or refused, and typed, as the plain reading says."""
    kind = data.draw(st.sampled_from(list(ResourceType)))
    name = data.draw(st.sampled_from(list(SCHEMAS[kind])))
    value = data.draw(st.one_of(moments.map(json.dumps), numbers, strings, scalars, odd))
    text = f'{{"{name}":{value}}}\n'.encode()
    rows, refused = reference(text, kind)
    outcome = shared_folder.convert(text, kind)
    assert [read_back(row) for row in outcome.rows] == rows
    assert [entry["line"] for entry in outcome.refused] == refused
