"""The observer's end of the queue; `wire/ring.py` says how the two ends work together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sidecar.wire.records import HEADER_BYTES, Kind, Record, pack_gap, padded, unpack_header
from sidecar.wire.ringfile import (
    DATA_OFFSET,
    S_HEAD,
    S_RELEASED,
    S_SKIP_FROM,
    S_SKIP_TO,
    S_TAIL,
    S_TIME_US,
    RingError,
    RingFile,
    RoleLock,
    map_existing,
)
from sidecar.wire.status import Slot

LOOKS: Final = 6  # at a record whose header does not check, 1 ms apart


class RingReader:
    """The observer's end. `timeout_s` is how long it waits for the former reader to go and for the file to be made.

    Raises RingError when either does not happen. `producer` names the queue in every observation.
    """

    def __init__(self, path: str, *, timeout_s: float = 0.0) -> None:
        self._lock = RoleLock(path, "reader", timeout_s=timeout_s)
        try:
            found = _found(path, timeout_s)
        except BaseException:
            self._lock.close()
            raise
        self._file = found
        self.producer = found.producer
        self.status = found.status
        self.capacity = found.capacity
        self._slots = found.slots
        last_us = self._slots[S_TIME_US]
        self.position: int = self._slots[S_TAIL]  # of the next record to read
        self._sequence = 0  # of the last record read
        self._time_us = last_us if self._slots[S_HEAD] == self.position else 0

    @property
    def tail(self) -> int:
        """Up to here the room has been given back."""
        return int(self._slots[S_TAIL])

    @property
    def used_bytes(self) -> int:
        """How much of the ring is taken: not read, or not given back yet."""
        return int(self._slots[S_HEAD] - self._slots[S_TAIL])

    @property
    def acknowledged(self) -> int:
        """The highest sequence that was emitted and is safe, as `acknowledge` stored it; outlives the reader."""
        return int(self._slots[S_RELEASED])

    def read(self, limit_bytes: int) -> list[Record]:
        """The next records, at least one if there is any, until their sizes reach `limit_bytes`."""
        records: list[Record] = []
        stop = self.position + limit_bytes
        head = self._slots[S_HEAD]
        while self.position < min(head, stop):
            record = self._look(self.position, head) or self._skip(head)
            records.append(record)
            self.position = record.end
            if record.sequence:
                self._sequence = record.sequence
                self._time_us = record.time_us
        return records

    def release(self, position: int) -> None:
        """Give the room before `position` (a record's `position` or `end`) back to the writer."""
        if position > self.position:
            raise ValueError("cannot release what was not read")
        self._slots[S_TAIL] = max(self._slots[S_TAIL], position)

    def acknowledge(self, sequence: int) -> None:
        """Remember that everything emitted up to `sequence` is safe."""
        self._slots[S_RELEASED] = max(self._slots[S_RELEASED], sequence)

    def unread_us(self) -> int | None:
        """The time of the oldest record that was not read, committed or under way; None when there is none."""
        under_way: int = self._slots[S_TIME_US]
        if self._slots[S_HEAD] > self.position:
            fields = unpack_header(self._bytes(self.position, HEADER_BYTES), self.position)
            return fields[3] if fields else self._time_us
        return under_way if under_way != self._time_us else None

    def close(self) -> None:
        """Unmap and let another reader in."""
        self._file.close()
        self._lock.close()

    def _look(self, position: int, head: int) -> Record | None:
        if self._slots[S_SKIP_FROM] == position and self._slots[S_SKIP_TO] > position:
            return None
        for look in range(LOOKS):
            if look:
                time.sleep(0.001)
            fields = unpack_header(self._bytes(position, HEADER_BYTES), position)
            if fields is None:
                continue
            length, sequence, exchange, time_us, kind, flags, listener = fields
            start = position + HEADER_BYTES
            end = start + padded(length)
            if end <= head and sequence > self._sequence:
                payload = self._bytes(start, length)
                return Record(position, end, kind, sequence, exchange, time_us, flags, listener, payload)
        return None

    def _skip(self, head: int) -> Record:
        """Step over what cannot be read. Where to is kept in the file, so that a replay skips the same records."""
        slots, position = self._slots, self.position
        if slots[S_SKIP_FROM] != position or slots[S_SKIP_TO] <= position:
            slots[S_SKIP_TO] = head
            slots[S_SKIP_FROM] = position
            self.status.add(Slot.QUEUE_CORRUPTIONS)
            self.status.add(Slot.QUEUE_BYTES_SKIPPED, head - position)
        end: int = slots[S_SKIP_TO]
        return Record(position, end, int(Kind.GAP), 0, 0, self._time_us, 0, 0, pack_gap(0, end - position))

    def _bytes(self, position: int, size: int) -> bytes:
        offset = position % self.capacity
        memory = self._file.memory
        first = memory[DATA_OFFSET + offset : DATA_OFFSET + min(offset + size, self.capacity)]
        if len(first) == size:
            return first
        return first + memory[DATA_OFFSET : DATA_OFFSET + size - len(first)]


def _found(path: str, timeout_s: float) -> RingFile:
    deadline = time.monotonic() + timeout_s
    while (found := map_existing(path)) is None:
        if time.monotonic() >= deadline:
            raise RingError(f"there is no queue in {Path(path).parent}: the proxy makes it when it starts")
        time.sleep(0.02)
    return found
