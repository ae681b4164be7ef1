"""Intake's output: a fact about an outcome from outside the traffic, as journal and store know it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from pydantic import TypeAdapter

from sidecar.identity import Key
from sidecar.policy.effect import Effect
from sidecar.policy.terms import Terms


@dataclass(frozen=True, slots=True)
class Signal:
    """`source` and `id` are the sender's and identify it for ever; `producer` and `sequence` place it in a journal.

    Exactly one of `session_id` and `alias` is set. `at_ms` is the arrival, by which windows are judged; `claimed_at`
    is what the sender said, for the timeline only.
    """

    producer: str
    sequence: int
    tenant: str
    source: str
    id: str
    at_ms: int
    effect: Effect
    terms: Terms
    session_id: str | None = None
    alias: Key | None = None
    claimed_at: str | None = None

    def to_json(self) -> bytes:
        """Canonical bytes, as the journal keeps them."""
        return orjson.dumps(self, option=orjson.OPT_SORT_KEYS)


_ADAPTER = TypeAdapter(Signal)


def from_json(raw: bytes) -> Signal:
    """The inverse of `to_json`; raises pydantic.ValidationError (a ValueError) when the bytes are not one."""
    return _ADAPTER.validate_json(raw)
