"""The queue between proxy and observer: a bounded ring of records in shared memory, one writer, one reader.

How it works. The writer puts a record's bytes behind `head`, stores the next sequence number, and only then stores the
new `head`: that store is the commit. Killed before it, the record never was; killed between the two stores, a sequence
number is skipped, never used twice. The reader reads from its own position up to `head` and, once what it read is safe
elsewhere, stores `tail`, which gives the room back. Neither ever waits for the other.

Weakly ordered CPUs (ARM) may show the reader a new `head` before the record behind it. A header's checksum, seeded with
the record's position, tells; the reader looks again, and after several looks takes it for damage, skips to `head` and
says so with a GAP of its own.

When the room runs out, the copy suffers and the traffic does not. The last eighth of the ring is kept for records with
a message head and for START, END and GAP, so bodies are dropped first. Once a chunk of a direction is dropped the rest
of that direction is too: a copy is always a prefix of what was sent. An END without room is owed and written first
when there is room again.

A record's time is the wall clock's, but does not follow a small step back (NTP). After a large one it does: a clock
that was once a year ahead must not put all later traffic there. That is safe since nothing takes order from time: the
order is that of sequences. A reader takes any time other than that of the last record it read for one under way. The
mark of a replica goes back with its clock, so deadlines wait until the clock comes past them again, and none fires
early; a session takes the latest time that it heard of. What was recorded while the clock was ahead keeps its times.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from sidecar.wire.records import (
    HEAD,
    HEADER_BYTES,
    LOST_BEFORE,
    START_RESERVES,
    EndFlag,
    Kind,
    pack_gap,
    pack_header,
)
from sidecar.wire.ringfile import (
    DATA_OFFSET,
    HEADER_PAGE_BYTES,
    S_HEAD,
    S_LOST_BYTES,
    S_LOST_RECORDS,
    S_NEXT,
    S_TAIL,
    S_TIME_US,
    RingError,
    RoleLock,
    open_for_writing,
)
from sidecar.wire.ringreader import RingReader
from sidecar.wire.status import Slot, StatusPage

__all__ = ["ExchangeCopy", "RingError", "RingReader", "RingWriter"]

HEAD_BYTES_MAX: Final = 1 << 20  # of one exchange's heads; what is beyond counts as body
STEP_BACK_US: Final = 5 * 60 * 1_000_000  # a clock that goes back by more is followed
EXCHANGES_OPEN_MAX: Final = START_RESERVES  # a START must be able to number all that it finishes

_TOGETHER_BYTES_MAX: Final = 16_384  # of a response that is put together with its END; copying more costs more
_PADDING: Final = bytes(8)

# An ExchangeCopy's room in a direction that takes no more.
_CUT: Final = -1
_LOST: Final = -2

_START, _REQUEST, _RESPONSE, _END, _GAP = (int(kind) for kind in Kind)


class RingWriter:
    """The proxy's end. Opens or makes the queue at `path` and commits START.

    `capacity_bytes` is the room for records; `body_bytes_max` the most of one body, per direction, that is copied.
    Raises RingError, saying what to change, when there is no room for the file or another writer has it. `notices` are
    sentences for the log about what was found (a file moved aside, a capacity kept). `reader_wait_s` is how long a
    file that must be replaced waits for its reader to go.
    """

    def __init__(self, path: str, capacity_bytes: int, *, body_bytes_max: int, reader_wait_s: float = 5.0) -> None:
        self._lock = RoleLock(path, "writer")
        try:
            self._file, self.notices = open_for_writing(path, capacity_bytes, reader_wait_s=reader_wait_s)
        except BaseException:
            self._lock.close()
            raise
        self.producer = self._file.producer
        self.status = self._file.status
        self.capacity = self._file.capacity
        self.body_bytes_max = body_bytes_max
        self.body_reserve = self.capacity >> 3
        self.piece_max = self.capacity >> 4  # a larger chunk becomes several records
        self.together_max = min(self.piece_max, _TOGETHER_BYTES_MAX)
        self._memory = self._file.memory
        self._slots = self._file.slots
        self._head: int = self._slots[S_HEAD]
        self._tail: int = self._slots[S_TAIL]  # as last seen: it only grows
        self._next: int = self._slots[S_NEXT]
        self._time_us: int = self._slots[S_TIME_US]
        self._open = 0  # exchanges begun whose END is not written
        self._owed: deque[tuple[int, int, int]] = deque()  # ENDs: exchange, listener, flags
        self._started = False
        self._behind = True  # START, ENDs or a GAP are still to be written
        self._settled_at = -1  # the tail for which there was no room for them
        self.settle()

    def copy(self, listener: int) -> ExchangeCopy:
        """A copy of one exchange that arrived at the listener of this number (0 ≤ listener < 65,536)."""
        return ExchangeCopy(self, listener)

    def settle(self) -> None:
        """Write what waits for room: START, ENDs, a GAP. Call it now and then while there is no traffic."""
        if not self._behind:
            return
        slots = self._slots
        self._tail = slots[S_TAIL]
        if not self._started:
            if self._room() < HEADER_BYTES:
                return
            flags = LOST_BEFORE if slots[S_LOST_RECORDS] else 0
            self._commit(_START, 0, 0, flags, b"", START_RESERVES)
            self._started = True
        while self._owed and self._room() >= HEADER_BYTES:
            exchange, listener, flags = self._owed.popleft()
            self._commit(_END, exchange, listener, flags, b"")
            self._open -= 1
        self.status.set(Slot.QUEUE_ENDS_OWED, len(self._owed))
        # A GAP is worth its room only once bodies fit again, well clear of the reserve.
        if slots[S_LOST_RECORDS] and self._room() >= 2 * self.body_reserve:
            self._commit(_GAP, 0, 0, 0, pack_gap(slots[S_LOST_RECORDS], slots[S_LOST_BYTES]))
            slots[S_LOST_RECORDS] = slots[S_LOST_BYTES] = 0
        self._behind = bool(self._owed or slots[S_LOST_RECORDS])
        self._settled_at = self._tail

    @property
    def unread_bytes(self) -> int:
        """How much of the ring is taken."""
        return int(self._slots[S_HEAD] - self._slots[S_TAIL])

    def close(self) -> None:
        """Write what can be written, unmap, and let another writer in. A copy that comes later is lost."""
        self.settle()
        self._file.close()
        self._lock.close()
        # What is left is a full queue in private memory, which takes nothing.
        scratch = bytearray(DATA_OFFSET)
        self._slots = memoryview(scratch)[:HEADER_PAGE_BYTES].cast("Q")
        self.status = StatusPage(scratch, HEADER_PAGE_BYTES)
        self._slots[S_HEAD] = self._head = self.capacity
        self._tail = 0
        self._started, self._behind = False, True

    def append(  # noqa: PLR0917  once per chunk of traffic, and keywords cost
        self, kind: int, exchange: int, listener: int, flags: int, payload: bytes | memoryview, reserve: int
    ) -> int:
        """Commit one record unless that leaves less than `reserve` bytes of room; its sequence, or 0 without room.

        `exchange` 0 makes the record the first of an exchange, whose number is then the returned sequence.
        """
        if not self._has_room(HEADER_BYTES + ((len(payload) + 7) & ~7) + reserve):
            return 0
        if not exchange:
            if self._open >= EXCHANGES_OPEN_MAX:
                return 0
            self._open += 1
        return self._commit(kind, exchange, listener, flags, payload)

    def append_last(  # noqa: PLR0917  likewise
        self, exchange: int, listener: int, flags: int, payload: bytes, reserve: int, end_flags: int
    ) -> bool:
        """Commit a RESPONSE and the END behind it by one store; False when they do not fit in one place."""
        length = len(payload)
        padded = (length + 7) & ~7
        size = 2 * HEADER_BYTES + padded
        if not self._has_room(size + reserve):
            return False
        position = self._head  # where it is only now: what waited for room has been written
        at = DATA_OFFSET + position % self.capacity
        if at + size > DATA_OFFSET + self.capacity:
            return False
        now_us, sequence = self._now_us(), self._next
        response = pack_header(position, length, sequence, exchange, now_us, _RESPONSE, flags, listener)
        position += HEADER_BYTES + padded
        end = pack_header(position, 0, sequence + 1, exchange, now_us, _END, end_flags, listener)
        self._memory[at : at + size] = b"".join((response, payload, _PADDING[: padded - length], end))
        self._slots[S_NEXT] = self._next = sequence + 2
        self._slots[S_HEAD] = self._head = position + HEADER_BYTES
        self._open -= 1
        return True

    def end(self, exchange: int, listener: int, flags: int) -> None:
        """Commit an END, or owe it. What is owed is bounded by EXCHANGES_OPEN_MAX."""
        if self.append(_END, exchange, listener, flags, b"", 0):
            self._open -= 1
        else:
            self._owed.append((exchange, listener, flags))
            self._fall_behind()

    def lose(self, size_bytes: int) -> None:
        """Count a record that was dropped."""
        self.status.add(Slot.RECORDS_DROPPED)
        self.status.add(Slot.RECORD_BYTES_DROPPED, size_bytes)
        self._slots[S_LOST_RECORDS] += 1
        self._slots[S_LOST_BYTES] += size_bytes
        self._fall_behind()

    def _fall_behind(self) -> None:
        if not self._behind:
            self._behind, self._settled_at = True, -1

    def _has_room(self, size: int) -> bool:
        """Whether this many bytes are free, once what waits has been written; nothing may overtake that."""
        if self._behind:
            if self._slots[S_TAIL] != self._settled_at:  # else there is no more room than the last time
                self.settle()
            if self._owed or not self._started:
                return False
        limit = self.capacity - size
        if self._head - self._tail > limit:
            self._tail = self._slots[S_TAIL]
            return self._head - self._tail <= limit
        return True

    def _room(self) -> int:
        return self.capacity - (self._head - self._tail)

    def _commit(  # noqa: PLR0917  likewise
        self,
        kind: int,
        exchange: int,
        listener: int,
        flags: int,
        payload: bytes | memoryview,
        reserved: int = 0,
    ) -> int:
        """Write one record for which there is room; returns its sequence."""
        slots, memory, position = self._slots, self._memory, self._head
        sequence, length = self._next, len(payload)
        header = pack_header(position, length, sequence, exchange or sequence, self._now_us(), kind, flags, listener)
        offset = position % self.capacity
        if offset + HEADER_BYTES + length <= self.capacity:
            at = DATA_OFFSET + offset
            begin = at + HEADER_BYTES
            memory[at:begin] = header
            if length:
                memory[begin : begin + length] = payload
        else:
            self._wrap(offset, header)
            self._wrap((offset + HEADER_BYTES) % self.capacity, payload)
        slots[S_NEXT] = self._next = sequence + 1 + reserved
        slots[S_HEAD] = self._head = position + HEADER_BYTES + ((length + 7) & ~7)
        return sequence

    def _now_us(self) -> int:
        """The time of the next record."""
        now_us = time.time_ns() // 1000
        if now_us > self._time_us or now_us < self._time_us - STEP_BACK_US:
            self._time_us = now_us
            # Stored first: tells the reader, when it asks how far its knowledge goes, that a record is under way.
            self._slots[S_TIME_US] = now_us
        return self._time_us

    def _wrap(self, offset: int, data: bytes | memoryview) -> None:
        """Copy to `offset`, going on at the ring's start where it ends."""
        first = min(len(data), self.capacity - offset)
        self._memory[DATA_OFFSET + offset : DATA_OFFSET + offset + first] = data[:first]
        if first < len(data):
            self._memory[DATA_OFFSET : DATA_OFFSET + len(data) - first] = data[first:]


