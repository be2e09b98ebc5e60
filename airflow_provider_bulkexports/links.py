"""Links that a task instance shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_bulkexports.compat import BaseOperatorLink, read_xcom

if TYPE_CHECKING:
    from airflow_provider_bulkexports.compat import BaseOperator

__all__ = ["BulkExportsJobLink"]


class BulkExportsJobLink(BaseOperatorLink):
    """Leads to the job in Twilio's API; a browser asks for the account's credentials there."""

    name = "BulkExport job"

    XCOM_KEY = "_link_BulkExportsJobLink"
    """The key under which Airflow 3 looks for the link; 2.11 asks :meth:`get_link`."""

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """Return the address that the operator stored when it had the job."""
        return read_xcom(ti_key, self.XCOM_KEY) or ""
