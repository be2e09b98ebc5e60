"""A canary for a token: after every failure it must be in no log, error, XCom, trigger or file."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import traceback
from datetime import date
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import jinja2
import pendulum
import pytest
from in_process import (
    DAY,
    HOME,
    Running,
    TaskDeferred,
    TaskInstance,
    connection,
    context_of,
    create,
    deferral_of,
    fire,
    run_dag,
    run_task,
    wait_for,
)

from airflow_provider_bulkexports import hooks, triggers
from airflow_provider_bulkexports.api.errors import BulkExportsError
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.operators import BulkExportsDeleteJobOperator
from airflow_provider_bulkexports.sandbox.server import Sandbox
from airflow_provider_bulkexports.sandbox.settings import DEFAULT_ACCOUNT_SID
from airflow_provider_bulkexports.sensors import BulkExportsDaysSensor, BulkExportsJobSensor

# In parts, since Airflow 3 stores the source of every DAG file, which this is one of.
TOKEN = "+".join(["canary", "tok/en%2B&=?#:@x"])  # noqa: FLY002
BASIC = base64.b64encode(f"{DEFAULT_ACCOUNT_SID}:{TOKEN}".encode()).decode()
SIGNATURE = "0f".join(["51gnature", "canary"])  # noqa: FLY002
NEEDLES = {
    "the token": TOKEN,
    "the quoted token": quote(TOKEN, safe=""),
    "the token quoted as in a path": quote(TOKEN),
    "the token quoted as in a form": quote_plus(TOKEN),
    "the token in JSON": json.dumps(TOKEN)[1:-1],
    "the Authorization header": BASIC,
    "a link's signature": SIGNATURE,
}
ECHO = f"no {TOKEN} {quote_plus(TOKEN)} {BASIC} https://b.example/?X-Amz-Signature={SIGNATURE}"


def leaks(text, needles=None):
    """Return which secrets a text holds."""
    return [name for name, needle in (needles or NEEDLES).items() if needle in text]


class Sinks(logging.Handler):
    """Everything that was written or kept somewhere."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.texts = []

    def emit(self, record):
        self.add(record.getMessage(), record.args, record.exc_text)
        if record.exc_info and record.exc_info[1]:
            self.error(record.exc_info[1])

    def add(self, *things):
        self.texts += [thing if isinstance(thing, str) else repr(thing) for thing in things]

    def error(self, error):
        """Keep an error as a log shows it, and all that hangs on it."""
        self.add("".join(traceback.format_exception(error)))
        seen = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            self.add(str(error), error, error.args)
            error = error.__cause__ or error.__context__

    def attempt(self, function, *args):
        """Call a function and keep what it returns or raises."""
        try:
            self.add(function(*args))
        except TaskDeferred as deferral:
            self.add(deferral, deferral.trigger, deferral.trigger.serialize())
        except Exception as error:  # noqa: BLE001 - any error is a sink
            self.error(error)

    def task(self, task):
        """Run a task to its end and keep all that Airflow would keep of it."""
        ti = TaskInstance()
        context = context_of(ti)
        task.render_template_fields(context, jinja2.Environment(autoescape=True))
        self.attempt(run_task, task, ti)
        self.add(ti.xcoms, task, str(task), vars(task))
        self.add([getattr(task, name) for name in task.template_fields])

    @property
    def text(self):
        return "\n".join(self.texts)


@pytest.fixture
def canary(monkeypatch, one_try):
    """Run a sandbox whose token is the canary."""
    with Sandbox(auth_token=TOKEN, job_seconds=0.2, records=3, empty_every=0) as running:
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(running))
        yield running


