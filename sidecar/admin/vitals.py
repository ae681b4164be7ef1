"""What the observer's heartbeat last saw, as gauges: an answer to /metrics asks neither the disk nor Redis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.admin import measured
from sidecar.admin.metrics import Metrics
from sidecar.sessions.store import OutboxState


@dataclass(slots=True)
class Vitals:
    """Times are Unix milliseconds; None: nothing waits. `clock_ms` is the clock that they are compared with."""

    clock_ms: Callable[[], int]
    unread_since_ms: int | None = None
    journal_bytes: int = 0
    journal_since_ms: int | None = None
    outbox: OutboxState = field(default_factory=lambda: OutboxState(0, None, 0))

    def show(self, metrics: Metrics) -> None:
        """From now on, in the metrics."""
        metrics.gauge(measured.OBSERVER_LAG, lambda: self._age_seconds(self.unread_since_ms))
        metrics.gauge(measured.JOURNAL_BYTES, lambda: self.journal_bytes)
        metrics.gauge(measured.JOURNAL_AGE, lambda: self._age_seconds(self.journal_since_ms))
        metrics.gauge(measured.OUTBOX_AGE, lambda: self._age_seconds(self.outbox.since_ms))
        metrics.gauge(measured.DEAD_LETTERS, lambda: self.outbox.dead)

    def facts_wait(self, backlog: int, pending_ms: int | None) -> None:
        """So many facts wait in the journal, the oldest since `pending_ms` (0: not to be known while Redis is away)."""
        if backlog == 0:
            self.journal_since_ms = None
        elif pending_ms:
            self.journal_since_ms = pending_ms
        elif self.journal_since_ms is None:
            self.journal_since_ms = self.clock_ms()

    def _age_seconds(self, since_ms: int | None) -> float:
        return 0.0 if since_ms is None else max(self.clock_ms() - since_ms, 0) / 1000
