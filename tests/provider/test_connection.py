"""The connection: what it must hold, its form, and its test button."""

from __future__ import annotations

import json
import socket
import time

import pytest
from airflow.providers.common.compat.sdk import redact
from in_process import CONNECTION, LISTING, connection, create, requests_of, run_task

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.api.request import ResourceType
from airflow_provider_bulkexports.compat import (
    AIRFLOW_3,
    AirflowFailException,
    AirflowNotFoundException,
)
from airflow_provider_bulkexports.hooks import BulkExportsHook
from airflow_provider_bulkexports.provider_info import CONNECTION_TYPE

KEY_SID = "SK" + "1f" * 16


@pytest.fixture
def use(sandbox, monkeypatch):
    """Change fields of the default connection."""

    def change(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", connection(sandbox, **fields))

    return change


@pytest.fixture
def dead_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_connection_gives_a_client(sandbox):
    """The hook's client talks to the sandbox that base_url names."""
    with BulkExportsHook().get_conn() as client:
        assert client.list_jobs(ResourceType.MESSAGES).jobs == ()


def test_an_api_key_works_as_well(sandbox, use):
    """The login may be an API key's SID, the password its secret."""
    sandbox.add_key(KEY_SID, "key-secret")
    use(login=KEY_SID, password="key-secret")
    with BulkExportsHook().get_conn() as client:
        assert client.list_jobs(ResourceType.MESSAGES).jobs == ()


def test_without_an_extra_it_is_twilio(monkeypatch, sandbox):
    """No base_url, or an empty one, means Twilio's own host."""
    for extra in ({}, {"base_url": ""}, {"base_url": None}):
        fields = connection(sandbox, extra=extra)
        monkeypatch.setenv("AIRFLOW_CONN_BULKEXPORTS_DEFAULT", fields)
        with BulkExportsHook().get_conn() as client:
            assert client.base_url == "https://bulkexports.twilio.com"


def test_more_hosts_may_be_allowed(sandbox, use):
    """The extra allowed_hosts names hosts beside S3, with commas between."""
    extra = {"base_url": sandbox.url, "allowed_hosts": "Files.example.com, .internal.example,"}
    use(extra=extra)
    with BulkExportsHook().get_conn() as client:
        assert client.allowed_hosts == ("files.example.com", ".internal.example")


def test_the_hash_secret_is_shown_nowhere(sandbox, use):
    """It is no part of any text of the connection, and Airflow hides it in every log."""
    secret = "a secret of 24 characters"
    use(extra={"base_url": sandbox.url, "hash_secret": secret})
    read = BulkExportsHook().read_connection()

    assert read.hash_secret == secret
    assert secret not in repr(read)
    assert redact(f"keyed with {secret}.") == "keyed with ***."


def test_the_hash_secret_is_typed_blind():
    """Both kinds of form have a field for passwords; Airflow masks an extra by its name."""
    assert CONNECTION_TYPE["conn-fields"]["hash_secret"]["schema"]["format"] == "password"
    assert redact({"hash_secret": "x" * 16}) == {"hash_secret": "***"}


def test_a_missing_connection_is_told_with_its_command():
    """The error has the line that adds the connection."""
    with pytest.raises(AirflowNotFoundException) as caught:
        BulkExportsHook("orders_twilio").get_conn()

    assert (
        "airflow connections add orders_twilio --conn-type twilio_bulkexports "
        "--conn-login ACCOUNT_SID --conn-password AUTH_TOKEN"
    ) in str(caught.value)


def test_the_operator_tells_it_too():
    """A task without its connection fails with the same line, and is not tried again."""
    with pytest.raises(AirflowFailException, match="airflow connections add missing"):
        run_task(create(bulkexports_conn_id="missing"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": "evil.example.org"}, "host must stay empty"),
        ({"login": "me@example.org"}, "AC or SK and 32 hexadecimal"),
        ({"login": ""}, "incomplete"),
        ({"password": ""}, "incomplete"),
        ({"password": "token\nwith a line"}, "copy them anew"),
        ({"extra": {"base_url": "http://example.org"}}, "base_url must be https"),
        ({"extra": {"base_url": "https://u:p@example.org"}}, "without path, query or credentials"),
        ({"extra": {"base_url": "https://example.org/v1"}}, "without path"),
        ({"extra": {"base_url": "ftp://127.0.0.1"}}, "base_url must be https"),
        ({"extra": {"base_url": 7}}, "the extra base_url must be a string"),
        ({"extra": {"allowed_hosts": ["a.example"]}}, "extra allowed_hosts must be a string"),
        ({"extra": {"base-url": "http://127.0.0.1"}}, "there is no extra 'base-url'; allowed are"),
        ({"extra": [1]}, "extra must be a JSON object"),
        ({"extra": "base_url"}, "extra must be a JSON object"),
        ({"conn_type": "http"}, "conn_type is 'http'; it must be 'twilio_bulkexports'"),
        ({"extra": {"allowed_hosts": "a.example, .com"}}, "allowed_hosts has '.com'"),
        ({"extra": {"hash_secret": "pepper"}}, "hash_secret has 6 characters; give 16 or more"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_wrong_connection_is_refused_before_any_request(sandbox, use, fields, message):
    """Each wrong field is named, with the connection, and nothing is sent anywhere."""
    use(**fields)
    with pytest.raises(InvalidRequest, match=f"Connection '{CONNECTION}': .*{message}"):
        BulkExportsHook().get_conn()
    with pytest.raises(AirflowFailException, match=message):
        run_task(create())

    assert sandbox.ledger()["requests"] == {}


def test_the_test_button_says_that_it_works(sandbox):
    """A good connection may use BulkExport, which is what is proved."""
    good, text = BulkExportsHook().test_connection()

    assert good
    assert text == "BulkExport answers: 0 jobs are listed for Messages."
    assert requests_of(sandbox, LISTING) == 1


def test_the_test_button_and_a_wrong_token(use):
    """401: the login and the password do not belong together."""
    use(password="another-token")
    good, text = BulkExportsHook().test_connection()

    assert not good
    assert text.startswith("The login and password do not match")
    assert "20003" in text
    assert "another-token" not in text


def test_the_test_button_and_a_key_without_permission(sandbox):
    """403: the key is right but may not do this, and the answer says which key can."""
    sandbox.add_fault({"route": "fetch_export", "kind": "status", "status": 403})
    good, text = BulkExportsHook().test_connection()

    assert not good
    assert "Main or Standard API key" in text


@pytest.mark.parametrize(
    "problem", ["dead port", "missing", "wrong host", "odd extra", "outage", "nonsense"]
)
def test_the_test_button_never_raises(sandbox, use, dead_port, problem):
    """Whatever is wrong, the button answers soon, in one line, without the token."""
    conn_id = CONNECTION
    if problem == "dead port":
        use(extra={"base_url": f"http://127.0.0.1:{dead_port}"})
    elif problem == "missing":
        conn_id = "missing"
    elif problem == "wrong host":
        use(host="example.org")
    elif problem == "odd extra":
        use(extra=[1])
    else:
        kind = {"kind": "status", "status": 503} if problem == "outage" else {"kind": "bad_json"}
        sandbox.add_fault({"route": "*", "times": -1} | kind)
    started = time.monotonic()
    good, text = BulkExportsHook(conn_id).test_connection()

    assert not good
    assert text
    assert "\n" not in text
    assert sandbox.auth_token not in text
    assert time.monotonic() - started < 5


def test_the_test_button_does_not_wait_for_a_slow_service(sandbox):
    """A person waits for the button, so it gives up within about four seconds."""
    sandbox.add_fault({"route": "fetch_export", "kind": "delay", "seconds": 5})
    started = time.monotonic()
    good, _ = BulkExportsHook().test_connection()

    assert not good
    assert time.monotonic() - started < 4


def test_labels_are_the_same_on_every_airflow():
    """Airflow 2.11 asks a method for the form's labels, 3.2 and later read data: both agree."""
    method = BulkExportsHook.get_ui_field_behaviour()
    data = CONNECTION_TYPE["ui-field-behaviour"]

    assert method == {
        "hidden_fields": data["hidden-fields"],
        "relabeling": data["relabeling"],
        "placeholders": data["placeholders"],
    }
    assert "password" not in method["hidden_fields"]
    assert "host" in method["hidden_fields"]


def test_extra_fields_are_the_same_on_every_airflow():
    """The same holds for the form's own fields."""
    pytest.importorskip("flask_appbuilder", reason="Airflow 3 without FAB builds no such widgets")
    widgets = BulkExportsHook.get_connection_form_widgets()
    fields = CONNECTION_TYPE["conn-fields"]

    assert set(widgets) == set(fields)
    assert widgets["hash_secret"].field_class.__name__ == "PasswordField"
    assert widgets["namespace"].field_class.__name__ == "StringField"
    for name, widget in widgets.items():
        assert widget.args[0] == fields[name]["label"]
        assert widget.kwargs["description"] == fields[name]["description"]


def test_airflow_knows_the_connection_type():
    """Airflow finds the hook by the connection's type and shows its name."""
    from airflow.providers_manager import ProvidersManager

    info = ProvidersManager().hooks["twilio_bulkexports"]

    assert info is not None
    assert info.hook_name == "Twilio BulkExport"
    assert info.hook_class_name == "airflow_provider_bulkexports.hooks.BulkExportsHook"
    assert info.connection_id_attribute_name == "bulkexports_conn_id"


@pytest.mark.skipif(AIRFLOW_3, reason="Airflow 3 reads the data instead, see the next test")
def test_airflow_2_shows_the_form():
    """The web page of Airflow 2.11 shows labels and the extra field."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    behaviour = manager.field_behaviours["twilio_bulkexports"]

    assert behaviour["relabeling"]["login"] == "Account SID or API key SID"
    for name in ("base_url", "allowed_hosts", "namespace", "hash_secret"):
        assert f"extra__twilio_bulkexports__{name}" in manager.connection_form_widgets


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2.11 asks the hook instead")
def test_airflow_3_shows_the_form():
    """The web page of Airflow 3 shows labels and the extra field, without importing the hook."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    shown = {item.connection_type: item for item in manager.iter_connection_type_hook_ui_metadata()}
    widgets = manager._connection_form_widgets_from_metadata

    assert shown["twilio_bulkexports"].hook_name == "Twilio BulkExport"
    for field in ("base_url", "allowed_hosts", "namespace", "hash_secret"):
        assert any(field in name for name in widgets)
