"""Who feeds the sessions: which producers live, how far each has come, and what Redis has of each.

A replica beats under the name of its journal: its *mark* is the event time up to which all that it knows of is applied.
A fact's producer is a queue or a journal: its *applied mark* is the last of its sequences that Redis has. Both are kept
in Redis, written by heartbeat.lua and apply.lua.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.sessions.runner import ScriptRunner, text
from sidecar.sessions.scripts import LIMITS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Producers(ScriptRunner):
    """The producers of one tenant.

    Applied marks outlive the journals and the numbers of conversations: a mark that was gone before them would let a
    journal be applied again under new numbers.
    """

    def __init__(self, redis: Any, tenant: str, *, journal_hours: float) -> None:
        super().__init__(redis, tenant)
        self._mark_ttl_ms = max(int(journal_hours * HOUR_MS), LIMITS["number_days"] * DAY_MS) + DAY_MS
        self.pending_ms: Callable[[], int | None] | None = None  # set by the applier
        self.known_generation = ""  # of the data that the applier has brought up to date
        self.replaying = False  # the applier applies its journal again
        self._live: dict[str, str] = {}  # the last heartbeat of every producer alive in that generation
        self._left: set[str] = set()
        self._beating = asyncio.Lock()

    async def heartbeat(self, producer: str, mark_ms: int, now_ms: int, *, dropped: int = -1) -> str:
        """Say that `producer` lives and that all it knows of up to `mark_ms` (event time) is applied.

        `dropped` is how many copies it dropped so far, for the statements; -1 when not known. What the applier still
        has to apply (`pending_ms`) is looked at last, so that a replay that began meanwhile is never overtaken. Returns
        the data's generation, which changes when Redis lost what it had.
        """
        async with self._beating:
            if producer in self._left:
                return self.known_generation
            if self.pending_ms is not None and (pending := self.pending_ms()) is not None:
                mark_ms = min(mark_ms, pending)
            replaying = "1" if self.replaying else ""
            beat = (uuid.uuid4().hex, producer, mark_ms, now_ms, dropped, self.known_generation, replaying)
            answer = await self._run("heartbeat", ["beat", *beat])
        return text(answer[0])

    async def hold_others(self, own: str) -> None:
        """The data is new: wait for every producer that lived before its loss, until it is heard of or presumed dead.

        Their journals hold what moved deadlines that a replay of our own alone would fire.
        """
        others = [part for name, beat in self._live.items() if name != own for part in (name, beat)]
        if others:
            await self._run("heartbeat", ["hold", *others])

    async def replay(self, own: str, next_ms: int | None, mark_ms: int | None) -> int | None:
        """When the next fact that another replica applies again arrived, of all others' the least; None: none is left.

        `own` says the same of itself (None: none is left), and its mark.
        """
        answer = await self._run("replay", [own, *("" if ms is None else ms for ms in (next_ms, mark_ms))])
        least = text(answer[0])
        return int(float(least)) if least else None

    def live(self) -> list[str]:
        """Who lived when somebody last looked (`beats`)."""
        return sorted(self._live)

    def lived(self, names: Sequence[str]) -> None:
        """Who lived in the known data as far as a former process of this replica knew."""
        self._live = dict.fromkeys(names, "0") | self._live

    async def beats(self) -> dict[str, str]:
        """The last heartbeat of every live producer. Whoever looks now and then knows whom to wait for after a loss."""
        raw = await self.redis.hgetall(self.key("beats"))
        beats = {text(name): text(value) for name, value in raw.items()}
        generation = await self.redis.get(self.key("generation"))
        if generation is not None and text(generation) == self.known_generation:
            self._live = beats
        return beats

    async def leave(self, *producers: str) -> None:
        """A clean shutdown: nobody waits for these any more. A beat of theirs that comes later is not sent."""
        async with self._beating:
            self._left.update(producers)
            await self._run("heartbeat", ["leave", *producers])

    async def prune(self, still: Mapping[str, str]) -> int:
        """Presume producers dead whose heartbeat still is the one given; returns how many were."""
        if not still:
            return 0
        pairs = [part for pair in still.items() for part in pair]
        return int((await self._run("heartbeat", ["prune", *pairs]))[0])

    async def generation(self) -> str:
        """Named when the data is new: another name than before means that Redis lost what it had."""
        proposal = uuid.uuid4().hex
        kept = await self.redis.set(self.key("generation"), proposal, nx=True, get=True)
        return proposal if kept is None else text(kept)

    async def marks(self, producers: Sequence[str]) -> dict[str, int | None]:
        """The last applied sequence of each; None when there is no mark. Keeps those that are asked for alive."""
        pipeline = self.redis.pipeline(transaction=False)
        for producer in producers:
            pipeline.getex(self.key("applied", producer), px=self._mark_ttl_ms)
        found = await pipeline.execute() if producers else []
        return {name: None if mark is None else int(mark) for name, mark in zip(producers, found, strict=True)}

    async def restore_mark(self, producer: str, sequence: int) -> None:
        """Put back a mark that is gone, unless there is one again."""
        await self.redis.set(self.key("applied", producer), sequence, px=self._mark_ttl_ms, nx=True)

    async def facts(self) -> int:
        """How many facts were applied in this data. It only grows, unless the data went back to an earlier state."""
        return int(await self.redis.hget(self.key("counters"), "facts") or 0)
