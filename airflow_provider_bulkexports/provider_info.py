"""What Airflow should know of this provider.

Read at every ``import airflow``, so it imports nothing.
"""

from __future__ import annotations

from typing import Any

_PACKAGE = "airflow_provider_bulkexports"
_INTEGRATION = "Twilio BulkExport"

CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "twilio_bulkexports",
    "hook-class-name": f"{_PACKAGE}.hooks.BulkExportsHook",
    "hook-name": _INTEGRATION,
    "ui-field-behaviour": {
        "hidden-fields": ["host", "port", "schema", "extra"],
        "relabeling": {
            "login": "Account SID or API key SID",
            "password": "Auth Token or API key secret",
        },
        "placeholders": {
            "login": "AC… or SK…, then 32 hexadecimal digits",
            "base_url": "leave empty for Twilio",
            "allowed_hosts": "leave empty for S3 alone",
            "namespace": "leave empty unless deployments share an account",
            "hash_secret": "leave empty unless columns are stored hashed",
        },
    },
    "conn-fields": {
        "base_url": {
            "label": "Base URL",
            "description": "Only for the sandbox, e.g. http://127.0.0.1:8010. Empty means Twilio.",
            "schema": {"type": ["string", "null"], "default": None},
        },
        "allowed_hosts": {
            "label": "Allowed hosts",
            "description": "Hosts beside S3 that files may come from, with commas between.",
            "schema": {"type": ["string", "null"], "default": None},
        },
        "namespace": {
            "label": "Namespace",
            "description": "Tells deployments apart that share an account, such as staging.",
            "schema": {"type": ["string", "null"], "default": None},
        },
        # Airflow masks an extra if its name says "secret".
        "hash_secret": {
            "label": "Hash secret",
            "description": "Keys the digests of hashed columns; another one, and no old value "
            "matches a new one any more. 16 characters or more.",
            "schema": {"type": ["string", "null"], "format": "password", "default": None},
        },
    },
}
"""The connection form: the one place that says what it shows, on every Airflow."""


def get_provider_info() -> dict[str, Any]:
    """Return the provider's entry for Airflow's registry."""

    def modules(name: str) -> list[dict[str, Any]]:
        return [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.{name}"]}]

    return {
        "package-name": "airflow-provider-bulkexports",
        "name": _INTEGRATION,
        "description": "Creates Twilio BulkExport jobs exactly once; waits without a worker.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://www.twilio.com/docs/usage/bulkexport",
                "tags": ["service"],
            }
        ],
        "hooks": modules("hooks"),
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [f"{_PACKAGE}.operators", f"{_PACKAGE}.transfers"],
            }
        ],
        "sensors": modules("sensors"),
        "triggers": modules("triggers"),
        "connection-types": [CONNECTION_TYPE],
    }
