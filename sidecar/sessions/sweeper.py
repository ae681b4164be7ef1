"""Fires deadlines, presumes silent producers dead, and makes the hourly statement. Any number of replicas may sweep:
the script checks and fires in one step.

Every replica sweeps, so the more there are the less often each does: Redis is asked about as often, however many they
are.

A producer is presumed dead only when this very sweeper has watched its heartbeat stand still for 15 minutes on its own
monotonic clock. An outage of Redis restarts the watch: during it nobody could beat.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import structlog
from redis.exceptions import RedisError

from sidecar.sessions.producers import HOUR_MS
from sidecar.sessions.store import Store
from sidecar.tasks import told_to_stop

SWEEP_SECONDS = 0.5  # between two sweeps, by whichever replica
SWEEP_SECONDS_MAX = 15.0  # of one replica
WATCH_SECONDS = 5.0
WATCH_SECONDS_MAX = 120.0
COURIER_IDLE_MS = HOUR_MS  # a live courier asks for entries all the time
REFRESH_LAG_MS = 24 * HOUR_MS  # a session's keys outlive its deadline by 30 days
REFRESH_AT_ONCE = 100
WATCHERS = 10  # so many replicas look every WATCH_SECONDS; of more, each looks less often
PATIENCE_SECONDS = 15 * 60.0
BACKOFF_SECONDS_MAX = 10.0

log = structlog.get_logger(__name__)


class Watch:
    """Since when each heartbeat has stood still, as far as this process saw it. Times are seconds of one clock."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience = patience_seconds
        self._seen: dict[str, tuple[str, float]] = {}

    def look(self, beats: Mapping[str, str], now: float) -> dict[str, str]:
        """Take in the beats of now; returns those that have stood still for long enough to be dead."""
        self._seen = {
            name: self._seen[name] if self._seen.get(name, ("", 0.0))[0] == beat else (beat, now)
            for name, beat in beats.items()
        }
        return {name: beat for name, (beat, since) in self._seen.items() if now - since >= self._patience}

    def restart(self) -> None:
        """Redis was away: what stood still meanwhile proves nothing."""
        self._seen.clear()


class Sweeper:
    """Sweeps `store` until cancelled. `clock_ms` is the wall clock, for the statement's hour alone."""

    def __init__(
        self,
        store: Store,
        *,
        count: Callable[[str, int], None] = lambda _event, _n: None,
        patience_seconds: float = PATIENCE_SECONDS,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._count = count
        self._watch = Watch(patience_seconds)
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._replicas = 1
        self._watched_at = float("-inf")
        self._stated_hour = 0
        self._refreshed = 0
        self._lag_told = False
        self._silent_since = monotonic()  # since when the holder has no mark at all
        self.least_ms = 0  # event time up to which deadlines may fire; 0 when no producer lives, or none has said
        self.holder = ""  # whose mark that is

    async def run(self) -> None:
        """Until cancelled; errors of Redis are waited out."""
        failures = 0
        while not told_to_stop():
            try:
                more = await self.step()
                failures = 0
            except (RedisError, OSError, TimeoutError) as error:
                self._watch.restart()
                failures += 1
                self._count("sweep_failed", 1)
                if failures == 1:
                    log.warning("sweep_failed", reason=repr(error))
                pause = min(SWEEP_SECONDS * 2 ** min(failures, 8), BACKOFF_SECONDS_MAX)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
                continue
            await asyncio.sleep(0 if more else self.pause_seconds() * random.uniform(0.5, 1.5))  # noqa: S311  jitter

    def lag_seconds(self) -> float:
        """How far the least mark is behind the clock: deadlines wait for so long. 0 when no producer lives.

        A producer that has just come has no mark yet: it has held up deadlines only since it was seen.
        """
        if not self.holder:
            return 0.0
        if not self.least_ms:
            return self._monotonic() - self._silent_since
        return max(self._clock_ms() - self.least_ms, 0) / 1000

    def pause_seconds(self) -> float:
        """Between two sweeps of this replica, on average."""
        return min(SWEEP_SECONDS * self._replicas, SWEEP_SECONDS_MAX)

    def watch_seconds(self) -> float:
        """Between two looks of this replica at the heartbeats."""
        return min(WATCH_SECONDS * max(1.0, self._replicas / WATCHERS), WATCH_SECONDS_MAX)

    async def step(self) -> bool:
        """One sweep; True when more deadlines are due."""
        swept = await self._store.sweep()
        if swept.fired:
            self._count("sessions_timed_out", swept.fired)
        if swept.full:
            self._count("sweep_outbox_full", 1)
        if swept.least_ms or swept.holder != self.holder:
            self._silent_since = self._monotonic()
        self.least_ms, self.holder = swept.least_ms, swept.holder
        now = self._monotonic()
        if now - self._watched_at >= self.watch_seconds():
            self._watched_at = now
            await self._look(now)
        return swept.more

    async def _look(self, now: float) -> None:
        beats = await self._store.beats()
        self._replicas = max(len(beats), 1)
        still = self._watch.look(beats, now)
        pruned = await self._store.prune(still)
        if pruned:
            log.warning("producers_pruned", producers=sorted(still))
            self._count("producers_pruned", pruned)
        await self._look_at_lag()
        now_ms = self._clock_ms()
        if now_ms // HOUR_MS != self._stated_hour and await self._store.outbox_length() < self._store.outbox_max:
            if await self._store.statement(now_ms):  # before the first session there is nothing to state
                self._stated_hour = now_ms // HOUR_MS
            await self._store.forget_couriers(COURIER_IDLE_MS)

    async def _look_at_lag(self) -> None:
        """Say whose mark deadlines wait for, once per stay; after a day keep alive what waits."""
        lag_seconds = self.lag_seconds()
        if lag_seconds < PATIENCE_SECONDS:
            self._lag_told = False
            return
        if not self._lag_told:
            self._lag_told = True
            log.warning("mark_lagging", producer=self.holder, seconds=lag_seconds)
            self._count("mark_lagging", 1)
        if lag_seconds * 1000 >= REFRESH_LAG_MS:
            seen = await self._store.refresh(self._refreshed, REFRESH_AT_ONCE)
            self._refreshed = self._refreshed + seen if seen == REFRESH_AT_ONCE else 0
