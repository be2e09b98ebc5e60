"""The README says what is so: its blocks run, its commands exist, its arguments are real."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("the README")

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def airflow_env(tmp_path_factory):
    """Return the environment of an Airflow with an empty database and no connection."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    env = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    env |= {
        "AIRFLOW_HOME": f"{home}",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": f"{home}/dags",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    run(env, "airflow", "db", "migrate")
    return env


def run(env, *command):
    """Run a command; a failure shows what it printed."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dag_exports_its_day(airflow_env):
    """The DAG at the top, run by Airflow, creates the job it promises."""
    from airflow_provider_bulkexports.sandbox.server import Sandbox

    source, _ = [text for language, text in BLOCKS if language == "python"]
    assert source.count("\n") <= 16
    if importlib.util.find_spec("airflow.sdk") is None:
        names = "DAG, CronDataIntervalTimetable"
        old_homes = (
            "airflow import DAG\nfrom airflow.timetables.interval import CronDataIntervalTimetable"
        )
        source = source.replace(f"airflow.sdk import {names}", old_homes)
    path = Path(airflow_env["AIRFLOW__CORE__DAGS_FOLDER"]) / "twilio_logs.py"
    path.write_text(source)
    with Sandbox(job_seconds=0.1, records=5) as sandbox:
        env = airflow_env | {"AIRFLOW_CONN_BULKEXPORTS_DEFAULT": sandbox.connection()}
        if importlib.util.find_spec("airflow.sdk"):
            run(env, "airflow", "dags", "reserialize")
        run(env, "airflow", "dags", "test", "twilio_logs", "2026-11-10")
        jobs = sandbox.ledger()["jobs"]
    assert [(job["resource_type"], job["start_day"], job["end_day"]) for job in jobs] == [
        ("Messages", "2026-11-10", "2026-11-10")
    ]


def test_the_watching_dag_loads(airflow_env):
    """The DAG that an asset's watcher starts is one that Airflow takes."""
    if importlib.util.find_spec("airflow.sdk") is None:
        pytest.skip("Airflow 2.11 watches no assets")
    _, source = [text for language, text in BLOCKS if language == "python"]
    path = Path(airflow_env["AIRFLOW__CORE__DAGS_FOLDER"]) / "on_new_files.py"
    path.write_text(source)
    run(airflow_env, "airflow", "dags", "reserialize")
    listed = run(airflow_env, "airflow", "dags", "list", "-o", "json")
    assert "on_new_files" in {dag["dag_id"] for dag in json.loads(listed[listed.index("[{") :])}


def test_the_connection_command_works(airflow_env):
    """The command that adds the connection is one that Airflow takes."""
    (block,) = [text for language, text in BLOCKS if "connections add" in text]
    command = block[block.index("airflow connections") :].replace("\\\n", " ").split()
    run(airflow_env, *command)
    shown = run(airflow_env, "airflow", "connections", "get", "bulkexports_default", "-o", "json")
    (connection,) = json.loads(shown[shown.index("[") :])
    assert connection["conn_type"] == "twilio_bulkexports"
    assert connection["login"].startswith("AC")


def test_every_command_leads_somewhere():
    """Each make target and each test that the README names is there."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert targets >= {"demo", "test", "test-all", "ui", "bench", "help"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    paths = set(re.findall(r"\b((?:tests|dags)/[\w/.]*\w)", README))
    assert paths
    assert all((ROOT / path).exists() for path in paths), paths


def test_every_argument_is_explained():
    """Each argument of an operator or sensor is in the README and in its class's docstring."""
    from airflow_provider_bulkexports import operators, sensors, transfers

    for module in (operators, sensors, transfers):
        for name in module.__all__:
            if not inspect.isclass(getattr(module, name)):
                continue
            known = set(inspect.signature(getattr(module, name).__init__).parameters)
            for argument in known - {"self", "kwargs"}:
                assert f"`{argument}`" in README or f"`{argument}=" in README, (name, argument)
                assert f":param {argument}:" in getattr(module, name).__doc__, (name, argument)
            row = next(line for line in README.splitlines() if f".{name}`" in line)
            named = set(re.findall(r"`([a-z_]+)`", row.rsplit("|", 2)[1]))
            assert named <= known, name


def test_the_public_names_are_what_the_modules_export():
    """Each module's __all__ is sorted and complete."""
    import pkgutil
    from typing import TypeVar

    import airflow_provider_bulkexports

    package = airflow_provider_bulkexports
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        names = getattr(module, "__all__", [])
        assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n)), found
        public = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and not isinstance(value, TypeVar)
            if getattr(value, "__module__", None) == found.name
        }
        assert public <= set(names) or not names, (found.name, public - set(names))
