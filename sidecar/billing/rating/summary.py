"""One period over all customers: events by class, revenue, what the models cost, and the same by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, localcontext
from typing import Any

from sidecar.billing.rating.account import Account
from sidecar.billing.rating.classes import CLASSES, LATER, Classes
from sidecar.billing.rating.cost import NO_CHARGE, Charged, Costs
from sidecar.billing.rating.counts import DEPENDS, ESCALATED_LATER, WITHIN, day_of
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.llm_cost import llm_cost
from sidecar.billing.rating.movements import Movements, movements_of
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.rating.price import EXACT, ZERO, round_amount
from sidecar.billing.rating.sections import SectionsOf

Totals = Mapping[str, Decimal]  # by currency


class Summary:
    """Sums up a period: accounts as a whole, or numbers that were summed up before. Shadow events stand apart."""

    def __init__(self, period: Period) -> None:
        self.period = period
        self._days: dict[str, Counter[str]] = {day: Counter() for day in _days(period)}
        self._shadow: Counter[str] = Counter()
        self._totals: dict[str, Decimal] = {}
        self._invoices: Counter[str] = Counter()
        self._llm_cost = ZERO
        self._charged = NO_CHARGE
        self._escalated_later = 0

    def count(self, day: str, kind: str, number: int, *, shadow: bool = False) -> None:
        """Events of one class; also of those that depend on free units, and how many of these are within them, and
        sessions that were escalated later.
        """
        if kind == ESCALATED_LATER:
            self._escalated_later += number
        counter = self._shadow if shadow else self._days[day]
        names = {DEPENDS: ("charged", 1), WITHIN: ("charged", -1)}
        name, sign = names.get(kind, (kind, 1))
        if kind == WITHIN:
            counter["free"] += number
        if name in CLASSES:
            counter[name] += sign * number
            counter["sessions"] += 0 if kind == WITHIN or name in LATER else number

    def spend(self, llm_cost: Decimal) -> None:
        """What models cost."""
        self._llm_cost = EXACT.add(self._llm_cost, llm_cost)

    def earn(self, totals: Totals) -> None:
        """What one invoice comes to."""
        self._invoices.update(totals.keys())
        for currency, amount in totals.items():
            self._totals[currency] = EXACT.add(self._totals.get(currency, round_amount(ZERO, currency)), amount)

    def charge(self, charged: Charged) -> None:
        """How many outcomes one invoice charges."""
        self._charged += charged

    def add(self, account: Account, sections_of: SectionsOf) -> None:
        """Rate a whole account."""
        classes = Classes(account, sections_of)
        self._escalated_later += classes.escalated_later()[self.period]
        for row, kind in classes.of_period(self.period):
            self.count(day_of(row), kind, 1)
            if kind not in LATER:
                self.spend(llm_cost(row.data, account.prices.at(row.at_us)))
        movements = movements_of(account, sections_of)
        if _is_customer(account, movements, self.period):
            costs = Costs(sections_of, movements)
            self.earn(totals(costs, self.period))
            self.charge(costs.charged(self.period))
        for row, kind in Classes(replace(account, shadow=True), sections_of).of_period(self.period):
            self.count(day_of(row), kind, 1, shadow=True)

    def shown(self) -> dict[str, Any]:
        """`sessions` counts sessions by their first event, `events` everything.

        `charged_net` is what invoices charge, on lines and adjustments less credits: `charged` at first,
        `charged_later`, less `taken_back`. `escalated_later` is below zero when more are no longer escalated.

        `revenue` is in `currency`, the one with most invoices; other currencies are in `other_revenue`. Amounts are
        texts. `llm_cost` is in USD, over the models whose prices are known, each session at the prices of its time.
        """
        total: Counter[str] = Counter()
        for counter in self._days.values():
            total.update(counter)
        currency = max(self._totals, key=lambda code: (self._invoices[code], code), default="USD")
        others = {code: money(self._totals[code]) for code in sorted(self._totals) if code != currency}
        return {
            "period": str(self.period),
            **_numbers(total),
            **self._net(total["charged"]),
            "escalated_later": self._escalated_later,
            "events": sum(total[name] for name in CLASSES),
            "currency": currency,
            "revenue": money(self._totals.get(currency, round_amount(ZERO, currency))),
            "other_revenue": others,
            "llm_cost": money(round_amount(self._llm_cost, "USD")),
            "days": [{"day": day, **_numbers(counter)} for day, counter in self._days.items()],
            "shadow": _numbers(self._shadow),
        }

    def _net(self, first: int) -> dict[str, Any]:
        """Where an outcome takes the place of an earlier one in a window of its plan, that one counts as taken back."""
        later, back = self._charged.entered - first, self._charged.taken_back
        return {
            "charged_later": max(0, later),
            "taken_back": back + max(0, -later),
            "charged_net": first + later - back,
            "charged_exact": self._charged.exact,
        }


def _numbers(counter: Mapping[str, int]) -> dict[str, int]:
    return {name: counter.get(name, 0) for name in ("sessions", *CLASSES)}


def summary(accounts: Iterable[tuple[Account, SectionsOf]], period: Period) -> dict[str, Any]:
    """Sum up the accounts that have events in the period, or are registered by its end; see `Summary.shown`."""
    found = Summary(period)
    with localcontext(EXACT):
        for account, sections_of in accounts:
            found.add(account, sections_of)
    return found.shown()


def _is_customer(account: Account, movements: Movements, period: Period) -> bool:
    """Whether somebody gets an invoice without asking for one."""
    registered = account.customer.registered_by(period.end_us)
    active = any(row.entered == period for row in account.own) or any(at.period == period for _, at in movements)
    return account.customer.attributed and (registered or active)


def totals(costs: Costs, period: Period) -> dict[str, Decimal]:
    """The invoice's totals by currency, without writing the invoice."""
    amounts = [(cost.currency, cost.payable) for cost in costs.gross(period)]
    amounts += [(change.currency, change.amount) for change in costs.adjustments(period)]
    amounts += [(change.currency, -change.amount) for change in costs.credits(period)]
    total: dict[str, Decimal] = {}
    for currency, amount in amounts:
        total[currency] = total.get(currency, ZERO) + amount
    return total


def totals_of(account: Account, sections_of: SectionsOf, period: Period) -> dict[str, Decimal]:
    """The same, of an account's rows."""
    return totals(Costs(sections_of, movements_of(account, sections_of)), period)


def _days(period: Period) -> list[str]:
    first = from_us(period.start_us).date()
    count = (from_us(period.end_us).date() - first).days
    return [(first + timedelta(days=offset)).isoformat() for offset in range(count)]
