"""Calls that are made one after the other, and the sessions that they go to."""

from __future__ import annotations

from sidecar import identity
from sidecar.identity import Key
from sidecar.observer.observation import Observation, Thread
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms
from sidecar.sessions.store import Store

TENANT = "acme"
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
T0 = 1_795_000_000_000
TERMS = Terms("fin", "sha256:aa")
RESOLVE = Effect("resolve_tool", "tool_call", "resolve", "RESOLVED")
TRACE = identity.key(TENANT, "trace", "t1")


def named(value: str, source: str = "header:x-session-id") -> Key:
    return identity.key(TENANT, "conversation", value, source)


def texts(*said: str, reply: str = "", answers: tuple[str, ...] = (), again: bool = False) -> Thread:
    """A history, questions and answers in turn, as digests that can be read; of a trimmed one its `answers`."""
    follows = "state " + " ".join(said[:-1]) if len(said) > 1 else ""
    reaches = "state " + " ".join((*said, reply)) if reply else ""
    makes = (f"reply {reply}",) if reply else ()
    known = tuple((f"reply {answer}",) for answer in answers)
    return Thread("asked " + " ".join(said), again, follows, answers=known, reaches=reaches, makes=makes)


class Calls:
    """Calls through replicas, each with a sequence of its own; a second apart unless `at` says when."""

    def __init__(self, store: Store) -> None:
        self.store, self.last, self.now = store, {}, 0

    def call(
        self, *keys: Key, at: int | None = None, replica: str = "a", says: tuple[str, ...] | None = None, **fields
    ):
        self.now = self.now + SECOND if at is None else at
        previous = self.last.get(replica, 0)
        self.last[replica] = previous + 1
        conversation = next((key.digest for key in keys if key.kind == "conversation"), None)
        origin = ("conversation", conversation) if conversation else ("observation", replica, str(previous + 1))
        thread = fields.get("thread")
        fields = {"api": "openai.chat", "llm_calls": 1, "conversation": conversation, "said_now": 1} | fields
        observation = Observation(
            replica,
            previous + 1,
            TENANT,
            T0 + self.now,
            T0 + self.now + 500,
            keys,
            identity.session_base(TENANT, *origin),
            TERMS,
            user_messages=(thread.asked if thread else f"m{self.now}",) if says is None else says,
            **fields,
        )
        return observation, previous

    async def apply(self, *operations, **options):
        return await self.store.apply_many(operations, **options)

    async def make(self, *keys: Key, **fields) -> str:
        """One call; the session that it went to."""
        (answer,) = await self.apply(self.call(*keys, **fields))
        assert answer.status == "applied", answer
        return answer.session_id

    async def say(
        self, *said: str, reply: str = "", answers: tuple[str, ...] = (), again: bool = False, **fields
    ) -> str:
        return await self.make(thread=texts(*said, reply=reply, answers=answers, again=again), **fields)

    async def counters(self) -> dict[str, int]:
        return await self.store.counters()
