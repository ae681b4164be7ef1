"""Content codings undone (RFC 9110 section 8.4, RFC 7932, RFC 8878), within bounds.

A body that comes from the wire may be built to explode: a kilobyte of gzip can stand for a megabyte, two kilobytes of
zstd for sixty-four, and codings can be nested. So every step has a ceiling, and what passes it is given up as a whole:
a part of a bomb is of no use. A body that was cut short is another matter: what came out before the cut is kept,
because the end of a stream may have been seen in it.

Each coding is a generator: it takes the coded bytes, yields what comes out in pieces of bounded size, and returns
whether the coding's own end was reached. One function collects the pieces and keeps the ceiling.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass

import brotli
import zstandard

DECODED_BYTES_MAX = 32 << 20
CODINGS_MAX = 3
# Past the free allowance, a coding may grow a body this many times. Deflate itself ends at 1032; texts seldom pass 20,
# streams of small alike events 60.
RATIO_MAX = 200
RATIO_FREE_BYTES = 1 << 20
# RFC 9659: what a zstd body may ask of whoever reads it.
ZSTD_WINDOW_BYTES_MAX = 8 << 20

_STEP_BYTES = 256 << 10
# One zstd block of four bytes can stand for 128 KiB, so this little at a time keeps a piece under 8 MiB.
_ZSTD_STEP_BYTES = 256
_MEMBERS_MAX = 1_000

Pieces = Generator[bytes, None, bool]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A body with its codings undone.

    `complete` is False when the coded bytes ended, or broke, before their end was reached; `body` is then what came out
    up to there. `reason` is empty, or why this is not the whole: `coding_unknown`, `coding_nested`, `body_too_large`,
    `body_too_dense`, `too_many_values` (of JSON, coded or not): nothing can be read, `opaque`; or `coding_broken`
    (garbage inside).
    """

    body: bytes
    complete: bool = True
    reason: str = ""

    @property
    def opaque(self) -> bool:
        """Whether `body` is of no use."""
        return self.reason not in ("", "coding_broken")


class _BoundError(Exception):
    """A ceiling was passed; the argument is the reason."""


def undo_codings(body: bytes, content_encoding: str | None, *, decoded_bytes_max: int = DECODED_BYTES_MAX) -> Decoded:
    """Undo a `Content-Encoding` field's codings, the last applied first. Never raises."""
    codings = [name for part in (content_encoding or "").split(",") if (name := part.strip().lower())]
    codings = [name for name in codings if name != "identity"]
    if len(codings) > CODINGS_MAX:
        return Decoded(b"", complete=False, reason="coding_nested")
    complete, reason = True, ""
    for name in reversed(codings):
        if not body:
            # Nothing was sent (HEAD, 304) or nothing came out yet: not an error of the coding.
            break
        if name not in _CODINGS:
            return Decoded(b"", complete=False, reason="coding_unknown")
        try:
            body, whole = _collect(_CODINGS[name](body), len(body), decoded_bytes_max)
        except _BoundError as bound:
            return Decoded(b"", complete=False, reason=str(bound))
        except _ERRORS:
            return Decoded(b"", complete=False, reason="coding_broken")
        complete = complete and whole
    return Decoded(body, complete, reason)


def _collect(pieces: Pieces, coded_bytes: int, decoded_bytes_max: int) -> tuple[bytes, bool]:
    """The bytes, and whether their end was reached. Raises _BoundError, and _ERRORS when nothing had come out yet."""
    ceiling = min(decoded_bytes_max, max(RATIO_FREE_BYTES, RATIO_MAX * coded_bytes))
    out: list[bytes] = []
    size = 0
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return b"".join(out), bool(end.value)
        except _ERRORS:
            if not size:
                raise
            return b"".join(out), False
        size += len(piece)
        if size > ceiling:
            raise _BoundError("body_too_large" if ceiling == decoded_bytes_max else "body_too_dense")
        out.append(piece)


def _gzip(body: bytes) -> Pieces:
    for _member in range(_MEMBERS_MAX):
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        yield from _inflate(inflater, body)
        if not inflater.eof:
            return False
        body = inflater.unused_data
        if not body.startswith(b"\x1f\x8b"):
            # Padding after the last member is allowed to be anything, as every client has it.
            return True
    raise _BoundError("coding_nested")


def _deflate(body: bytes) -> Pieces:
    """`deflate` means the zlib format (RFC 9110 section 8.4.1.2); some servers send the bare stream."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_header(body) else -zlib.MAX_WBITS)
    yield from _inflate(inflater, body)
    return inflater.eof


def _has_zlib_header(body: bytes) -> bool:
    """RFC 1950 section 2.2: method 8, and the first two bytes are a multiple of 31."""
    if len(body) < 2:
        return body[:1] == b"\x78"
    return body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _inflate(inflater: zlib._Decompress, body: bytes) -> Generator[bytes, None, None]:
    while body and not inflater.eof:
        yield inflater.decompress(body, _STEP_BYTES)
        body = inflater.unconsumed_tail
    # All of the input may be taken in while a little of the output is still to come.
    yield inflater.flush()


def _brotli(body: bytes) -> Pieces:
    inflater = brotli.Decompressor()
    yield inflater.process(body, output_buffer_limit=_STEP_BYTES)
    while not inflater.is_finished():
        piece = inflater.process(b"", output_buffer_limit=_STEP_BYTES)
        if not piece and inflater.can_accept_more_data():
            return False
        yield piece
    return True


def _zstd(body: bytes) -> Pieces:
    frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompressobj()
    at, frames = 0, 1
    while at < len(body):
        step = body[at : at + _ZSTD_STEP_BYTES]
        yield frame.decompress(step)
        at += len(step)
        if frame.eof:
            at -= len(frame.unused_data)
            if at >= len(body):
                return True
            # Frames may follow one another (RFC 8878 section 3).
            frames += 1
            if frames > _MEMBERS_MAX:
                raise _BoundError("coding_nested")
            frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompressobj()
    return False


_CODINGS: dict[str, Callable[[bytes], Pieces]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
_ERRORS = (zlib.error, brotli.error, zstandard.ZstdError)
