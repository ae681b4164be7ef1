"""A session as people and the admin API see it: read back from Redis, never written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from sidecar.policy.terms import Terms
from sidecar.sessions.outcome import Evidence, read_attributes, read_evidence
from sidecar.sessions.states import State, is_open


@dataclass(frozen=True, slots=True)
class SessionView:
    """Times are Unix milliseconds of event time; `deadline_ms` and `finalized_ms` are 0 when there is none."""

    id: str
    tenant: str
    state: State
    conversation: str | None
    customer: str | None
    terms: Terms
    started_ms: int
    last_ms: int
    deadline_ms: int
    finalized_ms: int
    revision: int  # -1 while nothing was posted
    outcome: str | None
    confirmation: str | None
    reason: str
    held: bool
    complete: bool
    shadow: bool
    turns: int
    llm_calls: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    models: tuple[str, ...]
    attributes: dict[str, Any]
    evidence: tuple[Evidence, ...]
    timeline: tuple[dict[str, Any], ...] = ()
    omitted: int = 0  # entries of the timeline that its bound cost
    base: str = ""  # what its id is made of, before its running number
    chain: str | None = None  # SHA-1 of the timeline's newest entry; sessions of earlier releases have none

    @property
    def is_open(self) -> bool:
        """Whether an outcome is still to come."""
        return is_open(self.state)

    def to_dict(self) -> dict[str, Any]:
        """As `GET /v1/sessions/{id}` shows it: times in RFC 3339."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "conversation": self.conversation,
            "customer": self.customer,
            "state": self.state.value,
            "outcome": self.outcome,
            "confirmation": self.confirmation,
            "reason": self.reason,
            "revision": self.revision if self.revision >= 0 else None,
            "held": self.held,
            "complete": self.complete,
            "shadow": self.shadow,
            "started_at": rfc3339(self.started_ms),
            "last_activity_at": rfc3339(self.last_ms),
            "deadline_at": rfc3339(self.deadline_ms) if self.deadline_ms else None,
            "finalized_at": rfc3339(self.finalized_ms) if self.finalized_ms else None,
            "turns": self.turns,
            "llm_calls": self.llm_calls,
            "tool_calls": self.tool_calls,
            "models": list(self.models),
            "tokens": {"input": self.input_tokens, "output": self.output_tokens},
            "plan": {"name": self.terms.plan, "digest": self.terms.digest},
            "attributes": self.attributes,
            "evidence": [
                {"at": rfc3339(item.at_ms), "rule": item.rule, "kind": item.kind, "digest": item.digest}
                for item in self.evidence
            ],
            "timeline": [{**entry, "at": rfc3339(entry["at"])} for entry in self.timeline],
            "timeline_omitted": self.omitted,
            "evidence_chain": self.chain,
        }


def read_session(raw: bytes, timeline: list[bytes] | None = None) -> SessionView:
    """From the JSON that the scripts keep."""
    fields = orjson.loads(raw)
    return SessionView(
        id=fields["id"],
        tenant=fields["tenant"],
        state=State(fields["state"]),
        conversation=fields.get("conversation"),
        customer=fields.get("customer"),
        terms=Terms(**fields["terms"]),
        started_ms=fields["started"],
        last_ms=fields["last"],
        deadline_ms=fields["deadline"],
        finalized_ms=fields["finalized"],
        revision=fields["revision"],
        outcome=fields.get("outcome"),
        confirmation=fields.get("confirmation"),
        reason=fields["reason"],
        held=fields["held"],
        complete=fields["complete"],
        shadow=fields["shadow"],
        turns=fields["turns"],
        llm_calls=fields["llm_calls"],
        tool_calls=fields["tool_calls"],
        input_tokens=fields["input_tokens"],
        output_tokens=fields["output_tokens"],
        models=tuple(fields["models"] or ()),
        attributes=read_attributes(fields["attributes"]),
        evidence=read_evidence(fields["evidence"]),
        timeline=tuple(orjson.loads(entry) for entry in timeline or ()),
        omitted=fields["omitted"],
        base=fields.get("base", ""),
        chain=fields.get("chain"),
    )


def rfc3339(ms: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC, with milliseconds only where there are any."""
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    fraction = f".{ms % 1000:03d}" if ms % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
