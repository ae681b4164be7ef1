"""One period over all customers: events by class, revenue, what the models cost, and the same by day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, localcontext
from typing import Any

from sidecar.billing.rating.account import Account, Row
from sidecar.billing.rating.classes import CLASSES, Classes, EventClass
from sidecar.billing.rating.cost import Costs
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.llm_cost import PriceHistory, llm_cost
from sidecar.billing.rating.movements import movements_of
from sidecar.billing.rating.periods import Period, from_us
from sidecar.billing.rating.price import EXACT, ZERO, round_amount
from sidecar.billing.rating.sections import SectionsOf

_LATER: frozenset[EventClass] = frozenset({"reversed", "revised"})


class _Tally:
    """Counts of one kind of events, live or shadow."""

    def __init__(self, period: Period) -> None:
        self.total: Counter[str] = Counter()
        self.days: dict[str, Counter[str]] = {day: Counter() for day in _days(period)}

    def add(self, row: Row, kind: EventClass) -> None:
        # An event that came after its own period was closed stands under the first day of the period that it is in.
        day = max(_day(row.at_us), next(iter(self.days)))
        for counter in (self.total, self.days[day]):
            counter[kind] += 1
            counter["sessions"] += kind not in _LATER

    @staticmethod
    def shown(counter: Counter[str]) -> dict[str, int]:
        return {name: counter[name] for name in ("sessions", *CLASSES)}


def summary(
    accounts: Iterable[tuple[Account, SectionsOf]], period: Period, prices: PriceHistory | None = None
) -> dict[str, Any]:
    """Sum up the accounts that have events in the period, or are registered by its end.

    `sessions` counts sessions by their first event, `events` everything. `revenue` is in `currency`, the one with most
    invoices; other currencies are in `other_revenue`. Amounts are texts. `llm_cost` is in USD, over the models whose
    prices are known, each session at the prices of its time (`prices` None: as shipped). Shadow events are classed
    as if they were charged, and stand apart.
    """
    with localcontext(EXACT):
        return _summary(list(accounts), period, prices or PriceHistory())


def _summary(accounts: list[tuple[Account, SectionsOf]], period: Period, prices: PriceHistory) -> dict[str, Any]:
    live, shadow = _Tally(period), _Tally(period)
    totals: dict[str, list[Decimal]] = {}
    spent = ZERO
    for account, sections_of in accounts:
        for row, kind in Classes(account, sections_of).of_period(period):
            live.add(row, kind)
            spent += llm_cost(row.data, prices.at(row.at_us)) if kind not in _LATER else ZERO
        if _is_customer(account, period):
            for currency, total in totals_of(account, sections_of, period).items():
                totals.setdefault(currency, []).append(total)
        for row, kind in Classes(replace(account, shadow=True), sections_of).of_period(period):
            shadow.add(row, kind)
    currency = max(totals, key=lambda code: (len(totals[code]), code), default="USD")
    revenue = {code: sum(amounts, round_amount(ZERO, code)) for code, amounts in totals.items()}
    return {
        "period": str(period),
        **_Tally.shown(live.total),
        "events": sum(live.total[name] for name in CLASSES),
        "currency": currency,
        "revenue": money(revenue.pop(currency, round_amount(ZERO, currency))),
        "other_revenue": {code: money(revenue[code]) for code in sorted(revenue)},
        "llm_cost": money(round_amount(spent, "USD")),
        "days": [{"day": day, **_Tally.shown(counter)} for day, counter in live.days.items()],
        "shadow": _Tally.shown(shadow.total),
    }


def _is_customer(account: Account, period: Period) -> bool:
    """Whether somebody gets an invoice without asking for one."""
    registered = any(version.effective_us < period.end_us for version in account.customer.versions)
    return account.customer.attributed and (registered or any(row.entered == period for row in account.own))


def totals_of(account: Account, sections_of: SectionsOf, period: Period) -> dict[str, Decimal]:
    """The invoice's totals by currency, without writing the invoice."""
    costs = Costs(sections_of, movements_of(account, sections_of))
    amounts = [(cost.currency, cost.payable) for cost in costs.gross(period)]
    amounts += [(change.currency, change.amount) for change in costs.adjustments(period)]
    amounts += [(change.currency, -change.amount) for change in costs.credits(period)]
    total: dict[str, Decimal] = {}
    for currency, amount in amounts:
        total[currency] = total.get(currency, ZERO) + amount
    return total


def _day(us: int) -> str:
    return from_us(us).date().isoformat()


def _days(period: Period) -> list[str]:
    first = from_us(period.start_us).date()
    count = (from_us(period.end_us).date() - first).days
    return [(first + timedelta(days=offset)).isoformat() for offset in range(count)]
