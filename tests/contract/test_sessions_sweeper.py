"""Sweepers and what replicas tell of themselves: deadlines fire once, who is gone is named and forgotten."""

from __future__ import annotations

import asyncio

from replicas import HOUR, T0, TENANT, Replica, exchange, outcome_bodies

from sidecar.sessions.store import Store
from sidecar.sessions.sweeper import Sweeper, Watch


async def test_three_sweepers_fire_each_deadline_once(journal, redis):
    async with Replica(journal, redis) as replica:
        journal.append([exchange(n, n, f"c{n}", says=("m",)) for n in range(1, 301)])
        await replica.drained()
        await replica.store.heartbeat(journal.id, T0 + 2 * HOUR, 1)
        sweepers = [Sweeper(replica.store, count=replica.count) for _ in range(3)]

        async def sweep(sweeper):
            while await sweeper.step():
                pass

        await asyncio.gather(*(sweep(sweeper) for sweeper in sweepers))
        assert replica.counts["sessions_timed_out"] == 300
        outcomes = [o for o in await outcome_bodies(redis, replica.store) if o.state == "INCONCLUSIVE"]
        assert len(outcomes) == len({o.session_id for o in outcomes}) == 300


async def test_a_replica_that_does_not_come_on_is_named_and_what_waits_for_it_is_kept_alive_or_counted(journal, redis):
    day = 24 * HOUR
    async with Replica(journal, redis) as replica:
        journal.append([exchange(1, 0, "kept", says=("m",)), exchange(2, 0, "lost", says=("m",))])
        await replica.drained()
    store, now = replica.store, [T0 + 20 * day]
    kept, lost = [(await store.by_alias("conversation", name)).id for name in ("kept", "lost")]
    await store.heartbeat(journal.id, T0 + 20 * day, 1)
    await store.heartbeat("broken-disk", T0 + 1, 1)
    sweeper = Sweeper(store, count=replica.count, clock_ms=lambda: now[0])
    await redis.rpush(store.key("texts", kept), "t1")  # as a conversation without an id has
    await redis.hset(store.key("text", "t1"), kept, "e1 ")
    names = [store.key(*name) for name in (("session", kept), ("aliases", kept), ("texts", kept), ("text", "t1"))]
    for name in names:
        await redis.pexpire(name, 1 * day)
    await sweeper.step()
    assert (sweeper.holder, sweeper.lag_seconds()) == ("broken-disk", (20 * day - 1) / 1000)
    assert replica.counts["mark_lagging"] == 1
    assert replica.counts.get("sessions_timed_out", 0) == 0
    for name in names:
        assert await redis.pttl(name) > 30 * day
    await redis.delete(store.key("session", lost))
    await store.leave("broken-disk")
    await sweeper.step()
    counters = await store.counters()
    assert (counters["sessions_lost"], counters["open"], counters["opened"]) == (1, 0, 2)
    assert counters["finalized:INCONCLUSIVE"] == 1


async def test_housekeeping_of_five_thousand_replicas(redis):
    store = Store(redis, TENANT)
    marks, beats = store.key("marks"), store.key("beats")
    names = [f"{n:032d}" for n in range(5000)]
    await redis.zadd(marks, {name: T0 + n for n, name in enumerate(names)})
    await redis.hset(beats, mapping=dict.fromkeys(names, "1"))
    await store.heartbeat("me", T0 - 1, 1, dropped=2)
    assert len(await store.beats()) == 5001
    assert await store.sweep()
    sweeper = Sweeper(store, clock_ms=lambda: T0)
    await sweeper.step()
    assert sweeper.pause_seconds() == 15.0
    assert sweeper.watch_seconds() == 120.0
    assert await store.prune(dict.fromkeys([*names, "me"], "1")) == 5001
    assert await redis.exists(marks, beats) == 0


async def answered_bytes(redis, store, replicas):
    """What Redis answers to a beat and two sweeps."""
    await redis.delete(store.key("marks"), store.key("beats"))
    names = {f"{n:032d}": T0 for n in range(replicas)}
    await redis.zadd(store.key("marks"), names)
    await redis.hset(store.key("beats"), mapping=dict.fromkeys(names, "1"))
    before = (await redis.info("stats"))["total_net_output_bytes"]
    await store.heartbeat(next(iter(names)), T0, 1)
    await store.sweep()
    await store.sweep()
    return (await redis.info("stats"))["total_net_output_bytes"] - before


async def test_a_beat_and_a_sweep_cost_the_same_however_many_replicas_live(redis):
    store = Store(redis, TENANT)
    await answered_bytes(redis, store, 1)  # loads the scripts
    of_one = await answered_bytes(redis, store, 1)
    assert await answered_bytes(redis, store, 3000) < of_one + 1000


async def test_a_silent_producer_is_presumed_dead_only_when_watched(redis):
    store = Store(redis, TENANT)
    await store.heartbeat("dead", 0, 1)
    await store.heartbeat("alive", 0, 1)
    now = [0.0]
    sweeper = Sweeper(store, monotonic=lambda: now[0], clock_ms=lambda: T0)
    for minute in range(16):
        now[0] = minute * 60.0
        await store.heartbeat("alive", 0, 2 + minute)
        await sweeper.step()
        assert set(await store.beats()) == ({"alive", "dead"} if minute < 15 else {"alive"})
    assert (await store.counters())["producers_pruned"] == 1
    await store.heartbeat("dead", 0, 99)
    assert set(await store.beats()) == {"alive", "dead"}


def test_an_outage_restarts_the_watch():
    watch = Watch(patience_seconds=10)
    assert watch.look({"a": "1"}, 0) == {}
    assert watch.look({"a": "1"}, 9) == {}
    watch.restart()
    assert watch.look({"a": "1"}, 11) == {}
    assert watch.look({"a": "2"}, 20) == {}
    assert watch.look({"a": "2"}, 29) == {}
    assert watch.look({"a": "2"}, 30) == {"a": "2"}
    assert watch.look({}, 31) == {}
