"""Values that nothing can ever equal are told, with what was perhaps meant; names of one's own are left alone."""

from __future__ import annotations

import pytest

from sidecar.policy.loading import PlanError, load_plan


def faults(body: str) -> list[str]:
    try:
        load_plan(f"rate_plan:\n  name: p\n  {body}".encode(), "p.yaml")
    except PlanError as error:
        return [str(problem) for problem in error.problems]
    return []


def metric(condition: str) -> str:
    return f"metrics: [{{id: m, aggregation: COUNT, filter_conditions: [{condition}]}}]"


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("{field: outcome, operator: EQUALS, value: RESOLVD}", "'RESOLVD' is nearly RESOLVED"),
        ("{field: outcome, operator: IN, value: [QUALIFIED, resolved]}", "'resolved' is nearly RESOLVED"),
        ("{field: state, operator: NOT_EQUALS, value: NOT_BILABLE}", "did you mean NOT_BILLABLE?"),
        ("{field: state, operator: IN, value: [AI_HANDLING]}", "state is never 'AI_HANDLING'"),
        ("{field: confirmation, operator: EQUALS, value: confirmed}", "did you mean CONFIRMED?"),
        ('{field: escalated_to_human, operator: EQUALS, value: "false"}', "write it without quotes"),
        ("{field: shadow, operator: NOT_EQUALS, value: 1}", "true or false"),
    ],
)
def test_what_can_never_hold_is_told(condition: str, words: str) -> None:
    [fault] = faults(metric(condition))
    assert fault.startswith("p.yaml:3: metrics[0].filter_conditions[0].value: ")
    assert words in fault


@pytest.mark.parametrize(
    "condition",
    [
        "{field: outcome, operator: IN, value: [RESOLVED, PROACTIVE_OUTREACH_RESOLVED, QUALIFIED]}",
        "{field: outcome, operator: STARTS_WITH, value: RESOLV}",
        "{field: state, operator: IN, value: [RESOLVED, REVERSED]}",
        "{field: escalated_to_human, operator: EQUALS, value: false}",
        "{field: attributes.state, operator: EQUALS, value: Bavaria}",
    ],
)
def test_names_of_ones_own_are_fine(condition: str) -> None:
    assert faults(metric(condition)) == []


def test_an_outcome_that_a_rule_sets_is_known_and_a_slip_of_it_is_told() -> None:
    rule = "signals: [{id: s, on: request, set: {outcome: LEAD_QUALIFIED}}]"
    good = metric("{field: outcome, operator: EQUALS, value: LEAD_QUALIFIED}")
    bad = metric("{field: outcome, operator: EQUALS, value: LEAD_QUALIFED}")
    assert faults(f"{rule}\n  {good}") == []
    [fault] = faults(f"{rule}\n  {bad}")
    assert "nearly LEAD_QUALIFIED" in fault
    [slip] = faults("signals: [{id: s, on: request, set: {outcome: UNRESOLVD}}]")
    assert "nearly UNRESOLVED" in slip


def test_a_new_type_of_outcome_is_one_line() -> None:
    one_line = "signals: [{id: outreach, on: tool_call, set: {outcome: PROACTIVE_OUTREACH_RESOLVED}}]"
    loaded = load_plan(f"rate_plan:\n  name: p\n  {one_line}".encode(), "p.yaml")
    [effect] = loaded.rules.judge("tool_call", {"name": "any"})
    assert (effect.event, effect.outcome) == ("resolve", "PROACTIVE_OUTREACH_RESOLVED")
