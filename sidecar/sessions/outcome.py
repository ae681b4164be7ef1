"""`Outcome`: what a session was worth, frozen by the script that finalized it, one revision at a time.

The outbox keeps it as JSON with a format version (`v`), so that an entry written by one release is posted, byte for
byte the same, by the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why: which rule matched, when, and the digest of the bytes it judged ("" when there were none)."""

    at_ms: int
    rule: str
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One revision. Times are Unix milliseconds of event time; `customer` is None when none was found."""

    session_id: str
    tenant: str
    revision: int
    state: str
    outcome: str
    time_ms: int
    started_ms: int
    ended_ms: int
    plan: str
    plan_digest: str
    conversation: str | None = None
    customer: str | None = None
    confirmation: str | None = None
    reason: str = ""
    held: bool = False
    billable: bool = True
    shadow: bool = False
    complete: bool = True
    turns: int = 0
    llm_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    models: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    chain: str | None = None  # SHA-1 of the timeline's newest entry (chain.py); None from before there were any


@dataclass(frozen=True, slots=True)
class Statement:
    """A tenant's counters in an hour, as Redis kept them with the transitions. `generation` changes when Redis lost
    its data and the counters began anew. `hours` (since 1970) tells how many sessions became final in each of the last,
    by the times of their outcomes, `before` how many earlier.
    """

    tenant: str
    hour: str  # 2026-11-22T10
    time_ms: int  # the hour's
    generation: str
    counters: dict[str, int]
    finalized: dict[str, int]
    dropped: int
    at_ms: int = 0  # when the counters were read; 0: at the hour's time
    hours: dict[str, int] = field(default_factory=dict)
    before: int = 0


def read_outcome(raw: bytes) -> Outcome:
    """The inverse of the script's snapshot; raises ValueError for bytes that are not one."""
    fields = _read(raw)
    fields["models"] = tuple(fields.get("models") or ())
    fields["attributes"] = read_attributes(fields.get("attributes"))
    fields["evidence"] = read_evidence(fields.get("evidence"))
    return Outcome(**fields)


def read_statement(raw: bytes) -> Statement:
    """The inverse of statement.lua's body; raises ValueError for bytes that are not one."""
    fields = _read(raw)
    return Statement(**{**fields, "finalized": fields.get("finalized") or {}, "hours": fields.get("hours") or {}})


def read_attributes(raw: Any) -> dict[str, Any]:
    """Attributes travel as JSON texts, so that Lua gives numbers back as they were."""
    return {name: orjson.loads(text) for name, text in (raw or {}).items()}


def read_evidence(raw: Any) -> tuple[Evidence, ...]:
    """An empty Lua table reads as an object: it is no evidence either way."""
    return tuple(Evidence(item["at"], item["rule"], item["kind"], item["digest"]) for item in raw or ())


def _read(raw: bytes) -> dict[str, Any]:
    fields = orjson.loads(raw)
    if not isinstance(fields, dict) or fields.pop("v", None) != FORMAT:
        raise ValueError(f"not an outbox entry of format {FORMAT}")
    return fields
