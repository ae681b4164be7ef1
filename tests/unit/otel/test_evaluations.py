"""Outcomes as evaluations: states, ids and the names of rules; no reason, no attribute, no customer."""

from sidecar.delivery.event import outcome_event, statement_event
from sidecar.otel.evaluations import EVIDENCE_MAX, evaluation_of
from sidecar.sessions.outcome import Evidence, Outcome, Statement


def outcome(**more):
    fields = {
        "session_id": "ses_1",
        "tenant": "acme",
        "revision": 0,
        "state": "RESOLVED",
        "outcome": "RESOLVED",
        "time_ms": 1_700_000_000_123,
        "started_ms": 1,
        "ended_ms": 2,
        "plan": "p",
        "plan_digest": "sha256:1",
        "confirmation": "CONFIRMED",
        "reason": "what somebody wrote",
        "attributes": {"note": "what somebody wrote"},
        "evidence": (Evidence(1, "resolve_tool", "tool_call", "hmac-sha256:1"),),
    }
    return outcome_event(Outcome(**(fields | more)))


def test_an_outcome_is_labelled_by_its_state_and_explained_by_its_rules():
    event = outcome(conversation="c-1")
    found = evaluation_of(event)
    assert found.time_ns == 1_700_000_000_123_000_000
    assert found.attributes["gen_ai.evaluation.score.label"] == "RESOLVED"
    assert found.attributes["gen_ai.evaluation.score.value"] == 1.0
    assert found.attributes["gen_ai.evaluation.explanation"] == "resolve_tool (tool_call)"
    assert found.attributes["sidecar.outcome.id"] == event.id
    assert found.attributes["gen_ai.conversation.id"] == "c-1"
    assert "somebody" not in str(found.attributes)


def test_silence_has_no_rule_and_an_inconclusive_end_no_score():
    found = evaluation_of(outcome(state="INCONCLUSIVE", outcome="INCONCLUSIVE", confirmation=None, evidence=()))
    assert found.attributes["gen_ai.evaluation.explanation"] == "no rule: silence"
    assert "gen_ai.evaluation.score.value" not in found.attributes
    assert "gen_ai.conversation.id" not in found.attributes
    assumed = evaluation_of(outcome(confirmation="ASSUMED", evidence=()))
    assert assumed.attributes["gen_ai.evaluation.explanation"] == "no rule: assumed"


def test_words_in_the_place_of_names_stay_out_and_evidence_is_bounded():
    evidence = tuple(Evidence(1, "signal:what the user said", "signal", "") for _ in range(30))
    found = evaluation_of(outcome(outcome="so happy with it", evidence=evidence)).attributes
    assert found["sidecar.outcome.name"] == "_OTHER"
    assert found["gen_ai.evaluation.explanation"] == ", ".join(["_OTHER (signal)"] * EVIDENCE_MAX)


def test_a_statement_is_no_evaluation():
    statement = Statement("acme", "2026-11-22T10", 1_700_000_000_000, "g", {"opened": 1}, {}, 0)
    assert evaluation_of(statement_event(statement)) is None
