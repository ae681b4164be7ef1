"""Orders, copies and jumping clocks on a real server, with two replicas that deliver at the same time.

The pure machine is the oracle: each session's own timeline says in which order Redis took the signals, and that order,
carried through `states.advance`, must end where Redis ended.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import orjson
import pytest
import redis.asyncio as redis_async

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.states import Event, State, View, advance
from sidecar.sessions.store import Store

TENANT, T0 = "acme", 1_795_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
SESSIONS = 2_000
SIX = [
    ("r1", "resolve"),
    ("r2", "resolve"),
    ("r3", "resolve"),
    ("e1", "escalate"),
    ("e2", "escalate"),
    ("u1", "unresolve"),
]
PLANS = [
    Terms("now", "d1", settle_ms=0),
    Terms("settling", "d2", settle_ms=10 * MINUTE),
    Terms("assumed", "d3", settle_ms=0, inconclusive_policy="CHARGE"),
]


class Replica:
    """One observer: its queue and its journal, each with a running sequence, and a connection of its own."""

    def __init__(self, name, socket):
        self.name = name
        self.redis = redis_async.Redis(unix_socket_path=str(socket))
        self.store = Store(self.redis, TENANT)
        self.last = Counter()

    def numbered(self, producer):
        self.last[producer] += 1
        return self.last[producer], self.last[producer] - 1

    def exchange(self, conversation, at, terms, *says):
        sequence, previous = self.numbered(f"{self.name}-queue")
        keys = (identity.key(TENANT, "conversation", conversation),)
        base = identity.session_base(TENANT, "conversation", conversation)
        return Observation(
            f"{self.name}-queue", sequence, TENANT, T0 + at, T0 + at, keys, base, terms,
            conversation=conversation, api="openai.chat", user_messages=says, llm_calls=1,
        ), previous  # fmt: skip

    def signal(self, conversation, name, event, at, terms):
        sequence, previous = self.numbered(f"{self.name}-journal")
        effect = Effect(name, "signal", event, "RESOLVED" if event == "resolve" else None)
        alias = identity.key(TENANT, "conversation", conversation)
        ident = f"{conversation}/{name}"
        return (
            Signal(f"{self.name}-journal", sequence, TENANT, "crm", ident, T0 + at, effect, terms, alias=alias),
            previous,
        )

    async def deliver(self, facts, batch=200):
        for first in range(0, len(facts), batch):
            answers = await self.store.apply_many(facts[first : first + batch], own=f"{self.name}-journal")
            assert {answer.status for answer in answers} <= {"applied", "duplicate", "waiting"}, answers
            await asyncio.sleep(0)


@pytest.fixture
async def replicas(redis_server):
    found = [Replica(name, redis_server.socket) for name in ("a", "b")]
    yield found
    for replica in found:
        await replica.redis.aclose()


async def sweep_all(store, at):
    await store.heartbeat("clock", T0 + at, T0 + at)
    while (await store.sweep(1000)).more:
        pass


async def outcomes(store):
    entries = await store.redis.xrange(store.key("outbox"))
    by_session = {}
    for _, fields in entries:
        outcome = read_outcome(fields[b"body"])
        by_session.setdefault(outcome.session_id, []).append(outcome)
    return by_session


async def views_of(store):
    views = await store.list(10 * SESSIONS)
    pipeline = store.redis.pipeline(transaction=False)
    for view in views:
        pipeline.lrange(store.key("timeline", view.id), 0, -1)
    timelines = await pipeline.execute()
    return [(view, [orjson.loads(raw) for raw in timeline]) for view, timeline in zip(views, timelines, strict=True)]


def by_the_pure_machine(terms, timeline):
    """Where the events of a timeline, in its order, lead."""
    state, deadline, last, finalized = State.AI_HANDLING, 0, 0, 0
    for entry in timeline:
        event = entry.get("event")
        if entry["what"] == "exchange":
            event, last = "activity", max(last, entry["at"])
        if event is None:
            continue
        decision = advance(View(state, deadline, last, terms, finalized), Event(event), entry["at"])
        if decision.action == "finalize":
            finalized = entry["at"]
        state, deadline = decision.state, decision.deadline_ms
    return state


async def test_a_sample_of_two_thousand_sessions_with_two_replicas_delivering_at_once(replicas):
    rng = random.Random(5)
    script, facts = {}, ([], [])
    for number in range(SESSIONS):
        conversation, terms = f"c-{number}", rng.choice(PLANS)
        chosen = rng.sample(SIX, rng.randint(1, 6))
        script[conversation] = {event for _, event in chosen}
        homes = [rng.choice([(0,), (1,), (0, 1)]) for _ in chosen]
        opener = rng.randrange(2)
        for which in (0, 1):
            own = [("say", None)] if which == opener else []
            own += [
                one
                for one, home in zip(chosen, homes, strict=True)
                if which in home
                for _ in range(rng.choice([1, 1, 2]))
            ]
            rng.shuffle(own)  # a signal may well come before the session that it is for
            facts[which].append((conversation, terms, own))
    queues = []
    for replica, conversations in zip(replicas, facts, strict=True):
        rng.shuffle(conversations)
        queue = []
        for conversation, terms, own in conversations:
            for name, event in own:
                at = rng.randrange(1000)
                queue.append(
                    replica.exchange(conversation, at, terms, "m1")
                    if name == "say"
                    else replica.signal(conversation, name, event, at, terms)
                )
        queues.append(queue)
    await asyncio.gather(*(replica.deliver(queue) for replica, queue in zip(replicas, queues, strict=True)))
    store = replicas[0].store
    await sweep_all(store, 3 * HOUR)

    posted = await outcomes(store)
    found = await views_of(store)
    assert len(found) == len(posted) == SESSIONS  # one session per conversation, whatever came first
    ends = Counter()
    for view, timeline in found:
        events, revisions = script[view.conversation], posted[view.id]
        assert [outcome.revision for outcome in revisions] == list(range(len(revisions)))
        assert revisions[-1].state == view.state
        assert view.state == by_the_pure_machine(view.terms, timeline), timeline
        if "escalate" in events:
            assert view.state == State.NOT_BILLABLE
        elif events == {"resolve"}:
            assert view.state == State.RESOLVED
        told = [entry["id"] for entry in timeline if entry["what"] == "signal"]
        assert len(told) == len(set(told))  # a copy has no second effect
        ends[view.state] += 1
    assert set(ends) == {State.NOT_BILLABLE, State.RESOLVED, State.REVERSED, State.INCONCLUSIVE}
    counters = await store.counters()
    assert counters["open"] == 0
    assert {state: counters[f"finalized:{state}"] for state in ends} == dict(ends)


async def test_a_clock_that_jumps_by_an_hour_either_way_loses_nothing_and_bills_nothing_twice(replicas):
    """Each replica's clock jumps between any two facts; every session still ends once, and escalations win."""
    rng = random.Random(7)
    terms = Terms("jumpy", "d", timeout_ms=30 * MINUTE, settle_ms=5 * MINUTE)
    clock = [0, 0]
    escalated, queues = set(), ([], [])
    for number in range(300):
        conversation = f"j-{number}"
        home = rng.randrange(2)
        steps = [("say", f"m{n}") for n in range(rng.randint(1, 4))]
        steps += [(name, event) for name, event in rng.sample(SIX, rng.randint(0, 3)) if event != "unresolve"]
        rng.shuffle(steps)
        for name, what in steps:
            which = home if name == "say" else rng.randrange(2)
            clock[which] += rng.choice([1000, 1000, 60_000, -HOUR, HOUR])
            replica = replicas[which]
            if name == "say":
                queues[which].append(replica.exchange(conversation, clock[which], terms, what))
            else:
                queues[which].append(replica.signal(conversation, name, what, clock[which], terms))
                escalated |= {conversation} if what == "escalate" else set()
    await asyncio.gather(*(replica.deliver(queue, 20) for replica, queue in zip(replicas, queues, strict=True)))
    store = replicas[0].store
    await sweep_all(store, max(clock) + 40 * HOUR)
    posted, found = await outcomes(store), await views_of(store)
    ends: dict[str, list[State]] = {}
    for view, timeline in found:
        assert not view.is_open
        assert [outcome.revision for outcome in posted[view.id]] == list(range(len(posted[view.id])))
        assert sum(entry.get("action") == "finalize" for entry in timeline) == 1
        assert view.finalized_ms >= view.started_ms
        assert (await store.verify(view.id)).problems == ()
        ends.setdefault(view.conversation, []).append(view.state)
    counters = await store.counters()
    assert counters["opened"] == len(found) == len(posted)
    assert counters["open"] == 0
    with_sessions = {conversation for conversation in escalated if conversation in ends}
    assert len(with_sessions) > 50
    for conversation in with_sessions:
        assert State.NOT_BILLABLE in ends[conversation], (conversation, ends[conversation])


async def test_every_timer_fires_once_with_three_sweepers_at_once(replicas, redis_server):
    third = Replica("c", redis_server.socket)
    first = replicas[0]
    terms = Terms("idle", "d", timeout_ms=30 * MINUTE)
    await first.deliver([first.exchange(f"t-{n}", n % 7, terms, "m") for n in range(600)])
    await first.store.heartbeat("clock", T0 + HOUR, T0 + HOUR)

    async def sweep(store):
        fired = 0
        while True:
            swept = await store.sweep(7)
            fired += swept.fired
            if not swept.more:
                return fired

    fired = await asyncio.gather(*(sweep(replica.store) for replica in (*replicas, third)))
    assert sum(fired) == 600
    posted = await outcomes(first.store)
    assert [len(revisions) for revisions in posted.values()] == [1] * 600
    await third.redis.aclose()
