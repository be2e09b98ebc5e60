"""What is refused before any request, and what templates may give."""

from __future__ import annotations

import inspect
from datetime import UTC, date, datetime, timedelta

import jinja2
import pytest
from in_process import (
    CONNECTION,
    DAY,
    TaskInstance,
    context_of,
    create,
    deferral_of,
    jobs_of,
    run_task,
)

from airflow_provider_bulkexports.api.client import Client
from airflow_provider_bulkexports.compat import AirflowFailException
from airflow_provider_bulkexports.operators import (
    BulkExportsCreateJobOperator,
    BulkExportsDeleteJobOperator,
)
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

HOOK = {"webhook_url": "https://example.org/done", "webhook_method": "POST"}
BAD = {
    "unknown type": ({"resource_type": "Faxes"}, "Messages, Calls, Conferences, Participants"),
    "type in lower case": ({"resource_type": "messages"}, "allowed are"),
    "reversed": ({"end_day": "2026-01-04"}, "Swap them"),
    "367 days": ({"start_day": "2025-01-01", "end_day": "2026-01-02"}, "at most 366"),
    "today": ({"start_day": "2026-01-01", "end_day": "TODAY"}, "wait_until_exportable=True"),
    "yesterday": ({"start_day": "2026-01-01", "end_day": "YESTERDAY"}, "from .*T00:00:00Z on"),
    "no such day": ({"start_day": "2026-02-30"}, "start_day"),
    "a day with a time": ({"start_day": "2026-01-05T00:00:00"}, "YYYY-MM-DD"),
    "an instant": ({"end_day": datetime(2026, 1, 5, tzinfo=UTC)}, "end_day"),
    "empty day": ({"start_day": "", "end_day": ""}, "start_day"),
    "rendered None": ({"start_day": "None", "end_day": "None"}, "start_day"),
    "only the first day": ({"end_day": None}, "both start_day and end_day"),
    "only the last day": ({"start_day": None}, "both start_day and end_day"),
    "webhook without method": (HOOK | {"webhook_method": None}, "without webhook_method"),
    "method without webhook": (HOOK | {"webhook_url": None}, "without webhook_url"),
    "method PUT": (HOOK | {"webhook_method": "PUT"}, "GET and POST"),
    "http webhook": (HOOK | {"webhook_url": "http://example.org"}, "https"),
    "webhook without host": (HOOK | {"webhook_url": "https://"}, "https"),
    "webhook with credentials": (HOOK | {"webhook_url": "https://u:p@example.org"}, "password"),
    "empty name": ({"friendly_name": ""}, "friendly_name is empty"),
    "long name": ({"friendly_name": "n" * 41}, "at most 40"),
    "name with a space": ({"friendly_name": "my job"}, "letters, digits and underscores"),
    "two addresses": ({"completion_email": "a@example.org,b@example.org"}, "one address"),
    "unknown reattach": ({"reattach": "always"}, "run, range, never"),
    "no such day to be newer than": ({"not_before": "last week"}, "not_before"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_argument_is_refused_before_any_request(sandbox, name):
    """The task fails at once, without retries, and says what is allowed."""
    arguments, message = BAD[name]
    today = datetime.now(UTC).date()
    words = {"TODAY": today, "YESTERDAY": today - timedelta(days=1)}
    arguments = {
        key: words.get(value, value) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    with pytest.raises(AirflowFailException, match=message):
        run_task(create(**arguments))

    assert sandbox.ledger()["requests"] == {}


def test_a_password_in_a_webhook_is_not_repeated(sandbox):
    """The error about credentials in a webhook's address does not show them."""
    url = "https://user:hunter22@example.org"
    with pytest.raises(AirflowFailException) as caught:
        run_task(create(**HOOK | {"webhook_url": url}))

    assert "hunter22" not in str(caught.value)


def test_a_name_of_forty_characters_is_accepted(sandbox):
    """The longest name that is allowed leaves room for the key and a generation."""
    run_task(create(friendly_name="n" * 40, wait_for_completion=False))

    assert jobs_of(sandbox)[0]["friendly_name"].startswith("n" * 40 + "_")


def test_webhook_and_mail_reach_twilio(sandbox):
    """What is given goes out; an empty text, as a template may render, means nothing."""
    full = run_task(create(**HOOK, completion_email="ops@example.org"))
    bare = run_task(
        create(webhook_url="", webhook_method="", completion_email=""), TaskInstance(map_index=1)
    )
    with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
        first, second = client.fetch_job(full), client.fetch_job(bare)

    assert (first.webhook_url, first.webhook_method) == ("https://example.org/done", "POST")
    assert first.email == "ops@example.org"
    assert (second.webhook_url, second.webhook_method, second.email) == (None, None, None)


def test_days_may_be_date_objects(sandbox):
    """Native rendering gives dates; they name the same job as the text does."""
    text = run_task(create())
    native = run_task(create(start_day=date(2026, 1, 5), end_day=date(2026, 1, 5)))

    assert text == native


OPERATORS = [
    BulkExportsCreateJobOperator,
    BulkExportsDeleteJobOperator,
    BulkExportsJobSensor,
    BulkExportsDaysSensor,
]
NOT_TEMPLATED = {
    "wait_for_completion",
    "wait_until_exportable",
    "wait_for_quota",
    "deferrable",
    "timeout",
    "cancel_on_kill",
}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
def test_all_but_switches_is_templated(operator):
    """Every argument a person would template is, and the docstring says which are."""
    parameters = inspect.signature(operator.__init__).parameters
    own = {
        name
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "kwargs"
    }

    assert set(operator.template_fields) == own - NOT_TEMPLATED
    for name in own:
        _, found, rest = operator.__doc__.partition(f":param {name}:")
        assert found, name
        said = "(templated)" in rest.partition(":param")[0].partition(":raises")[0]
        assert said == (name in operator.template_fields), name


def test_templates_are_rendered(sandbox):
    """Each templated field is set in the constructor under its own name, and renders."""
    values = {
        name: f"{{{{ values.{name} }}}}" for name in BulkExportsCreateJobOperator.template_fields
    }
    task = BulkExportsCreateJobOperator(task_id="export", **values)
    assert {name: getattr(task, name) for name in task.template_fields} == values
    rendered = {
        "resource_type": "Calls",
        "start_day": DAY,
        "end_day": DAY,
        "friendly_name": "orders",
        "webhook_url": "https://example.org/",
        "webhook_method": "GET",
        "completion_email": "ops@example.org",
        "bulkexports_conn_id": CONNECTION,
        "reattach": "run",
        "not_before": DAY,
    }
    context = context_of(TaskInstance()) | {"values": rendered}
    task.render_template_fields(context, jinja2.Environment(autoescape=True))
    run_task(task)

    assert {name: getattr(task, name) for name in task.template_fields} == rendered
    assert jobs_of(sandbox)[0]["resource_type"] == "Calls"


# Airflow 3 would rather have a notifier than its own mails; that is between it and the author.
@pytest.mark.filterwarnings("ignore:Setting email")
def test_airflows_own_email_is_not_twilios(sandbox):
    """default_args with email mean Airflow's mails; Twilio is told no address."""
    task = create(default_args={"email": ["ops@example.org"], "email_on_failure": True})
    sid = run_task(task)
    with Client(sandbox.account_sid, sandbox.auth_token, base_url=sandbox.url) as client:
        assert client.fetch_job(sid).email is None


def test_default_args_reach_the_operator(sandbox):
    """A connection or a switch may be set for a whole DAG."""
    task = create(default_args={"deferrable": True, "timeout": 7, "reattach": "range"})

    assert (task.deferrable, task.timeout, task.reattach) == (True, 7, "range")
    assert deferral_of(task).method_name == "execute_complete"
