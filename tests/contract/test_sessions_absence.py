"""A sidecar that was away for longer than its data lives, or whose clock was wrong, charges nothing again."""

from __future__ import annotations

from replicas import HOUR, RESOLVE, T0, Replica, exchange, tell

from sidecar.sessions.applier import Applier


async def expire(redis, days):
    """Take away what would have expired after so many days without any call."""
    for name in await redis.keys():
        if 0 <= await redis.pttl(name) <= days * 24 * HOUR:
            await redis.delete(name)


async def resolved_and_saved(journal, redis):
    """Two resolved conversations, and the cursor saved behind them."""
    facts = [exchange(n, n, name, says=("m",), effects=(RESOLVE,)) for n, name in ((1, "a"), (2, "b"))]
    journal.append(facts)
    async with Replica(journal, redis) as replica:
        await replica.drained()
        await replica.applier._save()


async def test_a_sidecar_that_was_away_for_longer_than_its_sessions_live_charges_nothing_again(journal, redis):
    await resolved_and_saved(journal, redis)
    await expire(redis, 30)
    async with Replica(journal, redis) as again:
        assert await again.store.by_alias("conversation", "a") is None
        journal.append([exchange(3, 30 * 24 * HOUR, "c", says=("m",), effects=(RESOLVE,))])
        await again.drained()
        assert await again.outcomes() == [("a", 0, "RESOLVED"), ("b", 0, "RESOLVED"), ("c", 0, "RESOLVED")]
        assert again.counts == {"observation_applied": 1}


async def test_a_mark_that_is_gone_from_known_data_is_put_back_and_nothing_is_applied_again(journal, redis):
    await resolved_and_saved(journal, redis)
    await expire(redis, 30)
    await redis.delete("sidecar:{acme}:applied:ring")
    async with Replica(journal, redis) as again:
        await again.drained()
        assert again.counts == {"mark_restored": 1}
        assert await again.outcomes() == [("a", 0, "RESOLVED"), ("b", 0, "RESOLVED")]
        assert await again.store.marks(["ring"]) == {"ring": 2}
    await redis.delete("sidecar:{acme}:applied:ring")
    journal.append([exchange(n, n, "c", says=("m",), producer="other") for n in range(3, 400)])
    async with Replica(journal, redis) as again:
        await again.drained()
        await again.applier._save()
        await redis.delete("sidecar:{acme}:applied:ring")
    async with Replica(journal, redis) as again:
        await again.drained()
        journal.append([exchange(3, 500, "d", says=("m",), effects=(RESOLVE,))])  # long after its predecessor
        again.applier.wake()
        await again.drained()
        assert again.counts == {"mark_restored": 1, "observation_applied": 1}
        assert await again.outcomes() == [("a", 0, "RESOLVED"), ("b", 0, "RESOLVED"), ("d", 0, "RESOLVED")]


async def test_a_mark_that_data_of_yesterday_does_not_have_is_no_mark_that_is_gone(journal, redis):
    async with Replica(journal, redis) as replica:
        await replica.drained()
        dump = {name: await redis.dump(name) for name in await redis.keys()}
    await resolved_and_saved(journal, redis)
    await redis.flushall()
    for name, value in dump.items():
        await redis.restore(name, 0, value)
    async with Replica(journal, redis) as again:
        await again.drained()
        assert again.counts == {"rewind": 1, "observation_applied": 2}
        assert await again.outcomes() == [("a", 0, "RESOLVED"), ("b", 0, "RESOLVED")]


async def test_what_is_too_old_to_be_kept_goes_before_anything_is_applied_again(journal, redis):
    await resolved_and_saved(journal, redis)
    await redis.flushall()
    again = Replica(journal, redis)
    again.applier = Applier(journal, again.store, count=again.count, clock_ms=lambda: T0 + 9 * 24 * HOUR)
    async with again:
        await again.drained()
        assert await again.outcomes() == []
        assert again.counts == {"redis_data_lost": 1}


async def test_a_row_from_a_clock_that_was_ahead_makes_no_other_row_old(journal, redis, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.applier.PRUNE_SECONDS", 0.0)
    replica = Replica(journal, redis)
    replica.applier = Applier(journal, replica.store, count=replica.count, clock_ms=lambda: T0 + HOUR)
    journal.append([exchange(1, 0, "a", says=("m",)), exchange(2, 30 * 24 * HOUR, "b", says=("m",))])
    tell(journal, 10, "a", "escalate", "s-1")
    async with replica:
        await replica.drained()
    assert [row.sequence for row in journal.after(0, 10)] == [1, 2, 1]
    assert tell(journal, 20, "a", "escalate", "s-1")[1], "and no signal is new again"
