"""The posted bytes: exactly these, a function of the outbox entry alone."""

import dataclasses
import json

import orjson
import pytest

from sidecar import identity
from sidecar.delivery.event import event_of, outcome_event, request_of
from sidecar.sessions.outcome import Evidence, Outcome

OUTCOME = Outcome(
    session_id="ses_1",
    tenant="acme",
    revision=0,
    state="RESOLVED",
    outcome="RESOLVED",
    time_ms=1_795_341_600_000,
    started_ms=1_795_341_000_000,
    ended_ms=1_795_341_599_500,
    plan="fin",
    plan_digest="sha256:aa",
    conversation="c-42",
    customer="customer-17",
    confirmation="CONFIRMED",
    reason="resolve_conversation tool",
    turns=5,
    llm_calls=7,
    tool_calls=2,
    input_tokens=1234,
    output_tokens=345,
    models=("gpt-4o",),
    evidence=(Evidence(1_795_341_599_000, "resolve_tool", "tool_call", "hmac-sha256:00"),),
)


def test_an_outcome_is_this_cloudevent():
    event = outcome_event(OUTCOME)
    assert json.loads(event.body) == {
        "specversion": "1.0",
        "id": identity.event_id("ses_1", 0),
        "source": "sidecar/acme",
        "type": "sidecar.outcome.v1",
        "subject": "customer-17",
        "time": "2026-11-22T10:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "session_id": "ses_1",
            "conversation": "c-42",
            "tenant": "acme",
            "outcome": "RESOLVED",
            "state": "RESOLVED",
            "confirmation": "CONFIRMED",
            "escalated_to_human": False,
            "reason": "resolve_conversation tool",
            "revision": 0,
            "reverses": None,
            "held": False,
            "billable": True,
            "shadow": False,
            "started_at": "2026-11-22T09:50:00Z",
            "ended_at": "2026-11-22T09:59:59.500Z",
            "turns": 5,
            "llm_calls": 7,
            "tool_calls": 2,
            "models": ["gpt-4o"],
            "tokens": {"input": 1234, "output": 345},
            "complete": True,
            "plan": {"name": "fin", "digest": "sha256:aa"},
            "attributes": {},
            "evidence": [
                {
                    "at": "2026-11-22T09:59:59Z",
                    "rule": "resolve_tool",
                    "kind": "tool_call",
                    "digest": "hmac-sha256:00",
                },
            ],
        },
    }
    assert event.id.startswith("out_")
    assert len(event.id) <= 100
    assert b": " not in event.body.replace(b"resolve_conversation tool", b"")


def test_a_revision_names_its_predecessor_and_an_unknown_customer_is_unattributed():
    revised = dataclasses.replace(OUTCOME, revision=2, state="NOT_BILLABLE", customer=None)
    document = json.loads(outcome_event(revised).body)
    assert document["data"]["reverses"] == identity.event_id("ses_1", 1)
    assert document["data"]["escalated_to_human"] is True
    assert document["subject"] == "unattributed"


def test_key_order_and_spacing_of_the_entry_do_not_matter():
    fields = {
        "v": 1,
        "session_id": "s",
        "tenant": "t",
        "revision": 0,
        "state": "RESOLVED",
        "outcome": "RESOLVED",
        "time_ms": 0,
        "started_ms": 0,
        "ended_ms": 0,
        "plan": "p",
        "plan_digest": "d",
        "attributes": {"b": "1", "a": '"x"'},
        "models": {},
        "evidence": {},
    }
    turned = dict(reversed(fields.items())) | {"attributes": {"a": '"x"', "b": "1"}}
    one = event_of("outcome", json.dumps(fields).encode())
    two = event_of("outcome", json.dumps(turned, indent=2).encode())
    assert one == two
    assert orjson.loads(one.body)["data"]["attributes"] == {"a": "x", "b": 1}
    assert orjson.loads(one.body)["data"]["models"] == []


def test_a_statement_has_one_id_per_tenant_hour_and_generation():
    def statement(**changes):
        fields = {
            "v": 1,
            "tenant": "t",
            "hour": "2026-11-22T10",
            "time_ms": 1_795_341_600_000,
            "generation": "g",
            "counters": {"opened": 5, "open": 2, "late": 1},
            "finalized": {"RESOLVED": 3},
            "dropped": 4,
        }
        return event_of("statement", json.dumps(fields | changes).encode())

    document = orjson.loads(statement().body)
    assert document["type"] == "sidecar.statement.v1"
    assert document["data"] == {
        "tenant": "t",
        "hour": "2026-11-22T10",
        "generation": "g",
        "opened": 5,
        "open": 2,
        "finalized": {"RESOLVED": 3},
        "dropped": 4,
        "counters": {"late": 1},
    }
    assert document["time"] == "2026-11-22T10:00:00Z"
    told = orjson.loads(statement(at_ms=1_795_343_000_001, hours={"498706": 2, "498705": 1}, before=7).body)
    assert told["time"] == "2026-11-22T10:23:20.001Z"
    assert told["data"] == document["data"] | {
        "finalized_by_hour": {"2026-11-22T10": 2, "2026-11-22T09": 1},
        "finalized_before": 7,
    }
    together = orjson.loads(statement(hours={}, before=7).body)["data"]
    assert (together["finalized_by_hour"], together["finalized_before"]) == ({}, 7)
    assert statement().id == statement(counters={}).id == statement(at_ms=1_795_343_000_001).id
    assert len({statement().id, statement(tenant="u").id, statement(generation="h").id, statement(time_ms=0).id}) == 4


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"v":2}', b'{"v":1}', b'{"v":1,"what":1}'])
def test_what_is_no_entry_is_an_error(body):
    with pytest.raises((ValueError, TypeError)):
        event_of("outcome", body)
    with pytest.raises(ValueError, match="kind"):
        event_of("parcel", body)


def test_batches():
    events = [outcome_event(dataclasses.replace(OUTCOME, revision=n)) for n in range(3)]
    single, batch = request_of(events[:1]), request_of(events)
    assert (single.content_type, single.idempotency_key) == ("application/cloudevents+json", events[0].id)
    assert single.body == events[0].body
    assert batch.content_type == "application/cloudevents-batch+json"
    assert orjson.loads(batch.body) == [orjson.loads(event.body) for event in events]
    assert batch.idempotency_key != request_of(events[:2]).idempotency_key
    assert batch == request_of(events)
