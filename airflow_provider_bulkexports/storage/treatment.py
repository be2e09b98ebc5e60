"""Columns left out or hashed, table by table."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_bulkexports.storage.columns import Privacy

__all__ = ["Treatment"]

_MOST_KNOWN = 100_000
"""Values whose hash is kept for the next table: 20 MB."""


class Treatment:
    """
    What a privacy option does to tables.

    :param schema: of the tables.
    :param privacy: the option.
    """

    def __init__(self, schema: Any, privacy: Privacy) -> None:
        import pyarrow as pa

        self._privacy = privacy
        self._known: dict[str, str] = {"": ""}
        self.schema = pa.schema([column for column in schema if column.name not in privacy.drop])

    def apply(self, table: Any) -> Any:
        """Return a table with the option's columns left out and hashed."""
        table = table.select(self.schema.names)
        for name in self._privacy.hash:
            index = self.schema.get_field_index(name)
            table = table.set_column(index, self.schema.field(index), self._hashed(table[name]))
        return table

    def _hashed(self, column: Any) -> Any:
        """Return a column of strings hashed; null and the empty string stay."""
        import pyarrow as pa

        # One hash for each distinct value, of which a day has far fewer than records.
        encoded = column.combine_chunks().dictionary_encode()
        hashes = pa.array(map(self._hash, encoded.dictionary.to_pylist()), pa.string())
        return hashes.take(encoded.indices)

    def _hash(self, value: str) -> str:
        found = self._known.get(value)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known = {"": ""}
            found = hmac.digest(self._privacy.secret, value.encode(), "sha256").hex()
            self._known[value] = found
        return found
