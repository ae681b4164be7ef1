"""The observer's output: the small frozen fact that an exchange leaves behind. No text of the exchange is in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter

from sidecar.identity import Key
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms


@dataclass(frozen=True, slots=True)
class Observation:
    """What one exchange (or, with `touch`, one still running) says about a session.

    `producer` and `sequence` identify it under replay. Times are Unix milliseconds of the bytes' arrival:
    `started_ms` of the request's first byte, `at_ms` of the last byte. `keys` are tried in order to find the session
    and then all made its aliases; `made` are aliases only (ids that this exchange brought into the world).
    `origin` is what `identity.session_base` digests when no key finds a session. `user_messages` and `tool_calls`
    are digests, in order, of what the exchange showed; the store counts those it had not seen.
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
    conversation: str | None = None  # in clear, as the billing event shows it
    customer: str | None = None
    api: str | None = None  # openai.chat, anthropic.messages, …; None when not understood
    touch: bool = False
    complete: bool = True  # False: a part of the copy was dropped
    aborted: bool = False
    shadow: bool = False
    user_messages: tuple[str, ...] = ()
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
