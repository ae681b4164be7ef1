"""After a loss of data every replica applies its journal again: one after another, in the order of arrival.

The running numbers of a conversation's sessions, and what a signal meets, follow from the order in which facts are
applied. So a replica says when its next fact arrived, and applies it when no other replica has an earlier one: the
journals are merged by event time. Whoever lived before the loss is waited for until it is heard of, or presumed dead as
any producer that falls silent; and one that beats but does not come on (its disk refuses) for as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import takewhile

import orjson
import structlog

from sidecar.observer.journal import Row
from sidecar.sessions.producers import Producers

# What arrived within so short a time on two replicas was applied in any order when it was new.
SLACK_MS = 100
PATIENCE_SECONDS = 15 * 60.0
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.001, 0.05

log = structlog.get_logger(__name__)


def begun_ms(row: Row) -> int:
    """When the fact began: an exchange keeps its session alive from its first byte on."""
    if row.kind != "observation":
        return row.at_ms
    try:
        return min(int(orjson.loads(row.body)["started_ms"]), row.at_ms)
    except (ValueError, KeyError, TypeError):
        return row.at_ms


class Replay:
    """One replica's part, up to row `until` of its journal; `own` is the journal's id.

    `over` once nothing of any journal is left. Rows after `until` arrived after the loss; they wait for others as well.
    """

    def __init__(
        self,
        store: Producers,
        own: str,
        until: int,
        *,
        count: Callable[[str, int], None],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.over = False
        self._store = store
        self._own = own
        self._until = until
        self._count = count
        self._patience_seconds = patience_seconds
        self._pause_seconds = PAUSE_SECONDS_MIN
        store.replaying = True
        self._waited_for: tuple[int, float] | None = None  # the others' least time, and since when

    async def turn(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Of the next rows those whose turn it is. None may be: then it was waited a moment for others."""
        self._store.replaying = replaying = bool(rows) and rows[0].row <= self._until
        next_ms, mark_ms = (rows[0].at_ms, min(map(begun_ms, rows))) if replaying else (None, None)
        others_ms = await self._store.replay(self._own, next_ms, mark_ms)
        if others_ms is None:
            self.over = not replaying
            return rows
        if self._given_up(others_ms):
            self.over, self._store.replaying = True, False
            return rows
        ready = list(takewhile(lambda row: row.at_ms <= others_ms + SLACK_MS, rows))
        if ready or not rows:
            self._pause_seconds = PAUSE_SECONDS_MIN
            return ready
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS_MAX)
        return ready

    def _given_up(self, others_ms: int) -> bool:
        now = asyncio.get_running_loop().time()
        if self._waited_for is None or self._waited_for[0] != others_ms:
            self._waited_for = others_ms, now
        if now - self._waited_for[1] < self._patience_seconds:
            return False
        log.error("replay_not_waited_for")
        self._count("replay_not_waited_for", 1)
        return True