class ExchangeCopy:
    """The copy of one exchange on its way into the queue. Never blocks and never raises for want of room.

    Each direction is copied up to `body_bytes_max` bytes of body; heads are kept whole beyond that. What follows is
    left out and END says BODY_CUT: of a stream that is cut, the end with its usage is not seen. What the queue has no
    room for is left out and END says DROPPED.
    """

    __slots__ = ("_flags", "_head_room", "_listener", "_number", "_request_room", "_response_room", "_ring")

    def __init__(self, ring: RingWriter, listener: int) -> None:
        self._ring = ring
        self._listener = listener
        self._number = 0
        self._flags = 0
        self._head_room = HEAD_BYTES_MAX
        self._request_room = self._response_room = ring.body_bytes_max

    def request(self, data: bytes, head_bytes: int = 0) -> None:
        """Commit a chunk from the client, of which the first `head_bytes` are (part of) a message head."""
        self._request_room = self._copy(_REQUEST, self._request_room, data, head_bytes)

    def response(self, data: bytes, head_bytes: int = 0) -> None:
        """Commit a chunk from the origin, or of the sidecar's own answer; heads may be several, 1xx answers first."""
        self._response_room = self._copy(_RESPONSE, self._response_room, data, head_bytes)

    def last(self, data: bytes, head_bytes: int, flags: int) -> None:
        """Commit a whole response and END: as `response` and `end`, for less."""
        ring, size = self._ring, len(data)
        if (
            head_bytes <= self._head_room
            and size - head_bytes <= self._response_room
            and size <= ring.together_max
            and self._number
            and ring.append_last(self._number, self._listener, HEAD, data, ring.body_reserve, flags | self._flags)
        ):
            self._number = 0
            self._request_room = self._response_room = _CUT
        else:
            self.response(data, head_bytes)
            self.end(flags)

    def end(self, flags: int = 0) -> None:
        """Commit END with `flags` (EndFlag) and what the copy knows of itself. More calls have no effect."""
        if self._number:
            self._ring.end(self._number, self._listener, int(flags) | self._flags)
        self._number = 0
        self._request_room = self._response_room = _CUT

    def _copy(self, kind: int, room: int, data: bytes, head_bytes: int) -> int:
        """Commit a chunk; returns the room that the direction has left."""
        ring, size, number = self._ring, len(data), self._number
        body_bytes = size - head_bytes
        if body_bytes <= room and size <= ring.piece_max and head_bytes <= self._head_room and size:
            flags = HEAD if head_bytes else 0
            sequence = ring.append(kind, number, self._listener, flags, data, ring.body_reserve)
            if sequence:
                self._head_room -= head_bytes
                if not number:
                    self._number = sequence  # the first record's is the exchange's
                return room - body_bytes
        if size == 0 or room == _CUT:
            return room
        if room == _LOST:
            return self._drop(size)
        return self._copy_apart(kind, room, memoryview(data), head_bytes)

    def _copy_apart(self, kind: int, room: int, data: memoryview, head_bytes: int) -> int:
        """Head and body apart, in pieces: the reserve is for heads."""
        ring = self._ring
        head_bytes = min(head_bytes, self._head_room)
        self._head_room -= head_bytes
        for at in range(0, head_bytes, ring.piece_max):
            piece = data[at : min(at + ring.piece_max, head_bytes)]
            if not self._write(kind, HEAD, piece, 0):
                return self._drop(len(data) - at)
        return self._copy_body(kind, room, data[head_bytes:])

    def _copy_body(self, kind: int, room: int, data: memoryview) -> int:
        """Any size, in pieces, up to the capture limit."""
        ring = self._ring
        kept = min(len(data), room)
        for at in range(0, kept, ring.piece_max):
            piece = data[at : min(at + ring.piece_max, kept)]
            if not self._write(kind, 0, piece, ring.body_reserve):
                return self._drop(len(data) - at)
        if kept < len(data):
            self._flags |= EndFlag.BODY_CUT
            ring.status.add(Slot.BODIES_CUT)
            return _CUT
        return room - kept

    def _write(self, kind: int, flags: int, data: bytes | memoryview, reserve: int) -> bool:
        sequence = self._ring.append(kind, self._number, self._listener, flags, data, reserve)
        if not self._number:
            self._number = sequence  # the first record's is the exchange's
        return sequence > 0

    def _drop(self, size: int) -> int:
        """The rest of this direction is lost; with its first record, the exchange is."""
        self._ring.lose(size)
        if not self._number and not self._flags & EndFlag.DROPPED:
            self._ring.status.add(Slot.EXCHANGES_DROPPED)
            self._request_room = self._response_room = _LOST
        self._flags |= EndFlag.DROPPED
        return _LOST
