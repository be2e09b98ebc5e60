import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def specification():
    """Twilio's own description of the API, from the file the environment names."""
    place = os.environ.get("BULKEXPORTS_OPENAPI")
    if not place:
        pytest.skip("BULKEXPORTS_OPENAPI is unset: name Twilio's twilio_bulkexports_v1.yaml in it")
    return pytest.importorskip("yaml").safe_load(Path(place).read_text(encoding="utf-8"))


def schema_of(specification, operation, status):
    """Turn OpenAPI 3.0 into JSON Schema, and close objects to fields nobody described."""

    def convert(node):
        if isinstance(node, list):
            return [convert(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            return convert(specification["components"]["schemas"][name])
        made = {key: convert(value) for key, value in node.items() if key != "nullable"}
        if node.get("nullable"):
            made["type"] = [made["type"], "null"]
        if "properties" in node:
            made |= {"additionalProperties": False, "required": sorted(node["properties"])}
        return made

    for path in specification["paths"].values():
        for described in path.values():
            if isinstance(described, dict) and described.get("operationId") == operation:
                content = described["responses"][str(status)]["content"]
                return convert(content["application/json"]["schema"])
    raise AssertionError(operation)


def test_answers_are_as_twilio_describes_them(client, specification):
    """Every successful answer has exactly the fields and types of Twilio's OpenAPI file."""
    jsonschema = pytest.importorskip("jsonschema")
    created = client.create(EndDay="2026-01-03", Email="a@example.org")
    for _ in range(3):
        client.create()
    exports = "/v1/Exports/Messages"
    hook = {"WebhookUrl": "https://example.org/x", "WebhookMethod": "GET"}
    answers = {
        "CreateExportCustomJob": created,
        "ListExportCustomJob": client.get(f"{exports}/Jobs?PageSize=2"),
        "FetchJob": client.get(f"/v1/Exports/Jobs/{created.json()['job_sid']}"),
        "ListDay": client.get(f"{exports}/Days?PageSize=2"),
        "FetchDay": client.get(f"{exports}/Days/2026-01-01"),
        "FetchExport": client.get(exports),
        "FetchExportConfiguration": client.get(f"{exports}/Configuration"),
        "UpdateExportConfiguration": client.call("POST", f"{exports}/Configuration", data=hook),
    }
    for operation, answer in answers.items():
        schema = schema_of(specification, operation, answer.status_code)
        jsonschema.validate(answer.json(), schema)
    described = {
        method["operationId"]
        for path in specification["paths"].values()
        for method in path.values()
        if isinstance(method, dict) and "operationId" in method
    }
    assert described == {*answers, "DeleteJob"}
