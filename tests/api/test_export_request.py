"""What may be asked for, refused before any traffic where Twilio would refuse it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_bulkexports.api.calendar import (
    MAX_DAYS,
    days_between,
    parse_day,
    show_days,
    split_range,
)
from airflow_provider_bulkexports.api.errors import InvalidRequest, NotExportableYet
from airflow_provider_bulkexports.api.request import ExportRequest, ResourceType

usual_days = st.dates(date(2010, 1, 1), date(2100, 1, 1))


def request(start, end, **more):
    return ExportRequest(ResourceType.MESSAGES, start, end, "name", **more)


@given(st.dates())
def test_a_day_is_read_as_it_is_written(day):
    """Every day from year 1 to 9999 survives being written and read."""
    assert parse_day(day.isoformat(), "start_day") == day
    assert parse_day(day, "start_day") == day
    assert type(parse_day(pendulum.date(day.year, day.month, day.day), "start_day")) is date


@given(
    st.text(max_size=12)
    | st.builds(
        "{:04}{}{:02}-{:02}{}".format,
        st.integers(0, 9999),
        st.sampled_from(["-", "-", "-", ""]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.sampled_from(["", "", "", "\n", "T00"]),
    )
)
def test_only_real_days_are_read(text):
    """Text is a day only as YYYY-MM-DD, and only if the calendar has it."""
    try:
        day = parse_day(text, "end_day")
    except InvalidRequest as error:
        told = str(error)
        assert told.startswith("end_day is")
        assert told.isprintable()
    else:
        assert day.isoformat() == text


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-29",
        "2026-1-1",
        "20260101",
        "2026-01-01T00:00:00",
        "2026-01-01\n",
        "٢٠٢٦-٠١-٠١",
        "",
        None,
        20260101,
        datetime(2026, 1, 1, tzinfo=UTC),
        pendulum.datetime(2026, 1, 1),
    ],
)
def test_what_is_no_day_is_refused(value):
    """An instant has no day without a time zone, so only days are days."""
    with pytest.raises(InvalidRequest, match="give a UTC day as YYYY-MM-DD"):
        parse_day(value, "start_day")


@given(usual_days, st.integers(-400, 800))
def test_a_range_has_one_to_366_days(start, length):
    """A range is refused if reversed or longer than Twilio allows a day."""
    end = start + timedelta(days=length - 1)
    if 1 <= length <= MAX_DAYS:
        made = request(start, end)
        assert made.day_count == length == len(list(days_between(start, end)))
    else:
        with pytest.raises(InvalidRequest, match="reversed" if length < 1 else "at most 366"):
            request(start, end)


@given(usual_days, st.integers(1, 3000))
def test_a_long_range_is_cut_without_gap_or_overlap(start, length):
    """The parts of a range are its days, each once, in order, none too long."""
    end = start + timedelta(days=length - 1)
    parts = split_range(start, end)
    assert [day for part in parts for day in days_between(*part)] == list(days_between(start, end))
    assert all(request(*part).day_count <= MAX_DAYS for part in parts)
    assert len(parts) == -(-length // MAX_DAYS)


def test_a_range_can_be_cut_up_to_the_last_day_of_the_calendar():
    """A form's end of 9999-12-31 is a range like any other."""
    parts = split_range(date(9997, 1, 1), date.max)
    assert (parts[0][0], parts[-1][1]) == (date(9997, 1, 1), date.max)


def test_a_reversed_range_cannot_be_cut():
    """A reversed range has no parts."""
    with pytest.raises(InvalidRequest, match="Swap them"):
        split_range(date(2026, 1, 2), date(2026, 1, 1))


@given(st.lists(usual_days, max_size=60))
def test_days_are_shown_as_ranges(days):
    """A report of days holds each day once, as runs."""
    shown = set()
    for part in filter(None, show_days(days).split(", ")):
        first, _, last = part.partition(" to ")
        run = set(days_between(date.fromisoformat(first), date.fromisoformat(last or first)))
        assert not run & shown
        shown |= run
    assert shown == set(days)


@given(
    st.dates(date(2020, 1, 1), date(2090, 1, 1)),
    st.datetimes(datetime(2020, 1, 1), datetime(2090, 1, 1)),  # noqa: DTZ001
    st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati"]),
)
def test_a_day_can_be_exported_two_utc_days_later(day, moment, zone):
    """The worker's time zone makes no difference to which days can be exported."""
    now = pendulum.instance(moment, tz="UTC").in_timezone(zone)
    made = request(day, day)
    if day <= now.in_timezone("UTC").date() - timedelta(days=2):
        made.require_exportable(now)
    else:
        with pytest.raises(NotExportableYet, match="cannot be exported yet") as caught:
            made.require_exportable(now)
        available = caught.value.available_at
        made.require_exportable(available)
        with pytest.raises(NotExportableYet):
            made.require_exportable(available.subtract(microseconds=1))


