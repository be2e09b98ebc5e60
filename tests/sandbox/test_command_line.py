import json
import os
import signal
import subprocess
import sys

import pytest
import requests

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
    process = run("--port", "0", "--account-sid", "AC-own", "--auth-token", "hush",
                  "--job-seconds", "1", "--faults", str(faults))  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("BulkExport sandbox on http://127.0.0.1:")
    assert line.endswith("(account AC-own)\n")
    url = line.split()[3]
    login = {"auth": ("AC-own", "hush")}
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


@pytest.mark.parametrize("arguments", [["--faults", "/nowhere"], ["--speed", "0"]])
def test_what_cannot_be_is_said_in_a_line(arguments):
    """Wrong options cost one line and exit code 2."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
