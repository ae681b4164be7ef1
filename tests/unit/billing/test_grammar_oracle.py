"""Whole plans against an oracle that shares nothing with the rating: it knows what a month's books hold by looking at
every row anew, counts by searching, prices by walking unit by unit in fractions, and bills differences.

Plans are drawn from the whole grammar: several metrics of every aggregation with filters and windows, several charges
of every model over them, `when` on the customer as of the time, trial, free units, currencies, caps and minimums.
Stories have revisions, reversals, holds, shadow and late events.
"""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.billing.rating.account import Account, Customer, CustomerVersion, Row
from sidecar.billing.rating.invoice import invoice
from sidecar.billing.rating.periods import DAY_US, Period
from sidecar.billing.rating.sections import always
from sidecar.billing.rating.usage import RatedPlan
from sidecar.policy.loading import load_plan

MONTHS = [Period(2026, 10), Period(2026, 11), Period(2026, 12)]
START_US = MONTHS[0].start_us
ENDS = (31, 61, 92)
PRO_DAYS = range(20, 50)
DIGITS = {"USD": 2, "JPY": 0, "KWD": 3}
WINDOWS = ["SESSION", "CONVERSATION", "BILLING_PERIOD"]


def month_of(day: int) -> int:
    return next(index for index, end in enumerate(ENDS) if day < end)


# -- stories ----------------------------------------------------------------------------------------------------------

story_rows = st.lists(
    st.fixed_dictionaries(
        {
            "session": st.integers(0, 5),
            "revision": st.sampled_from([0, 0, 0, 0, 1, 2]),
            "day": st.integers(0, 91),
            "late": st.sampled_from([0, 0, 0, 1]),  # how many months after its own it stands on an invoice
            "conversation": st.sampled_from([None, "k", "l"]),
            "outcome": st.sampled_from(["RESOLVED", "RESOLVED", "QUALIFIED", "UNRESOLVED"]),
            "output": st.sampled_from([None, 0, 1, 2, 3, 5]),
            "kind": st.sampled_from([None, "a", "b", 1]),
            "held": st.sampled_from([False] * 7 + [True]),
            "billable": st.sampled_from([True] * 7 + [False]),
            "shadow": st.sampled_from([False] * 7 + [True]),
            "mine": st.sampled_from([True] * 6 + [False]),
        }
    ),
    max_size=16,
    unique_by=lambda row: (row["session"], row["revision"]),
)


def as_rows(story: list[dict[str, Any]]) -> list[Row]:
    return [
        Row(
            id=f"out_{row['session']}_{row['revision']}", customer="c" if row["mine"] else "other",
            session_id=f"s{row['session']}", revision=row["revision"], at_us=START_US + row["day"] * DAY_US,
            data={
                "session_id": f"s{row['session']}", "outcome": row["outcome"],
                "tokens": {} if row["output"] is None else {"output": row["output"]},
                "attributes": {} if row["kind"] is None else {"kind": row["kind"]},
            },
            reverses=f"out_{row['session']}_{row['revision'] - 1}" if row["revision"] else None,
            conversation=row["conversation"], held=row["held"], billable=row["billable"], shadow=row["shadow"],
            late=MONTHS[entered(row)] if entered(row) != month_of(row["day"]) else None,
        )
        for row in story
    ]  # fmt: skip


def entered(row: dict[str, Any]) -> int:
    return min(2, month_of(row["day"]) + row["late"])


# -- plans ------------------------------------------------------------------------------------------------------------

rates = st.integers(0, 400).map(lambda n: Fraction(n, 100))


@st.composite
def metrics(draw, name: str) -> dict[str, Any]:
    aggregation = draw(st.sampled_from(["COUNT", "COUNT", "SUM", "UNIQUE", "MAX"]))
    made: dict[str, Any] = {"id": name, "aggregation": aggregation}
    if aggregation in {"SUM", "MAX"}:
        made["event_field"] = "tokens.output"
    elif aggregation == "UNIQUE":
        made["event_field"] = "attributes.kind"
    elif draw(st.booleans()):
        made["event_field"] = "tokens.output"
    made["outcomes"] = draw(st.sampled_from([None, ["RESOLVED"], ["RESOLVED", "QUALIFIED"]]))
    unique = st.tuples(st.sampled_from(["session_id", "attributes.kind"]), st.sampled_from(WINDOWS))
    made["unique"] = draw(st.none() | unique)
    return made


