"""Conversations without ids over two lagging replicas: are the calls of each found to be one, and again after a loss?

The full run, with a table by kind of conversation: python -m bench.stitch
"""

from __future__ import annotations

import os

import pytest
import redis.asyncio as redis_async

from bench.stitch import conversations, score, world

SEED = int(os.environ.get("SIMULATION_SEED", "1"))
CONVERSATIONS = 154  # of each kind as many


@pytest.fixture
async def here(redis_server, tmp_path):
    redis = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    made = world.World(SEED, redis, tmp_path)
    yield made
    made.close()
    await redis.aclose()


async def test_the_calls_of_a_conversation_are_found_to_be_one_and_again_after_the_loss_of_redis(here):
    calls = conversations.write(SEED, CONVERSATIONS)
    seen = await here.run(calls)
    found = await here.sessions()
    scores = score.score(calls, [found.get(one) for one in seen], await here.turns())
    table = f"seed {SEED}\n{score.table(scores)}"
    assert set(scores) == {"all", *conversations.KINDS}
    assert scores["all"].precision >= 0.999, table
    assert scores["all"].recall >= 0.999, table
    # Users' turns count once: on both sides of an agent, with sub-agents, and when a request is sent again.
    for kind in ("two sides, traced", "sub-agents, traced", "retries, aborts", "tools"):
        assert scores[kind].turns == scores[kind].turns_true, table
    counters = await here.replicas[0].store.counters()
    assert counters["opened"] == counters["open"] + sum(
        n for name, n in counters.items() if name.startswith("finalized:")
    )
    assert counters.get("refused", 0) == 0
    assert here.counts["observation_early"] > 0  # the replicas did lag
    before = await here.posted()
    assert before
    await here.lose_redis()
    assert await here.sessions() == found
    assert await here.posted() == before
    await here.lose_redis(journals=[0])
    assert await here.posted() <= before


def test_the_score_tells_what_is_wrong():
    calls = conversations.write(3, 22)
    perfect = score.score(calls, [str(call.label) for call in calls], {})
    assert (perfect["all"].precision, perfect["all"].recall) == (1.0, 1.0)
    apart = score.score(calls, [str(n) for n in range(len(calls))], {})
    assert (apart["all"].precision, apart["all"].recall) == (1.0, 0.0)
    together = score.score(calls, ["one"] * len(calls), {})
    assert together["all"].recall == 1.0
    assert together["all"].precision < 0.2
    half = [str(call.label) if n % 2 else "rest" for n, call in enumerate(calls)]
    mixed = score.score(calls, half, {})
    assert mixed["all"].precision < 1.0
    assert mixed["all"].recall < 1.0
    assert mixed["all"].missed
    assert mixed["all"].wrong


def test_the_same_seed_writes_the_same_conversations():
    assert conversations.write(5, 11) == conversations.write(5, 11)
    assert conversations.write(5, 11) != conversations.write(6, 11)