@pytest.fixture
def sinks(monkeypatch, capfd):
    """All sinks, logging at DEBUG and without our part of the masking, which is a last net only."""
    monkeypatch.setattr(hooks, "mask_secret", lambda _: None)
    collected = Sinks()
    loggers = [
        logging.getLogger(name) for name in ("", "urllib3", "requests", "asyncio", "airflow")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(collected)
    yield collected
    loggers[0].removeHandler(collected)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    printed = capfd.readouterr()
    collected.add(printed.out, printed.err)
    assert len(collected.text) > 200
    assert leaks(collected.text) == []


def every_task(sid):
    """Return one of each operator and sensor."""
    day = {"resource_type": "Messages", "start_day": DAY, "end_day": DAY}
    quick = {"poke_interval": 0.1, "timeout": 0.5}
    return [
        create(timeout=1),
        create(timeout=1, deferrable=True, cancel_on_kill=True),
        BulkExportsJobSensor(task_id="job", job_sid=sid, **quick),
        BulkExportsJobSensor(task_id="job", job_sid=sid, deferrable=True, **quick),
        BulkExportsDaysSensor(task_id="days", **day, **quick),
        BulkExportsDaysSensor(task_id="days", deferrable=True, **day, **quick),
        BulkExportsDeleteJobOperator(task_id="delete", job_sid=sid),
    ]


FAULTS = {
    "nothing wrong": [],
    "401": [{"kind": "status", "status": 401}],
    "403": [{"kind": "status", "status": 403}],
    "404": [{"kind": "status", "status": 404}],
    "429": [{"kind": "status", "status": 429, "retry_after": 0}],
    "500": [{"kind": "status", "status": 500}],
    "500 afterwards": [{"kind": "status_after", "status": 500}],
    "dropped": [{"kind": "drop_before"}],
    "reset afterwards": [{"kind": "drop_after", "reset": True}],
    "truncated": [{"kind": "truncate"}],
    "HTML": [{"kind": "bad_json"}],
    "echo in the body": [{"kind": "bad_json", "body": ECHO}],
    "a list": [{"kind": "wrong_type"}],
    "echo in a 400": [{"kind": "status", "status": 400, "message": ECHO}],
    "echo in a 403": [{"kind": "status", "status": 403, "message": ECHO}],
    "echo in a 503": [{"kind": "status", "status": 503, "message": ECHO}],
    "a page elsewhere": [{"kind": "evil_page", "url": f"https://evil.example/?t={quote(TOKEN)}"}],
    "a page in a circle": [{"kind": "loop_page"}],
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_no_failure_tells_the_token(canary, sinks, name):
    """Every operator and sensor, under every fault of the service, keeps the token to itself."""
    sid = run_task(create(wait_for_completion=False), TaskInstance(map_index=7))
    for task in every_task(sid):
        for fault in FAULTS[name]:
            canary.add_fault({"route": "*", "times": 2} | fault)
        sinks.task(task)
        canary.clear_faults()
    for fault in FAULTS[name]:
        canary.add_fault({"route": "*", "times": 1} | fault)
    sinks.attempt(BulkExportsHook().test_connection)


@pytest.mark.parametrize("name", ["401", "429", "500 afterwards", "reset afterwards"])
def test_no_failed_submission_tells_the_token(canary, sinks, name):
    """The same for the POST itself."""
    for fault in FAULTS[name]:
        canary.add_fault({"route": "create_job"} | fault)
    sinks.task(create())


def test_a_wrong_token_is_not_told(sinks, monkeypatch):
    """A token that the service refuses is as secret as one it takes: it may only be misplaced."""
    with Sandbox() as running:
        wrong = connection(running, password=TOKEN)
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", wrong)
        for task in every_task("JS" + "0" * 32):
            sinks.task(task)
        sinks.attempt(BulkExportsHook().test_connection)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": f"{TOKEN}.example.org"},
        {"login": TOKEN},
        {"login": ""},
        {"password": TOKEN + "\n"},
        {"extra": {"base_url": f"https://u:{quote(TOKEN, safe='')}@example.org"}},
        {"extra": {"base_url": f"http://127.0.0.1:1/{quote(TOKEN)}"}},
        {"extra": {"base_url": "http://127.0.0.1:1"}},
    ],
    ids=["host", "login", "no login", "line break", "userinfo", "path", "dead port"],
)
def test_a_wrong_connection_is_not_told(canary, sinks, monkeypatch, fields):
    """A secret in the wrong field of the connection is not repeated by the error about it."""
    monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(canary, **fields))
    sinks.task(create())
    sinks.task(BulkExportsDeleteJobOperator(task_id="delete", job_sid="JS" + "0" * 32))
    sinks.attempt(BulkExportsHook().test_connection)


def test_the_quota_does_not_tell_the_token(canary, sinks):
    """Neither the failure over the quota nor the wait for midnight does."""
    for index in range(2):
        year = 2024 + index
        days = {"start_day": f"{year}-01-01", "end_day": f"{year}-12-30"}
        sinks.task(create(wait_for_completion=False, task_id=f"t{index}", **days))
    waiting = deferral_of(create(deferrable=True, wait_for_quota=True, **days), TaskInstance())
    sinks.add(waiting, waiting.trigger, waiting.trigger.serialize())


def test_a_kill_does_not_tell_the_token(canary, sinks, monkeypatch):
    """Neither the killed task nor its deletion does, running or deferred."""
    for times in (0, 1):
        canary.add_fault({"route": "create_job", "kind": "job_outcome", "outcome": "Running"})
        canary.add_fault(
            {
                "route": "delete_job",
                "kind": "status",
                "status": 500,
                "times": times,
                "message": ECHO,
            }
        )
        task = create(cancel_on_kill=True, reattach="never")
        before = len(canary.ledger()["jobs"])
        running = Running(task)
        wait_for(lambda before=before: len(canary.ledger()["jobs"]) > before)
        time.sleep(0.2)
        task.on_kill()
        running.join()
        sinks.error(running.error)
        sinks.add(vars(task))
    trigger = deferral_of(create(deferrable=True, cancel_on_kill=True)).trigger
    monkeypatch.setattr(triggers, "task_instance_state", lambda _: "failed")
    trigger.task_instance = TaskInstance()
    asyncio.run(trigger.on_kill())
    sinks.add(trigger, vars(trigger), trigger.serialize())


