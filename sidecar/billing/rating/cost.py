"""What a period costs, by the rows that are live at a horizon: the one quantity of which all amounts are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import ZERO, Price, price, round_amount
from sidecar.billing.rating.usage import RatedPlan, Usage
from sidecar.policy.plan import Charge

PlanOf = Callable[[Period], RatedPlan]


@dataclass(frozen=True, slots=True)
class Line:
    """One charge of one period."""

    charge: Charge
    usage: Usage
    price: Price


@dataclass(frozen=True, slots=True)
class Cost:
    """`subtotal` is the sum of the lines; `payable` what the guardrails make of it."""

    plan: RatedPlan
    lines: tuple[Line, ...]
    subtotal: Decimal
    capped: Decimal
    payable: Decimal


class Costs:
    """The costs of an account's periods, each computed once."""

    def __init__(self, account: Account, plan_of: PlanOf) -> None:
        self.account = account
        self.plan_of = plan_of
        self._known: dict[tuple[Period, frozenset[str]], Cost] = {}

    def gross(self, period: Period) -> Cost:
        """What the period costs before anything is taken back in it."""
        return self.at(period, period.start_us)

    def at(self, period: Period, horizon_us: int) -> Cost:
        """What the period costs by the rows that were live just before the horizon."""
        plan = self.plan_of(period)
        rows = self._live(period, horizon_us)
        earlier = [
            row
            for before in self.account.chargeable
            if plan.windowed and before < period
            for row in self._live(before, horizon_us)
        ]
        key = (period, frozenset(row.id for row in chain(earlier, rows)))
        if key not in self._known:
            self._known[key] = self._compute(plan, period, earlier, rows)
        return self._known[key]

    def _live(self, period: Period, horizon_us: int) -> list[Row]:
        account = self.account
        return [row for row in account.chargeable.get(period, ()) if account.live(row, horizon_us)]

    def _compute(self, plan: RatedPlan, period: Period, earlier: list[Row], rows: list[Row]) -> Cost:
        customer = self.account.customer
        usage = plan.usage(customer, earlier, rows)
        lines = []
        for charge in plan.charges:
            quantity = usage[charge.id].quantity
            if charge.model == "FLAT":
                quantity = Decimal(1) if plan.flat_due(charge, customer, period) else ZERO
            lines.append(Line(charge, usage[charge.id], price(charge, quantity, plan.currency)))
        subtotal = sum((line.price.amount for line in lines), round_amount(ZERO, plan.currency))
        rails = plan.plan.guardrails
        capped = payable = subtotal
        if rails.max_spend_behavior == "CAP" and rails.max_spend_cap is not None:
            capped = payable = min(subtotal, round_amount(rails.max_spend_cap, plan.currency))
        if plan.customer_in(customer, period):
            payable = max(payable, round_amount(rails.min_spend, plan.currency))
        return Cost(plan, tuple(lines), subtotal, capped, payable)


@dataclass(frozen=True, slots=True)
class Credit:
    """What one earlier period (or this one) no longer costs, because `outcomes` were taken back in this one."""

    period: Period
    currency: str
    amount: Decimal
    outcomes: tuple[str, ...]


def credits_of(costs: Costs, period: Period) -> list[Credit]:
    """The credits that fall into a period, by the period that they correct."""
    account = costs.account
    taken_back: dict[Period, list[str]] = {}
    for charged, rows in account.chargeable.items():
        ids = [row.id for row in rows if _within(account.replaced_us, row.id, period)]
        if ids:
            taken_back[charged] = ids
    if not taken_back:
        return []
    first = min(taken_back)
    found = []
    for charged in account.chargeable:
        if first <= charged <= period:
            before, after = costs.at(charged, period.start_us), costs.at(charged, period.end_us)
            amount = before.payable - after.payable
            if amount:
                found.append(Credit(charged, before.plan.currency, amount, tuple(taken_back.get(charged, ()))))
    return found


def _within(replaced_us: Mapping[str, int], identifier: str, period: Period) -> bool:
    at = replaced_us.get(identifier)
    return at is not None and period.start_us <= at < period.end_us
