"""The chunked transfer coding (RFC 9112 section 7.1), scanned without copying: only where chunks begin and end.

Size lines, the CRLF behind each chunk, and trailer fields are looked at; a line that a piece of the stream cuts is kept
(a few bytes) until it is whole. Every complaint is about a byte's position in the stream, so it does not matter how the
stream was cut.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from sidecar.wire.head import CRLF, TEXT, TOKEN, Limits

# Extensions as RFC 9112 section 7.1.1 has them, but for the white space that nobody sends any more.
_QUOTED_TEXT: Final = rb"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"
_EXTENSION: Final = rb";" + TOKEN + rb"+(?:=(?:" + TOKEN + rb'+|"' + _QUOTED_TEXT + rb'"))?'
_EXTENSION_BEGUN: Final = rb";(?:" + TOKEN + rb"+(?:=(?:" + TOKEN + rb'+|"' + _QUOTED_TEXT + rb'(?:"|\\)?)?)?)?'
SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*\r\n")
TRAILER_LINE: Final = re.compile(rb"(?:(" + TOKEN + rb"+):(" + TEXT + rb"*))?\r\n")
_CRLF_LINE: Final = re.compile(rb"\r\n")
# How far a line that is not whole yet could still become a legal one: the longest legal beginning.
_SIZE_BEGUN: Final = re.compile(
    rb"(?:[0-9A-Fa-f]{1,15}(?:" + _EXTENSION + rb"(?=[;\r]))*(?:\r\n?|" + _EXTENSION_BEGUN + rb")?)?"
)
_TRAILER_BEGUN: Final = re.compile(rb"(?:\r\n?|" + TOKEN + rb"+(?::" + TEXT + rb"*(?:\r\n?)?)?)?")
_CRLF_BEGUN: Final = re.compile(rb"(?:\r\n?)?")


class BadChunkError(Exception):
    """The body stops being legal at offset `at` of the piece being scanned."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason


class _Part(IntEnum):
    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILER = 3
    DONE = 4


class ChunkScanner:
    """One chunked body, fed piece by piece."""

    __slots__ = ("_left", "_limits", "_line", "_part", "_trailer_left")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part.SIZE
        self._left = 0  # of the current chunk's data
        self._line = b""  # the beginning of a line that is not whole yet
        self._trailer_left = limits.trailer_bytes_max

    @property
    def done(self) -> bool:
        """The empty line behind the trailers has been seen."""
        return self._part is _Part.DONE

    def scan(self, data: bytes, at: int) -> int:
        """Scan `data` from `at`; returns where the body ends in it, or its size. Raises BadChunkError."""
        size = len(data)
        while at < size:
            part = self._part
            if part is _Part.DATA:
                take = min(self._left, size - at)
                self._left -= take
                at += take
                if not self._left:
                    self._part = _Part.DATA_END
            elif part is _Part.SIZE:
                at = self._size(data, at)
            elif part is _Part.DATA_END:
                at = self._data_end(data, at)
            else:
                at = self._trailer(data, at)
                if self._part is _Part.DONE:
                    break
        return at

    def _size(self, data: bytes, at: int) -> int:
        limit = self._limits.size_line_bytes_max
        line, at = self._take(SIZE_LINE, _SIZE_BEGUN, data, at, limit=limit)
        if line is not None:
            self._left = int(line[1], 16)
            self._part = _Part.DATA if self._left else _Part.TRAILER
        return at

    def _data_end(self, data: bytes, at: int) -> int:
        if not self._line and data.startswith(CRLF, at):
            self._part = _Part.SIZE
            return at + 2
        line, at = self._take(_CRLF_LINE, _CRLF_BEGUN, data, at, limit=2)
        if line is not None:
            self._part = _Part.SIZE
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        line, at = self._take(TRAILER_LINE, _TRAILER_BEGUN, data, at, limit=self._trailer_left)
        if line is not None:
            self._trailer_left -= len(line[0])
            if line[1] is None:
                self._part = _Part.DONE
        return at

    def _take(
        self, whole: re.Pattern[bytes], begun: re.Pattern[bytes], data: bytes, at: int, *, limit: int
    ) -> tuple[re.Match[bytes] | None, int]:
        """The line at `at`, at most `limit` bytes long, and where to go on; None when it is not whole yet."""
        had = len(self._line)
        if not had:
            line = whole.match(data, at)
            if line is not None and line.end() - at <= limit:
                return line, line.end()
        text = self._line + data[at : at + limit - had]
        line = whole.match(text)
        if line is not None:
            self._line = b""
            return line, at + line.end() - had
        beginning = begun.match(text)
        legal = beginning.end() if beginning is not None else 0
        if legal < len(text):
            raise BadChunkError(at + legal - had, _REASONS[self._part])
        if len(text) >= limit:
            raise BadChunkError(at + limit - had - 1, "a line of the chunked body is too long")
        self._line = text
        return None, len(data)


_REASONS: Final = {
    _Part.SIZE: "a chunk's size is not a hexadecimal number",
    _Part.DATA_END: "a chunk is longer than its size says",
    _Part.TRAILER: "a trailer is not a field",
}
