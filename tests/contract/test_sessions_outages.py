"""A Redis that restarts, forgets, fills up and comes back, and a journal's disk that fails: nothing is lost."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from replicas import HOUR, RESOLVE, T0, Replica, exchange, outcome_bodies, tell

from sidecar.observer.journal import Journal, JournalFull
from sidecar.sessions.applier import DOWN, OK
from sidecar.tasks import told_to_stop


async def test_a_flushed_redis_is_rebuilt_without_new_traffic(journal, redis, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.05)
    journal.append(
        [
            exchange(1, 0, "a", says=("m",), effects=(RESOLVE,)),
            exchange(2, 10, "b", says=("m",)),
            exchange(9, 50, "b", says=("n",), effects=(RESOLVE,)),
        ]
    )
    tell(journal, 100, "a", "escalate", "s-1")
    async with Replica(journal, redis) as replica:
        await replica.drained()
        before = await replica.outcomes()
        assert before == [("a", 0, "RESOLVED"), ("a", 1, "NOT_BILLABLE"), ("b", 0, "RESOLVED")]
        entries = [f[b"body"] for _, f in await redis.xrange(replica.store.key("outbox"))]
        await redis.flushall()
        await replica.until(lambda: replica.counts.get("redis_data_lost") == 1)
        await replica.drained()
        assert [f[b"body"] for _, f in await redis.xrange(replica.store.key("outbox"))] == entries
        assert (await replica.store.counters())["opened"] == 2


async def test_a_signal_right_after_flushall_does_not_overtake_the_replay(journal, redis):
    journal.append(
        [exchange(1, 0, says=("m",)), exchange(2, 50, says=("m", "n")), exchange(3, 90, effects=(RESOLVE,))],
    )
    async with Replica(journal, redis) as replica:
        await replica.drained()
        before = await outcome_bodies(redis, replica.store)
        await redis.flushall()
        tell(journal, 200, "c", "escalate", "s-1")
        replica.applier.wake()
        await replica.until(lambda: replica.counts.get("redis_data_lost"))
        await replica.drained()
        assert await replica.outcomes() == [("c", 0, "RESOLVED"), ("c", 1, "NOT_BILLABLE")]
        assert (await outcome_bodies(redis, replica.store))[0] == before[0]


async def test_after_flushall_no_replica_fires_deadlines_that_anothers_journal_moved(
    journal, redis, tmp_path, monkeypatch
):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.2)
    other = Journal(tmp_path / "other.sqlite3", hours=168, bytes_max=1 << 26)
    minute = HOUR // 60
    async with Replica(journal, redis) as here, Replica(other, redis) as there:

        async def live(replica, row, now):
            replica.journal.append([row])
            replica.applier.wake()
            await replica.drained()
            for each in (here, there):
                await each.store.heartbeat(each.journal.id, T0 + now, now)
            for each in (here, there):
                assert len(await each.store.beats()) == 2  # as the sweeper looks now and then

        await live(here, exchange(1, 0, says=("m",), producer="here"), minute)
        await live(there, exchange(1, 50 * minute, says=("n",), producer="there"), 51 * minute)
        await live(here, exchange(2, 100 * minute, says=("o",), producer="here"), 101 * minute)
        await live(here, exchange(3, 102 * minute, effects=(RESOLVE,), producer="here"), 103 * minute)
        assert await here.outcomes() == [("c", 0, "RESOLVED")]
        await redis.flushall()
        # One notices at once, since it has traffic; the other still believes that all is applied.
        await there.store.heartbeat(other.id, T0 + 104 * minute, 104)
        journal.append([exchange(4, 104 * minute, "d", producer="here")])
        here.applier.wake()
        await here.until(lambda: here.counts.get("redis_data_lost"))
        await there.until(lambda: there.counts.get("redis_data_lost"))

        async def beat():
            while not told_to_stop():
                for each in (here, there):
                    await each.store.heartbeat(each.journal.id, T0 + 104 * minute, 105)
                await asyncio.sleep(0.02)

        beating = asyncio.create_task(beat())
        await here.drained()
        await there.drained()
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        assert await here.outcomes() == [("c", 0, "RESOLVED")]
        assert [view.conversation for view in await here.store.list()].count("c") == 1
    other.close()


async def test_a_redis_behind_by_a_second_is_caught_up(journal, redis, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.05)
    journal.append([exchange(1, 0, says=("m1",)), exchange(2, 100, says=("m2",))])
    async with Replica(journal, redis) as replica:
        await replica.drained()
        dump = {name: await redis.dump(name) for name in await redis.keys()}
        journal.append([exchange(3, 200, says=("m3",)), exchange(4, 300, says=("m4",), effects=(RESOLVE,))])
        replica.applier.wake()
        await replica.drained()
        assert len(await replica.outcomes()) == 1
        pipeline = redis.pipeline(transaction=True)
        pipeline.flushall()
        for name, value in dump.items():
            pipeline.restore(name, 600_000, value)
        await pipeline.execute()
        await replica.until(lambda: replica.counts.get("rewind", 0) >= 1)
        await replica.drained()
        assert await replica.outcomes() == [("c", 0, "RESOLVED")]
        assert (await replica.store.by_alias("conversation", "c")).turns == 4
        assert "redis_data_lost" not in replica.counts
        assert "facts_lost" not in replica.counts


async def test_a_journal_that_cannot_be_read_holds_the_mark_and_is_waited_out(journal, redis, monkeypatch):
    journal.append([exchange(1, 0, says=("m",), effects=(RESOLVE,))])
    readable = journal.after

    def refuse(_row, _limit):
        raise JournalFull("disk I/O error")

    async with Replica(journal, redis) as replica:
        await replica.drained()
        monkeypatch.setattr(journal, "after", refuse)
        journal.append([exchange(2, 10, "d", says=("m",), effects=(RESOLVE,))])
        replica.applier.wake()
        await replica.until(lambda: replica.applier.state == DOWN)
        assert replica.applier.pending_ms() == 0
        monkeypatch.setattr(journal, "after", readable)
        await replica.drained()
        assert await replica.outcomes() == [("c", 0, "RESOLVED"), ("d", 0, "RESOLVED")]


async def test_a_disk_that_fills_up_while_nothing_waits_ends_nothing_and_the_cursor_is_saved_later(
    journal, redis, monkeypatch
):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.05)
    writable = journal.set_meta

    def refuse(_name, _value):
        raise JournalFull("database or disk is full")

    async with Replica(journal, redis) as replica:
        await replica.drained()
        monkeypatch.setattr(journal, "set_meta", refuse)
        journal.append([exchange(1, 0, says=("m",))])
        replica.applier.wake()
        await replica.until(lambda: replica.counts.get("cursor_not_saved", 0) >= 2)
        assert not replica.task.done()
        assert replica.applier.state == OK
        assert replica.applier.pending_ms() is None
        monkeypatch.setattr(journal, "set_meta", writable)
        await replica.until(lambda: (saved := journal.meta("applier")) and '"row":1' in saved)


async def test_an_outage_is_waited_out_and_no_backlog_expires(journal, redis, redis_server):
    async with Replica(journal, redis) as replica:
        journal.append([exchange(1, 0, says=("m0",))])
        await replica.drained()
        redis_server.kill()
        # an hour's silence is the timeout; the conversation talks on every 50 minutes while Redis is away
        journal.append([exchange(n + 1, n * 50 * 60_000, says=(f"m{n}",)) for n in range(1, 6)])
        replica.applier.wake()
        await replica.until(lambda: replica.applier.state == DOWN)
        with pytest.raises((RedisConnectionError, OSError)):
            await replica.store.heartbeat(journal.id, T0 + 9 * HOUR, 1)
        redis_server.start()
        async with asyncio.timeout(30):
            while replica.applier.backlog():
                await replica.store.heartbeat(journal.id, T0 + 5 * HOUR, 2)
                await replica.store.sweep()
                await asyncio.sleep(0.005)
        await replica.store.sweep()
        assert await replica.outcomes() == []
        assert (await replica.store.by_alias("conversation", "c")).turns == 6
        await replica.store.heartbeat(journal.id, T0 + 6 * HOUR, 3)
        assert (await replica.store.sweep()).fired == 1


async def test_out_of_memory_is_waited_out(journal, redis):
    async with Replica(journal, redis) as replica:
        await replica.drained()
        await redis.config_set("maxmemory", 1)
        journal.append([exchange(1, 0, says=("m",), effects=(RESOLVE,))])
        replica.applier.wake()
        await replica.until(lambda: replica.applier.state == DOWN)
        await redis.config_set("maxmemory", 0)
        await replica.drained()
        assert await replica.outcomes() == [("c", 0, "RESOLVED")]
