"""Rating against an oracle that knows nothing of it: it walks unit by unit, in fractions, over what is live at the
end of each month, and bills each month the difference that it made to all months so far.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import Period, to_us
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.summary import summary
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import load_plan

START = datetime(2026, 10, 1, tzinfo=UTC)
MONTHS = [Period(2026, 10), Period(2026, 11), Period(2026, 12)]


@dataclass(frozen=True)
class Told:
    """One revision as the test tells it: `day` counts from the first of October."""

    session: int
    revision: int
    day: int
    good: bool


@st.composite
def stories(draw) -> list[Told]:
    told = []
    for session in range(draw(st.integers(0, 14))):
        day = draw(st.integers(0, 91))
        for revision in range(draw(st.integers(1, 3))):
            told.append(Told(session, revision, day, draw(st.booleans())))
            day = min(91, day + draw(st.integers(0, 40)))
    return told


cents = st.integers(0, 500).map(lambda n: Fraction(n, 1000))


@st.composite
def prices(draw) -> dict:
    model = draw(st.sampled_from(["PER_UNIT", "GRADUATED", "VOLUME", "PACKAGE"]))
    price: dict = {"model": model, "included_free": draw(st.integers(0, 4))}
    if model in ("PER_UNIT", "PACKAGE"):
        price["rate"] = draw(cents)
    if model == "PACKAGE":
        price["package_size"] = draw(st.integers(1, 4))
    if model in ("GRADUATED", "VOLUME"):
        bounds = sorted(draw(st.sets(st.integers(1, 8), max_size=3)))
        price["tiers"] = [{"up_to": b, "rate": draw(cents), "flat": draw(cents)} for b in [*bounds, None]]
    if draw(st.booleans()):
        price["cap"] = draw(st.integers(1, 3))
    price["minimum"] = draw(st.sampled_from([0, 0, 1]))
    return price


def compiled(price: dict, trial_days: int) -> RatedPlan:
    def plain(value):
        if isinstance(value, Fraction):
            return f"{float(value):.3f}"
        if isinstance(value, list):
            return [{key: plain(inner) for key, inner in tier.items()} for tier in value]
        return value

    rails = {"min_spend": price["minimum"]}
    if "cap" in price:
        rails |= {"max_spend_cap": price["cap"], "max_spend_behavior": "CAP"}
    unique = {"field": "session_id", "operator": "UNIQUE_WITHIN_WINDOW", "window": "SESSION"}
    good = {"field": "outcome", "operator": "EQUALS", "value": "RESOLVED"}
    plan = {
        "name": "p", "trial_days": trial_days, "guardrails": rails,
        "metrics": [{"id": "m", "aggregation": "COUNT", "filter_conditions": [good, unique]}],
        "pricing": {key: plain(value) for key, value in price.items() if key not in ("cap", "minimum")},
    }  # fmt: skip
    return RatedPlan(load_plan(yaml.safe_dump({"rate_plan": plan}).encode(), "p").plan)


def rows_of(told: list[Told]) -> list[Row]:
    return [
        Row(
            id=f"out_{t.session}_{t.revision}", customer="c", session_id=f"s{t.session}", revision=t.revision,
            at_us=to_us(START + timedelta(days=t.day)),
            data={"session_id": f"s{t.session}", "outcome": "RESOLVED" if t.good else "UNRESOLVED"},
            reverses=f"out_{t.session}_{t.revision - 1}" if t.revision else None,
        )
        for t in told
    ]  # fmt: skip


def half_even(amount: Fraction) -> Fraction:
    return Fraction(round(amount * 100), 100)


def month_of(day: int) -> int:
    return next(index for index, end in enumerate((31, 61, 92)) if day < end)


def cost_of_units(price: dict, units: int) -> Fraction:
    """Walk the units one by one."""
    total = Fraction(0)
    paid = list(range(1, max(0, units - price["included_free"]) + 1))
    if price["model"] == "PER_UNIT":
        total = sum((price["rate"] for _ in paid), Fraction(0))
    elif price["model"] == "PACKAGE":
        total = sum(
            (price["rate"] for unit in paid if unit % price["package_size"] == 1 % price["package_size"]), Fraction(0)
        )
    elif price["model"] == "GRADUATED":
        entered = set()
        for unit in paid:
            index = next(i for i, tier in enumerate(price["tiers"]) if tier["up_to"] is None or unit <= tier["up_to"])
            total += price["tiers"][index]["rate"] + (0 if index in entered else price["tiers"][index]["flat"])
            entered.add(index)
    elif paid:
        tier = next(tier for tier in price["tiers"] if tier["up_to"] is None or len(paid) <= tier["up_to"])
        total = tier["flat"] + sum((tier["rate"] for _ in paid), Fraction(0))
    return half_even(total)


def all_months_known_at(price: dict, told: list[Told], trial: range, last: int) -> Fraction:
    """What all months up to `last` cost, by each session's newest revision told until its end."""
    newest: dict[int, Told] = {}
    for t in told:
        if month_of(t.day) <= last and (t.session not in newest or t.revision > newest[t.session].revision):
            newest[t.session] = t
    total = Fraction(0)
    for month in range(last + 1):
        units = sum(1 for t in newest.values() if t.good and month_of(t.day) == month and t.day not in trial)
        spend = cost_of_units(price, units)
        if "cap" in price:
            spend = min(spend, Fraction(price["cap"]))
        total += max(spend, Fraction(price["minimum"]))
    return total


