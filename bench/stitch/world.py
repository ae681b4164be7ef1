"""Two replicas over one Redis that see the calls in turn at random, and lag at random. All but the queue is real.

Time is virtual: a call arrives when it ends, each replica applies what it has when the dice say so, heartbeats come
once a second. So a replica is often behind the other, and calls of one conversation are applied out of order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.stitch.talk import Call
from sidecar.identity import event_id
from sidecar.observer.journal import Journal
from sidecar.observer.observe import Observing
from sidecar.observer.pipeline import Pipeline
from sidecar.observer.reader import RawExchange
from sidecar.policy.current import CurrentPlan
from sidecar.policy.loading import builtin_plan
from sidecar.sessions.applier import Applier
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Store

TENANT = "acme"
HASH_KEY = b"k" * 32
BEAT_MS = 1_000
LAG = 0.6  # how often one of the replicas applies what it has when something happens


class Arrivals:
    """In the queue's place: exchanges as its reader hands them out."""

    def __init__(self) -> None:
        self.waiting: list[RawExchange] = []

    def poll(self) -> list[RawExchange]:
        """What has arrived."""
        taken, self.waiting = self.waiting, []
        return taken

    def release(self) -> None:
        """All of it is journaled."""

    def mark_ms(self, now_ms: int) -> int:
        """Nothing is held back."""
        return now_ms


class Replica:
    """The observer of one sidecar."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.producer, self.sequence = world, f"queue-{number}", 0
        self.journal = Journal(world.folder / f"journal-{number}.sqlite3", hours=168, bytes_max=1 << 30)
        self.arrivals = Arrivals()
        observing = Observing(TENANT, HASH_KEY, "", "header:x-customer-id", False, world.count)
        plan = CurrentPlan(builtin_plan(), None)
        self.pipeline = Pipeline(
            self.arrivals,  # type: ignore[arg-type]
            observing,
            self.journal,
            plan,
            wake=lambda: None,
            count=world.count,
        )
        self.start()

    def start(self) -> None:
        """As after a crash: all that the process knew is forgotten."""
        self.store = Store(self.world.redis, TENANT)
        self.applier = Applier(
            self.journal,
            self.store,
            count=self.world.count,
            clock_ms=lambda: self.world.now,
            sleep=self.world.sleep,
            rng=random.Random(0),
        )

    async def see(self, call: Call) -> tuple[str, int]:
        """The call passed here; returns the identity of what is observed."""
        self.sequence += 1
        self.arrivals.waiting.append(
            RawExchange(
                self.producer, self.sequence, self.sequence, call.listener, call.started_ms, call.at_ms, call.request,
                call.response, call.flags, finished=True,
            )
        )  # fmt: skip
        stopping = asyncio.Event()
        stopping.set()
        await self.pipeline.run(stopping)
        return self.producer, self.sequence

    async def beat(self) -> None:
        """As once a second."""
        await self.store.heartbeat(self.journal.id, self.world.now, self.world.now)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()


class World:
    """Replicas, the clock, and what they count."""

    def __init__(self, seed: int, redis: Any, folder: Path, *, replicas: int = 2) -> None:
        self.rng = random.Random(seed)
        self.redis, self.folder = redis, folder
        self.now = self._beaten = 0
        self.counts: dict[str, int] = {}
        self.replicas = [Replica(self, number) for number in range(replicas)]

    def count(self, event: str, n: int = 1) -> None:
        """What the parts count."""
        self.counts[event] = self.counts.get(event, 0) + n

    async def sleep(self, _seconds: float) -> None:
        """Time is virtual."""

    async def run(self, calls: Sequence[Call]) -> list[tuple[str, int]]:
        """All calls, each through one replica; returns what each was observed as."""
        seen = []
        for call in calls:
            while (
                self.now and call.at_ms - self.now > BEAT_MS and any(each.applier.backlog() for each in self.replicas)
            ):
                self.now += BEAT_MS // 2
                await self._tick()
            self.now = max(self.now, call.at_ms)
            seen.append(await self.rng.choice(self.replicas).see(call))
            await self._tick()
        await self.catch_up()
        return seen

    async def _tick(self) -> None:
        """The replicas' loops go on, or not yet."""
        if self.rng.random() < LAG:
            await self.rng.choice(self.replicas).applier.step()
        if self.now - self._beaten >= BEAT_MS:
            self._beaten = self.now
            for replica in self.replicas:
                await replica.beat()

    async def catch_up(self) -> None:
        """Until every journal is applied, in bits and turns."""
        left = list(self.replicas)
        while left:
            replica = self.rng.choice(left)
            if not await replica.applier.step():
                left.remove(replica)
            self.now += 100
            await self._tick()

    async def lose_redis(self, *, journals: Sequence[int] | None = None) -> None:
        """All of Redis is gone, the processes start anew; only these replicas' journals are applied again."""
        await self.redis.flushall()
        kept = self.replicas
        self.replicas = [kept[number] for number in journals] if journals is not None else kept
        for replica in self.replicas:
            replica.start()
        for replica in self.replicas:
            await replica.applier.verify()
            await replica.beat()
        await self.catch_up()
        self.replicas = kept

    async def sessions(self) -> dict[tuple[str, int], str]:
        """The session of each observation: of those that were merged the one that lives."""
        found: dict[tuple[str, int], str] = {}
        lives: dict[str, str] = {}
        for replica in self.replicas:
            row = 0
            while rows := replica.journal.after(row, 1000):
                row = rows[-1].row
                for each in rows:
                    session = each.went.partition(" ")[0]
                    if session:
                        if session not in lives:
                            lives[session] = await self._lives(session)
                        found[each.producer, each.sequence] = lives[session]
        return found

    async def _lives(self, session: str) -> str:
        into = await self.redis.get(self.replicas[0].store.key("merged", session))
        return session if into is None else await self._lives(into.decode())

    async def posted(self) -> set[str]:
        """The ids of all events in the outbox."""
        entries = await self.redis.xrange(self.replicas[0].store.key("outbox"))
        outcomes = [read_outcome(fields[b"body"]) for _, fields in entries if fields[b"kind"] == b"outcome"]
        return {event_id(outcome.session_id, outcome.revision) for outcome in outcomes}

    async def turns(self) -> dict[str, int]:
        """User turns by session."""
        store = self.replicas[0].store
        return {view.id: view.turns for view in await store.list(100_000)}

    def close(self) -> None:
        """Close the journals."""
        for replica in self.replicas:
            replica.close()
