"""The status page: one page of 64-bit counters and states beside the queue, read by both processes.

Each slot has one writing process (named below), so a plain load, add and store is enough and no counter needs a lock.
The page outlives a crash with the queue: what was counted as lost is never forgotten by a restart.
"""

from __future__ import annotations

import mmap
from enum import IntEnum

STATUS_BYTES = 4096
U64_MASK = (1 << 64) - 1


class Slot(IntEnum):
    """Index of each 64-bit slot. Only append: a running sidecar of the last version may have written the page."""

    # Written by the proxy.
    REQUESTS = 0
    RESPONSES_1XX = 1
    RESPONSES_2XX = 2
    RESPONSES_3XX = 3
    RESPONSES_4XX = 4
    RESPONSES_5XX = 5
    CONNECTIONS_OPEN = 6
    EXCHANGES_OPEN = 7
    BYTES_UP = 8
    BYTES_DOWN = 9
    UPSTREAM_CONNECTS = 10
    UPSTREAM_FAILURES = 11
    UPSTREAM_RETRIES = 12
    BAD_REQUESTS = 13
    ABORTED_BY_CLIENT = 14
    ABORTED_BY_ORIGIN = 15
    BODIES_CUT = 16
    RECORDS_DROPPED = 17
    RECORD_BYTES_DROPPED = 18
    EXCHANGES_DROPPED = 19
    OBSERVER_STARTS = 20
    PROXY_PID = 21
    PROXY_STARTED_MS = 22
    QUEUE_ENDS_OWED = 23  # ends of exchanges that wait in the proxy for room in the queue
    CONNECTIONS_REFUSED = 24  # over SIDECAR_MAX_CONNECTIONS
    HEADER_TIMEOUTS = 25
    IDLE_TIMEOUTS = 26
    HEADS_TOO_LARGE = 27  # of the bad requests, those answered 431
    UPSTREAM_CONNECTIONS = 28  # open now, to all origins
    UPSTREAM_WAITS = 29  # requests that waited for a connection, all of SIDECAR_UPSTREAM_CONNECTIONS being in use
    UPSTREAM_REFUSED = 30  # requests that waited in vain
    UPSTREAM_RETIRED = 31  # connections closed because the name no longer leads to their address
    CERTIFICATE_RELOADS = 32
    CERTIFICATE_FAILURES = 33  # changed certificate files that could not be used; the former ones stay
    # How late the event loop came to what was due, as a histogram (wire/lag.py).
    LOOP_LAG_2MS = 48
    LOOP_LAG_5MS = 49
    LOOP_LAG_10MS = 50
    LOOP_LAG_25MS = 51
    LOOP_LAG_50MS = 52
    LOOP_LAG_100MS = 53
    LOOP_LAG_250MS = 54
    LOOP_LAG_1S = 55
    LOOP_LAG_LONGER = 56
    LOOP_LAG_SUM_US = 57

    # Written by the observer. States: 0 unknown, 1 ok, 2 down or refused.
    OBSERVER_PID = 64
    OBSERVER_BEAT_MS = 65
    REDIS_STATE = 66
    REDIS_SINCE_MS = 67
    BILLING_STATE = 68
    BILLING_SINCE_MS = 69
    PLAN_STATE = 70
    JOURNAL_STATE = 71
    JOURNAL_BACKLOG = 72
    OUTBOX_LENGTH = 73
    SPILL_BYTES = 74
    SPILL_DROPPED = 75  # exchanges of which the observer dropped the body, to keep spill/ within its bound
    QUEUE_CORRUPTIONS = 76  # places in the queue that could not be read and were skipped
    QUEUE_BYTES_SKIPPED = 77
    OBSERVER_LAG_2MS = 80
    OBSERVER_LAG_5MS = 81
    OBSERVER_LAG_10MS = 82
    OBSERVER_LAG_25MS = 83
    OBSERVER_LAG_50MS = 84
    OBSERVER_LAG_100MS = 85
    OBSERVER_LAG_250MS = 86
    OBSERVER_LAG_1S = 87
    OBSERVER_LAG_LONGER = 88
    OBSERVER_LAG_SUM_US = 89


# What describes a running proxy and not its history: a new one begins at zero.
PROXY_GAUGES = (Slot.CONNECTIONS_OPEN, Slot.EXCHANGES_OPEN, Slot.QUEUE_ENDS_OWED, Slot.UPSTREAM_CONNECTIONS)

# What a running observer says of itself: unknown until the next one has started.
OBSERVER_STATES = (
    Slot.OBSERVER_PID,
    Slot.OBSERVER_BEAT_MS,
    Slot.REDIS_STATE,
    Slot.BILLING_STATE,
    Slot.PLAN_STATE,
    Slot.JOURNAL_STATE,
)


class StatusPage:
    """`Slot`s over one page of a shared mapping (or over plain memory, in tests)."""

    __slots__ = ("_slots",)

    def __init__(self, memory: mmap.mmap | bytearray, offset: int = 0) -> None:
        self._slots = memoryview(memory)[offset : offset + STATUS_BYTES].cast("Q")

    def add(self, slot: Slot, n: int = 1) -> None:
        """Count `n` (which may be negative, for a gauge); wraps at 64 bits instead of failing."""
        self._slots[slot] = (self._slots[slot] + n) & U64_MASK

    def set(self, slot: Slot, value: int) -> None:
        """Store a state or gauge, 0 ≤ value < 2⁶⁴."""
        self._slots[slot] = value

    def get(self, slot: Slot) -> int:
        """The slot's value now."""
        return self._slots[slot]

    def close(self) -> None:
        """Let go of the memory, so that the mapping can be closed."""
        self._slots.release()
