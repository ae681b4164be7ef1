"""One courier's view of the outbox stream: what it takes, what it holds, what it took over from a courier that died.

Couriers are consumers of one group. An entry is somebody's until it is deleted, or has been idle for so long that its
courier must have died. Works with redis-py and valkey-py, decoding or not, RESP2 or RESP3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from redis.exceptions import ResponseError

from sidecar.sessions.store import GROUP, Store

POLL_MS = 250

log = structlog.get_logger(__name__)

Entries = list[tuple[Any, Any]]


class Outbox:
    """The outbox of `store`, as the courier `name` sees it; up to `batch_max` entries at a time."""

    def __init__(
        self, store: Store, name: str, *, batch_max: int, takeover_ms: int, count: Callable[[str, int], None]
    ) -> None:
        self._redis = store.redis
        self._stream = store.key("outbox")
        self._name = name
        self._batch_max = batch_max
        self._takeover_ms = takeover_ms
        self._count = count
        self._resumed = False
        self._looked_for_dead = float("-inf")

    def reconnected(self) -> None:
        """Redis was away: it may have lost the group, or what this courier held."""
        self._resumed = False

    async def take(self) -> Entries:
        """Up to a batch of entries: our own from before a restart, new ones, a dead courier's."""
        try:
            if not self._resumed:
                await self._make_group()
                mine = await self._read("0")
                if mine:
                    return mine
                self._resumed = True
            fresh = await self._read(">")
            if fresh:
                return fresh
            now = asyncio.get_running_loop().time()
            if (now - self._looked_for_dead) * 4000 < self._takeover_ms:
                return []
            self._looked_for_dead = now
            claimed = await self._redis.xautoclaim(
                self._stream, GROUP, self._name, self._takeover_ms, start_id="0-0", count=self._batch_max
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._resumed = False  # Redis lost its data
            return []
        entries: Entries = [entry for entry in claimed[1] if entry[1]]
        if entries:
            log.info("deliveries_taken_over", entries=len(entries))
            self._count("deliveries_taken_over", len(entries))
        return entries

    async def still_ours(self, entries: Iterable[str]) -> set[str]:
        """Refresh the claim; what another courier delivered meanwhile is gone and need not be sent again."""
        try:
            kept = await self._redis.xclaim(self._stream, GROUP, self._name, 0, list(entries), justid=True)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._resumed = False
            return set()
        return {entry.decode() if isinstance(entry, bytes) else entry for entry in kept}

    async def remove(self, entries: Iterable[str]) -> None:
        """They are delivered."""
        done = list(entries)
        # In this order: an entry without its claim would be nobody's, a claim without its entry goes by itself.
        await self._redis.xdel(self._stream, *done)
        await self._redis.xack(self._stream, GROUP, *done)

    async def _read(self, start: str) -> Entries:
        block = None if start == "0" else POLL_MS
        answer = await self._redis.xreadgroup(
            GROUP, self._name, {self._stream: start}, count=self._batch_max, block=block
        )
        streams = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
        entries = [
            entry for found in streams for entry in (found[0] if found and isinstance(found[0], list) else found)
        ]
        gone = [entry for entry, fields in entries if not fields]
        if gone:
            await self._redis.xack(self._stream, GROUP, *gone)
        return [(entry, fields) for entry, fields in entries if fields]

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
