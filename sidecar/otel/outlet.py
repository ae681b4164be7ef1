"""A bounded queue and the thread that empties it. Who puts something in never waits: what has no room is counted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)
_END: Final = object()


class Outlet:
    """Hands what is put in to `send`, in batches; `send` says whether the collector took them, or raises.

    `count(name, n)` is told `otel_dropped` and `otel_failed`. A batch is sent once it has `batch_max`, or
    `delay_seconds` after its first.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[Sequence[Any]], bool],
        *,
        count: Callable[[str, int], None],
        size_max: int,
        batch_max: int,
        delay_seconds: float,
    ) -> None:
        self._name = name
        self._send = send
        self._count = count
        self._batch_max = batch_max
        self._delay_seconds = delay_seconds
        self._waiting: queue.Queue[Any] = queue.Queue(size_max)
        self._closing = False
        self._works = True
        self._thread = threading.Thread(target=self._run, name=f"otel-{name}", daemon=True)
        self._thread.start()

    def put(self, item: Any) -> None:
        """Queue it, or count that there is no room."""
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._count("otel_dropped", 1)

    def close(self, seconds: float) -> None:
        """Send what is there within `seconds`; then the thread is left behind, and ends with the process."""
        self._closing = True
        until = time.monotonic() + seconds
        try:
            self._waiting.put(_END, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while True:
            batch, ended = self._batch()
            if batch:
                self._hand_over(batch)
            if ended:
                return

    def _batch(self) -> tuple[list[Any], bool]:
        first = self._waiting.get()
        if first is _END:
            return [], True
        batch = [first]
        until = time.monotonic() + self._delay_seconds
        while len(batch) < self._batch_max:
            left = 0.0 if self._closing else min(until - time.monotonic(), 0.2)
            try:
                item = self._waiting.get(timeout=left) if left > 0 else self._waiting.get_nowait()
            except queue.Empty:
                if self._closing or time.monotonic() >= until:
                    break
                continue
            if item is _END:
                return batch, True
            batch.append(item)
        return batch, False

    def _hand_over(self, batch: Sequence[Any]) -> None:
        try:
            taken = self._send(batch)
        except Exception:
            log.exception("otel_failed", signal=self._name)
            taken = False
        if not taken:
            self._count("otel_failed", len(batch))
        if taken != self._works:
            self._works = taken
            if taken:
                log.info("otel_up", signal=self._name)
            else:
                log.warning("otel_down", signal=self._name)
