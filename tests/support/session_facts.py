"""Facts of one deployment as they come to the store: exchanges and signals of conversations, each a line in a test."""

from __future__ import annotations

from sidecar import identity
from sidecar.intake.signal import Signal
from sidecar.observer.observation import Observation
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.outcome import read_outcome
from sidecar.sessions.store import Store

TENANT = "acme"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
T0 = 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa")
RESOLVE = Effect(
    "resolve_tool", "tool_call", "resolve", "RESOLVED", reason="resolve_conversation tool", digest="hmac-sha256:1"
)
ESCALATE = Effect("human_tool", "tool_call", "escalate", reason="transfer_to_human tool", digest="hmac-sha256:2")


class Talk:
    """Facts of one deployment, in order; keeps each producer's sequence as a journal would."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.last: dict[str, int] = {}

    def _next(self, producer: str) -> tuple[int, int]:
        previous = self.last.get(producer, 0)
        self.last[producer] = previous + 1
        return previous + 1, previous

    def exchange(self, at, conversation="c-1", *, producer="ring", says=(), terms=TERMS, took=100, **fields):
        sequence, previous = self._next(producer)
        keys = fields.pop("keys", None)
        if keys is None:
            keys = (identity.key(TENANT, "conversation", conversation),) if conversation else ()
        base = (
            identity.session_base(TENANT, "conversation", conversation)
            if conversation
            else identity.session_base(TENANT, "observation", producer, str(sequence))
        )
        fields.setdefault("api", "openai.chat")
        fields.setdefault("llm_calls", 1)
        observation = Observation(
            producer,
            sequence,
            TENANT,
            T0 + at,
            T0 + at + took,
            keys,
            base,
            terms,
            conversation=conversation,
            user_messages=tuple(says),
            **fields,
        )
        return observation, previous

    def signal(self, at, effect, conversation="c-1", *, ident="s-1", source="crm", producer="journal", **fields):
        sequence, previous = self._next(producer)
        alias = None if "session_id" in fields else identity.key(TENANT, "conversation", conversation)
        fields.setdefault("alias", alias)
        return Signal(producer, sequence, TENANT, source, ident, T0 + at, effect, TERMS, **fields), previous

    async def apply(self, *operations, own="journal"):
        return await self.store.apply_many(operations, own=own)

    async def say(self, at, conversation="c-1", **fields):
        return (await self.apply(self.exchange(at, conversation, **fields)))[0]

    async def tell(self, at, effect, conversation="c-1", **fields):
        return (await self.apply(self.signal(at, effect, conversation, **fields)))[0]

    async def outcomes(self):
        entries = await self.store.redis.xrange(self.store.key("outbox"))
        return [read_outcome(fields[b"body"]) for _, fields in entries]

    async def states(self):
        return [(outcome.state, outcome.revision) for outcome in await self.outcomes()]


def signal_effect(event, outcome=None, **fields):
    return Effect("signal", "signal", event, outcome, **fields)
