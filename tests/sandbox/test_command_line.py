import json
import os
import signal
import subprocess
import sys

import pytest
import requests

from airflow_provider_bulkexports.sandbox.faults.catalogue import KINDS
from airflow_provider_bulkexports.sandbox.settings import DEFAULT_ACCOUNT_SID, DEFAULT_AUTH_TOKEN

OWN = "AC" + "7b" * 16
COMMAND = [sys.executable, "-m", "airflow_provider_bulkexports.sandbox"]


@pytest.fixture
def run():
    running = []

    def begin(*arguments):
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_stops_when_told(run, tmp_path, number):
    """One line names address and account; a signal ends it cleanly."""
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"kind": "status", "status": 503}]))
    process = run("--port", "0", "--account-sid", OWN, "--auth-token", "hush",
                  "--job-seconds", "1", "--faults", str(faults))  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("BulkExport sandbox on http://127.0.0.1:")
    assert line.endswith(f"(account {OWN})\n")
    url = line.split()[3]
    login = {"auth": (OWN, "hush")}
    assert requests.get(f"{url}/v1/Exports/Calls", **login, timeout=5).status_code == 503
    assert requests.get(f"{url}/v1/Exports/Calls", **login, timeout=5).status_code == 200
    process.send_signal(number)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (0, "", "")


def test_leaving_the_machine_is_warned_about(run):
    """Listening on other addresses than loopback is said on standard error."""
    process = run("--port", "0", "--host", "0.0.0.0")  # noqa: S104 - the point of the test
    assert "other machines" in process.stderr.readline()


def test_without_aiohttp_it_says_what_to_install(tmp_path):
    """A missing aiohttp costs one line and exit code 2."""
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError('x', name='aiohttp')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        COMMAND, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "install airflow-provider-bulkexports[sandbox]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--faults", "/nowhere"],
        ["--speed", "0"],
        ["--port", "70000"],
        ["--port", "http"],
        ["--account-sid", "AC-own"],
        ["--quota-days", "many"],
        ["--lag", "-1"],
        ["--speeed", "1"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_said_in_a_line(arguments):
    """Wrong options cost one line and exit code 2."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


def test_help_shows_the_defaults():
    """Every option that has a default says it."""
    done = subprocess.run(
        [*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=10
    )
    said = " ".join(done.stdout.split())
    for default in ("8010", "127.0.0.1", "sandbox-auth-token", "1000", "366", "20"):
        assert f"(default {default})" in said


def test_the_faults_are_listed():
    """Each kind of fault is listed with its routes and arguments."""
    done = subprocess.run(
        [*COMMAND, "--list-faults"], capture_output=True, text=True, check=True, timeout=10
    )
    assert all(f"- `{kind}`: " in done.stdout for kind in KINDS)
    assert "  - routes: `create_job`\n  - `seconds`: a number of seconds" in done.stdout


def test_quota_lag_and_empty_days_are_options(run):
    """The account may have little quota, the lists may lag, and every day may be empty."""
    options = {"--port": 0, "--job-seconds": 0, "--empty-every": 1, "--quota-days": 1, "--lag": 60}
    process = run(*(str(part) for option in options.items() for part in option))
    url = process.stdout.readline().split()[3]
    login = (DEFAULT_ACCOUNT_SID, DEFAULT_AUTH_TOKEN)
    jobs = f"{url}/v1/Exports/Messages/Jobs"
    form = {"StartDay": "2026-01-01", "EndDay": "2026-01-01", "FriendlyName": "name"}
    answers = [requests.post(jobs, data=form, auth=login, timeout=5).status_code for _ in range(2)]
    assert answers == [201, 400]
    assert requests.get(jobs, auth=login, timeout=5).json()["jobs"] == []
    requests.post(f"{url}/_sandbox/clock", json={"advance_seconds": 60}, timeout=5)
    (job,) = requests.get(jobs, auth=login, timeout=5).json()["jobs"]
    assert [group["status"] for group in job["details"]] == ["CompletedEmptyRecords"]
