"""Whether the bytes of a day file are whole: gzip to its last trailer, lines inside."""

from __future__ import annotations

from dataclasses import dataclass

from isal import igzip_lib

from airflow_provider_bulkexports.api.errors import BadData
from airflow_provider_bulkexports.api.redact import safe_text

__all__ = ["DayFileCheck", "Limits"]

_BLOCK = 256 * 1024
"""Bytes of text at once. With 64 KiB the threads meet at the interpreter four times as often, which
takes a tenth longer; with more, memory is mapped and unmapped each time."""
_RATIO_FROM = 1024 * 1024
_GZIP = b"\x1f\x8b"
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub's slip


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What no honest file exceeds.

    :param size: bytes of a file.
    :param ratio: bytes of text for each byte of the file, past the first MiB of text.
    :param line: bytes of a line.
    """

    size: int = 16 * 1024**3
    ratio: int = 200
    line: int = 1024 * 1024


class DayFileCheck:
    """
    Follows a gzip file member by member through every trailer, and counts what it holds.

    It keeps no more than a block of text.

    :param limits: what it refuses to go beyond.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.size = 0
        self.text_size = 0
        self._limits = limits or Limits()
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._ended_lines = 0
        self._open_line = 0

    @property
    def records(self) -> int:
        """Lines so far, with the one that has not ended."""
        return self._ended_lines + (self._open_line > 0)

    def feed(self, data: bytes) -> None:
        """
        Go on with the file's next bytes.

        :raises BadData: when they cannot be part of a day file.
        """
        self.size += len(data)
        if self.size > self._limits.size:
            raise BadData(f"the file is larger than the limit of {self._limits.size} bytes")
        while data:
            if self._member is None or self._member.eof:
                # Nothing but a member may follow a member: zeros too would be damage.
                if not _GZIP.startswith(data[:2]):
                    raise BadData(f"what stands at byte {self.size - len(data)} is not gzip")
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._inflate(self._member, data)
            data = self._member.unused_data if self._member.eof else b""

    def finish(self) -> None:
        """
        Say that there are no more bytes.

        :raises BadData: when the file lacks its end.
        """
        if self._member is None or not self._member.eof:
            raise BadData(f"the file ends after {self.size} bytes, within a gzip member")

    def _inflate(self, member: igzip_lib.IgzipDecompressor, data: bytes) -> None:
        most = min(_BLOCK, self._limits.line)
        while True:
            try:
                text = member.decompress(data, most)
            except _ISAL_ERROR as error:
                raise BadData(
                    f"the gzip is damaged before byte {self.size}: {safe_text(str(error), [])}"
                ) from None
            if text:
                self._count(text)
            if member.eof or member.needs_input:
                return
            data = b""

    def _count(self, text: bytes) -> None:
        if not self.text_size and text.startswith(_GZIP):
            raise BadData("the gzip holds another gzip, not lines")
        self.text_size += len(text)
        if self.text_size > max(_RATIO_FROM, self.size * self._limits.ratio):
            raise BadData(f"the text is more than {self._limits.ratio} times larger than the file")
        # Up to Python 3.12 bytes.count looks at each byte by itself; this is seven times faster.
        ended = len(text) - len(text.replace(b"\n", b""))
        longest = self._open_line + (text.find(b"\n") if ended else len(text))
        # A block is no longer than a line may be, so only the line begun before it can be.
        if longest > self._limits.line:
            raise BadData(f"a line is longer than the limit of {self._limits.line} bytes")
        self._ended_lines += ended
        self._open_line = len(text) - text.rfind(b"\n") - 1 if ended else longest
