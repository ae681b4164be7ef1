"""Process 2's first half, in a loop: queue → exchange → observation → journal; then the queue's space is released.

Nothing is released before it is in the journal, and nothing is journaled twice: an observation's identity comes from
the queue. A journal that cannot take more (disk full, bound reached) stops the loop, the queue fills, and the proxy
drops copies (bodies first, counted); traffic is never held up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from sidecar.observer.journal import Journal, JournalFull, NewRow
from sidecar.observer.observe import Observing
from sidecar.observer.reader import ExchangeReader, RawExchange
from sidecar.policy.current import CurrentPlan

# How long an empty queue is left alone: short after traffic, longer when idle, so that idling costs next to nothing.
POLL_SECONDS_MIN = 0.005
POLL_SECONDS_MAX = 0.05
JOURNAL_RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Pipeline:
    """Reads the queue until stopped; `wake` is called when rows were added to the journal.

    `took` is told how many seconds the work on each exchange took. `beside` gets every exchange that left an
    observation, once that is in the journal: for a candidate plan.
    """

    def __init__(
        self,
        reader: ExchangeReader,
        observing: Observing,
        journal: Journal,
        plan: CurrentPlan,
        *,
        wake: Callable[[], None],
        count: Callable[[str], None],
        beside: Callable[[RawExchange], None] | None = None,
        took: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._reader = reader
        self._observing = observing
        self._journal = journal
        self._plan = plan
        self._wake = wake
        self._count = count
        self._beside = beside
        self._took = took
        self.journal_ok = True

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set and the queue is empty, or can be emptied no further."""
        pause = POLL_SECONDS_MIN
        while True:
            exchanges = self._reader.poll()
            if exchanges:
                if not await self._keep(exchanges, stopping):
                    return
                pause = POLL_SECONDS_MIN
            self._reader.release()
            if exchanges:
                await asyncio.sleep(0)
                continue
            if stopping.is_set():
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, POLL_SECONDS_MAX)

    def mark_ms(self, now_ms: int) -> int:
        """Event time up to which everything that passed the proxy is in the journal."""
        return self._reader.mark_ms(now_ms)

    def emptied(self, now_ms: int) -> bool:
        """Whether all that passed the proxy until now is in the journal, and no exchange is open."""
        return self._reader.open_exchanges == 0 and self.mark_ms(now_ms) >= now_ms

    async def _keep(self, exchanges: list[RawExchange], stopping: asyncio.Event) -> bool:
        """Into the journal, however long it takes; False when stopped before: the queue still has them."""
        rows = [row for exchange in exchanges if (row := self._row(exchange)) is not None]
        while rows:
            try:
                await asyncio.to_thread(self._journal.append, rows)
            except JournalFull as error:
                if self.journal_ok:
                    log.error("journal_full", reason=str(error))
                self.journal_ok = False
                self._count("journal_full")
                if stopping.is_set():
                    return False
                await asyncio.sleep(JOURNAL_RETRY_SECONDS)
                continue
            self.journal_ok = True
            self._wake()
            self._show(exchanges, rows)
            return True
        return True

    def _show(self, exchanges: list[RawExchange], rows: list[NewRow]) -> None:
        if self._beside is None:
            return
        kept = {(row.producer, row.sequence) for row in rows}
        for raw in exchanges:
            if (raw.producer, raw.sequence) in kept:
                self._beside(raw)

    def _row(self, raw: RawExchange) -> NewRow | None:
        started = time.perf_counter()
        try:
            observation = self._observing.observe(raw, self._plan.loaded, self._plan.former)
        except Exception:
            # Hostile bytes must not stop the others; the bytes themselves are never logged.
            log.exception("exchange_not_observed", producer=raw.producer, sequence=raw.sequence)
            self._count("observe_failed")
            return None
        finally:
            self._took(time.perf_counter() - started)
        if observation is None:
            return None
        return NewRow(raw.producer, raw.sequence, "observation", observation.at_ms, observation.to_json())


def now_ms() -> int:
    """Wall clock in Unix milliseconds: the clock that the proxy stamps records with."""
    return time.time_ns() // 1_000_000
