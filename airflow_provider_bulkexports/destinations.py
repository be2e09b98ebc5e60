"""Where days are stored: an address of Airflow's, checked and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.compat import object_storage_path
from airflow_provider_bulkexports.storage.store import check_destination

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

__all__ = ["open_destination"]


def open_destination(destination: str, object_storage_conn_id: str | None) -> ObjectStoragePath:
    """
    Return a destination as Airflow's path; nothing is asked of the storage.

    :param object_storage_conn_id: the connection to the storage, None if it needs none.
    :raises InvalidRequest: for what no retry can make a storage.
    """
    check_destination(destination)
    try:
        path = object_storage_path(destination, object_storage_conn_id)
        path.fs  # noqa: B018 - an unknown scheme is found out only here
    except (ValueError, ImportError) as error:
        raise InvalidRequest(
            f"destination is {destination!r}, which this Airflow cannot open: {error}. Check the "
            "address, and that the provider of that storage is installed."
        ) from None
    return path
