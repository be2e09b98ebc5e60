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
_MIB = 1024 * 1024
_LONGEST_SAMPLE = _MIB
_MOST_SAMPLES = 4096
_SAMPLES_SIZE = 16 * _MIB
_SHORT_LINE = 50
_GZIP = b"\x1f\x8b"
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stub's slip


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What no honest file exceeds.

    No text costs more memory than a block of it and the samples, so what is limited is the work
    that a small file can ask for. Deflate makes at most 1,032 bytes of one. The most repetitive
    day that we could think of, equal bodies of 10 kB under numbers and instants of their own, has
    190, real days fewer than 20. A GiB is free, since it costs a second: a ratio says little
    about a small file. The largest text is that of the largest file at a real day's ratio.

    :param size: bytes of a file.
    :param free: bytes of text that any file may have.
    :param ratio: bytes of text for each byte of the file, beyond the free ones.
    :param text: bytes of text at most, whatever the file's size.
    :param line: bytes of a line.
    """

    size: int = 16 * 1024**3
    free: int = 1024**3
    ratio: int = 400
    text: int = 256 * 1024**3
    line: int = 16 * _MIB


class DayFileCheck:
    """
    Follows a gzip file member by member through every trailer, and counts what it holds.

    It keeps no more than a block of text and the samples.

    :param limits: what it refuses to go beyond.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.size = 0
        self.text_size = 0
        self._limits = limits or Limits()
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._ended_lines = 0
        self._open_line = 0
        self._opening = b""
        self._last_line = b""
        self._samples: list[bytes] = []
        self._samples_size = 0
        self._apart = _MIB
        self._next_sample = 0

    @property
    def records(self) -> int:
        """Lines so far, with the one that has not ended."""
        return self._ended_lines + (self._open_line > 0)

    @property
    def samples(self) -> tuple[bytes, ...]:
        """
        Lines to look at, without their ends, in the order of the file.

        The first, then the one that crosses into a block about each MiB, last the last; each cut
        at 1 MiB. At most 4,096 with 17 MiB: a larger file has them further apart.
        """
        last = self._opening or self._last_line
        return (*self._samples, last) if self.records > 1 else (last,) * self.records

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
        self._require_credible_size()
        end = text.find(b"\n")
        # A block is no longer than a line may be, so only the line begun before it can be.
        if self._open_line + (len(text) if end < 0 else end) > self._limits.line:
            raise BadData(f"a line is longer than the limit of {self._limits.line} bytes")
        if end < 0:
            self._open_line += len(text)
            self._opening += text[: _LONGEST_SAMPLE - len(self._opening)]
            return
        line = self._opening + text[: min(end, _LONGEST_SAMPLE - len(self._opening))]
        if self.text_size > self._next_sample:
            self._keep(line)
        last = text.rfind(b"\n")
        self._last_line = text[text.rfind(b"\n", 0, last) + 1 : last] if last > end else line
        self._opening = text[last + 1 :]
        self._open_line = len(self._opening)
        self._ended_lines += self._ends_in(text)

    def _ends_in(self, text: bytes) -> int:
        # Up to Python 3.12 bytes.count looks at each byte by itself. Removing is six times faster
        # for lines as records are, and ten times slower for lines of a few bytes.
        if self._ended_lines * _SHORT_LINE > self.text_size:
            return text.count(b"\n")
        return len(text) - len(text.replace(b"\n", b""))

    def _require_credible_size(self) -> None:
        limits = self._limits
        if self.text_size > limits.text:
            raise BadData(f"the text is larger than the limit of {limits.text} bytes")
        if self.text_size > limits.free + self.size * limits.ratio:
            raise BadData(f"the text is more than {limits.ratio} times larger than the file")

    def _keep(self, line: bytes) -> None:
        """Keep a line as a sample; where they become too many, every other of them."""
        self._samples.append(line)
        self._samples_size += len(line)
        while len(self._samples) > 1 and (
            len(self._samples) > _MOST_SAMPLES - 1 or self._samples_size > _SAMPLES_SIZE
        ):
            self._samples = self._samples[::2]
            self._samples_size = sum(map(len, self._samples))
            self._apart *= 2
        self._next_sample = self.text_size + self._apart
