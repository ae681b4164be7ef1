"""A timeline's chain on a real server: whatever is changed afterwards, in Redis or in the ledger, shows."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import orjson
import pytest
import redis.asyncio as redis_async

from sidecar import identity
from sidecar.delivery.event import outcome_event
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.chain import against_ledger
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.scripts import LIMITS
from sidecar.sessions.store import Store

TENANT, T0 = "acme", 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa")
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED", call="c1", digest="hmac-sha256:1")
KEY = identity.key(TENANT, "conversation", "c-1")


def exchange(sequence, at, *effects, **fields):
    said = (f"m{sequence}",)
    base = identity.session_base(TENANT, "conversation", "c-1")
    digests = {"request": f"hmac-sha256:q{sequence}", "response": f"hmac-sha256:r{sequence}"}
    return Observation(
        "ring", sequence, TENANT, T0 + at, T0 + at, (KEY,), base, TERMS, conversation="c-1", api="openai.chat",
        user_messages=said, effects=effects, digests=digests, **fields,
    ), sequence - 1  # fmt: skip


def signal(sequence, at, event):
    effect = Effect("signal:crm", "signal", event, digest="hmac-sha256:s")
    return Signal("journal", sequence, TENANT, "crm", f"s{sequence}", T0 + at, effect, TERMS, alias=KEY), sequence - 1


@pytest.fixture
async def store(redis_server):
    client = redis_async.Redis(unix_socket_path=str(redis_server.socket))
    yield Store(client, TENANT)
    await client.aclose()


async def told(store):
    """A session with a resolution, trailing talk and a reversal: what most are not, but what is disputed."""
    await store.apply_many(
        [
            exchange(1, 0),
            exchange(2, 10),
            exchange(3, 20, RESOLVE),
            signal(1, 500, "unresolve"),
            signal(2, 900, "escalate"),
        ]
    )
    return (await store.by_alias("conversation", "c-1")).id


async def ledger(store):
    entries = await store.redis.xrange(store.key("outbox"))
    return [{"event": json.loads(outcome_event(read_outcome(fields[b"body"])).body)} for _, fields in entries]


async def test_a_timeline_that_nobody_touched_is_intact_and_agrees_with_what_was_posted(store):
    found = await store.verify(await told(store))
    assert found.problems == ()
    assert found.entries == 8  # opened, three exchanges, the rule, its timer, two signals
    assert sorted(found.posted) == [0, 1, 2]
    posted = await ledger(store)
    assert [entry["event"]["data"]["evidence_chain"] for entry in posted] == [found.posted[n] for n in range(3)]
    assert against_ledger(found.to_dict(), posted) == []
    assert await store.verify("ses_unknown") is None


def rewritten(raw, **changes):
    return orjson.dumps(json.loads(raw) | changes)


TAMPER = {
    "a digest of the evidence": lambda t: t.__setitem__(1, rewritten(t[1], digests={"request": "hmac-sha256:other"})),
    "a time": lambda t: t.__setitem__(3, rewritten(t[3], at=T0)),
    "an entry removed": lambda t: t.pop(2),
    "the newest entry removed": lambda t: t.pop(),
    "two entries swapped": lambda t: t.insert(2, t.pop(3)),
    "an entry added": lambda t: t.insert(2, t[1]),
    "a plan's digest": lambda t: t.__setitem__(0, rewritten(t[0], plan="sha256:bb")),
    "an entry that is no JSON": lambda t: t.__setitem__(2, b"gone"),
}


@pytest.mark.parametrize("what", TAMPER)
async def test_whatever_is_changed_in_the_timeline_shows(store, what):
    session = await told(store)
    name = store.key("timeline", session)
    timeline = await store.redis.lrange(name, 0, -1)
    TAMPER[what](timeline)
    await store.redis.delete(name)
    await store.redis.rpush(name, *timeline)
    assert (await store.verify(session)).problems != ()


async def test_a_state_that_the_timeline_does_not_end_in_shows(store):
    session = await told(store)
    name = store.key("session", session)
    await store.redis.set(name, rewritten(await store.redis.get(name), state="RESOLVED"))
    assert (await store.verify(session)).problems == ("the session says RESOLVED, its timeline NOT_BILLABLE",)


async def test_who_forges_the_whole_chain_contradicts_the_ledger(store):
    """Every digest recomputed after a change: Redis alone looks intact, the ledger does not agree."""
    session = await told(store)
    name = store.key("timeline", session)
    timeline = await store.redis.lrange(name, 0, -1)
    chain, forged = "", []
    for raw in timeline:
        entry = json.loads(raw)
        if entry["n"] == 2:
            entry["digests"] = {}
        forged.append(orjson.dumps(entry | {"prev": chain}))
        chain = "sha1:" + hashlib.sha1(forged[-1]).hexdigest()
    await store.redis.delete(name)
    await store.redis.rpush(name, *forged)
    fields = store.key("session", session)
    await store.redis.set(fields, rewritten(await store.redis.get(fields), chain=chain))
    found = await store.verify(session)
    assert found.problems == ()
    contradictions = against_ledger(found.to_dict(), await ledger(store))
    assert [f"revision {n}" in text for n, text in enumerate(contradictions)] == [True] * 3


async def test_a_long_timeline_drops_its_middle_and_is_still_verified(store):
    over = 15
    total = LIMITS["timeline_first"] + LIMITS["timeline_last"] + over
    await store.apply_many([exchange(n, n * 10) for n in range(1, total)])  # and `opened`
    session = (await store.by_alias("conversation", "c-1")).id
    found = await store.verify(session)
    assert (found.problems, found.entries, found.omitted) == ((), total, over)
    name = store.key("timeline", session)
    for index in (LIMITS["timeline_first"] - 1, LIMITS["timeline_first"], 60):
        raw = await store.redis.lindex(name, index)
        await store.redis.lset(name, index, rewritten(raw, at=T0))
        assert (await store.verify(session)).problems != (), index
        await store.redis.lset(name, index, raw)
    assert (await store.verify(session)).problems == ()


async def test_a_replay_writes_the_same_chain(store):
    first = await store.verify(await told(store))
    await store.redis.flushall()
    assert await store.verify(await told(store)) == first


async def test_a_session_of_an_earlier_release_is_said_to_be_unverifiable(store):
    session = await told(store)
    name = store.key("session", session)
    fields = json.loads(await store.redis.get(name))
    for field in ("chain", "entries", "anchor"):
        fields.pop(field, None)
    await store.redis.set(name, orjson.dumps(fields))
    [problem] = (await store.verify(session)).problems
    assert "kept no chain" in problem
    outcome = read_outcome((await store.redis.xrange(store.key("outbox")))[0][1][b"body"])
    old = outcome_event(dataclasses.replace(outcome, chain=None))
    assert b"evidence_chain" not in old.body
