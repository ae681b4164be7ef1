"""What another plan would have charged for the same outcomes, beside what was charged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from sidecar.billing.rating.account import Account
from sidecar.billing.rating.classes import Classes, EventClass
from sidecar.billing.rating.invoice import money
from sidecar.billing.rating.periods import Period
from sidecar.billing.rating.price import EXACT, ZERO, round_amount
from sidecar.billing.rating.sections import SectionsOf, always
from sidecar.billing.rating.summary import totals_of
from sidecar.billing.rating.usage import RatedPlan

SESSIONS_MAX = 1000  # named; `sessions_changed` counts all
Tested = dict[str, Any]
Totals = dict[str, Decimal]
_CHARGED: frozenset[EventClass] = frozenset({"charged"})


@dataclass(frozen=True, slots=True)
class _Compared:
    """One customer under both plans."""

    customer: str
    actual: Totals
    tested: Totals
    changed: list[dict[str, Any]]


def backtest(accounts: Iterable[tuple[Account, SectionsOf]], plan: RatedPlan, period: Period) -> Tested:
    """Rate a period's accounts by their own plans and by another one.

    Earlier periods are rated by the tested plan as well, so credits of the period are what it would have credited.
    `sessions` are those that would change side: charged now and not then, or the other way round.
    """
    with localcontext(EXACT):
        compared = [_compared(account, sections_of, plan, period) for account, sections_of in accounts]
    found = [one for one in compared if one is not None]
    changed = [session for one in found for session in one.changed]
    return {
        "period": str(period),
        "plan": plan.plan.name,
        "actual": _shown(_sum(one.actual for one in found)),
        "tested": _shown(_sum(one.tested for one in found)),
        "difference": _shown(_minus(_sum(one.tested for one in found), _sum(one.actual for one in found))),
        "customers": [
            {
                "customer": one.customer,
                "actual": _shown(one.actual),
                "tested": _shown(one.tested),
                "difference": _shown(_minus(one.tested, one.actual)),
                "sessions_changed": len(one.changed),
            }
            for one in found
        ],
        "sessions_changed": len(changed),
        "sessions": changed[:SESSIONS_MAX],
    }


def _compared(account: Account, sections_of: SectionsOf, plan: RatedPlan, period: Period) -> _Compared | None:
    if not account.customer.attributed:
        return None
    other = always(plan, account.customer)
    before, after = dict(_classes(account, sections_of, period)), dict(_classes(account, other, period))
    changed = [
        {
            "session_id": session,
            "outcome": outcome,
            "customer": account.customer.id,
            "actual": kind,
            "tested": after[session, outcome],
        }
        for (session, outcome), kind in before.items()
        if (kind in _CHARGED) != (after[session, outcome] in _CHARGED)
    ]
    actual, tested = totals_of(account, sections_of, period), totals_of(account, other, period)
    return _Compared(account.customer.id, actual, tested, changed)


def _classes(account: Account, sections_of: SectionsOf, period: Period) -> Iterable[tuple[tuple[str, str], EventClass]]:
    for row, kind in Classes(account, sections_of).of_period(period):
        yield (row.session_id, row.id), kind


def _sum(totals: Iterable[Totals]) -> Totals:
    found: Totals = {}
    for one in totals:
        for currency, amount in one.items():
            found[currency] = found.get(currency, ZERO) + amount
    return found


def _minus(one: Totals, other: Totals) -> Totals:
    return {code: one.get(code, ZERO) - other.get(code, ZERO) for code in sorted({*one, *other})}


def _shown(totals: Totals) -> dict[str, str]:
    return {code: money(round_amount(amount, code)) for code, amount in sorted(totals.items())}
