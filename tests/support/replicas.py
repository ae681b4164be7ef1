"""An applier over a journal of its own, and the rows that a test puts into that."""

from __future__ import annotations

import asyncio

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.journal import NewRow
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.applier import Applier
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Store

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


async def outcome_bodies(redis, store):
    entries = await redis.xrange(store.key("outbox"))
    return [read_outcome(fields[b"body"]) for _, fields in entries if fields[b"kind"] == b"outcome"]
