"""What is taken back, revised or resolved later, in which period that is, and what a credit names."""

from __future__ import annotations

import pytest
from bills import DECEMBER, NOVEMBER, RESOLUTION, bill, classes, known, rated, row


def test_when_the_earliest_of_a_window_is_taken_back_the_next_one_counts() -> None:
    plan = rated(
        RESOLUTION.replace("}]", "}, {field: outcome, operator: UNIQUE_WITHIN_WINDOW, window: CONVERSATION}]")
        + "pricing: {model: PER_UNIT, rate: 1}"
    )
    first, second = row(1, "2026-11-01", conversation="k"), row(2, "2026-12-03", conversation="k")
    back = row(3, "2026-12-20", session="ses_1", revision=1, reverses=first.id, outcome="UNRESOLVED")
    assert bill([first, second, back], plan, DECEMBER)["total"] == "0.00"
    assert bill([first, second], plan, DECEMBER)["total"] == "0.00"


def test_a_reversal_in_a_later_period_is_a_credit_there_and_leaves_the_earlier_invoice_alone() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 0.99, included_free: 1}")
    rows = [row(1), row(2), row(3)]
    back = row(4, "2026-12-02", session="ses_2", revision=1, reverses=rows[1].id, outcome="UNRESOLVED")
    for order in ([*rows, back], [back, *reversed(rows)]):
        november, december = bill(order, plan), bill(order, plan, DECEMBER)
        assert (november["total"], november["credits"]) == ("1.98", "0.00")
        assert (december["subtotal"], december["credits"], december["total"]) == ("0.00", "0.99", "-0.99")
        [entry] = december["credit_lines"]
        assert (entry["period"], entry["amount"], entry["outcomes"]) == ("2026-11", "0.99", [rows[1].id])
    assert classes([*rows, back], plan, DECEMBER) == {"reversed": 1}


def test_a_reversal_in_the_same_period_nets_to_zero() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 0.99}")
    first = row(1)
    back = row(2, "2026-11-11", session="ses_1", revision=1, reverses=first.id, outcome="ESCALATED_TO_HUMAN")
    result = bill([back, first], plan)
    assert (result["subtotal"], result["credits"], result["total"]) == ("0.99", "0.99", "0.00")
    assert classes([back, first], plan) == {"charged": 1, "reversed": 1}
    alone = bill([back], plan)
    assert (alone["total"], classes([back], plan)) == ("0.00", {"revised": 1})


def test_a_credit_never_gives_back_more_than_the_earlier_period_cost_with_its_guardrails() -> None:
    rows = [row(n) for n in range(10)]
    back = row(99, "2026-12-02", session="ses_0", revision=1, reverses=rows[0].id, outcome="UNRESOLVED")
    capped = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}\n"
                   "guardrails: {max_spend_cap: 8, max_spend_behavior: CAP}")  # fmt: skip
    assert bill([*rows, back], capped)["total"] == "8.00"
    assert bill([*rows, back], capped, DECEMBER)["credits"] == "0.00"
    minimum = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}\nguardrails: {min_spend: 30}")
    assert bill([*rows, back], minimum)["total"] == "30.00"
    assert bill([*rows, back], minimum, DECEMBER)["credits"] == "0.00"


def test_an_inconclusive_session_that_is_resolved_later_is_charged_then() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}")
    first = row(1, "2026-11-30", outcome="INCONCLUSIVE")
    later = row(2, "2026-12-01", session="ses_1", revision=1, reverses=first.id)
    last = row(3, "2026-12-02", session="ses_1", revision=2, reverses=later.id, outcome="UNRESOLVED")
    assert bill([first, later], plan)["total"] == "0.00"
    assert bill([first, later], plan, DECEMBER)["total"] == "1.00"
    assert bill([first, later, last], plan, DECEMBER)["total"] == "0.00"
    assert classes([first, later, last], plan, DECEMBER) == {"revised": 1, "reversed": 1}


# What a credit names.

SUMMED = "metrics: [{id: m, aggregation: SUM, event_field: attributes.size}]\n"
RATE = "pricing: {model: PER_UNIT, rate: 1}"


def credit(rows, plan, period=NOVEMBER, customer=None):
    made = bill(rows, plan, period, customer)
    return [(one["period"], one["amount"], one["outcomes"], one["sessions"]) for one in made["credit_lines"]]


