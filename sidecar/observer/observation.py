"""The observer's output: the small frozen fact that an exchange leaves behind. No text of the exchange is in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter

from sidecar.identity import Key
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms


@dataclass(frozen=True, slots=True)
class Thread:
    """Where a call stands in a conversation that is known by its texts alone; digests, see `thread.py`.

    `asked` is of the whole request, and `again` says that the client repeats it; `follows` is where the conversation
    stood before it (empty: it begins one). `recalls` find it when that is not known, and the digests of each of the
    last `answers` when nothing of its beginning is. `reaches` is where it stands after the answer (empty without a
    whole answer), and `makes` are by what a later request may know that answer.
    """

    asked: str
    again: bool = False
    follows: str = ""
    recalls: tuple[str, ...] = ()
    answers: tuple[tuple[str, ...], ...] = ()
    reaches: str = ""
    makes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """What one exchange (or, with `touch`, one still running) says about a session.

    `producer` and `sequence` identify it under replay. Times are Unix milliseconds of the bytes' arrival:
    `started_ms` of the request's first byte, `at_ms` of the last byte. `keys` are tried in order to find the session
    and then all lead to it; `made` are ids that this exchange brought into the world, and lead to it if no other made
    them. `thread` is tried after all keys but the trace. `opens` False: it belongs to a session that is there, or to
    none. `base` is what a session's id is made of when nothing finds one. `user_messages` and `tool_calls` are digests,
    in order, of what the exchange showed; the store counts those it had not seen. `user_side`: it passed between the
    user and the agent, not between the agent and a model or a tool; of a turn that is seen on both sides, one counts.
    """

    producer: str
    sequence: int
    tenant: str
    started_ms: int
    at_ms: int
    keys: tuple[Key, ...]
    base: str  # identity.session_base of the conversation, or of (producer, sequence)
    terms: Terms
    made: tuple[Key, ...] = ()
    thread: Thread | None = None
    opens: bool = True
    user_side: bool = False
    conversation: str | None = None  # in clear, as the billing event shows it
    customer: str | None = None
    caller: str = ""  # whose credentials the request had, on which route; a keyed digest
    api: str | None = None  # openai.chat, anthropic.messages, …; None when not understood
    touch: bool = False
    complete: bool = True  # False: a part of the copy was dropped
    aborted: bool = False
    shadow: bool = False
    user_messages: tuple[str, ...] = ()
    said_now: int | None = None  # the newest of these that follow the last answer; None: that is not known
    tool_calls: tuple[str, ...] = ()
    llm_calls: int = 0
    models: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    effects: tuple[Effect, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)  # request, response: HMACs of the bytes seen
    # By the digest of a plan that was in force before, where its rules say something else: for sessions it opened.
    former: dict[str, tuple[Effect, ...]] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Canonical bytes, as the journal keeps them."""
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS)


_ADAPTER = TypeAdapter(Observation)


def from_json(raw: bytes) -> Observation:
    """The inverse of `to_json`; raises pydantic.ValidationError (a ValueError) when the bytes are not one."""
    return _ADAPTER.validate_json(raw)
