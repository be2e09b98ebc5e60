"""Which filesystems days can be published on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_bulkexports.api.errors import InvalidRequest
from airflow_provider_bulkexports.storage.folders import LocalBackend, MemoryBackend
from airflow_provider_bulkexports.storage.object_stores import (
    AzureBackend,
    GoogleBackend,
    S3Backend,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from airflow_provider_bulkexports.storage.backend import Backend

__all__ = ["backend_of"]

BACKENDS: dict[str, type[Backend]] = {
    "file": LocalBackend,
    "memory": MemoryBackend,
    "s3": S3Backend,
    "abfs": AzureBackend,
    "gs": GoogleBackend,
}


def backend_of(fs: AbstractFileSystem) -> Backend:
    """
    Return the backend of a filesystem.

    :raises InvalidRequest: for one on which days cannot be published safely.
    """
    schemes = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    for scheme in schemes:
        if scheme in BACKENDS:
            return BACKENDS[scheme](fs)
    raise InvalidRequest(
        f"Days cannot be stored at {schemes[0]}:// addresses, where a file cannot be replaced "
        "whole, or not by one writer at a time. Use s3://, abfs://, gs://, or a folder."
    )