@st.composite
def charges(draw, name: str, known: list[str]) -> dict[str, Any]:
    model = draw(st.sampled_from(["PER_UNIT", "FLAT", "GRADUATED", "VOLUME", "PACKAGE"]))
    made: dict[str, Any] = {"id": name, "model": model, "metrics": [], "free": 0, "overage": "CHARGE"}
    made["tier"] = draw(st.sampled_from([None, None, "PRO", "not PRO"]))
    if model != "FLAT":
        made["metrics"] = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        made["free"] = draw(st.integers(0, 3))
        made["overage"] = draw(st.sampled_from(["CHARGE", "CHARGE", "NO_CHARGE"]))
    if model in {"PER_UNIT", "FLAT", "PACKAGE"}:
        made["rate"] = draw(rates)
    if model == "PACKAGE":
        made["size"] = draw(st.integers(1, 4))
    if model in {"GRADUATED", "VOLUME"}:
        bounds = sorted(draw(st.sets(st.integers(1, 6), max_size=2)))
        made["tiers"] = [(bound, draw(rates), draw(rates)) for bound in [*bounds, None]]
    return made


@st.composite
def plans(draw) -> dict[str, Any]:
    names = ["m", "n"][: draw(st.integers(1, 2))]
    cap = draw(st.none() | st.integers(1, 12))
    return {
        "metrics": [draw(metrics(name)) for name in names],
        "charges": [draw(charges(f"c{n}", names)) for n in range(draw(st.integers(1, 3)))],
        "trial_days": draw(st.sampled_from([0, 0, 10, 40])),
        "currency": draw(st.sampled_from(sorted(DIGITS))),
        "cap": cap,
        "minimum": draw(st.integers(0, 5 if cap is None else min(5, cap))),
    }


def compiled(plan: dict[str, Any]) -> RatedPlan:
    def metric(made: dict[str, Any]) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = []
        if made["outcomes"]:
            conditions.append({"field": "outcome", "operator": "IN", "value": made["outcomes"]})
        if made["unique"]:
            field, window = made["unique"]
            conditions.append({"field": field, "operator": "UNIQUE_WITHIN_WINDOW", "window": window})
        kept = {name: made[name] for name in ("id", "aggregation", "event_field") if name in made}
        return {**kept, "filter_conditions": conditions}

    def charge(made: dict[str, Any]) -> dict[str, Any]:
        written: dict[str, Any] = {"id": made["id"], "model": made["model"], "metrics": made["metrics"]}
        if made["tier"]:
            operator = "EQUALS" if made["tier"] == "PRO" else "NOT_EQUALS"
            written["when"] = [{"field": "customer.seat_tier", "operator": operator, "value": "PRO"}]
        if made["model"] != "FLAT":
            written |= {"included_free": made["free"], "overage_behavior": made["overage"]}
        if "rate" in made:
            written["rate"] = f"{float(made['rate']):.2f}"
        if "size" in made:
            written["package_size"] = made["size"]
        if "tiers" in made:
            written["tiers"] = [
                {"up_to": bound, "rate": f"{float(rate):.2f}", "flat": f"{float(flat):.2f}"}
                for bound, rate, flat in made["tiers"]
            ]
        return written

    rails: dict[str, Any] = {"min_spend": plan["minimum"]}
    if plan["cap"] is not None:
        rails |= {"max_spend_cap": plan["cap"], "max_spend_behavior": "CAP"}
    text = {
        "name": "p", "currency": plan["currency"], "trial_days": plan["trial_days"], "guardrails": rails,
        "metrics": [metric(one) for one in plan["metrics"]], "charges": [charge(one) for one in plan["charges"]],
    }  # fmt: skip
    return RatedPlan(load_plan(yaml.safe_dump({"rate_plan": text}).encode(), "p").plan)


# -- the oracle -------------------------------------------------------------------------------------------------------


