"""From journal to ledger under a virtual clock: crashes between any two steps, repeated and delayed facts, data loss.

A seed makes a world: conversations written as facts in event time, spread over replicas; then steps in random order:
a fact arrives, a replica applies some rows, crashes with its cursor forgotten, sweeps, beats, posts to a ledger that
answers 500, 429, or stores and hangs up. Redis, the journals and all of our code are the real ones. An oracle that
knows nothing of the code says from the script alone what the ledger must hold in the end.

A failing seed is in the test's name. It replays alone: SIMULATION_SEED=17 pytest tests/simulation
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from dataclasses import dataclass, field

import httpx
import orjson
import pytest
import redis.asyncio as redis_async

from sidecar import identity
from sidecar.delivery import outbox as outbox_module
from sidecar.delivery.courier import Courier
from sidecar.intake.signal import Signal
from sidecar.observer.journal import Journal, NewRow
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions import applier as applier_module
from sidecar.sessions.applier import Applier
from sidecar.sessions.store import Store

TENANT = "acme"
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
T0 = 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa", timeout_ms=10 * MINUTE, settle_ms=0, reversal_ms=72 * HOUR)
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")
ESCALATE = Effect("human_tool", "tool_call", "escalate")

GIVEN = os.environ.get("SIMULATION_SEED")
SEEDS = [int(GIVEN)] if GIVEN else list(range(24))


@dataclass
class Expected:
    """One session as the ledger must hold it: its last state, its turns, and nothing twice.

    A signal that overtakes its conversation, since another replica brings it, freezes what is counted until then.
    """

    state: str
    turns: int
    overtaken: bool = False

    def agrees(self, state, turns):
        return state == self.state and (1 <= turns <= self.turns if self.overtaken else turns == self.turns)


@dataclass
class Fact:
    at: int
    replica: int
    conversation: str
    says: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    signal: str | None = None  # its event; says and effects are an exchange's
    ident: str = ""


@dataclass
class Script:
    facts: list[Fact] = field(default_factory=list)
    expected: dict[str, list[Expected]] = field(default_factory=dict)


class Writer:
    """Writes one conversation: its facts, and beside them what they are worth."""

    def __init__(self, rng, script, name, replicas):
        self.rng, self.script, self.name, self.replicas = rng, script, name, replicas
        self.home = rng.randrange(replicas)
        self.at = rng.randrange(20 * MINUTE)
        self.said: list[str] = []
        self.sessions: list[Expected] = []
        script.expected[name] = self.sessions

    def write(self):
        gaps = self.replicas == 1
        self._talk()
        kind = self.rng.choice(
            ["tool", "human", "return", "silence", "signals", "both", "lapse" if gaps else "silence"]
        )
        if kind == "tool":
            self._end_by_tool(RESOLVE, "RESOLVED")
        elif kind == "human":
            self._end_by_tool(ESCALATE, "NOT_BILLABLE")
            self._more()  # aftercare: no new session
        elif kind == "return":
            self._end_by_tool(RESOLVE, "RESOLVED")
            self._talk()
            self._end_by_tool(RESOLVE, "RESOLVED")
        elif kind == "both":
            self._end_by_tool(RESOLVE, "RESOLVED")
            self._signals(["escalate"])
        elif kind == "lapse":
            self.at += 11 * MINUTE
            self._talk()
            self._end_by_tool(RESOLVE, "RESOLVED")
        elif kind == "signals":
            self._signals(self.rng.choices(["resolve", "escalate"], k=self.rng.randint(1, 4)))

    def _talk(self):
        """A new session of some turns; by itself it ends in silence."""
        self.sessions.append(Expected("INCONCLUSIVE", 0))
        for _ in range(self.rng.randint(1, 4)):
            self._more()
            self.sessions[-1].turns += 1

    def _more(self):
        self.at += self.rng.randint(5 * SECOND, 4 * MINUTE)
        self.said.append(f"{self.name}-{len(self.said)}")
        self._exchange()

    def _exchange(self, effects=()):
        self.script.facts.append(Fact(self.at, self.home, self.name, tuple(self.said), effects))

    def _end_by_tool(self, effect, state):
        self.at += self.rng.randint(1, MINUTE)
        self._exchange((effect,))
        self.sessions[-1].state = state
        for _ in range(self.rng.randrange(3)):  # the tool's result sent back, a thank-you: trailing
            self.at += self.rng.randint(200, 5 * SECOND)
            self._exchange()

    def _signals(self, events):
        """By alias, late, repeated, on any replica: escalation wins; else a resolution, however late."""
        for n, event in enumerate(events):
            for _ in range(self.rng.randint(1, 3)):
                at = self.at + self.rng.randint(1, 5 * HOUR)
                replica = self.rng.randrange(self.replicas)
                self.script.facts.append(Fact(at, replica, self.name, signal=event, ident=f"{self.name}-{n}"))
        self.sessions[-1].state = "NOT_BILLABLE" if "escalate" in events else "RESOLVED"
        self.sessions[-1].overtaken = self.replicas > 1


class Ledger(httpx.AsyncBaseTransport):
    """One row per id for ever. While `faulty`, answers as bad as real ones."""

    def __init__(self, rng):
        self.rng, self.rows, self.conflicts, self.faulty = rng, {}, [], True

    async def handle_async_request(self, request):
        body = await request.aread()
        mood = self.rng.choice(["ok", "ok", 500, 429, "lost", "before"]) if self.faulty else "ok"
        if mood == "before":
            raise httpx.ConnectError("refused")
        if mood in {500, 429}:
            return httpx.Response(mood, request=request)
        document = orjson.loads(body)
        for event in document if isinstance(document, list) else [document]:
            if self.rows.setdefault(event["id"], event) != event:
                self.conflicts.append((self.rows[event["id"]], event))
        if mood == "lost":
            raise httpx.ReadError("reset")
        return httpx.Response(200, json={"rejected": []}, request=request)


class Replica:
    """A replica's processes. A crash forgets everything but the journal's file."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.journal = Journal(world.folder / f"journal-{number}.sqlite3", hours=168, bytes_max=1 << 26)
        self.sequence = 0
        self.start()

    def start(self):
        self.store = Store(self.world.redis, TENANT)
        self.applier = Applier(self.journal, self.store)
        self.courier = Courier(
            self.store,
            "http://ledger",
            name=f"replica-{self.number}",
            transport=self.world.ledger,
            sleep=self.world.sleep,
            rng=self.world.rng,
        )

    def arrive(self, fact):
        alias = identity.key(TENANT, "conversation", fact.conversation)
        if fact.signal:
            outcome = "RESOLVED" if fact.signal == "resolve" else None
            effect = Effect("signal", "signal", fact.signal, outcome)

            def body(sequence):
                return Signal(
                    self.journal.id, sequence, TENANT, "crm", fact.ident, T0 + fact.at, effect, TERMS, alias=alias
                ).to_json()

            self.journal.append_signal("crm", fact.ident, T0 + fact.at, body)
            return
        self.sequence += 1
        observation = Observation(
            f"ring-{self.number}",
            self.sequence,
            TENANT,
            T0 + fact.at,
            T0 + fact.at + 100,
            (alias,),
            identity.session_base(TENANT, "conversation", fact.conversation),
            TERMS,
            conversation=fact.conversation,
            customer="customer-1",
            api="openai.chat",
            user_messages=fact.says,
            effects=fact.effects,
            llm_calls=1,
        )
        row = NewRow(observation.producer, self.sequence, "observation", observation.at_ms, observation.to_json())
        for _ in range(self.world.rng.choice([1, 1, 2])):  # a reader that crashed reads the queue again
            self.journal.append([row])

    async def half_apply(self):
        """What a process does that dies before it hears the answers."""
        rows = self.journal.after(self.applier._cursor, self.world.rng.randint(1, 6))
        facts, _ = self.applier._read(rows)
        await self.store.apply_many(facts, own=self.journal.id)
        await self.crash()

    async def crash(self):
        await self.courier._client.aclose()
        self.start()

    async def save(self):
        await self.applier._save()

    async def beat(self):
        await self.store.heartbeat(self.journal.id, T0 + self.world.now, self.world.now)

    async def take_and_die(self):
        if await self.store.outbox_length():
            await self.courier._outbox.take()
            await self.crash()

    async def post(self):
        if await self.store.outbox_length():
            await self.courier.step()

    async def close(self):
        await self.courier._client.aclose()
        self.journal.close()


