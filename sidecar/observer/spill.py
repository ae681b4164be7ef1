"""Where the copies of long exchanges wait, so that they do not hold the queue: one file each, beside the queue.

A file is a state of fixed size and then segments, each a direction, a length and bytes. Segments are appended first,
the state, which says how many bytes of them count, is stored last: whoever is killed in between leaves the exchange as
it was, and its records are still in the queue. (A state lies within one page of the file, which the kernel copies
whole or not at all when the writer is killed.) The files stay on the queue's tmpfs and within one bound together; past
it the largest exchange loses its body, keeps the beginning of both directions, and is marked.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_STATE: Final = struct.Struct("<QQQQQQIHH")
STATE_BYTES: Final = 64
_SEGMENT: Final = struct.Struct("<II")
BEGINNING_BYTES: Final = 16 * 1024  # of each direction, kept of an exchange that loses its body

_LOST: Final = 1
_GAP: Final = 2


@dataclass(slots=True)
class OpenExchange:
    """An exchange whose END has not been read. Times are Unix microseconds.

    `first` is its number, `sequence` that of the last record taken in, `viewed_us` when it was last shown. `lost`: a
    part of the copy is missing; `gap`: one may be, since the proxy told of drops while it ran. `hold` is the queue's
    position of its first record that is not in a spill file; `request` and `response` are the bytes from there on.
    """

    first: int
    listener: int
    sequence: int
    started_us: int
    last_us: int
    viewed_us: int
    lost: bool = False
    gap: bool = False
    hold: int | None = None
    spilled_bytes: int = 0  # of segments in its file
    spilled: bool = False
    # For its timing alone, and not in its file: when its last byte was asked with, answered first and last; 0: unknown.
    asked_us: int = 0
    first_answer_us: int = 0
    last_answer_us: int = 0
    request: list[bytes] = field(default_factory=list)
    response: list[bytes] = field(default_factory=list)


class Spill:
    """The files of one queue (`producer`) in `directory`. OSError means that nothing was changed that counts."""

    def __init__(self, directory: str | os.PathLike[str], producer: str) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._producer = producer
        self._sizes: dict[int, int] = {}
        self.bytes = 0  # of all files together

    def recover(self) -> tuple[list[OpenExchange], int]:
        """The exchanges that an earlier observer spilled, by number, and how many of another queue were removed.

        Another queue's exchanges can never end here: that queue was replaced, and the loss was reported then.
        """
        found: list[OpenExchange] = []
        foreign = 0
        for path in sorted(self._directory.iterdir()):
            producer, _, number = path.name.partition("-")
            if producer == self._producer and number.isdecimal():
                exchange = _state_of(path)
                if exchange is not None and exchange.first == int(number):
                    found.append(exchange)
                    self._account(exchange)
                    continue
            else:
                foreign += 1
            path.unlink(missing_ok=True)
        found.sort(key=lambda exchange: exchange.first)
        return found, foreign

    def save(self, exchange: OpenExchange) -> None:
        """Append what the exchange holds in memory to its file, and let go of it. Raises OSError when that fails."""
        segments = b"".join(
            _SEGMENT.pack(direction, len(data)) + data
            for direction, data in enumerate((b"".join(exchange.request), b"".join(exchange.response)))
            if data
        )
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path(exchange.first), flags, 0o600)
        try:
            end = STATE_BYTES + exchange.spilled_bytes
            _write_all(fd, segments, end)
            _write_all(fd, _pack_state(exchange, exchange.spilled_bytes + len(segments)), 0)
        finally:
            os.close(fd)
        exchange.spilled_bytes += len(segments)
        exchange.spilled = True
        exchange.hold = None
        exchange.request.clear()
        exchange.response.clear()
        self._account(exchange)

    def read(self, exchange: OpenExchange) -> tuple[bytes, bytes]:
        """All of the exchange's bytes, from its file and from memory: (request, response)."""
        directions: tuple[list[bytes], list[bytes]] = ([], [])
        if exchange.spilled_bytes:
            raw = self._path(exchange.first).read_bytes()[STATE_BYTES : STATE_BYTES + exchange.spilled_bytes]
            at = 0
            while at + _SEGMENT.size <= len(raw):
                direction, length = _SEGMENT.unpack_from(raw, at)
                at += _SEGMENT.size
                directions[direction & 1].append(raw[at : at + length])
                at += length
        request, response = directions
        return b"".join(request + exchange.request), b"".join(response + exchange.response)

    def shed(self, exchange: OpenExchange) -> None:
        """Drop the body of a spilled exchange, or, the second time, all that is left of it."""
        keep = 0 if exchange.lost else BEGINNING_BYTES
        request, response = self.read(exchange) if keep else (b"", b"")
        exchange.lost = True
        exchange.spilled_bytes = 0
        with self._path(exchange.first).open("r+b", buffering=0) as file:
            _write_all(file.fileno(), _pack_state(exchange, 0), 0)
            file.truncate(STATE_BYTES)
        exchange.request[:] = [request[:keep]]
        exchange.response[:] = [response[:keep]]
        self.save(exchange)

    def delete(self, first: int) -> None:
        """Remove an exchange's file, if it has one."""
        if first in self._sizes:
            self._path(first).unlink(missing_ok=True)
            self.bytes -= self._sizes.pop(first)

    def _account(self, exchange: OpenExchange) -> None:
        size = STATE_BYTES + exchange.spilled_bytes
        self.bytes += size - self._sizes.get(exchange.first, 0)
        self._sizes[exchange.first] = size

    def _path(self, first: int) -> Path:
        return self._directory / f"{self._producer}-{first}"


def largest(exchanges: Iterable[OpenExchange]) -> OpenExchange | None:
    """Whose body goes first: the exchange with the most bytes spilled, of equals the oldest; None when none has any."""
    spilled = [exchange for exchange in exchanges if exchange.spilled_bytes]
    return max(spilled, key=lambda exchange: (exchange.spilled_bytes, -exchange.first), default=None)


def _pack_state(exchange: OpenExchange, spilled_bytes: int) -> bytes:
    flags = (_LOST if exchange.lost else 0) | (_GAP if exchange.gap else 0)
    body = _STATE.pack(
        spilled_bytes,
        exchange.first,
        exchange.sequence,
        exchange.started_us,
        exchange.last_us,
        exchange.viewed_us,
        0,
        exchange.listener,
        flags,
    )
    return zlib.crc32(body).to_bytes(8, "little") + body


def _state_of(path: Path) -> OpenExchange | None:
    """The state that a file begins with; None when it was never stored whole, or the file is shorter than it says."""
    with path.open("rb") as file:
        raw = file.read(STATE_BYTES)
    if len(raw) != STATE_BYTES or zlib.crc32(raw[8:]).to_bytes(8, "little") != raw[:8]:
        return None
    spilled_bytes, first, sequence, started_us, last_us, viewed_us, _, listener, flags = _STATE.unpack(raw[8:])
    if path.stat().st_size < STATE_BYTES + spilled_bytes:
        return None
    return OpenExchange(
        first=first,
        listener=listener,
        sequence=sequence,
        started_us=started_us,
        last_us=last_us,
        viewed_us=viewed_us,
        lost=bool(flags & _LOST),
        gap=bool(flags & _GAP),
        spilled_bytes=spilled_bytes,
        spilled=True,
    )


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
