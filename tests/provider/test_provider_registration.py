"""What Airflow reads of the provider, and what reading costs."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from importlib.resources import files

import jsonschema
import pytest

from airflow_provider_bulkexports import provider_info
from airflow_provider_bulkexports.compat import AIRFLOW_3

DISTRIBUTION = "airflow-provider-bulkexports"
OURS = "airflow_provider_bulkexports"


def in_a_new_interpreter(code, **env):
    """Run code in a fresh interpreter and return the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | env,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_entry_has_airflows_shape():
    """The entry is valid by the schema that this Airflow checks it with."""
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())

    jsonschema.validate(provider_info.get_provider_info(), schema)


def test_the_entry_has_the_distributions_name():
    """A wrong package-name would keep Airflow 3.3 from starting at all."""
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    (entry,) = distribution.entry_points.select(group="apache_airflow_provider")

    assert entry.load()()["package-name"] == distribution.metadata["Name"] == DISTRIBUTION


def test_all_that_the_entry_names_exists():
    """Every module and class of the entry can be imported."""
    info = provider_info.get_provider_info()
    modules = [
        module
        for kind in ("hooks", "operators", "sensors", "triggers")
        for group in info[kind]
        for module in group["python-modules"]
    ]
    classes = [kind["hook-class-name"] for kind in info["connection-types"]]

    assert len(modules) == 5
    for module in modules:
        importlib.import_module(module)
    for path in classes:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_reading_the_entry_imports_nothing():
    """Airflow 3.3 reads the entry at every start, so it costs two small modules."""
    loaded = in_a_new_interpreter(
        "import sys, json; before = set(sys.modules)\n"
        f"from {OURS}.provider_info import get_provider_info; get_provider_info()\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )

    assert [name for name in loaded if name.startswith(OURS)] == [OURS, f"{OURS}.provider_info"]
    assert "airflow" not in loaded


@pytest.fixture(scope="module")
def fresh():
    """Import our modules in a fresh Airflow; give what was loaded and what was warned of."""
    modules = ["operators", "sensors", "triggers", "hooks", "days", "compat"]
    sdk = "from airflow.sdk import DAG, BaseOperator\n" if AIRFLOW_3 else "import airflow\n"
    return in_a_new_interpreter(
        f"import importlib, json, sys, warnings\n{sdk}"
        "before = sorted(sys.modules)\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        f"    import {OURS}.operators\n"
        "    after = sorted(sys.modules)\n"
        f"    for module in {modules}:\n"
        f"        importlib.import_module('{OURS}.' + module)\n"
        f"warned = [str(w.message) for w in seen if '{OURS}' in w.filename]\n"
        "print(json.dumps([before, after, warned]))"
    )


@pytest.mark.skipif(not AIRFLOW_3, reason="the budget is counted from airflow.sdk, new in 3.0")
def test_importing_the_operators_is_cheap(fresh):
    """A DAG file that imports our operators loads no third-party package besides Airflow's own."""
    before, after, _ = fresh
    new = set(after) - set(before)
    ours = {name for name in new if name == OURS or name.startswith(f"{OURS}.")}
    packages = {name.partition(".")[0] for name in new} - {n.partition(".")[0] for n in before}

    assert packages - {OURS} - set(sys.stdlib_module_names) == set()
    assert f"{OURS}.api.client" not in ours


@pytest.mark.skipif(not AIRFLOW_3, reason="what Airflow 2.11 has loaded differs too much")
def test_importing_the_operators_takes_forty_milliseconds(tmp_path):
    """Of processor time, with compiled modules, on top of what a DAG file loads anyway."""
    code = (
        "import json, time\nfrom airflow.sdk import DAG, BaseOperator\n"
        f"start = time.process_time()\nimport {OURS}.operators\n"
        "print(json.dumps(time.process_time() - start))"
    )
    cache = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    seconds = [in_a_new_interpreter(code, **cache) for _ in range(4)]

    assert min(seconds[1:]) < 0.04


def test_importing_warns_of_nothing(fresh):
    """No module of ours takes a name from where this Airflow no longer wants it taken."""
    assert fresh[2] == []