class World:
    def __init__(self, seed, replicas, redis, folder):
        self.rng = random.Random(seed)
        self.redis, self.folder, self.now = redis, folder, 0
        self.ledger = Ledger(self.rng)
        self.script = Script()
        for n in range(self.rng.randint(3, 10)):
            Writer(self.rng, self.script, f"c{n}", replicas).write()
        self.waiting = sorted(self.script.facts, key=lambda fact: fact.at)
        self.replicas = [Replica(self, n) for n in range(replicas)]

    async def sleep(self, _seconds):
        await asyncio.sleep(0)

    def arrive(self):
        if self.waiting:
            fact = self.waiting.pop(0)
            self.now = max(self.now, fact.at + 100)
            self.replicas[fact.replica].arrive(fact)

    async def flush(self):
        await self.redis.flushall()
        for replica in self.replicas:
            await replica.crash()

    async def run(self, flushes):
        while self.waiting:
            replica = self.rng.choice(self.replicas)
            steps = [replica.applier.step] * 4 + [replica.beat] * 3 + [replica.post] * 2
            steps += [replica.half_apply, replica.crash, replica.save, replica.take_and_die]
            steps += [replica.store.sweep] * 3 + ([self.flush] if flushes and self.rng.random() < 0.2 else [])
            for _ in range(self.rng.randint(1, 4)):
                self.arrive()
            await self.rng.choice(steps)()
        await self.finish()

    async def finish(self):
        """All is well again: what was lost on the way is replayed, what is late is posted."""
        self.ledger.faulty = False
        for _ in range(3):
            for replica in self.replicas:
                await replica.applier.verify()
                while await replica.applier.step():
                    pass
        self.now += 24 * HOUR
        for replica in self.replicas:
            await replica.beat()
        while (await self.replicas[0].store.sweep()).more:
            pass
        for replica in self.replicas * 2:
            await replica.post()
        while await self.replicas[0].store.outbox_length():
            for replica in self.replicas:
                replica.courier._outbox.reconnected()
                await replica.courier.step()
        for replica in self.replicas:
            await replica.close()


