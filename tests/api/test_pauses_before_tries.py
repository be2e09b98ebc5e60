"""How long a call that failed waits before its next try."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.retry import backoff, retry_after_seconds

NOW = pendulum.datetime(2026, 1, 10, 12)


@given(st.integers(1, 500), st.none() | st.floats(0, 1e6))
def test_backoff_doubles_with_jitter_and_never_undercuts_the_advice(tries, advice):
    """Waits go 1, 2, 4 to 32 seconds, a quarter more or less, or as long as the service asked."""
    base = min(2.0 ** (tries - 1), 32.0)
    wait = backoff(tries, advice)
    assert wait >= (advice or 0)
    assert 0.75 * base <= wait <= max(1.25 * base, advice or 0)


@given(st.integers(0, 999_999_999), st.sampled_from(["{}", " {}", "{} ", "00{}"]))
def test_retry_after_in_seconds_is_read(value, form):
    """A number of seconds is taken as it stands."""
    text = form.format(value)
    if len(text.strip()) <= 9:
        assert retry_after_seconds(text, NOW) == value


@given(st.integers(-100_000, 100_000))
def test_retry_after_as_a_date_is_read(offset):
    """A date is the time until then, and nothing if it is past."""
    moment = datetime.fromtimestamp(NOW.timestamp() + offset, UTC)
    header = format_datetime(moment, usegmt=True)
    assert retry_after_seconds(header, NOW) == max(0, offset)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("header", ["Sat Jan 10 12:01:00 2026", "Sat, 10 Jan 2026 12:01:00 -0000"])
def test_a_date_without_a_zone_is_gmt_wherever_the_worker_is(monkeypatch, zone, header):
    """HTTP dates are GMT, so the worker's own time zone does not count."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after_seconds(header, NOW) == 60
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    st.none()
    | st.text(max_size=60)
    | st.builds(
        "{}, {} {} {} {}:{}:00 {}".format,
        st.sampled_from(["Sat", "Xyz", ""]),
        st.integers(0, 40),
        st.sampled_from(["Jan", "Foo", "13"]),
        st.integers(-1, 99_999),
        st.integers(0, 30),
        st.integers(0, 70),
        st.sampled_from(["GMT", "+0000", "-9999", "+99999999", "", "?"]),
    )
)
def test_any_other_retry_after_is_no_advice(header):
    """Nonsense is ignored; what is understood is never negative."""
    advice = retry_after_seconds(header, NOW)
    assert advice is None or advice >= 0
