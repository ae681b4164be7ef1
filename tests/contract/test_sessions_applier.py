"""The applier between a real journal and a real Redis that restarts, forgets, fills up and comes back."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as redis_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.journal import Journal, JournalFull, NewRow
from sidecar.observer.observation import Observation, Thread
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.applier import DOWN, OK, Applier
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Store
from sidecar.sessions.sweeper import Sweeper, Watch
from sidecar.tasks import told_to_stop

TENANT, HOUR = "acme", 3_600_000
T0 = 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa")
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")


def exchange(sequence, at, conversation="c", *, producer="ring", says=(), effects=()):
    observation = Observation(
        producer,
        sequence,
        TENANT,
        T0 + at,
        T0 + at + 10,
        (identity.key(TENANT, "conversation", conversation),),
        identity.session_base(TENANT, "conversation", conversation),
        TERMS,
        conversation=conversation,
        api="openai.chat",
        user_messages=tuple(says),
        effects=tuple(effects),
        llm_calls=1,
    )
    return NewRow(producer, sequence, "observation", observation.at_ms, observation.to_json())


def tell(journal, at, conversation, event, ident):
    effect = Effect("signal", "signal", event, "RESOLVED" if event == "resolve" else None)
    alias = identity.key(TENANT, "conversation", conversation)

    def body(sequence):
        return Signal(journal.id, sequence, TENANT, "crm", ident, T0 + at, effect, TERMS, alias=alias).to_json()

    return journal.append_signal("crm", ident, T0 + at, body)


@pytest.fixture
async def redis(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket), retry=Retry(NoBackoff(), 0))
    yield client
    await client.aclose()


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite3", hours=168, bytes_max=1 << 26)
    yield journal
    journal.close()


class Replica:
    """An applier in the loop, with the counts that it reported."""

    def __init__(self, journal, redis, **options):
        self.counts = {}
        self.journal = journal
        self.store = Store(redis, TENANT, **options)
        self.applier = Applier(journal, self.store, count=self.count)
        self.task = None

    def count(self, event, n=1):
        self.counts[event] = self.counts.get(event, 0) + n

    async def __aenter__(self):
        self.task = asyncio.create_task(self.applier.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def drained(self):
        assert await self.applier.drained(asyncio.get_running_loop().time() + 30)

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)

    async def outcomes(self):
        entries = await self.store.redis.xrange(self.store.key("outbox"))
        return sorted((o.conversation, o.revision, o.state) for o in (read_outcome(f[b"body"]) for _, f in entries))


async def test_rows_are_applied_once_and_a_restart_goes_on(journal, redis):
    journal.append([exchange(n, n * 100, says=(f"m{n}",)) for n in range(1, 400)])
    async with Replica(journal, redis) as replica:
        await replica.drained()
        assert replica.applier.backlog() == 0
        assert replica.applier.pending_ms() is None
        assert replica.applier.state == OK
        await replica.applier._save()
    journal.append([exchange(500, 500_000, says=("last",), effects=(RESOLVE,))])
    async with Replica(journal, redis) as again:
        await again.drained()
        assert again.counts == {"observation_applied": 1}
        assert await again.outcomes() == [("c", 0, "RESOLVED")]
        assert (await again.store.by_alias("conversation", "c")).turns == 400


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


async def test_where_each_observation_went_is_noted_and_it_goes_there_again(journal, redis, monkeypatch):
    monkeypatch.setattr("sidecar.sessions.applier.IDLE_CHECK_SECONDS", 0.05)
    journal.append([exchange(1, 0, "a", says=("m",), effects=(RESOLVE,)), exchange(2, 10, "a", says=("n",))])
    tell(journal, 20, "b", "resolve", "s-1")
    async with Replica(journal, redis) as replica:
        await replica.drained()
        noted = [row.went.split() for row in journal.after(0, 10)]
        assert [len(went) for went in noted] == [2, 2, 0]
        assert noted[0][0] != noted[1][0]
        assert noted[0][1] == noted[1][1] == noted[0][0]  # the conversation's first session
        # Another replica's journal made the first of these another number: the note has the last word.
        journal.note_where([(1, "ses_x ses_x")])
        await redis.flushall()
        await replica.until(lambda: replica.counts.get("redis_data_lost") == 1)
        await replica.drained()
        assert (await replica.store.session("ses_x")).state == "RESOLVED"
        assert (await replica.store.session(noted[1][0])).conversation == "a"


async def test_where_it_went_is_noted_though_the_answer_was_lost(journal, redis):
    """Redis has applied the batch when the connection breaks."""
    journal.append([exchange(1, 0, "a", says=("m",)), exchange(2, 10, "a", says=("n",))])
    replica = Replica(journal, redis)
    apply_many, lost = replica.store.apply_many, []

    async def lose_the_first_answer(*operations, **options):
        answers = await apply_many(*operations, **options)
        if not lost:
            lost.extend(answers)
            raise RedisConnectionError("the answer was lost")
        return answers

    replica.store.apply_many = lose_the_first_answer
    async with replica:
        await replica.drained()
    assert replica.counts["observation_duplicate"] == 2
    assert [row.went for row in journal.after(0, 10)] == [answer.went for answer in lost] != ["", ""]


async def test_a_row_that_waits_for_another_replica_is_tried_again_until_that_has_come_past_it(journal, redis):
    follows = Thread("asked 2", follows="state 1", reaches="state 2")
    observation = Observation(
        "ring", 1, TENANT, T0 + 1000, T0 + 1500, (), "base", TERMS, api="openai.chat", thread=follows
    )  # fmt: skip
    journal.append([NewRow("ring", 1, "observation", observation.at_ms, observation.to_json()), exchange(2, 2000, "d")])
    replica = Replica(journal, redis)
    replica.applier = Applier(journal, replica.store, count=replica.count, clock_ms=lambda: T0 + 2000)
    await replica.store.heartbeat("other", T0 + 999, 1)
    async with replica:
        await replica.until(lambda: replica.counts.get("observation_early", 0) >= 3)
        assert replica.counts.get("observation_applied", 0) == 0
        await replica.store.heartbeat("other", T0 + 1000, 2)
        await replica.drained()
    assert replica.counts["observation_applied"] == 2


async def test_a_signal_right_after_flushall_does_not_overtake_the_replay(journal, redis):
    journal.append(
        [exchange(1, 0, says=("m",)), exchange(2, 50, says=("m", "n")), exchange(3, 90, effects=(RESOLVE,))],
    )
    async with Replica(journal, redis) as replica:
        await replica.drained()
        before = await _outcome_bodies(redis, replica.store)
        await redis.flushall()
        tell(journal, 200, "c", "escalate", "s-1")
        replica.applier.wake()
        await replica.until(lambda: replica.counts.get("redis_data_lost"))
        await replica.drained()
        assert await replica.outcomes() == [("c", 0, "RESOLVED"), ("c", 1, "NOT_BILLABLE")]
        assert (await _outcome_bodies(redis, replica.store))[0] == before[0]


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


async def test_while_rows_wait_the_mark_is_held_back(journal, redis):
    async with Replica(journal, redis, outbox_max=1) as replica:
        assert replica.applier.pending_ms() == 0  # not known before Redis was asked
        journal.append([exchange(n, n * 1000, f"c{n}", says=("m",), effects=(RESOLVE,)) for n in (1, 2, 3)])
        replica.applier.wake()
        await replica.until(lambda: replica.counts.get("outbox_full", 0) >= 1)
        assert replica.applier.pending_ms() == T0 + 2000
        await replica.store.heartbeat(journal.id, T0 + 9 * HOUR, 1)
        assert await replica.store.beats() == {journal.id: "1"}
        assert await redis.zscore(replica.store.key("marks"), journal.id) == T0 + 2000
        while replica.applier.backlog():
            await redis.xtrim(replica.store.key("outbox"), maxlen=0)
            await asyncio.sleep(0.01)
        assert replica.applier.pending_ms() is None
        assert (await replica.store.counters())["finalized:RESOLVED"] == 3


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


async def test_a_signals_sender_can_wait_for_what_became_of_it(journal, redis):
    async with Replica(journal, redis) as replica:
        sequence, duplicate = tell(journal, 0, "c", "resolve", "s-1")
        assert not duplicate
        replica.applier.wake()
        assert (await asyncio.wait_for(replica.applier.applied(sequence), 30)).status == "waiting"
        journal.append([exchange(1, 10, says=("m",))])
        await replica.drained()
        other, _ = tell(journal, 20, "c", "escalate", "s-2")
        replica.applier.wake()
        answer = await asyncio.wait_for(replica.applier.applied(other), 30)
        assert (answer.status, answer.state) == ("applied", "NOT_BILLABLE")
        assert (await replica.applier.applied(other)).status == "applied"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(replica.applier.applied(999), 0.01)


async def test_a_hole_is_counted_and_passed_over(journal, redis):
    async with Replica(journal, redis) as replica:
        journal.append([exchange(1, 0, says=("m",)), exchange(2, 10, says=("m2",))])
        await replica.drained()
        # another journal's file: it has neither 1 nor 2, and Redis lost them too
        journal._connection.execute("DELETE FROM rows")
        await redis.flushall()
        journal.append([exchange(3, 20, says=("m3",), effects=(RESOLVE,))])
        replica.applier.wake()
        await replica.drained()
        assert replica.counts["facts_lost"] == 1
        assert await replica.outcomes() == [("c", 0, "RESOLVED")]


async def test_an_unreadable_row_is_counted_and_passed_over(journal, redis):
    broken = NewRow("ring", 2, "observation", T0, b'{"no": "observation"}')
    journal.append([exchange(1, 0, says=("m",)), broken, exchange(3, 20, says=("m3",), effects=(RESOLVE,))])
    async with Replica(journal, redis) as replica:
        await replica.drained()
        assert replica.counts["journal_row_unreadable"] >= 1
        assert await replica.outcomes() == [("c", 0, "RESOLVED")]
        journal.append([exchange(4, 30, "d", says=("m",))])
        await replica.drained()
        assert (await replica.store.counters())["opened"] == 2


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


async def test_two_replicas_share_one_redis(journal, redis, tmp_path):
    other_journal = Journal(tmp_path / "other.sqlite3", hours=168, bytes_max=1 << 26)
    async with Replica(journal, redis) as one, Replica(other_journal, redis) as two:
        journal.append([exchange(1, 0, says=("m1",))])
        await one.drained()
        other_journal.append([exchange(1, 1000, producer="ring-2", says=("m1", "m2"))])
        tell(journal, 2000, "c", "resolve", "s-1")
        tell(other_journal, 2000, "c", "resolve", "s-1")
        two.applier.wake()
        await one.drained()
        await two.drained()
        assert await one.outcomes() == [("c", 0, "RESOLVED")]
        statuses = {**one.counts, **two.counts}
        assert statuses["signal_duplicate"] == 1
    other_journal.close()


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
        outcomes = [o for o in await _outcome_bodies(redis, replica.store) if o.state == "INCONCLUSIVE"]
        assert len(outcomes) == len({o.session_id for o in outcomes}) == 300


async def _outcome_bodies(redis, store):
    entries = await redis.xrange(store.key("outbox"))
    return [read_outcome(fields[b"body"]) for _, fields in entries if fields[b"kind"] == b"outcome"]


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
