"""The applier between a real journal and a real Redis: each row is applied once, in its order, and told of."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from replicas import HOUR, RESOLVE, T0, TENANT, TERMS, Replica, exchange, tell

from sidecar.observer.journal import Journal, NewRow
from sidecar.observer.observation import Observation, Thread
from sidecar.sessions.applier import OK, Applier


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
