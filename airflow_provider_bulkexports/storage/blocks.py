"""The text of a day file in blocks of whole lines."""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.storage.records import LONGEST_LINE

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator
    from io import BufferedIOBase
    from pathlib import Path

__all__ = ["KEPT_OF_LONG_LINE", "Block", "blocks", "day_text"]

KEPT_OF_LONG_LINE = 64 * 2**10
"""Bytes of a line longer than the longest that a side file keeps."""
_READ_BYTES = 256 * 2**10


class Block(NamedTuple):
    """Whole lines: the first ``size`` bytes of a buffer; or the beginning of a too long one."""

    buffer: bytearray
    size: int
    is_cut: bool = False


@contextmanager
def day_text(source: Path) -> Iterator[BufferedIOBase]:
    """Open a day file for reading its text."""
    from isal import igzip, isal_zlib

    opener: Any = igzip.open
    broken: tuple[Any, ...] = (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.error)
    try:
        with opener(source, "rb") as file:
            yield file
    except broken as error:
        raise BadData(
            f"{source} is not a whole gzip file ({error}); fetch the day again."
        ) from error


def blocks(file: BufferedIOBase, size: int, spare: deque[bytearray]) -> Iterator[Block]:
    """
    Yield blocks of whole lines, of ``size`` bytes or less unless a line is longer.

    :param spare: buffers of ``size`` bytes to use again: the kernel clears fresh memory.
    """
    buffer, begun = bytearray(size), 0
    while (filled := _fill(file, buffer, begun)) > begun:
        end = buffer.rfind(b"\n", 0, filled) + 1
        if end:
            yield Block(buffer, end)
        elif filled > LONGEST_LINE:
            yield Block(buffer[:KEPT_OF_LONG_LINE], KEPT_OF_LONG_LINE, is_cut=True)
            while not end and (filled := _fill(file, buffer, 0)):
                end = buffer.find(b"\n", 0, filled) + 1
        begun = filled - end
        if spare and begun < size:
            following = spare.pop()
        else:
            following = bytearray(max(size, min(2 * begun, LONGEST_LINE + 1)))
        following[:begun] = buffer[end:filled]
        buffer = following
    if begun:
        yield Block(buffer, begun)


def _fill(file: BufferedIOBase, buffer: bytearray, begin: int) -> int:
    """Read into ``buffer`` from ``begin`` on until it is full; return where the text ends."""
    view = memoryview(buffer)
    # A gzip file's readinto makes a copy on the way; a small one stays in the cache.
    while count := file.readinto(view[begin : begin + _READ_BYTES]):
        begin += count
    return begin
