"""Rating, case by case: what the reference plans promise, and the awkward corners."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from bills import DECEMBER, NOVEMBER, RESOLUTION, bill, classes, known, rated, row, us

from sidecar.billing.rating.account import Account, Customer, CustomerVersion
from sidecar.billing.rating.periods import Period, to_us
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import load_plan

COMPOUND = Path(__file__).parents[3] / "examples" / "plans" / "compound.yaml"


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