def revised(number: int, when: str = "2026-11-11", **changes):
    return row(10 + number, when, session=f"ses_{number}", revision=1, **changes)


def test_what_counted_nothing_is_not_taken_back() -> None:
    plan = rated(RESOLUTION + RATE)
    rows = [row(1), revised(1, outcome="UNRESOLVED"), row(2, outcome="INCONCLUSIVE"), revised(2)]
    assert credit(rows, plan) == [("2026-11", "1.00", [rows[0].id], ["ses_1"])]


@pytest.mark.parametrize(("size", "total"), [(2, "2.00"), (5, "5.00"), (8, "8.00"), (0, "0.00")])
def test_a_sum_that_changes_is_on_the_line_twice_and_once_taken_back(size: int, total: str) -> None:
    rows = [row(1, data={"attributes": {"size": 5}}), revised(1, data={"attributes": {"size": size}})]
    plan = rated(SUMMED + RATE)
    assert bill(rows, plan)["total"] == total
    assert credit(rows, plan) == [("2026-11", "5.00", [rows[0].id], ["ses_1"])]


def test_of_several_revisions_those_that_counted_are_named() -> None:
    rows = [row(1, data={"attributes": {"size": 0}}), revised(1, data={"attributes": {"size": 5}})]
    rows.append(row(30, "2026-11-12", session="ses_1", revision=2, data={"attributes": {"size": 3}}))
    assert credit(rows, rated(SUMMED + RATE)) == [("2026-11", "5.00", [rows[1].id], ["ses_1"])]


def test_a_revision_that_takes_the_place_in_the_window_takes_nothing_back() -> None:
    once = RESOLUTION.replace("}]", "}, {field: session_id, operator: UNIQUE_WITHIN_WINDOW, window: SESSION}]")
    plan = rated(once + RATE)
    rows = [row(1), revised(1), row(2), revised(2, outcome="UNRESOLVED")]
    assert bill(rows, plan)["total"] == "1.00"
    assert credit(rows, plan) == [("2026-11", "1.00", [rows[2].id], ["ses_2"])]


def test_of_the_highest_only_what_raised_it_is_named() -> None:
    plan = rated(SUMMED.replace("SUM", "MAX") + RATE)
    sizes = [row(n, f"2026-11-0{n}", data={"attributes": {"size": n % 3}}) for n in (2, 4, 5)]
    rows = [*sizes, revised(2, outcome="UNRESOLVED"), revised(4, outcome="UNRESOLVED")]
    assert credit(rows, plan) == [], "the last one raised nothing, and holds it up now"
    rows.append(revised(5, outcome="UNRESOLVED"))
    assert [(amount, outcomes) for _, amount, outcomes, _ in credit(rows, plan)] == [("2.00", [sizes[0].id])]


def test_trial_and_flat_fees_are_nothing_to_take_back() -> None:
    rows = [row(1), revised(1, outcome="UNRESOLVED"), row(2), revised(2, "2026-12-02", outcome="UNRESOLVED")]
    charges = "charges: [{id: a, metrics: [m], model: FLAT, rate: 5}, {id: b, metrics: [m], model: PER_UNIT, rate: 1}]"
    assert credit(rows, rated(RESOLUTION + charges)) == [("2026-11", "1.00", [rows[0].id], ["ses_1"])]
    assert credit(rows, rated(RESOLUTION + charges), DECEMBER) == [("2026-11", "1.00", [rows[2].id], ["ses_2"])]
    leads = (
        RESOLUTION
        + "  - {id: n, aggregation: COUNT, filter_conditions: [{field: outcome, operator: EQUALS, value: X}]}\n"
    )
    apart = rated(leads + charges.replace("b, metrics: [m]", "b, metrics: [n]"))
    other = row(4, outcome="X")
    taken = credit([*rows[:2], other, revised(4, outcome="UNRESOLVED")], apart)
    assert taken == [("2026-11", "1.00", [other.id], ["ses_4"])]
    late = [row(3, "2026-11-20"), revised(3, "2026-11-21", outcome="UNRESOLVED")]
    trial = rated("trial_days: 15\n" + RESOLUTION + RATE)
    found = credit([*rows, *late], trial, customer=known(started_at="2026-11-01T00:00:00Z"))
    assert found == [("2026-11", "1.00", [late[0].id], ["ses_3"])]