def test_the_last_day_of_the_calendar_is_too_early():
    """An end day of 9999-12-31 is refused in words, not with an overflow."""
    with pytest.raises(InvalidRequest, match="end_day is 9999-12-31"):
        request(date(9999, 12, 1), date.max).require_exportable(pendulum.now("UTC"))


NOON = pendulum.datetime(2026, 1, 10, 12)


@pytest.mark.parametrize("days_ago", [1, 0, -1, -400])
def test_too_early_means_no_traffic_at_all(start, submission_for, days_ago):
    """A day that cannot be exported yet is refused without a single request."""
    day = NOON.date().subtract(days=days_ago)
    early = submission_for(start_day=day, end_day=day)
    service = start(at=NOON.timestamp())
    with service.client() as client:
        for call in (lambda: client.create_job(early.request), lambda: service.submit(early)):
            with pytest.raises(NotExportableYet) as caught:
                call()
            assert caught.value.available_at.date() == day.add(days=2)
    assert service.asked() == 0


def test_the_newest_exportable_day_is_accepted(start, submission_for):
    """Two days before today is exportable, by our clock and by the service's."""
    day = NOON.date().subtract(days=2)
    service = start(at=NOON.timestamp())
    assert service.submit(submission_for(start_day=day, end_day=day)).job.end_day == day


@pytest.mark.parametrize("word", ["messages", "SMS", "", None, 7, "Messages/../Calls"])
def test_only_four_types_can_be_exported(request_for, word):
    """The types are Twilio's words in Twilio's spelling; the error lists them."""
    with pytest.raises(InvalidRequest, match="allowed are Messages, Calls, Conferences, Part"):
        request_for(resource_type=word)


@given(st.text(max_size=80))
def test_a_name_has_letters_digits_and_underscores(name):
    """Names that Twilio might alter are refused."""
    try:
        made = ExportRequest(ResourceType.CALLS, date(2026, 1, 1), date(2026, 1, 1), name)
    except InvalidRequest as error:
        told = str(error)
        assert told.startswith("friendly_name")
        assert told.isprintable()
    else:
        assert 1 <= len(name) <= 64
        assert all(char.isascii() and (char.isalnum() or char == "_") for char in name)
        assert made.form()["FriendlyName"] == name


@pytest.mark.parametrize("name", ["", "a" * 65, "a-b", "a b", "é", "a\n"])
def test_an_odd_name_is_refused(request_for, name):
    """Empty, long and odd names are refused in words."""
    with pytest.raises(InvalidRequest, match="friendly_name"):
        request_for(friendly_name=name)


@pytest.mark.parametrize(
    ("webhook", "match"),
    [
        ({"webhook_url": "https://example.com"}, "webhook_url is given without webhook_method"),
        ({"webhook_method": "GET"}, "webhook_method is given without webhook_url"),
        ({"webhook_url": "https://example.com", "webhook_method": "PUT"}, "GET and POST"),
        ({"webhook_url": "http://example.com", "webhook_method": "GET"}, "https"),
        ({"webhook_url": "https://", "webhook_method": "GET"}, "https"),
        ({"webhook_url": "https://[", "webhook_method": "GET"}, "https"),
        ({"webhook_url": "https://u:p@example.com", "webhook_method": "GET"}, "password"),
    ],
)
def test_a_webhook_is_an_https_address_and_a_method(request_for, webhook, match):
    """A webhook is given whole, and without a password in it."""
    with pytest.raises(InvalidRequest, match=match) as caught:
        request_for(**webhook)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("email", ["nobody", "a@b@c", "a b@c", "a@b,c@d", "a@b\n"])
def test_one_mail_address(request_for, email):
    """The address is one address."""
    with pytest.raises(InvalidRequest, match="email"):
        request_for(email=email)


def test_the_form_holds_what_was_given(request_for):
    """Fields that were not given, or given empty, are not sent."""
    bare = request_for(webhook_url="", webhook_method="", email="")
    assert bare.form() == {
        "StartDay": "2026-01-01",
        "EndDay": "2026-01-03",
        "FriendlyName": "daily_export",
    }
    full = request_for(webhook_url="https://x.example", webhook_method="POST", email="a@b")
    assert set(full.form()) - set(bare.form()) == {"WebhookUrl", "WebhookMethod", "Email"}