class Oracle:
    """Everything by looking at every row anew."""

    def __init__(self, plan: dict[str, Any], story: list[dict[str, Any]]) -> None:
        self.plan = plan
        self.live = [row for row in story if not row["shadow"]]

    def books(self, month: int, phase: int) -> list[dict[str, Any]]:
        """What stands: entered by the month, and not taken back before it (phase 1), or in it (2)."""
        found = []
        for row in self.live:
            later = [
                max(entered(row), entered(other))
                for other in self.live
                if other["session"] == row["session"] and other["revision"] > row["revision"]
            ]
            gone = min(later, default=99)
            stands = entered(row) <= month and (gone >= month if phase == 1 else gone > month)
            if stands and row["mine"] and row["billable"] and not row["held"]:
                found.append(row)
        return sorted(found, key=lambda row: (row["day"], f"out_{row['session']}_{row['revision']}"))

    def passing(self, metric: dict[str, Any], standing: list[dict[str, Any]], month: int) -> list[dict[str, Any]]:
        good = [row for row in standing if metric["outcomes"] is None or row["outcome"] in metric["outcomes"]]
        found = []
        for index, row in enumerate(good):
            if month_of(row["day"]) != month:
                continue
            if metric["unique"]:
                field, window = metric["unique"]
                value = self.value(row, field)
                if value is None:
                    continue
                if any(
                    self.value(rival, field) == value and self.scope(rival, window) == self.scope(row, window)
                    for rival in good[:index]
                ):
                    continue
            found.append(row)
        return found

    @staticmethod
    def value(row: dict[str, Any], field: str) -> object:
        return {"session_id": row["session"], "attributes.kind": row["kind"], "tokens.output": row["output"]}[field]

    @staticmethod
    def scope(row: dict[str, Any], window: str) -> object:
        if window == "SESSION":
            return row["session"]
        if window == "CONVERSATION":
            return row["conversation"] or row["session"]
        return month_of(row["day"])

    def units(self, charge: dict[str, Any], standing: list[dict[str, Any]], month: int, *, trial: bool) -> int:
        total = 0
        for metric in self.plan["metrics"]:
            if metric["id"] in charge["metrics"]:
                rows = [
                    row
                    for row in self.passing(metric, standing, month)
                    if self.tier(charge, row["day"]) and (row["day"] < self.plan["trial_days"]) == trial
                ]
                total += self.aggregated(metric, rows)
        return total

    def aggregated(self, metric: dict[str, Any], rows: list[dict[str, Any]]) -> int:
        field = metric.get("event_field")
        values = [self.value(row, field) for row in rows] if field else [1] * len(rows)
        values = [value for value in values if value is not None]
        match metric["aggregation"]:
            case "SUM":
                return sum(values)
            case "MAX":
                return max(values, default=0)
            case "UNIQUE":
                return len(set(values))
        return len(values)

    @staticmethod
    def tier(charge: dict[str, Any], day: int) -> bool:
        return charge["tier"] is None or (day in PRO_DAYS) == (charge["tier"] == "PRO")

    def amount(self, charge: dict[str, Any], units: int, month: int) -> Fraction:
        """Walk the units one by one."""
        if charge["model"] == "FLAT":
            return self.rounded(charge["rate"] if self.tier(charge, ENDS[month] - 1) else Fraction(0))
        paid = max(0, units - charge["free"]) if charge["overage"] == "CHARGE" else 0
        total = Fraction(0)
        if charge["model"] == "PER_UNIT":
            total = sum((charge["rate"] for _ in range(paid)), Fraction(0))
        elif charge["model"] == "PACKAGE":
            total = sum((charge["rate"] for unit in range(paid) if unit % charge["size"] == 0), Fraction(0))
        elif charge["model"] == "VOLUME" and paid:
            _, rate, flat = next(tier for tier in charge["tiers"] if tier[0] is None or paid <= tier[0])
            total = flat + sum((rate for _ in range(paid)), Fraction(0))
        elif charge["model"] == "GRADUATED":
            used = set()
            for unit in range(1, paid + 1):
                bound, rate, flat = next(tier for tier in charge["tiers"] if tier[0] is None or unit <= tier[0])
                total += rate + (0 if bound in used else flat)
                used.add(bound)
        return self.rounded(total)

    def rounded(self, amount: Fraction) -> Fraction:
        digits = 10 ** DIGITS[self.plan["currency"]]
        return Fraction(round(amount * digits), digits)

    def subtotal(self, standing: list[dict[str, Any]], month: int) -> Fraction:
        amounts = (
            self.amount(charge, self.units(charge, standing, month, trial=False), month)
            for charge in self.plan["charges"]
        )
        return sum(amounts, Fraction(0))

    def payable(self, standing: list[dict[str, Any]], month: int) -> Fraction:
        spend = self.subtotal(standing, month)
        if self.plan["cap"] is not None:
            spend = min(spend, Fraction(self.plan["cap"]))
        return max(spend, Fraction(self.plan["minimum"]))


