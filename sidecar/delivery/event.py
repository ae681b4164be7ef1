"""Outbox entry → the exact bytes that are posted: a CloudEvent 1.0 as canonical JSON (sorted keys, no spaces).

Pure, and a function of the entry alone, so that every retry, by any replica, sends the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sidecar import identity
from sidecar.sessions.outcome import Outcome, Statement, read_outcome, read_statement
from sidecar.sessions.view import rfc3339

OUTCOME_TYPE = "sidecar.outcome.v1"
STATEMENT_TYPE = "sidecar.statement.v1"
UNATTRIBUTED = "unattributed"
_HOUR_MS = 3_600_000
SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


@dataclass(frozen=True, slots=True)
class Event:
    """An event's id and its bytes; `session_id` and `state` are an outcome's, for the log."""

    id: str
    body: bytes
    session_id: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One POST to /v1/outcomes."""

    content_type: str
    idempotency_key: str
    body: bytes


def event_of(kind: str, body: bytes) -> Event:
    """The event of an outbox entry; raises ValueError, KeyError or TypeError for an entry that is not one."""
    if kind == "outcome":
        return outcome_event(read_outcome(body))
    if kind == "statement":
        return statement_event(read_statement(body))
    raise ValueError(f"unknown kind of outbox entry: {kind!r}")


def outcome_event(o: Outcome) -> Event:
    """`sidecar.outcome.v1`: one revision of a session. Every revision above 0 replaces its predecessor."""
    event_id = identity.event_id(o.session_id, o.revision)
    data = {
        "session_id": o.session_id,
        "conversation": o.conversation,
        "tenant": o.tenant,
        "outcome": o.outcome,
        "state": o.state,
        "confirmation": o.confirmation,
        "escalated_to_human": o.state == "NOT_BILLABLE",
        "reason": o.reason,
        "revision": o.revision,
        "reverses": identity.event_id(o.session_id, o.revision - 1) if o.revision > 0 else None,
        "held": o.held,
        "billable": o.billable,
        "shadow": o.shadow,
        "started_at": rfc3339(o.started_ms),
        "ended_at": rfc3339(o.ended_ms),
        "turns": o.turns,
        "llm_calls": o.llm_calls,
        "tool_calls": o.tool_calls,
        "models": list(o.models),
        "tokens": {"input": o.input_tokens, "output": o.output_tokens},
        "complete": o.complete,
        "plan": {"name": o.plan, "digest": o.plan_digest},
        "attributes": o.attributes,
        "evidence": [
            {"at": rfc3339(item.at_ms), "rule": item.rule, "kind": item.kind, "digest": item.digest}
            for item in o.evidence
        ],
    }
    # What an earlier release froze is posted as it would have posted it.
    if o.chain is not None:
        data["evidence_chain"] = o.chain
    event = _event(event_id, OUTCOME_TYPE, o.customer or UNATTRIBUTED, o.time_ms, data)
    return replace(event, session_id=o.session_id, state=o.state)


def statement_event(s: Statement) -> Event:
    """`sidecar.statement.v1`: a tenant's counters, once an hour, so that the ledger can tell that something is missing.

    time is when they were read. data: tenant, hour, generation (another one: Redis lost its data and the counters began
    anew), opened, open, finalized {state: sessions now in it}, dropped (copies), counters (the rest, by name). Once a
    session is final also finalized_by_hour {hour: sessions whose first outcome has its time in it}, of the newest 72
    hours that have any, and finalized_before, of all earlier ones: together as many as finalized.
    """
    event_id = identity.event_id(f"statement:{s.tenant}:{s.generation}", int(s.time_ms))
    counters = dict(s.counters)
    data = {
        "tenant": s.tenant,
        "hour": s.hour,
        "generation": s.generation,
        "opened": counters.pop("opened", 0),
        "open": counters.pop("open", 0),
        "finalized": s.finalized,
        "dropped": s.dropped,
        "counters": counters,
    }
    if s.hours or s.before:
        data["finalized_by_hour"] = {rfc3339(int(hour) * _HOUR_MS)[:13]: number for hour, number in s.hours.items()}
        data["finalized_before"] = s.before
    return _event(event_id, STATEMENT_TYPE, s.tenant, s.at_ms or s.time_ms, data)


def request_of(events: list[Event]) -> Request:
    """One event as itself, several as a batch; the batch's key is a digest of its ids."""
    if len(events) == 1:
        return Request(SINGLE, events[0].id, events[0].body)
    ids = "\n".join(event.id for event in events)
    key = "batch_" + hashlib.sha256(ids.encode()).hexdigest()
    return Request(BATCH, key, b"[" + b",".join(event.body for event in events) + b"]")


def _event(event_id: str, kind: str, subject: str, time_ms: int, data: dict[str, Any]) -> Event:
    envelope = {
        "specversion": "1.0",
        "id": event_id,
        "source": f"sidecar/{data['tenant']}",
        "type": kind,
        "subject": subject,
        "time": rfc3339(time_ms),
        "datacontenttype": "application/json",
        "data": data,
    }
    return Event(event_id, orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS))