def check(world, counters):
    assert world.ledger.conflicts == []
    sessions = {}
    for event in world.ledger.rows.values():
        data = event["data"]
        sessions.setdefault(data["conversation"], {}).setdefault(data["session_id"], []).append(event)
    assert set(sessions) == set(world.script.expected)
    for name, expected in world.script.expected.items():
        found = sorted(sessions[name].values(), key=lambda events: events[0]["data"]["started_at"])
        for events in found:
            events.sort(key=lambda event: event["data"]["revision"])
            assert [event["data"]["revision"] for event in events] == list(range(len(events)))
            for before, after in itertools.pairwise(events):
                assert after["data"]["reverses"] == before["id"]
                assert after["time"] >= before["time"]
        got = [(events[-1]["data"]["state"], events[-1]["data"]["turns"]) for events in found]
        assert len(got) == len(expected), (name, got, expected)
        assert all(session.agrees(*last) for session, last in zip(expected, got, strict=True)), (name, got, expected)
    count = sum(len(expected) for expected in world.script.expected.values())
    assert (counters["opened"], counters["open"]) == (count, 0)
    assert sum(n for name, n in counters.items() if name.startswith("finalized:")) == count
    assert counters.get("refused", 0) == 0


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(outbox_module, "POLL_MS", 1)
    monkeypatch.setattr(applier_module, "BATCH", 7)


async def simulate(seed, replicas, redis_server, folder, *, flushes):
    redis = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    try:
        world = World(seed, replicas, redis, folder)
        await world.run(flushes)
        check(world, await Store(redis, TENANT).counters())
    finally:
        await redis.aclose()


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_replica_that_crashes_and_a_redis_that_forgets(seed, redis_server, tmp_path, fast):
    await simulate(seed, 1, redis_server, tmp_path, flushes=True)


@pytest.mark.parametrize("seed", SEEDS)
async def test_three_replicas_that_crash_and_lag(seed, redis_server, tmp_path, fast):
    await simulate(seed, 3, redis_server, tmp_path, flushes=False)