CUSTOMER = Customer(
    "c",
    (
        CustomerVersion(0, {"started_at": "2026-10-01T00:00:00Z"}),
        CustomerVersion(START_US + PRO_DAYS.start * DAY_US, {"started_at": "2026-10-01T00:00:00Z", "seat_tier": "PRO"}),
        CustomerVersion(START_US + PRO_DAYS.stop * DAY_US, {"started_at": "2026-10-01T00:00:00Z"}),
    ),
)


@settings(max_examples=250, deadline=None)
@given(plan=plans(), story=story_rows, seed=st.integers(0, 1000))
def test_every_plan_bills_every_story_as_the_oracle_does(plan, story, seed) -> None:
    oracle, rated = Oracle(plan, story), compiled(plan)
    rows = as_rows(story)
    random.Random(seed).shuffle(rows)
    rows += rows[: seed % 3]  # duplicates change nothing
    total = Fraction(0)
    for month, period in enumerate(MONTHS):
        made = invoice(Account(CUSTOMER, tuple(rows)), always(rated, CUSTOMER), period)
        entered_, left = oracle.books(month, 1), oracle.books(month, 2)
        before = oracle.books(month - 1, 2) if month else []
        for charge, line in zip(plan["charges"], made["lines"], strict=True):
            units = oracle.units(charge, entered_, month, trial=False)
            assert Fraction(line["amount"]) == oracle.amount(charge, units, month)
            if charge["model"] != "FLAT":
                in_trial = oracle.units(charge, entered_, month, trial=True)
                free = min(units, charge["free"])
                billed = units - free if charge["overage"] == "CHARGE" else 0
                assert (line["quantity"], line["trial"]) == (units + in_trial, in_trial)
                assert (line["free"], line["billed"]) == (free, billed)
        assert Fraction(made["subtotal"]) == oracle.subtotal(entered_, month)
        added = sum(oracle.payable(entered_, m) - oracle.payable(before, m) for m in range(month))
        taken = sum(oracle.payable(entered_, m) - oracle.payable(left, m) for m in range(month + 1))
        assert (Fraction(made["adjustments"]), Fraction(made["credits"])) == (added, taken)
        assert Fraction(made["total"]) == oracle.payable(entered_, month) + added - taken
        total += Fraction(made["total"])
        known = sum(oracle.payable(left, m) for m in range(month + 1))
        assert total == known, "all invoices together are what all standing rows cost"


@settings(max_examples=60, deadline=None)
@given(plan=plans(), story=story_rows, cut=st.integers(1, 91))
def test_a_period_cut_in_two_by_the_same_plan_loses_no_unit(plan, story, cut) -> None:
    """Where every unit costs the same and none is free, sections change nothing but rounding, which is exact here."""
    for charge in plan["charges"]:
        charge |= {"model": "PER_UNIT", "rate": Fraction(2), "free": 0, "overage": "CHARGE", "metrics": ["m"]}
        charge.pop("tiers", None)
        charge.pop("size", None)
    plan |= {"cap": None, "minimum": 0}
    plan["metrics"][0] |= {"aggregation": "COUNT", "unique": None}
    rated = compiled(plan)
    account = Account(CUSTOMER, tuple(as_rows(story)))
    whole = always(rated, CUSTOMER)

    def cut_up(period: Period):
        [section] = whole(period)
        at = START_US + cut * DAY_US
        bounds = sorted({section.start_us, section.end_us, *([at] if section.start_us < at < section.end_us else [])})
        kind = type(section)
        return tuple(
            kind(period, start, end, section.plan_id, section.plan, section.customer) for start, end in pairwise(bounds)
        )

    for period in MONTHS:
        one, other = invoice(account, whole, period), invoice(account, cut_up, period)
        for name in ("subtotal", "adjustments", "credits", "total"):
            assert one[name] == other[name]
