"""Rating, case by case: what the reference plans promise, and the awkward corners."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.classes import Classes, count
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import Period, to_us
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import builtin_plan, load_plan

COMPOUND = Path(__file__).parents[3] / "examples" / "plans" / "compound.yaml"
NOVEMBER, DECEMBER = Period(2026, 11), Period(2026, 12)
RESOLUTION = """
metrics:
  - id: m
    aggregation: COUNT
    event_field: outcome
    filter_conditions: [{field: outcome, operator: EQUALS, value: RESOLVED}]
"""


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text + "+00:00" if "T" in text else text + "T12:00:00+00:00"))


def row(number: int, when: str = "2026-11-10", **changes) -> Row:
    outcome = changes.pop("outcome", "RESOLVED")
    states = {"ESCALATED_TO_HUMAN": "NOT_BILLABLE", "INCONCLUSIVE": "INCONCLUSIVE", "UNRESOLVED": "REVERSED"}
    session = changes.pop("session", f"ses_{number}")
    revision = changes.pop("revision", 0)
    data = {
        "session_id": session,
        "outcome": outcome,
        "state": states.get(outcome, "RESOLVED"),
        "escalated_to_human": outcome == "ESCALATED_TO_HUMAN",
        "revision": revision,
        **changes.pop("data", {}),
    }
    return Row(
        id=f"out_{session}_{revision}_{number:06d}", customer=changes.pop("customer", "c"), session_id=session,
        revision=revision, at_us=us(when), data=data, **changes,
    )  # fmt: skip


def rated(body: str) -> RatedPlan:
    text = "rate_plan:\n  name: p\n" + textwrap.indent(textwrap.dedent(body), "  ")
    return RatedPlan(load_plan(text.encode(), "p").plan)


FIN = RatedPlan(builtin_plan().plan)


def bill(rows, plan: RatedPlan = FIN, period: Period = NOVEMBER, customer: Customer | None = None) -> dict:
    customer = customer or Customer("c")
    return invoice(Account(customer, tuple(rows)), always(plan, customer), period)


def classes(rows, plan: RatedPlan = FIN, period: Period = NOVEMBER, customer: Customer | None = None) -> dict:
    account = Account(customer or Customer("c"), tuple(rows))
    return dict(count(Classes(account, always(plan, account.customer)).of_period(period)))


def known(**facts) -> Customer:
    return Customer("c", (CustomerVersion(0, facts),))


def test_the_reference_plan_charges_as_its_comments_say() -> None:
    rows = [row(n) for n in range(103)]
    rows += [row(n, outcome="ESCALATED_TO_HUMAN") for n in range(200, 210)]
    rows += [row(n, outcome="INCONCLUSIVE") for n in range(300, 305)]
    result = bill(rows)
    [line] = result["lines"]
    assert (line["charge"], line["metric"]) == ("pricing", "ai_resolution")
    assert (line["quantity"], line["free"], line["billed"], line["amount"]) == (103, 100, 3, "2.97")
    assert line["description"] == "Successful AI Resolutions: 100 free, 3 × 0.99 USD"
    assert (result["subtotal"], result["credits"], result["total"]) == ("2.97", "0.00", "2.97")
    assert result["currency"] == "USD"
    assert classes(rows) == {"free": 100, "charged": 3, "escalated": 10, "inconclusive": 5}


def test_trial_outcomes_are_shown_at_zero_and_use_no_free_units() -> None:
    customer = known(started_at="2026-11-01T00:00:00Z")
    rows = [row(n, "2026-11-14T23:59:59") for n in range(50)] + [row(n, "2026-11-15T00:00:00") for n in range(60, 161)]
    result = bill(rows, customer=customer)
    [line] = result["lines"]
    assert (line["quantity"], line["trial"], line["free"], line["billed"]) == (151, 50, 100, 1)
    assert result["total"] == "0.99"
    assert classes(rows, customer=customer) == {"trial": 50, "free": 100, "charged": 1}
    assert bill(rows)["total"] == "50.49", "without started_at there is no trial"


def test_one_resolution_per_session_the_earliest_counts() -> None:
    rows = [row(1, session="s"), row(2, "2026-11-09", session="s"), row(3, "2026-12-01", session="s")]
    plan = rated(
        RESOLUTION.replace("}]", "}, {field: session_id, operator: UNIQUE_WITHIN_WINDOW, window: SESSION}]")
        + "pricing: {model: PER_UNIT, rate: 1}"
    )
    assert bill(rows, plan)["total"] == "1.00"
    assert bill(rows, plan, DECEMBER)["total"] == "0.00"


@pytest.mark.parametrize(
    ("window", "november", "december"),
    [("CONVERSATION", "1.00", "0.00"), ("BILLING_PERIOD", "1.00", "1.00"), ("SESSION", "2.00", "1.00")],
)
def test_windows(window: str, november: str, december: str) -> None:
    plan = rated(
        RESOLUTION.replace("}]", f"}}, {{field: outcome, operator: UNIQUE_WITHIN_WINDOW, window: {window}}}]")
        + "pricing: {model: PER_UNIT, rate: 1}"
    )
    rows = [row(n, when, conversation="k") for n, when in enumerate(["2026-11-01", "2026-11-02", "2026-12-03"])]
    assert bill(rows, plan)["total"] == november
    assert bill(rows, plan, DECEMBER)["total"] == december


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


def test_held_not_billable_and_shadow_come_before_any_filter() -> None:
    plan = rated("metrics: [{id: m, aggregation: COUNT}]\npricing: {model: PER_UNIT, rate: 1}")
    rows = [row(1, held=True), row(2, billable=False), row(3, shadow=True), row(4)]
    assert bill(rows, plan)["total"] == "1.00"
    assert classes(rows, plan) == {"held": 1, "not_billable": 1, "charged": 1}
    shadow = row(5, session="ses_4", revision=1, reverses=rows[3].id, outcome="UNRESOLVED", shadow=True)
    assert bill([*rows, shadow], plan)["total"] == "1.00", "a shadow never takes a real charge back"


def test_compound_one_session_feeds_several_charges() -> None:
    plan = RatedPlan(load_plan(COMPOUND.read_bytes(), "compound").plan)
    rows = [row(n, data={"attributes": {}}) for n in range(1060)]
    rows += [row(n, outcome="QUALIFIED") for n in range(2000, 2003)]
    rows += [row(n, outcome="PROACTIVE_OUTREACH_RESOLVED") for n in range(3000, 3001)]
    pro = bill(rows, plan, customer=known(seat_tier="PRO"))
    lines = {line["charge"]: line for line in pro["lines"]}
    assert lines["resolutions_pro"]["free"] == 50
    assert lines["resolutions_pro"]["amount"] == str(1000 * Decimal("0.89") + 11 * Decimal("0.69"))
    assert lines["resolutions_pro"]["description"].endswith("50 free, 1000 × 0.89 USD, 11 × 0.69 USD")
    assert lines["resolutions_basic"]["amount"] == "0.00"
    assert (lines["wins"]["metric"], lines["wins"]["quantity"]) == ("resolution+qualification", 1064)
    assert lines["wins"]["amount"] == "60.00"
    assert (lines["leads"]["amount"], lines["platform"]["amount"]) == ("29.97", "49.00")
    basic = bill(rows, plan)
    assert {line["charge"]: line["amount"] for line in basic["lines"]}["resolutions_basic"] == "1050.39"
    nothing = bill([], plan, customer=known())
    assert (nothing["subtotal"], nothing["total"]) == ("49.00", "99.00")
    assert nothing["guardrails"]["added_to_min_spend"] == "50.00"
    many = bill([row(n, outcome="QUALIFIED") for n in range(2500)], plan)
    assert (many["total"], many["guardrails"]["not_charged_by_cap"]) == ("20000.00", "5124.00")
    assert many["guardrails"]["alerts_percent"] == [50, 80, 100]


def test_the_customer_is_judged_as_of_the_outcome() -> None:
    plan = rated(RESOLUTION + textwrap.dedent("""
        charges:
          - {id: pro, metrics: [m], when: [{field: customer.seat_tier, operator: EQUALS, value: PRO}],
             model: PER_UNIT, rate: 2}
          - {id: other, metrics: [m], when: [{field: customer.seat_tier, operator: NOT_EQUALS, value: PRO}],
             model: PER_UNIT, rate: 1}
        """))  # fmt: skip
    customer = Customer("c", (
        CustomerVersion(us("2026-11-05"), {"seat_tier": "PRO"}), CustomerVersion(us("2026-11-20"), {}),
    ))  # fmt: skip
    rows = [row(1, "2026-11-01"), row(2, "2026-11-10"), row(3, "2026-11-25")]
    amounts = {line["charge"]: line["amount"] for line in bill(rows, plan, customer=customer)["lines"]}
    assert amounts == {"pro": "4.00", "other": "1.00"}


@pytest.mark.parametrize(("aggregation", "expected"), [("SUM", "8.5"), ("MAX", 4), ("UNIQUE", 4), ("COUNT", 5)])
def test_aggregations(aggregation: str, expected: object) -> None:
    plan = rated(
        f"metrics: [{{id: m, aggregation: {aggregation}, event_field: attributes.size}}]\n"
        "pricing: {model: PER_UNIT, rate: 1}"
    )
    values = [1, "2.5", 4, None, Decimal("1.0"), "many"]
    rows = [row(n, data={"attributes": {"size": value}}) for n, value in enumerate(values)]
    assert bill(rows, plan)["lines"][0]["quantity"] == expected


def test_volume_package_overage_and_rounding() -> None:
    rows = [row(n) for n in range(25)]
    volume = "{model: VOLUME, included_free: 5, tiers: [{up_to: 20, rate: 0.5, flat: 3}, {up_to: null, rate: 0.1}]}"
    assert bill(rows, rated(RESOLUTION + f"pricing: {volume}"))["total"] == "13.00"
    package = "{model: PACKAGE, package_size: 10, rate: 7}"
    result = bill(rows, rated(RESOLUTION + f"pricing: {package}"))
    assert (result["total"], result["lines"][0]["description"]) == ("21.00", "m: 3 packages × 7 USD")
    over = bill(
        rows, rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, included_free: 5, overage_behavior: NO_CHARGE}")
    )
    assert (over["total"], over["lines"][0]["free"], over["lines"][0]["billed"]) == ("0.00", 5, 0)
    # 25 × 0.0002 = 0.005 is rounded half-even, once for the line
    assert bill(rows, rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 0.0002}"))["total"] == "0.00"
    assert bill(rows, rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 0.0006}"))["total"] == "0.02"
    yen = bill(rows, rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1.5, currency: JPY}"))
    assert (yen["total"], yen["lines"][0]["amount"]) == ("38", "38")
    dinar = bill(rows, rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, currency: KWD}"))
    assert dinar["total"] == "25.000"


def test_a_contract_that_has_not_begun_owes_no_fixed_fee() -> None:
    plan = rated("charges: [{id: f, metrics: [], model: FLAT, rate: 49}]\nguardrails: {min_spend: 60}")
    assert bill([], plan, customer=known(started_at="2026-12-05"))["total"] == "0.00"
    assert bill([], plan, DECEMBER, customer=known(started_at="2026-12-05"))["total"] == "60.00"


def test_who_is_not_registered_owes_a_fixed_fee_only_where_outcomes_count() -> None:
    """Else any name would have an invoice, and the summary, which knows no such names, another revenue."""
    charges = "charges: [{id: f, metrics: [], model: FLAT, rate: 49}, {id: c, metrics: [m], model: PER_UNIT, rate: 1}]"
    plan = rated(RESOLUTION + charges + "\nguardrails: {min_spend: 60}")
    counted, late = [row(1)], CustomerVersion(to_us(datetime(2026, 12, 1, tzinfo=UTC)), {})
    back = row(2, "2026-12-05", session="ses_1", revision=1, reverses=counted[0].id, outcome="UNRESOLVED")
    for rows, customer, totals in (
        ([], Customer("c"), ("0.00", "0.00", "0.00")),
        (counted, Customer("c"), ("0.00", "60.00", "0.00")),
        ([*counted, back], Customer("c"), ("0.00", "60.00", "0.00")),
        ([row(3, outcome="INCONCLUSIVE")], Customer("c"), ("0.00", "0.00", "0.00")),
        ([], Customer("c", (late,)), ("0.00", "0.00", "60.00")),
        (counted, Customer("c", (late,)), ("0.00", "60.00", "60.00")),
        ([], known(), ("60.00", "60.00", "60.00")),
    ):
        account, sections_of = Account(customer, tuple(rows)), always(plan, customer)
        for period, total in zip((NOVEMBER.before, NOVEMBER, DECEMBER), totals, strict=True):
            assert bill(rows, plan, period, customer)["total"] == total
            assert summary([(account, sections_of)], period)["revenue"] == total


def test_rows_of_other_customers_only_replace() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}")
    mine = row(1)
    theirs = row(2, "2026-11-12", session="ses_1", revision=1, reverses=mine.id, customer="other")
    assert bill([mine, theirs], plan)["total"] == "0.00"
    assert bill([mine, theirs], plan, customer=Customer("other"))["total"] == "1.00"


def test_a_flat_fee_does_not_make_free_what_another_charge_bills() -> None:
    fee = "{id: fee, metrics: [m], model: FLAT, rate: 49}"
    billed = "{id: each, metrics: [m], model: PER_UNIT, rate: 1, included_free: 1}"
    for charges, expected in [(f"[{fee}, {billed}]", (2, 1)), (f"[{billed}, {fee}]", (2, 1)), (f"[{fee}]", (0, 3))]:
        account = Account(Customer("c"), (row(1), row(2), row(3)))
        result = summary([(account, always(rated(RESOLUTION + f"charges: {charges}"), Customer("c")))], NOVEMBER)
        assert (result["charged"], result["free"]) == expected


def test_summary_puts_every_event_into_one_class() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, included_free: 1}")
    tokens = {"models": ["gpt-4o-2024-08-06"], "tokens": {"input": 1_000_000, "output": 100_000}}
    first = row(1, "2026-11-01", data=tokens)
    mine = [first, row(2), row(3, outcome="ESCALATED_TO_HUMAN"), row(4, outcome="QUALIFIED"), row(5, held=True)]
    mine.append(row(6, "2026-11-30", session="ses_2", revision=1, reverses=mine[1].id, outcome="UNRESOLVED"))
    mine.append(row(7, shadow=True))
    lost = [row(8, customer="unattributed"), row(9, customer="unattributed", outcome="INCONCLUSIVE")]
    accounts = [
        (Account(Customer(name), tuple(rows)), always(plan, Customer(name)))
        for name, rows in [("c", mine), ("unattributed", lost)]
    ]
    result = summary(accounts, NOVEMBER)
    shown = {name: result[name] for name in (
        "sessions", "charged", "free", "trial", "escalated", "inconclusive", "held", "not_billable", "unmatched",
        "reversed", "revised", "events", "revenue", "llm_cost", "currency",
    )}  # fmt: skip
    assert shown == {
        "sessions": 7, "charged": 1, "free": 1, "trial": 0, "escalated": 1, "inconclusive": 1, "held": 1,
        "not_billable": 0, "unmatched": 2, "reversed": 1, "revised": 0, "events": 8, "revenue": "0.00",
        "llm_cost": "3.50", "currency": "USD",
    }  # fmt: skip
    assert len(result["days"]) == 30
    assert sum(day["sessions"] for day in result["days"]) == 7
    assert (result["days"][0]["free"], result["days"][29]["reversed"]) == (1, 1)
    assert result["shadow"]["sessions"] == 1
    assert result["shadow"]["free"] == 1


def net(rows, plan: RatedPlan, period: Period = NOVEMBER) -> tuple:
    found = summary([(Account(Customer("c"), tuple(rows)), always(plan, Customer("c")))], period)
    names = ("charged", "charged_later", "taken_back", "charged_net", "charged_exact", "escalated", "escalated_later")
    return tuple(found[name] for name in names)


def test_first_events_lead_to_what_is_charged_and_escalated_now() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1}")
    rows = [row(1), row(2), row(3), row(4, outcome="INCONCLUSIVE"), row(5, outcome="ESCALATED_TO_HUMAN")]
    assert net(rows, plan) == (3, 0, 0, 3, True, 1, 0)
    rows[1] = row(2, taken_back=NOVEMBER)
    assert net(rows, plan) == (3, 0, 1, 2, True, 1, 0), "by an operator"
    rows += [
        row(6, session="ses_1", revision=1, outcome="ESCALATED_TO_HUMAN"), row(7, session="ses_4", revision=1),
    ]  # fmt: skip
    assert net(rows, plan) == (3, 1, 2, 2, True, 1, 1)
    assert bill(rows, plan)["total"] == "2.00"
    rows += [row(8, "2026-12-01", session="ses_4", revision=2, outcome="UNRESOLVED"), row(9, was_held=True)]
    rows += [row(10, was_held=True, counts=DECEMBER), row(11, "2026-12-02", session="ses_5", revision=1)]
    assert net(rows, plan) == (4, 1, 2, 3, True, 1, 1), "what was released in its own month is charged at first"
    assert net(rows, plan, DECEMBER) == (0, 2, 1, 1, True, 0, -1)
    assert bill(rows, plan, DECEMBER)["total"] == "1.00"


def test_a_charge_that_another_class_hides_comes_later() -> None:
    plan = rated("metrics: [{id: m, aggregation: COUNT}]\npricing: {model: PER_UNIT, rate: 1}")
    assert net([row(1), row(2, outcome="INCONCLUSIVE")], plan) == (1, 1, 0, 2, True, 0, 0)


def test_what_is_taken_back_of_free_units_takes_back_no_charge() -> None:
    plan = rated(RESOLUTION + "pricing: {model: PER_UNIT, rate: 1, included_free: 2.5}")
    rows = [row(number) for number in range(4)]
    back = [row(9, session=f"ses_{number}", revision=1, outcome="UNRESOLVED") for number in range(3)]
    assert net(rows, plan) == (2, 0, 0, 2, True, 0, 0), "half a unit is not free"
    assert [net([*rows, *back[:number]], plan)[2:4] for number in range(4)] == [(0, 2), (1, 1), (2, 0), (2, 0)]


def test_free_units_that_are_no_sessions_are_shared_out() -> None:
    metric = "metrics: [{id: t, aggregation: SUM, event_field: n}]"
    plan = rated(metric + "\npricing: {model: PER_UNIT, rate: 1, included_free: 30}")
    rows = [row(number, data={"n": 10}) for number in range(4)]
    assert net(rows, plan) == (1, 0, 0, 1, False, 0, 0)


def test_periods() -> None:
    assert Period.of(us("2026-12-31T23:59:59")) == DECEMBER
    assert DECEMBER.end_us == Period(2027, 1).start_us
    assert str(Period.parse("2026-03")) == "2026-03"
    for wrong in ("", "2026", "2026-13", "2026-1", "26-01", "2026-11-01", "٢٠٢٦-11"):
        with pytest.raises(ValueError, match="write a month like"):
            Period.parse(wrong)


def test_what_is_unattributed_is_never_invoiced() -> None:
    plan = rated(
        "metrics: [{id: m, aggregation: COUNT}]\ncharges: [{id: f, metrics: [], model: FLAT, rate: 49}, "
        "{id: c, metrics: [m], model: PER_UNIT, rate: 1}]\nguardrails: {min_spend: 60}"
    )
    rows = [row(1, customer="unattributed")]
    result = bill(rows, plan, customer=Customer("unattributed"))
    assert (result["subtotal"], result["total"]) == ("0.00", "0.00")
    assert classes(rows, plan, customer=Customer("unattributed")) == {"unmatched": 1}


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