@settings(max_examples=200, deadline=None)
@given(told=stories(), price=prices(), trial_days=st.sampled_from([0, 0, 14, 45]), seed=st.integers(0, 1000))
def test_every_invoice_is_what_the_month_changed(told, price, trial_days, seed) -> None:
    plan = compiled(price, trial_days)
    customer = Customer("c", (CustomerVersion(0, {"started_at": "2026-10-01T00:00:00Z"}),))
    rows = rows_of(told)
    random.Random(seed).shuffle(rows)
    before = Fraction(0)
    for index, period in enumerate(MONTHS):
        until_then = tuple(row for row in rows if row.at_us < period.end_us)
        result = invoice(Account(customer, until_then), always(plan, customer), period)
        known = all_months_known_at(price, told, range(trial_days), index)
        assert Fraction(result["total"]) == known - before
        assert invoice(Account(customer, tuple(rows)), always(plan, customer), period) == result, (
            "what comes later changes nothing"
        )
        before = known
        [line] = result["lines"]
        assert line["quantity"] == line["trial"] + line["free"] + line["billed"]


@settings(max_examples=100, deadline=None)
@given(told=stories(), price=prices(), data=st.data())
def test_the_order_of_rows_and_a_revision_before_its_predecessor_change_nothing(told, price, data) -> None:
    plan = compiled(price, 0)
    rows, customer = rows_of(told), Customer("c")
    shuffled = data.draw(st.permutations(rows))
    for period in MONTHS:
        assert invoice(Account(customer, tuple(rows)), always(plan, customer), period) == invoice(
            Account(customer, tuple(shuffled)), always(plan, customer), period
        )


@settings(max_examples=100, deadline=None)
@given(told=stories(), price=prices())
def test_taking_everything_back_leaves_the_minimum(told, price) -> None:
    plan, customer = compiled(price, 0), Customer("c", (CustomerVersion(0, {}),))
    last = {t.session: t.revision for t in told}
    ends = [Told(session, revision + 1, 91, good=False) for session, revision in last.items()]
    rows = tuple(rows_of([*told, *ends]))
    totals = [Fraction(invoice(Account(customer, rows), always(plan, customer), period)["total"]) for period in MONTHS]
    assert sum(totals) == 3 * price["minimum"]


@settings(max_examples=100, deadline=None)
@given(told=stories(), data=st.data())
def test_a_revision_that_takes_the_resolution_back_is_reversed_whatever_tokens_it_feeds(told, data) -> None:
    """Each revision brings tokens, which a charge without conditions counts: it says nothing of the other charge."""
    good = "{field: outcome, operator: EQUALS, value: RESOLVED}"
    source = (
        f"rate_plan: {{name: p, metrics: [{{id: m, aggregation: COUNT, filter_conditions: [{good}]}}, "
        "{id: t, aggregation: SUM, event_field: tokens}], charges: [{id: one, metrics: [m], model: PER_UNIT, rate: 1}, "
        "{id: two, metrics: [t], model: PER_UNIT, rate: 0.001, included_free: 5}]}"
    )
    plan, customer = RatedPlan(load_plan(source.encode(), "p").plan), Customer("c")
    rows = [replace(row, data={**row.data, "tokens": data.draw(st.integers(0, 3))}) for row in rows_of(told)]
    before: dict[Told, Told] = {}
    newest: dict[int, Told] = {}
    for t in told:
        if t.session in newest:
            before[t] = newest[t.session]
        newest[t.session] = t
    for index, period in enumerate(MONTHS):
        later = [(t, old) for t, old in before.items() if month_of(t.day) == index]
        back = sum(old.good and not t.good for t, old in later)
        made = summary([(Account(customer, tuple(rows)), always(plan, customer))], period)
        assert (made["reversed"], made["revised"]) == (back, len(later) - back)
