"""Pairs of sessions, and what is different between them."""

from __future__ import annotations

import dataclasses

import pytest

from sidecar.policy.terms import Terms
from sidecar.sessions.differences import LISTED_MAX, differences, posted_outcome
from sidecar.sessions.states import State
from sidecar.sessions.view import SessionView

SESSION = SessionView(
    id="ses_1", tenant="acme", state=State.RESOLVED, conversation="c-1", customer="cust",
    terms=Terms("fin", "sha256:aa"), started_ms=1000, last_ms=1000, deadline_ms=0, finalized_ms=2000, revision=0,
    outcome="RESOLVED", confirmation="CONFIRMED", reason="a tool", held=False, complete=True, shadow=False, turns=1,
    llm_calls=1, tool_calls=0, input_tokens=0, output_tokens=0, models=(), attributes={}, evidence=(), base="b1",
)  # fmt: skip


def like(**changes):
    return dataclasses.replace(SESSION, **changes)


def test_the_same_end_is_no_difference_whatever_the_ids_are():
    found = differences([SESSION], [like(id="ses_9", reason="another rule")])
    assert (found.same, found.different, found.pending, found.only_live, found.only_candidate) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"state": State.INCONCLUSIVE, "outcome": None}, "INCONCLUSIVE"),
        ({"state": State.NOT_BILLABLE, "outcome": None}, "ESCALATED_TO_HUMAN"),
        ({"state": State.REVERSED, "outcome": None}, "UNRESOLVED"),
        ({"outcome": "QUALIFIED"}, "QUALIFIED"),
        ({"held": True}, "RESOLVED (held)"),
        ({"complete": False}, "RESOLVED (not billable)"),
        ({"complete": False, "terms": Terms("p", "d", incomplete_policy="HOLD")}, "RESOLVED (held)"),
    ],
)
def test_what_billing_would_be_told_otherwise_is_a_difference(changes, verdict):
    found = differences([SESSION], [like(**changes)])
    assert (found.different, found.matrix) == (1, {("RESOLVED", verdict): 1})
    [shown] = found.to_dict()["differences"]
    assert (shown["live"]["outcome"], shown["candidate"]["outcome"]) == ("RESOLVED", verdict)
    assert (shown["conversation"], shown["session_id"]) == ("c-1", "ses_1")


def test_a_session_still_open_on_either_side_is_pending():
    still = like(state=State.AI_HANDLING, outcome=None, revision=-1)
    assert differences([still], [SESSION]).pending == 1
    assert differences([SESSION], [like(state=State.RESOLVED_PENDING)]).pending == 1
    assert posted_outcome(still) == "OPEN"


def test_sessions_without_a_counterpart_are_counted_apart():
    old = like(base="b0", started_ms=1)  # before the candidate was there
    cut = like(base="b1", started_ms=5000)  # the live plan had timed out, the candidate had not
    found = differences([old, SESSION, cut], [SESSION, like(base="b2")])
    assert (found.same, found.only_live, found.only_candidate) == (1, 1, 1)
    assert differences([SESSION], []).only_live == 0


def test_the_list_is_bounded_and_the_count_is_not():
    live = [like(base=f"b{n}") for n in range(LISTED_MAX + 50)]
    found = differences(live, [dataclasses.replace(view, state=State.REVERSED) for view in live])
    assert (found.different, len(found.listed)) == (LISTED_MAX + 50, LISTED_MAX)