def test_a_trigger_does_not_tell_the_token(canary, sinks):
    """What is stored of a wait, what it logs in an outage and what it fires hold no secret."""
    for index, fault in enumerate(["401", "echo in a 503", "dropped", "echo in the body"]):
        ti = TaskInstance(map_index=index)
        trigger = deferral_of(create(deferrable=True, timeout=1), ti).trigger
        canary.add_fault({"route": "fetch_job"} | FAULTS[fault][0])
        sinks.attempt(fire, trigger)
        sinks.add(trigger, str(trigger), vars(trigger), trigger.serialize())


def test_a_signed_link_is_not_shown(canary, sinks):
    """The link to a day's file is good for whoever has it, so nothing shows it by itself."""
    run_task(create())
    with BulkExportsHook().get_conn() as client:
        link = client.fetch_day(ResourceType.MESSAGES, date.fromisoformat(DAY))
        (signature,) = parse_qs(urlsplit(link.url).query)["X-Amz-Signature"]
        sinks.add(
            link, str(link), f"{link}", client, vars(link) if hasattr(link, "__dict__") else ""
        )
        signed = f"https://bucket.example/day?X-Amz-Signature={SIGNATURE}"
        for fault in ({"kind": "redirect", "url": signed}, {"kind": "status", "status": 500}):
            canary.add_fault({"route": "fetch_day"} | fault)
            sinks.attempt(client.fetch_day, ResourceType.MESSAGES, date.fromisoformat(DAY))
        canary.add_fault(
            {"route": "fetch_day", "kind": "status", "status": 404, "message": f"gone: {signed}"}
        )
        with pytest.raises(BulkExportsError) as caught:
            client.fetch_day(ResourceType.MESSAGES, date.fromisoformat(DAY))
        sinks.error(caught.value)

    assert leaks(sinks.text, {"the signature": signature}) == []


def test_airflow_stores_no_token(canary, sinks, monkeypatch):
    """After real runs, good and bad, no file of Airflow's holds the token: no table and no log."""
    from airflow.providers.common.compat.sdk import DAG

    canary.add_key("SK" + "0" * 32, "another")
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection(canary, login="SK" + "0" * 32))
    for name, options in {
        "good": {"deferrable": True},
        "bad": {"bulkexports_conn_id": "wrong"},
    }.items():
        start = pendulum.datetime(2026, 1, 1)
        with DAG(dag_id=f"canary_{name}", schedule=None, start_date=start) as dag:
            create(start_day="{{ ds }}", end_day="{{ ds }}", **options)
        run = run_dag(dag, pendulum.datetime(2026, 2, 1))
        sinks.add(run)
        assert str(run.state) == ("success" if name == "good" else "failed")
    files = [path for path in HOME.rglob("*") if path.is_file()]
    stored = {path: path.read_bytes().decode("latin-1") for path in files}

    assert any("canary_good" in text for text in stored.values())
    assert [path for path, text in stored.items() if leaks(text)] == []


@pytest.mark.parametrize("needle", list(NEEDLES.values()), ids=list(NEEDLES))
def test_the_scan_would_find_it(needle):
    """A secret that was planted in a log, an error, a chained error or an argument is found."""
    for plant in ("log", "args", "error", "cause", "kept", "printed"):
        sinks = Sinks()
        logger = logging.getLogger("planted")
        logger.addHandler(sinks)
        try:
            if plant == "log":
                logger.warning("Sending %s", needle)
            elif plant == "args":
                logger.warning("Sending %.0s", needle)
            elif plant == "error":
                sinks.attempt(lambda: int(f"x{needle}"))
            elif plant == "cause":
                sinks.error(chained(needle))
            elif plant == "kept":
                sinks.add({"deep": [{"in": needle}]})
            else:
                sinks.add(needle)
        finally:
            logger.removeHandler(sinks)

        assert leaks(sinks.text), plant


def chained(needle):
    try:
        try:
            int(needle)
        except ValueError:
            raise RuntimeError("something else") from None
    except RuntimeError as error:
        return error


def test_the_last_net_knows_every_spelling(canary):
    """Once the hook has read the connection, Airflow's masker hides the token however written."""
    from airflow.providers.common.compat.sdk import redact

    BulkExportsHook().get_conn().close()
    for name in ("the token", "the quoted token", "the Authorization header"):
        assert leaks(f"{redact(f'a {NEEDLES[name]} b')}") == [], name
