"""The sentences that answer why a session was, or was not, charged."""

import dataclasses

import pytest

from sidecar.policy.terms import Terms
from sidecar.sessions.explain import explain
from sidecar.sessions.outcome import Evidence
from sidecar.sessions.states import State
from sidecar.sessions.view import SessionView

AT = 1_795_341_600_000
SESSION = SessionView(
    id="ses_1",
    tenant="acme",
    state=State.RESOLVED,
    conversation="c-42",
    customer="cust-1",
    terms=Terms("fin", "sha256:aa"),
    started_ms=AT,
    last_ms=AT,
    deadline_ms=0,
    finalized_ms=AT,
    revision=0,
    outcome="RESOLVED",
    confirmation="CONFIRMED",
    reason="resolve_conversation tool",
    held=False,
    complete=True,
    shadow=False,
    turns=1,
    llm_calls=2,
    tool_calls=0,
    input_tokens=1,
    output_tokens=1,
    models=("gpt",),
    attributes={},
    evidence=(Evidence(AT, "resolve_tool", "tool_call", "hmac-sha256:1"),),
)


def said(**changes):
    return " ".join(explain(dataclasses.replace(SESSION, **changes)))


def test_a_resolution_says_what_when_and_by_which_rule():
    text = said()
    assert "conversation c-42" in text
    assert "customer cust-1" in text
    assert "1 user message, 2 model calls, 0 tool calls" in text
    assert "resolved as RESOLVED (resolve_conversation tool)" in text
    assert "2026-11-22T10:00:00Z the rule resolve_tool (tool_call) matched, evidence hmac-sha256:1" in text
    assert "plan fin (sha256:aa)" in text


def test_a_merge_says_which_session_was_taken_in():
    merged = Evidence(AT, "merge", "trace", "ses_2")
    assert "2026-11-22T10:00:00Z session ses_2 turned out to be the same (trace)" in said(evidence=(merged,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": State.AI_HANDLING, "deadline_ms": AT, "revision": -1}, "nothing has been charged yet"),
        ({"state": State.RESOLVED_PENDING, "deadline_ms": AT}, "settles at 2026-11-22T10:00:00Z"),
        ({"state": State.NOT_BILLABLE, "reason": "asked for a person"}, "escalated to a human (asked for a person)"),
        ({"state": State.INCONCLUSIVE, "reason": ""}, "60 minutes without activity: nobody said"),
        ({"state": State.REVERSED, "reason": "the user came back"}, "taken back (the user came back)"),
        ({"confirmation": "ASSUMED"}, "takes silence for a resolution"),
        ({"complete": False}, "could not be copied; by the plan's incomplete_policy so it is not billable"),
        ({"held": True}, "an operator decides"),
        ({"shadow": True}, "shadow mode"),
        ({"customer": None}, "unattributed"),
        ({"conversation": None}, "a conversation without an id"),
        ({"revision": 2}, "posted 3 times"),
        ({"confirmation": "ASSUMED", "terms": Terms("z", "d", timeout_ms=72 * 3_600_000)}, "72 hours without activity"),
        ({"terms": Terms("z", "d", timeout_ms=7_200), "state": State.INCONCLUSIVE}, "7.2 seconds without activity"),
        ({"evidence": (Evidence(AT, "idle_timeout", "timeout", ""),)}, "its timer ran out (idle_timeout)"),
    ],
)
def test_every_circumstance_has_its_sentence(changes, words):
    text = said(**changes)
    assert words in text or words in text.lower()


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_explained(state):
    sentences = explain(dataclasses.replace(SESSION, state=state))
    assert all(sentence.endswith(".") for sentence in sentences)
    assert len(sentences) >= 3


def test_the_timeline_tells_every_revision_and_what_came_too_late():
    signal = {"what": "signal", "source": "crm", "id": "s-1"}
    timeline = (
        {"what": "opened", "at": AT, "to": "AI_HANDLING"},
        {"what": "timer", "at": AT, "action": "finalize", "to": "INCONCLUSIVE", "revision": 0},
        {"what": "trailing", "at": AT},
        signal | {"at": AT + 1000, "action": "revise", "to": "RESOLVED", "revision": 1, "reason": "ticket closed"},
        signal | {"at": AT + 2000, "action": "late", "event": "escalate", "to": "RESOLVED"},
    )
    text = said(revision=1, timeline=timeline)
    assert "it was first posted as INCONCLUSIVE (revision 0)." in text
    assert "At 2026-11-22T10:00:01Z it was then posted as RESOLVED (revision 1): ticket closed." in text
    assert "the signal s-1 from crm said escalate, more than 72 hours after it was final: that changed nothing." in text
    assert "1 exchange came after its end" in text


def test_what_happened_is_told_in_the_order_of_time_and_the_state_is_not_that_of_the_first_post():
    timeline = (
        {"what": "timer", "at": AT, "action": "finalize", "to": "INCONCLUSIVE", "revision": 0},
        {"what": "signal", "at": AT + 2000, "action": "revise", "to": "RESOLVED", "revision": 1},
    )
    evidence = (Evidence(AT + 2000, "signal:crm", "signal", "hmac-sha256:2"),)
    sentences = explain(dataclasses.replace(SESSION, revision=1, timeline=timeline, evidence=evidence))
    assert sentences[1:5] == [
        "It was resolved as RESOLVED (resolve_conversation tool): revision 1 of what was first posted at "
        "2026-11-22T10:00:00Z.",
        "At 2026-11-22T10:00:00Z it was first posted as INCONCLUSIVE (revision 0).",
        "At 2026-11-22T10:00:02Z the rule signal:crm (signal) matched, evidence hmac-sha256:2.",
        "At 2026-11-22T10:00:02Z it was then posted as RESOLVED (revision 1).",
    ]
