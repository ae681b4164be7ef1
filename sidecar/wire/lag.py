"""How long an event loop lets what is due wait: measured a few times a second, never per request.

Both processes keep theirs on the status page, as the slots of a histogram: `BOUNDS_SECONDS`, one slot for what took
longer, and the sum in microseconds. A timer is late by up to a millisecond at the best of times.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from typing import Final

from sidecar.wire.status import Slot, StatusPage

SAMPLE_SECONDS: Final = 0.25
BOUNDS_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


async def watch_loop(status: StatusPage, first: Slot) -> None:
    """Until cancelled; `first` is the first of the histogram's slots."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(SAMPLE_SECONDS)
        note_lag(status, first, time.perf_counter() - before - SAMPLE_SECONDS)


def note_lag(status: StatusPage, first: Slot, lag_seconds: float) -> None:
    """Count one measurement."""
    status.add(Slot(first + bisect_left(BOUNDS_SECONDS, lag_seconds)))
    status.add(Slot(first + len(BOUNDS_SECONDS) + 1), max(0, round(lag_seconds * 1_000_000)))


def read_lag(status: StatusPage, first: Slot) -> tuple[list[tuple[str, float]], float]:
    """The histogram: (bound, how many within it) up to +Inf, and the sum in seconds."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for index, bound in enumerate([*map(str, BOUNDS_SECONDS), "+Inf"]):
        total += status.get(Slot(first + index))
        buckets.append((bound, total))
    return buckets, status.get(Slot(first + len(BOUNDS_SECONDS) + 1)) / 1_000_000
