"""Replicas that lost their Redis apply their journals again in the order of arrival, whoever notices first."""

from __future__ import annotations

import asyncio
import random

import pytest
from replicas import HOUR, RESOLVE, T0, Replica, exchange, tell

from sidecar.observer.journal import Journal
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.replay import Replay
from sidecar.sessions.store import Store
from sidecar.tasks import told_to_stop

MINUTE = HOUR // 60


@pytest.fixture
def journals(tmp_path):
    made = [Journal(tmp_path / f"{name}.sqlite3", hours=168, bytes_max=1 << 26) for name in "abc"]
    yield made
    for journal in made:
        journal.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.05)
    monkeypatch.setattr("sidecar.sessions.applier.BATCH", 16)


async def bodies(redis):
    entries = await redis.xrange("sidecar:{acme}:outbox")
    return sorted(fields[b"body"] for _, fields in entries)


async def beat(replicas, now):
    for replica in replicas:
        await replica.store.heartbeat(replica.journal.id, T0 + now, now)
    for replica in replicas:
        await replica.store.beats()


async def live(replicas, facts):
    """Each fact arrives at its replica and is applied before the next one arrives; returns when that was over."""
    for at, number, row in facts:
        replica = replicas[number]
        await beat(replicas, at - 1)
        if callable(row):
            row(replica.journal)
        else:
            replica.journal.append([row])
        replica.applier.wake()
        await replica.drained()
        await beat(replicas, at + 50)
    return facts[-1][0] + 50


async def beating(replicas, now):
    while not told_to_stop():
        await beat(replicas, now)
        await asyncio.sleep(0.05)


async def lost_and_rebuilt(replicas, first, now, redis):
    """Everything is gone; replica `first` notices it before the others do. What the outbox holds then."""
    await redis.flushall()
    heart = asyncio.create_task(beating(replicas, now))
    order = [first, *(replica for replica in replicas if replica is not first)]
    for replica in order:
        replica.applier.wake()
        await replica.until(lambda replica=replica: replica.counts.get("redis_data_lost") == 1)
    for replica in replicas:
        await replica.drained()
    await first.until(lambda: all(replica.applier._replay is None for replica in replicas))
    heart.cancel()
    await asyncio.gather(heart, return_exceptions=True)
    return await bodies(redis)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_conversation_on_two_replicas_gets_the_same_sessions_again(first, journals, redis):
    async with Replica(journals[0], redis) as a, Replica(journals[1], redis) as b:
        facts = [
            (0, 0, exchange(1, 0, says=("m1",), producer="a", effects=(RESOLVE,))),
            (HOUR, 1, exchange(1, HOUR, says=("m1", "m2"), producer="b", effects=(RESOLVE,))),
            (2 * HOUR, 0, lambda journal: tell(journal, 2 * HOUR, "c", "escalate", "s-1")),
            (3 * HOUR, 1, exchange(2, 3 * HOUR, "d", says=("m",), producer="b", effects=(RESOLVE,))),
        ]
        now = await live([a, b], facts)
        before = await bodies(redis)
        assert len(before) == 5
        after = await lost_and_rebuilt([a, b], [a, b][first], now, redis)
        assert after == before
        assert await redis.exists(a.store.key("replays")) == 0


@pytest.mark.parametrize("seed", range(6))
async def test_any_history_on_three_replicas_is_rebuilt_to_the_byte(seed, journals, redis):
    rng = random.Random(seed)
    at, facts, sequences, said = 0, [], [0, 0, 0], {}
    for n in range(60):
        at += rng.randint(1000, 20 * MINUTE)
        number, name = rng.randrange(3), rng.choice("uvw")
        if rng.random() < 0.2:
            event = rng.choice(["resolve", "escalate", "unresolve"])
            told = lambda j, at=at, name=name, event=event, n=n: tell(j, at, name, event, f"s-{n}")  # noqa: E731
            facts.append((at, number, told))
            continue
        sequences[number] += 1
        said.setdefault(name, []).append(f"m{n}")
        effects = rng.choice([(), (), (RESOLVE,)])
        producer = f"ring-{number}"
        row = exchange(sequences[number], at, name, producer=producer, says=tuple(said[name]), effects=effects)
        facts.append((at, number, row))
    async with (
        Replica(journals[0], redis) as a,
        Replica(journals[1], redis) as b,
        Replica(journals[2], redis) as c,
    ):
        replicas = [a, b, c]
        now = await live(replicas, facts)
        before = await bodies(redis)
        after = await lost_and_rebuilt(replicas, rng.choice(replicas), now, redis)
        assert [read_outcome(body) for body in after] == [read_outcome(body) for body in before]
        assert after == before


async def test_what_arrives_after_the_loss_waits_for_what_another_has_from_before(journals, redis):
    async with Replica(journals[0], redis) as a:
        b = Replica(journals[1], redis)
        async with b:
            early = exchange(1, 0, says=("m1",), producer="b", effects=(RESOLVE,))
            await live([a, b], [(0, 1, early)])
            await a.drained()
        await redis.flushall()  # while b is being started again
        journals[0].append([exchange(1, HOUR, says=("m1", "m2"), producer="a", effects=(RESOLVE,))])
        a.applier.wake()
        await a.until(lambda: a.counts.get("redis_data_lost") == 1)
        await asyncio.sleep(0.1)
        assert a.applier.backlog() == 1
        async with Replica(journals[1], redis) as b:
            heart = asyncio.create_task(beating([a, b], HOUR))
            await b.drained()
            await a.drained()
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            assert await a.outcomes() == [("c", 0, "RESOLVED"), ("c", 0, "RESOLVED")]
            entries = await redis.xrange(a.store.key("outbox"))
            starts = [read_outcome(fields[b"body"]).started_ms - T0 for _, fields in entries]
            assert starts == [0, HOUR]


async def test_a_producer_that_is_presumed_dead_or_does_not_come_on_is_waited_for_no_longer(journals, redis):
    store, other = Store(redis, "acme"), Store(redis, "acme")
    rows = [exchange(1, HOUR, says=("m",))]
    journals[0].append(rows)
    counts = {}
    replay = Replay(store, "a", 1, count=lambda event, n: counts.update({event: n}), patience_seconds=0.05)
    store.lived(["gone"])
    await store.hold_others("a")
    row = journals[0].after(0, 1)
    assert await replay.turn(row) == []
    assert await store.prune({"gone": "0"}) == 1
    assert await replay.turn(row) == row
    assert not replay.over
    await other.replay("stuck", 5, 5)
    assert await replay.turn(row) == []
    await asyncio.sleep(0.06)
    assert await replay.turn(row) == row
    assert replay.over
    assert counts == {"replay_not_waited_for": 1}
