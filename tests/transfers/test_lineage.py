"""What OpenLineage is told of an export and of a transfer, and what it costs where it is absent."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import pytest
from in_process import TaskInstance, context_of, create, run_task

from airflow_provider_bulkexports.compat import AirflowFailException

DAY = "2026-01-05"
TWILIO = "https://bulkexports.twilio.com"


def lineage_of(task):
    pytest.importorskip("airflow.providers.openlineage", reason="needs the OpenLineage provider")
    return task.get_openlineage_facets_on_complete(None)


def test_an_export_names_its_job(transfers):
    """The create operator tells the type's exports and the job's SID."""
    task = create(start_day=DAY, end_day=DAY, wait_for_completion=False)
    sid = run_task(task)
    before = transfers.requests()
    told = lineage_of(task)

    assert told.inputs == []
    assert [(item.namespace, item.name) for item in told.outputs] == [
        (TWILIO, "v1/Exports/Messages")
    ]
    assert told.run_facets["externalQuery"].externalQueryId == sid
    assert transfers.requests() == before


def test_a_failed_export_has_no_job(transfers):
    """A task that never had a job tells of none."""
    task = create(start_day=date(2026, 1, 5), end_day=date(2026, 1, 4))
    with pytest.raises(AirflowFailException):
        run_task(task)

    assert lineage_of(task).run_facets == {}


@pytest.mark.parametrize("output_format", ["raw", "parquet"])
def test_a_transfer_tells_both_ends(transfers, output_format):
    """From Twilio's exports to the type's folder, with rows, bytes, files and columns."""
    task = transfers.task(transfers.export(3), output_format=output_format)
    task.execute(context_of(TaskInstance()))
    before = transfers.requests()
    told = lineage_of(task)

    assert [(item.namespace, item.name) for item in told.inputs] == [
        (TWILIO, "v1/Exports/Messages")
    ]
    (target,) = told.outputs
    assert (target.namespace, target.name) == ("file", str(transfers.storage / "Messages"))
    parts = list(transfers.storage.rglob("part-*"))
    statistics = target.outputFacets["outputStatistics"]
    assert (statistics.rowCount, statistics.fileCount) == (9, 3)
    assert statistics.size == sum(path.stat().st_size for path in parts)
    fields = (
        {item.name: item.type for item in target.facets["schema"].fields}
        if (output_format == "parquet")
        else target.facets
    )
    assert fields.get("date_sent") == ("timestamp[us, tz=UTC]" if fields else None)
    assert transfers.requests() == before


def test_a_transfer_that_failed_early_tells_nothing(transfers):
    """Before anything was brought there is nothing to tell."""
    task = transfers.task("not a SID")
    with pytest.raises(AirflowFailException):
        task.execute(context_of(TaskInstance()))

    assert lineage_of(task) is None


def test_nothing_of_openlineage_is_imported():
    """A DAG file that imports our operators does not pay for OpenLineage, installed or not."""
    code = (
        "import sys, airflow\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_bulkexports.operators, airflow_provider_bulkexports.transfers\n"
        "print([name for name in set(sys.modules) - before if 'openlineage' in name.lower()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"
