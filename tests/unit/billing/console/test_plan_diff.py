"""Two versions of a plan beside each other: by meaning, and line by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.billing.console.plan_diff import Change, Row, changes, side_by_side
from sidecar.policy.loading import load_plan
from sidecar.policy.plan import RatePlan

BEFORE = """
rate_plan:
  name: Seats
  currency: USD
  metrics:
    - {id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]}
    - {id: gone, aggregation: SUM, event_field: tokens.output}
  charges:
    - {id: seat-fee, metrics: [], model: FLAT, rate: 10}
    - id: use
      metrics: [m]
      model: GRADUATED
      included_free: 900
      tiers: [{up_to: 1000, rate: 0.89}, {rate: 0.69}]
  guardrails: {max_spend_cap: 500}
"""
AFTER = """
rate_plan:
  name: Seats
  currency: EUR
  trial_days: 14
  metrics:
    - {id: m, aggregation: COUNT, filter_conditions: [{field: outcome, operator: IN, value: [RESOLVED, QUALIFIED]}]}
  charges:
    - {id: seat-fee, metrics: [], model: FLAT, rate: 12}
    - id: use
      metrics: [m]
      model: GRADUATED
      included_free: 1000
      tiers: [{up_to: 1000, rate: 0.79}, {rate: 0.69}]
    - {id: more, metrics: [m], model: PER_UNIT, rate: 1}
  guardrails: {max_spend_cap: 500, max_spend_behavior: CAP}
  session_config: {timeout_minutes: 30}
  signals:
    - {id: handoff, on: tool_call, conditions: [{field: name, operator: EQUALS, value: x}], set: {outcome: RESOLVED}}
"""


def plan(text: str) -> RatePlan:
    return load_plan(text.encode(), "p").plan


def test_what_differs_is_said_by_what_it_means() -> None:
    assert changes(plan(BEFORE), plan(AFTER)) == [
        Change("plan", "days of trial", "0", "14"),
        Change("plan", "currency", "USD", "EUR"),
        Change("metric m", "condition", "outcome is RESOLVED", None),
        Change("metric m", "condition", None, "outcome is one of RESOLVED, QUALIFIED"),
        Change("metric gone", "removed", "Adds up tokens.output", None),
        Change("charge seat-fee", "rate", "10", "12"),
        Change("charge use", "free units", "900", "1000"),
        Change("charge use", "tier 1 to 1\N{NARROW NO-BREAK SPACE}000", "0.89 each", "0.79 each"),
        Change("charge more", "added", None, "€1.00 for each unit"),
        Change("guardrails", "at the cap", "ALERT", "CAP"),
        Change("session rules", "minutes of silence that end a session", "60", "30"),
        Change("signals", "rules", "the built-in ones", "the plan’s own"),
        Change("signal handoff", "added", None, "On a tool call: the outcome is RESOLVED, confirmed"),
    ]


def test_a_rule_that_says_something_else_is_a_change() -> None:
    other = AFTER.replace("set: {outcome: RESOLVED}", "set: {escalated_to_human: true}").replace("value: x", "value: y")
    assert changes(plan(AFTER), plan(other)) == [
        Change("signal handoff", "condition", "name is x", None),
        Change("signal handoff", "condition", None, "name is y"),
        Change(
            "signal handoff", "says", "On a tool call: the outcome is RESOLVED, confirmed",
            "On a tool call: a human steps in",
        ),
    ]  # fmt: skip


def test_how_a_plan_is_written_is_no_change() -> None:
    assert changes(plan(BEFORE), plan("# a comment\n" + BEFORE.replace("rate: 10}", 'rate: "10"}'))) == []


LINES = st.lists(st.sampled_from(["a", "b", "c", "", "  d: 1"]), max_size=60)


@given(LINES, LINES)
def test_both_files_can_be_read_out_of_the_rows(left: list[str], right: list[str]) -> None:
    rows = side_by_side("\n".join(left), "\n".join(right))
    for name, lines in (("left", "\n".join(left).splitlines()), ("right", "\n".join(right).splitlines())):
        shown = [getattr(row, name) for row in rows if getattr(row, name)]
        assert len(shown) + sum(row.skipped for row in rows) == len(lines)
        assert all(lines[number - 1] == text for number, text in shown)
        assert [number for number, _ in shown] == sorted(number for number, _ in shown)
    equal = "\n".join(left).splitlines() == "\n".join(right).splitlines()
    assert equal == all(row.kind in {"equal", "skipped"} for row in rows)


def test_long_equal_parts_are_left_out() -> None:
    same = "\n".join(f"line {number}" for number in range(100))
    rows = side_by_side(f"{same}\nold", f"{same}\nnew")
    assert rows[0] == Row("skipped", skipped=97)
    assert rows[-1] == Row("changed", (101, "old"), (101, "new"))
    assert len(rows) == 5
