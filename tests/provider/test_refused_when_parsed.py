"""What is wrong for certain is refused when the DAG file is read, and nothing else is."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from hypothesis import given
from hypothesis import strategies as st
from in_process import DAY, create

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.arguments import check_literals
from airflow_provider_bulkexports.compat import AirflowFailException
from airflow_provider_bulkexports.operators import (
    BulkExportsCreateJobOperator,
    BulkExportsDeleteJobOperator,
)
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

WRONG = {
    "type in lower case": ({"resource_type": "messages"}, "allowed are"),
    "unknown reattach": ({"reattach": "foo"}, "run, range, never"),
    "timeout as text": ({"timeout": "10m"}, "give a number of seconds or a datetime.timedelta"),
    "negative timeout": ({"timeout": -1}, "timeout"),
    "no day": ({"start_day": "yesterday"}, "start_day"),
    "no such day": ({"end_day": "2026-02-30"}, "end_day"),
    "reversed": ({"end_day": "2026-01-04"}, "Swap them"),
    "name with a blank": ({"friendly_name": "my job"}, "letters, digits and underscores"),
    "method PUT": ({"webhook_method": "PUT"}, "GET and POST"),
}
RENDERED = [
    "{{ params.kind }}",
    "{% if x %}Calls{% endif %}",
    "<< kind >>",
    "$kind",
    "[[ kind ]]",
    None,
    date(2026, 1, 5),
    7,
]


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_literal_stops_the_dag_file(name):
    """The author sees it in the list of import errors, not in a task's log next month."""
    arguments, message = WRONG[name]
    with pytest.raises(AirflowFailException, match=message):
        create(**arguments)


@pytest.mark.parametrize("value", RENDERED, ids=str)
def test_what_may_still_change_waits_for_the_task(value):
    """Templates in any delimiters, dates and what another task gives are not judged now."""
    create(resource_type=value, start_day=value, end_day=value, reattach=value)
    BulkExportsDeleteJobOperator(task_id="delete", job_sid=value)
    BulkExportsJobSensor(task_id="job", job_sid=value)
    BulkExportsDaysSensor(task_id="days", resource_type=value, start_day=value, end_day=value)


def test_what_another_task_gives_waits_for_the_task():
    """An XComArg has no value yet."""
    with DAG("later", schedule=None):

        @task
        def day():
            return DAY

        create(start_day=day(), end_day=day())


def test_days_may_be_dates_and_timeouts_timedeltas():
    """What is right is left alone."""
    assert create(start_day=date(2026, 1, 5), timeout=timedelta(hours=1)).timeout


def test_an_unmapped_task_is_not_tried_again():
    """Airflow builds a mapped task in the worker, where a wrong value must not be retried."""
    with DAG("mapped", schedule=None):
        mapped = BulkExportsCreateJobOperator.partial(
            task_id="export", start_day=DAY, end_day=DAY
        ).expand(resource_type=["Messages", "messages"])

    with pytest.raises(AirflowFailException, match="allowed are"):
        mapped.unmap({"resource_type": "messages"})


@given(st.text())
def test_only_plain_words_are_judged(text):
    """Whatever has a character that could belong to a template is left to the task."""

    def refuse(_):
        raise InvalidRequest("wrong")

    plain = all(char.isascii() and (char.isalnum() or char in "_.:+- ") for char in text)
    if plain:
        with pytest.raises(AirflowFailException):
            check_literals(refuse, text)
    else:
        check_literals(refuse, text)
