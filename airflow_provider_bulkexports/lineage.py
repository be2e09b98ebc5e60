"""What OpenLineage gets: facts that a task has at hand, so that reporting them asks nobody.

OpenLineage calls an operator's ``get_openlineage_facets_on_complete`` only where it is installed;
nothing of it is imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.api.client import BASE_URL

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_provider_bulkexports.storage.manifest import Manifest

__all__ = ["export_lineage", "storage_lineage"]


def _exports(resource_type: str) -> tuple[str, str]:
    return BASE_URL, f"v1/Exports/{resource_type}"


def export_lineage(resource_type: str, job_sid: str | None) -> OperatorLineage[Any, Any]:
    """Return that a job exported days of a type."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import external_query_run

    facet = external_query_run.ExternalQueryRunFacet
    return OperatorLineage(
        outputs=[OutputDataset(*_exports(resource_type))],
        run_facets={"externalQuery": facet(externalQueryId=job_sid, source="twilio")}
        if job_sid
        else {},
    )


def storage_lineage(
    resource_type: str, folder: Any, manifests: Collection[Manifest]
) -> OperatorLineage[Any, Any]:
    """
    Return that exported days of a type went to a folder.

    :param folder: the type's folder, an ``ObjectStoragePath``.
    :param manifests: what the task stored there, or found there whole.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset, schema_dataset

    files = [file for manifest in manifests for file in manifest.files]
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=sum(manifest.records for manifest in manifests),
        size=sum(file.bytes for file in files),
        fileCount=len(files),
    )
    fields = [
        schema_dataset.SchemaDatasetFacetFields(name=name, type=kind)
        for name, kind in max((manifest.schema for manifest in manifests), default=())
    ]
    target = OutputDataset(
        folder.namespace,
        folder.key if folder.bucket else folder.path,
        facets={"schema": schema_dataset.SchemaDatasetFacet(fields=fields)} if fields else {},
        outputFacets={"outputStatistics": statistics},
    )
    return OperatorLineage(inputs=[InputDataset(*_exports(resource_type))], outputs=[target])
