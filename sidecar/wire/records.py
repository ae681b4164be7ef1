"""What stands in the queue: records, each a 40-byte header and its payload, padded to 8 bytes.

Header, little-endian: crc32 of the rest of the header (u32), payload length (u32), sequence (u64), exchange number
(u64), time in Unix microseconds (u64), kind (u8), a zero byte, flags (u16), listener (u16), two zero bytes.
The checksum is seeded with the record's position in the queue, so that a header left over from an earlier lap of the
ring never passes for one of this lap.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

HEADER_BYTES: Final = 40
START_RESERVES: Final = 65_536  # sequence numbers after a START, one for each exchange that it may have to finish

_BODY = struct.Struct("<IQQQBxHHxx")  # the header without its checksum
_HEADER = struct.Struct("<IIQQQBxHHxx")
_GAP = struct.Struct("<QQ")
_SEED_MASK = 0xFFFF_FFFF

HEAD: Final = 1  # flag of REQUEST and RESPONSE records: the payload holds (part of) a message head
LOST_BEFORE: Final = 1  # flag of START: the former writer had dropped copies that no GAP had told of


class Kind(IntEnum):
    """What a record says."""

    START = 1  # a writer opened the queue; the next START_RESERVES sequence numbers are its block
    REQUEST = 2  # bytes from the client
    RESPONSE = 3  # bytes from the origin, or the sidecar's own answer
    END = 4  # the exchange is over; `flags` is an EndFlag
    GAP = 5  # room is back after drops; the payload counts them


class EndFlag(IntFlag):
    """How an exchange ended, and what its copy lacks."""

    ABORTED_BY_CLIENT = 1
    ABORTED_BY_ORIGIN = 2
    ANSWERED_BY_SIDECAR = 4
    BODY_CUT = 8  # a direction was longer than the capture limit
    DROPPED = 16  # the queue had no room for a part of the copy
    OPAQUE = 32  # after 101 Switching Protocols: not HTTP any more


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. `position` and `end` are its place in the queue (they only grow, in bytes).

    A GAP with sequence 0 is the reader's own: it met something unreadable and skipped it.
    """

    position: int
    end: int
    kind: int
    sequence: int
    exchange: int
    time_us: int
    flags: int
    listener: int
    payload: bytes


def padded(size: int) -> int:
    """`size` rounded up to the next multiple of 8."""
    return (size + 7) & ~7


def pack_header(  # noqa: PLR0917  once per chunk of traffic, and keywords cost
    position: int,
    length: int,
    sequence: int,
    exchange: int,
    time_us: int,
    kind: int,
    flags: int,
    listener: int,
    # bound as defaults: this runs once per chunk of traffic
    _pack: Callable[..., bytes] = _BODY.pack,
    _crc32: Callable[[bytes, int], int] = zlib.crc32,
) -> bytes:
    """The 40 bytes of a header; see the module's docstring for its layout."""
    body = _pack(length, sequence, exchange, time_us, kind, flags, listener)
    return _crc32(body, position & _SEED_MASK).to_bytes(4, "little") + body


def unpack_header(raw: bytes, position: int) -> tuple[int, int, int, int, int, int, int] | None:
    """(length, sequence, exchange, time_us, kind, flags, listener), or None when the checksum does not match."""
    if len(raw) != HEADER_BYTES:
        return None
    crc, *fields = _HEADER.unpack(raw)
    if crc != zlib.crc32(raw[4:], position & _SEED_MASK):
        return None
    length, sequence, exchange, time_us, kind, flags, listener = fields
    return length, sequence, exchange, time_us, kind, flags, listener


def pack_gap(records: int, size_bytes: int) -> bytes:
    """Payload of a GAP: how many records, and how many bytes of payload, were lost."""
    return _GAP.pack(records, size_bytes)


def unpack_gap(payload: bytes) -> tuple[int, int]:
    """The inverse of `pack_gap`: (records, bytes); raises ValueError when the payload is not one."""
    if len(payload) != _GAP.size:
        raise ValueError(f"a GAP record counts in {_GAP.size} bytes, not {len(payload)}")
    records, size_bytes = _GAP.unpack(payload)
    return records, size_bytes
